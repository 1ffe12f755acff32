/** What a session's page shows: stored messages and running turns as one list of turns, oldest first. Pure. */
import type { HeldMessage, Part, Turn, View } from "../live/transcript";
import type { PermissionRequested, PlanEntry, ProviderRetry } from "../live/wire";

export interface ShownTurn {
  /** The same as long as the turn is shown, whether it runs or is stored. */
  key: string;
  taskId: number;
  prompt: string | null;
  agent: string | null;
  attempt: number;
  at: string;
  endedAt: string | null;
  /** `running`, or how the answer is stored. */
  state: string;
  /** Why it ended as it did. */
  error: string | null;
  parts: readonly Part[];
  plan: readonly PlanEntry[];
  tokens: number | null;
  permissions: readonly PermissionRequested[];
  retry: ProviderRetry | null;
}

const stored = new WeakMap<readonly HeldMessage[], readonly ShownTurn[]>();
const running = new WeakMap<Turn, ShownTurn>();

/** The turns of a view; one that did not change is the same object as before. */
export function turnsOf(view: View): ShownTurn[] {
  const turns = stored.get(view.messages) ?? ofMessages(view.messages);
  stored.set(view.messages, turns);
  return [
    ...turns,
    ...view.turns.map((turn, at) => {
      // Only the latest try of a task is stored; earlier ones go with the next history.
      const again = view.turns.slice(at + 1).some((each) => each.taskId === turn.taskId);
      const before = running.get(turn);
      const shown = before?.key === keyOf(turn, again) ? before : ofTurn(turn, again);
      running.set(turn, shown);
      return shown;
    }),
  ];
}

const keyOf = (turn: Turn, again: boolean) => (again ? `task-${turn.taskId}-${turn.id}` : `task-${turn.taskId}`);

function ofTurn(turn: Turn, again: boolean): ShownTurn {
  return {
    key: keyOf(turn, again),
    taskId: turn.taskId,
    prompt: turn.prompt,
    agent: turn.agent,
    attempt: turn.attempt,
    at: turn.startedAt,
    endedAt: turn.ended?.at ?? null,
    state: turn.ended === null ? "running" : (turn.stored ?? turn.ended.state),
    error: turn.ended?.error ?? null,
    parts: turn.parts,
    plan: turn.plan,
    tokens: turn.usage === null ? null : turn.usage.input_tokens + turn.usage.output_tokens,
    permissions: turn.permissions,
    retry: turn.retry,
  };
}

const BARE = { agent: null, attempt: 1, error: null, plan: [], tokens: null, permissions: [], retry: null };

/** Stored messages in pairs. The order of an answer's parts is not stored: reasoning, tool calls, text. */
export function ofMessages(messages: readonly HeldMessage[]): ShownTurn[] {
  const turns: ShownTurn[] = [];
  for (const message of messages) {
    const last = turns.at(-1);
    const of = {
      ...BARE,
      key: `task-${message.task_id}`,
      taskId: message.task_id,
      at: message.created_at,
      endedAt: message.ended_at,
      state: message.state,
    };
    if (message.role === "user") {
      turns.push({ ...of, prompt: message.text, parts: [] });
      continue;
    }
    const answered = last !== undefined && last.taskId === message.task_id;
    const turn: ShownTurn = {
      ...of,
      prompt: answered ? last.prompt : null,
      agent: message.agent,
      error: message.error,
      tokens: message.cost_tokens,
      parts: partsOf(message),
    };
    if (answered) turns[turns.length - 1] = turn;
    else turns.push(turn);
  }
  return turns;
}

function partsOf(message: HeldMessage): Part[] {
  const parts: Part[] = [];
  if (message.reasoning !== "") parts.push({ kind: "reasoning", part: 1, text: message.reasoning });
  for (const call of message.tool_calls) parts.push({ kind: "tool", part: parts.length + 1, call });
  if (message.text !== "") parts.push({ kind: "text", part: parts.length + 1, text: message.text });
  return parts;
}

/** How long a turn took, as people say it. */
export function took(from: string, to: string): string {
  const seconds = Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** The first line that says something, without the marks of headings and lists. */
export function firstLine(text: string): string {
  const line = text.split("\n").find((each) => each.trim() !== "") ?? "";
  return line.replace(/^\s*(#+|[-*>]|\d+\.)\s+/, "").trim();
}
