/**
 * A tab without a page, for tests against a real service: reads commands from standard input, one JSON a line, and writes what
 * it shows, whenever that changes.
 *
 * Arguments: the address of the WebSocket, a token, and how much faster than a real one its clock runs.
 */
import { createInterface } from "node:readline";
import type { Socket } from "../src/live/line";
import { world } from "../src/live/line";
import { Live } from "../src/live/live";
import { answer, type View } from "../src/live/transcript";

type Command = { do: "watch"; session: string } | { do: "send"; session: string; text: string } | { do: "cut" };

const [url = "", token = "", speed = "1"] = process.argv.slice(2);
const held = new Map<string, string>();
let socket: WebSocket | null = null;
const live = new Live({
  open: () => {
    socket = new WebSocket(url, ["coder.v1", `bearer.${token}`]);
    return socket as Socket;
  },
  store: { getItem: (key) => held.get(key) ?? null, setItem: (key, value) => held.set(key, value) },
  world: { ...world, after: (ms, then) => setTimeout(then, ms / Number(speed)) },
});

function shown(view: View) {
  const stored = view.messages.map(({ task_id, role, text, reasoning, tool_calls }) => ({
    task_id,
    role,
    text,
    reasoning,
    tool_calls,
  }));
  const turns = view.turns.flatMap((turn) => {
    const { text, reasoning, calls } = answer(turn);
    const common = { task_id: turn.taskId };
    return [
      { ...common, role: "user", text: turn.prompt, reasoning: "", tool_calls: [] },
      { ...common, role: "assistant", text, reasoning, tool_calls: calls },
    ];
  });
  return {
    histories: view.histories,
    transcript: [...stored, ...turns],
    running: view.turns.some((turn) => turn.ended === null),
    queued: view.queued.map((each) => each.text),
  };
}

const sessions = new Set<string>();
let due = false;
function tell(): void {
  if (due) return;
  due = true;
  setImmediate(() => {
    due = false;
    const views = Object.fromEntries(
      [...sessions].map((each) => [
        each,
        { ...shown(live.view(each)), sending: live.sending(each).map((one) => one.message.text) },
      ]),
    );
    process.stdout.write(`${JSON.stringify({ state: live.state.is, views })}\n`);
  });
}

live.listen(tell);
live.open();
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as Command;
  if (command.do === "watch") {
    sessions.add(command.session);
    live.watch(command.session);
  } else if (command.do === "send") live.send(command.session, command.text);
  else (socket as WebSocket | null)?.close();
  tell();
}
live.close();
