/**
 * What a page shows of one session: a pure fold of the frames about it.
 *
 * A view is never changed in place, so whoever holds one may compare it by identity. Folding is total: a frame of a turn that
 * nobody knows (its start came before the history that replaced it) changes nothing.
 */
import type {
  Command,
  PermissionRequested,
  PlanEntry,
  ProviderRetry,
  QueuedMessage,
  SessionFrame,
  StoredMessage,
  ToolCall,
  UsageFrame,
} from "./wire";

export type Part =
  | { kind: "text"; part: number; text: string }
  | { kind: "reasoning"; part: number; text: string }
  | { kind: "notice"; part: number; text: string }
  | { kind: "tool"; part: number; call: ToolCall };

/** A turn that runs, or that ended since the history came. */
export interface Turn {
  id: number;
  taskId: number;
  chatId: string;
  agent: string;
  attempt: number;
  startedAt: string;
  /** What it was asked; null until that frame came. */
  prompt: string | null;
  /** By number. */
  parts: readonly Part[];
  plan: readonly PlanEntry[];
  commands: readonly Command[];
  usage: UsageFrame | null;
  /** What waits for a person. */
  permissions: readonly PermissionRequested[];
  /** The provider's failure that is waited out. */
  retry: ProviderRetry | null;
  /** How its answer is stored; null until it is. */
  stored: "complete" | "failed" | "cancelled" | "interrupted" | null;
  /** How it ended; null while it runs. */
  ended: { state: string; reason: string | null; error: string | null; at: string | null } | null;
}

export interface View {
  /** Grows with each history, so that a page knows that what it shows was replaced. */
  histories: number;
  messages: readonly HeldMessage[];
  /** Whether there are older messages than these. */
  more: boolean;
  turns: readonly Turn[];
  queued: readonly QueuedMessage[];
  changeId: string | null;
  /** The states of the surfaces that are seen, by their names. */
  surfaces: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** A message of the history; only that of the live view knows the id its sender gave it. */
export type HeldMessage = Omit<StoredMessage, "client_message_id"> & Partial<Pick<StoredMessage, "client_message_id">>;

export const EMPTY: View = {
  histories: 0,
  messages: [],
  more: false,
  turns: [],
  queued: [],
  changeId: null,
  surfaces: {},
};

/**
 * The view after a frame about its session.
 *
 * now: when it came; null where nobody wants to know when a turn ended.
 */
export function fold(view: View, frame: SessionFrame, now: string | null = null): View {
  switch (frame.type) {
    case "session_history":
      return {
        ...view,
        ...withOlder(view, frame.messages, frame.more),
        histories: view.histories + 1,
        turns: [],
        queued: frame.queued,
        changeId: frame.change_id,
      };
    case "task_state":
      return foldTask(view, frame);
    case "change_pending":
      return { ...view, changeId: frame.change_id };
    case "turn_started": {
      const turn: Turn = {
        id: frame.turn_id,
        taskId: frame.task_id,
        chatId: frame.chat_id,
        agent: frame.agent,
        attempt: frame.attempt,
        startedAt: frame.started_at,
        prompt: null,
        parts: [],
        plan: [],
        commands: [],
        usage: null,
        permissions: [],
        retry: null,
        stored: null,
        ended: null,
      };
      return {
        ...view,
        turns: [...view.turns.filter((each) => each.id !== turn.id), turn],
        queued: view.queued.filter((each) => each.task_id !== frame.task_id),
      };
    }
    case "surface":
    case "surface_update":
      return { ...view, surfaces: { ...view.surfaces, [frame.surface]: frame.state } };
    default: {
      const at = view.turns.findLastIndex((each) => each.id === frame.turn_id);
      const turn = view.turns[at];
      return turn === undefined ? view : { ...view, turns: view.turns.with(at, foldTurn(turn, frame, now)) };
    }
  }
}

/** A history with the older messages that were read before it, as long as nothing is missing between. */
function withOlder(view: View, messages: readonly HeldMessage[], more: boolean): Pick<View, "messages" | "more"> {
  const at = view.messages.findIndex((each) => each.id === messages[0]?.id);
  return at > 0 ? { messages: [...view.messages.slice(0, at), ...messages], more: view.more } : { messages, more };
}

/**
 * The view with older messages that were read for it, newest first.
 *
 * before: the `ordinal` they were asked for; when that is not the oldest any more, they belong to a history that was replaced.
 */
export function prepend(view: View, before: number, older: readonly HeldMessage[], more: boolean): View {
  if (view.messages[0]?.ordinal !== before) return view;
  return { ...view, messages: [...older.toReversed(), ...view.messages], more };
}

function foldTask(view: View, frame: Extract<SessionFrame, { type: "task_state" }>): View {
  const others = view.queued.filter((each) => each.task_id !== frame.task_id);
  if (frame.state !== "pending") return { ...view, queued: others };
  if (frame.text === null) return view; // it waits as it did
  const queued: QueuedMessage = {
    task_id: frame.task_id,
    text: frame.text,
    client_message_id: frame.client_message_id,
    created_at: view.queued.find((each) => each.task_id === frame.task_id)?.created_at ?? new Date().toISOString(),
  };
  const at = view.queued.findIndex((each) => each.task_id === frame.task_id);
  return { ...view, queued: at < 0 ? [...view.queued, queued] : view.queued.with(at, queued) };
}

type TurnFrame = Exclude<
  SessionFrame,
  { type: "session_history" | "task_state" | "change_pending" | "turn_started" | "surface" | "surface_update" }
>;

function foldTurn(turn: Turn, frame: TurnFrame, now: string | null): Turn {
  // Whatever is said after a retry was announced ends the wait for it.
  const on: Turn = turn.retry === null ? turn : { ...turn, retry: null };
  switch (frame.type) {
    case "message_started":
      return frame.role === "user" ? { ...on, prompt: frame.text } : on;
    case "delta":
      return { ...on, parts: said(on.parts, "text", frame.part, frame.text) };
    case "reasoning_delta":
      return { ...on, parts: said(on.parts, "reasoning", frame.part, frame.text) };
    case "notice":
      return { ...on, parts: placed(on.parts, { kind: "notice", part: frame.part, text: frame.text }) };
    case "tool_call":
      return { ...on, parts: placed(on.parts, { kind: "tool", part: frame.part, call: frame.call }) };
    case "plan":
      return { ...on, plan: frame.entries };
    case "agent_commands":
      return { ...on, commands: frame.commands };
    case "usage":
      return { ...on, usage: frame };
    case "provider_retry":
      return { ...on, retry: frame };
    case "permission_request": {
      const others = on.permissions.filter((each) => each.permission_id !== frame.permission_id);
      return { ...on, permissions: frame.state === "requested" ? [...others, frame] : others };
    }
    case "message_complete":
      return { ...on, stored: frame.state, permissions: [] };
    case "turn_ended":
      return {
        ...on,
        permissions: [],
        ended: { state: frame.state, reason: frame.reason, error: frame.error, at: now },
      };
  }
}

function said(parts: readonly Part[], kind: "text" | "reasoning", part: number, text: string): readonly Part[] {
  const before = parts.find((each) => each.part === part);
  return placed(parts, { kind, part, text: before?.kind === kind ? before.text + text : text });
}

/** The parts with one put where its number belongs, in place of an earlier one of that number. */
function placed(parts: readonly Part[], part: Part): readonly Part[] {
  const at = parts.findLastIndex((each) => each.part <= part.part);
  return parts[at]?.part === part.part ? parts.with(at, part) : parts.toSpliced(at + 1, 0, part);
}

/** What the history will hold of a turn: its texts joined, its reasoning joined, its calls in their order. */
export function answer(turn: Turn): { text: string; reasoning: string; calls: ToolCall[] } {
  const joined = (kind: "text" | "reasoning") =>
    turn.parts.flatMap((each) => (each.kind === kind ? [each.text] : [])).join("");
  return {
    text: joined("text"),
    reasoning: joined("reasoning"),
    calls: turn.parts.flatMap((each) => (each.kind === "tool" ? [each.call] : [])),
  };
}

/**
 * Whether the history, the queue or a turn shows a message that somebody typed here.
 *
 * taskId: what it became, null as long as that is not known.
 */
export function shows(view: View, clientMessageId: string, taskId: number | null): boolean {
  return (
    view.messages.some((each) => each.client_message_id === clientMessageId) ||
    view.queued.some((each) => each.client_message_id === clientMessageId) ||
    view.turns.some((each) => each.prompt !== null && each.taskId === taskId)
  );
}
