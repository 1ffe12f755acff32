/**
 * What needs a person, most urgent first: who waits for an answer, what conflicts, what is to be reviewed, what was interrupted,
 * and changes whose check failed. Of equal urgency the oldest comes first: it has waited longest.
 */
import { useQueries } from "@tanstack/react-query";
import type { ListedChange, Permission, Task } from "../api/client";
import { interrupted, openChanges, requests } from "../api/queries";

export type Item =
  | { kind: "permission"; id: string; at: string; owner: string; permission: Permission }
  | { kind: "conflict" | "change" | "check"; id: string; at: string; owner: string; change: ListedChange }
  | { kind: "task"; id: string; at: string; owner: string; task: Task };

const URGENCY: readonly Item["kind"][] = ["permission", "conflict", "change", "task", "check"];

export interface Inbox {
  items: Item[];
  loaded: boolean;
  error: Error | null;
}

function kindOf(change: ListedChange): "conflict" | "change" | "check" {
  if (change.state === "conflicted") return "conflict";
  return change.check_state === "failed" ? "check" : "change";
}

/** All of it in order. */
export function inOrder(
  asked: readonly Permission[],
  changes: readonly ListedChange[],
  tasks: readonly Task[],
): Item[] {
  const items: Item[] = [
    ...asked.map(
      (permission): Item => ({
        kind: "permission",
        id: permission.id,
        at: permission.requested_at,
        owner: permission.asked_by,
        permission,
      }),
    ),
    ...changes.map(
      (change): Item => ({
        kind: kindOf(change),
        id: change.id,
        at: change.created_at,
        owner: change.asked_by,
        change,
      }),
    ),
    ...tasks.map(
      (task): Item => ({
        kind: "task",
        id: `task-${task.id}`,
        at: task.ended_at ?? task.created_at,
        owner: task.asked_by,
        task,
      }),
    ),
  ];
  return items.toSorted(
    (one, other) =>
      URGENCY.indexOf(one.kind) - URGENCY.indexOf(other.kind) || Date.parse(one.at) - Date.parse(other.at),
  );
}

export function useInbox(): Inbox {
  return useQueries({
    queries: [requests, openChanges, interrupted],
    combine: ([asked, open, stopped]) => ({
      items: inOrder(asked.data?.items ?? [], open.data?.items ?? [], stopped.data?.items ?? []),
      loaded: asked.data !== undefined && open.data !== undefined && stopped.data !== undefined,
      error: asked.error ?? open.error ?? stopped.error,
    }),
  });
}
