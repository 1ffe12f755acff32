import { describe, expect, it } from "vitest";
import { answer, EMPTY, fold, prepend, shows, type View } from "../src/live/transcript";
import type { SessionFrame, StoredMessage, ToolCall } from "../src/live/wire";

const S = { session_id: "s1", seq: 1 };
const T = { ...S, turn_id: 7 };
const started: SessionFrame = {
  ...T,
  type: "turn_started",
  task_id: 42,
  chat_id: "c",
  agent: "native",
  attempt: 1,
  started_at: "2026-03-01T09:30:00+00:00",
};
const call = (status: ToolCall["status"], output = ""): ToolCall => ({
  id: "call_1",
  name: "run",
  input: "{}",
  status,
  output,
  exit_code: null,
});
const message = (
  task_id: number,
  role: "user" | "assistant",
  client_message_id: string | null = null,
): StoredMessage => ({
  id: `m${task_id}`,
  ordinal: task_id,
  chat_id: "c",
  task_id,
  role,
  state: "complete",
  text: "hi",
  reasoning: "",
  tool_calls: [],
  created_at: "",
  ended_at: null,
  agent: null,
  cost_tokens: null,
  error: null,
  client_message_id,
});
const all = (...frames: SessionFrame[]): View => frames.reduce((view, frame) => fold(view, frame), EMPTY);

describe("folding", () => {
  it("joins the deltas of a part and orders parts by number, whatever order they come in", () => {
    const view = all(
      started,
      { ...T, type: "delta", part: 3, text: "It " },
      { ...T, type: "reasoning_delta", part: 1, text: "Hm" },
      { ...T, type: "tool_call", part: 2, call: call("running") },
      { ...T, type: "delta", part: 3, text: "works" },
      { ...T, type: "reasoning_delta", part: 1, text: "." },
      { ...T, type: "tool_call", part: 2, call: call("completed", "ok") },
      { ...T, type: "delta", part: 5, text: "!" },
    );
    expect(view.turns[0]?.parts.map((part) => part.part)).toEqual([1, 2, 3, 5]);
    const turn = view.turns[0];
    expect(turn && answer(turn)).toEqual({ text: "It works!", reasoning: "Hm.", calls: [call("completed", "ok")] });
  });

  it("changes no view in place", () => {
    const before = all(started, { ...T, type: "delta", part: 1, text: "a" });
    const kept = JSON.stringify(before);
    fold(before, { ...T, type: "delta", part: 1, text: "b" });
    fold(before, { ...T, type: "turn_ended", task_id: 42, state: "completed", reason: null, error: null });
    expect(JSON.stringify(before)).toBe(kept);
  });

  it("shows a retry until anything else is said, and a permission until it is answered", () => {
    const retry: SessionFrame = {
      ...T,
      type: "provider_retry",
      attempt: 0,
      delay_ms: 5000,
      retry_at: "",
      message: "overloaded",
      code: "529",
    };
    const asked = (id: string, state: "requested" | "denied"): SessionFrame => ({
      ...T,
      type: "permission_request",
      permission_id: id,
      state,
      request: { id, text: "Which?", choices: [], several: false },
    });
    const waiting = all(started, asked("p1", "requested"), asked("p2", "requested"), retry);
    expect(waiting.turns[0]?.retry?.message).toBe("overloaded");
    expect(waiting.turns[0]?.permissions.map((each) => each.permission_id)).toEqual(["p1", "p2"]);
    const on = fold(waiting, asked("p1", "denied"));
    expect(on.turns[0]?.retry).toBeNull();
    expect(on.turns[0]?.permissions.map((each) => each.permission_id)).toEqual(["p2"]);
    const over = fold(on, { ...T, type: "turn_ended", task_id: 42, state: "cancelled", reason: null, error: null });
    expect(over.turns[0]?.permissions).toEqual([]);
  });

  it("replaces everything by a history, and ignores turns that it does not know", () => {
    const view = fold(all(started, { ...T, type: "delta", part: 1, text: "a" }), {
      ...S,
      type: "session_history",
      messages: [message(42, "user"), message(42, "assistant")],
      queued: [],
      more: true,
      change_id: "ch",
    });
    expect(view).toMatchObject({ histories: 1, turns: [], more: true, changeId: "ch" });
    expect(fold(view, { ...T, type: "delta", part: 1, text: "late" })).toBe(view);
  });

  it("keeps the queue: tasks come, are edited, run and go", () => {
    const queued = (task_id: number, text: string | null): SessionFrame => ({
      ...S,
      type: "task_state",
      task_id,
      state: "pending",
      reason: null,
      text,
      client_message_id: `m-${task_id}`,
    });
    let view = all(queued(42, "one"), queued(43, "two"), queued(42, "one, edited"), queued(43, null));
    expect(view.queued.map((each) => each.text)).toEqual(["one, edited", "two"]);
    view = fold(view, started);
    expect(view.queued.map((each) => each.task_id)).toEqual([43]);
    view = fold(view, {
      ...S,
      type: "task_state",
      task_id: 43,
      state: "cancelled",
      reason: null,
      text: null,
      client_message_id: null,
    });
    expect(view.queued).toEqual([]);
  });

  it("knows whether a typed message is shown: in the history, the queue, or a turn that has its prompt", () => {
    const stored = all({
      ...S,
      type: "session_history",
      messages: [message(1, "user", "m-1")],
      queued: [],
      more: false,
      change_id: null,
    });
    expect(shows(stored, "m-1", null)).toBe(true);
    expect(shows(stored, "m-2", null)).toBe(false);
    const running = all(started);
    expect(shows(running, "m-2", 42)).toBe(false);
    expect(shows(fold(running, { ...T, type: "message_started", role: "user", text: "hi" }), "m-2", 42)).toBe(true);
  });

  it("holds older messages that were read for it, as long as nothing is missing before the history", () => {
    const [one, two, three] = [message(1, "user"), message(2, "user"), message(3, "user")];
    const history = (messages: StoredMessage[], more: boolean): SessionFrame => ({
      ...S,
      type: "session_history",
      messages,
      queued: [],
      more,
      change_id: null,
    });
    const read = prepend(all(history([three], true)), 3, [two, one], false);
    expect(read.messages).toEqual([one, two, three]);
    expect(read.more).toBe(false);
    expect(prepend(read, 3, [two], true)).toBe(read); // asked for twice
    expect(fold(read, history([two, three, message(4, "user")], true)).messages.map((each) => each.ordinal)).toEqual([
      1, 2, 3, 4,
    ]);
    const later = fold(read, history([message(9, "user")], true));
    expect(later.messages.map((each) => each.ordinal)).toEqual([9]);
    expect(later.more).toBe(true);
  });

  it("holds the surfaces that are seen, over histories", () => {
    const view = all({ ...S, type: "surface", surface: "cache-warming", state: { enabled: true } });
    expect(view.surfaces).toEqual({ "cache-warming": { enabled: true } });
    expect(
      fold(view, { ...S, type: "session_history", messages: [], queued: [], more: false, change_id: null }).surfaces,
    ).toBe(view.surfaces);
  });
});
