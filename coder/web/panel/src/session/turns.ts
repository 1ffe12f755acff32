/** What a session's page shows: stored messages and running turns as one list of turns, oldest first. Pure. */
import type { Part, Turn, View } from "../live/transcript";
import type { PermissionRequested, PlanEntry, ProviderRetry, StoredMessage, UsageFrame } from "../live/wire";

export interface ShownTurn {
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
  usage: UsageFrame | null;
  permissions: readonly PermissionRequested[];
  retry: ProviderRetry | null;
}

export function turnsOf(view: View): ShownTurn[] {
  return [...ofMessages(view.messages), ...view.turns.map(ofTurn)];
}

function ofTurn(turn: Turn): ShownTurn {
  return {
    key: `t${turn.id}`,
    taskId: turn.taskId,
    prompt: turn.prompt,
    agent: turn.agent,
    attempt: turn.attempt,
    at: turn.startedAt,
    endedAt: null,
    state: turn.ended === null ? "running" : (turn.stored ?? turn.ended.state),
    error: turn.ended?.error ?? null,
    parts: turn.parts,
    plan: turn.plan,
    usage: turn.usage,
    permissions: turn.permissions,
    retry: turn.retry,
  };
}

const BARE = { agent: null, attempt: 1, error: null, plan: [], usage: null, permissions: [], retry: null };

/** Stored messages in pairs. The order of an answer's parts is not stored: reasoning, tool calls, text. */
export function ofMessages(messages: readonly StoredMessage[]): ShownTurn[] {
  const turns: ShownTurn[] = [];
  for (const message of messages) {
    const last = turns.at(-1);
    if (message.role === "user") {
      turns.push({
        ...BARE,
        key: message.id,
        taskId: message.task_id,
        prompt: message.text,
        at: message.created_at,
        endedAt: message.ended_at,
        state: message.state,
        parts: [],
      });
      continue;
    }
    const answered = last !== undefined && last.taskId === message.task_id && last.parts.length === 0;
    const turn: ShownTurn = {
      ...BARE,
      key: answered ? last.key : message.id,
      taskId: message.task_id,
      prompt: answered ? last.prompt : null,
      at: message.created_at,
      endedAt: message.ended_at,
      state: message.state,
      parts: partsOf(message),
    };
    if (answered) turns[turns.length - 1] = turn;
    else turns.push(turn);
  }
  return turns;
}

function partsOf(message: StoredMessage): Part[] {
  const parts: Part[] = [];
  if (message.reasoning !== "") parts.push({ kind: "reasoning", part: 1, text: message.reasoning });
  for (const call of message.tool_calls) parts.push({ kind: "tool", part: parts.length + 1, call });
  if (message.text !== "") parts.push({ kind: "text", part: parts.length + 1, text: message.text });
  return parts;
}
