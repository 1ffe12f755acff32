/** What needs a person, most urgent first: who waits for an answer, what conflicts, what is to be reviewed, what was interrupted. */
import { useQueries } from "@tanstack/react-query";
import type { ListedChange, Permission, Task } from "../api/client";
import { interrupted, openChanges, requests } from "../api/queries";

export type Item =
  | { kind: "permission"; id: string; at: string; permission: Permission }
  | { kind: "conflict" | "change"; id: string; at: string; change: ListedChange }
  | { kind: "task"; id: string; at: string; task: Task };

export interface Inbox {
  items: Item[];
  loaded: boolean;
  error: Error | null;
}

export function useInbox(): Inbox {
  return useQueries({
    queries: [requests, openChanges, interrupted],
    combine: ([asked, open, stopped]) => {
      const changes = (open.data?.items ?? []).map((change) => ({ id: change.id, at: change.created_at, change }));
      const items: Item[] = [
        ...(asked.data?.items ?? []).map(
          (permission): Item => ({ kind: "permission", id: permission.id, at: permission.requested_at, permission }),
        ),
        ...changes
          .filter(({ change }) => change.state === "conflicted")
          .map((each): Item => ({ kind: "conflict", ...each })),
        ...changes
          .filter(({ change }) => change.state !== "conflicted")
          .map((each): Item => ({ kind: "change", ...each })),
        ...(stopped.data?.items ?? []).map(
          (task): Item => ({ kind: "task", id: `task-${task.id}`, at: task.ended_at ?? task.created_at, task }),
        ),
      ];
      return {
        items,
        loaded: asked.data !== undefined && open.data !== undefined && stopped.data !== undefined,
        error: asked.error ?? open.error ?? stopped.error,
      };
    },
  });
}
