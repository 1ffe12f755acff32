/** What can be done with a thing of the inbox without opening it. */
import { type Permission, POST, type Task, told } from "../api/client";
import type { Item } from "./items";

export interface Done {
  run(): Promise<unknown>;
  said: string;
}

const allow = (permission: Permission): Done => ({
  run: () =>
    told(
      POST("/api/v1/permissions/{permission_id}/allow", {
        params: { path: { permission_id: permission.id } },
        body: { scope: "once" },
      }),
    ),
  said: `Allowed once: ${permission.title}`,
});
const deny = (permission: Permission): Done => ({
  run: () =>
    told(
      POST("/api/v1/permissions/{permission_id}/deny", {
        params: { path: { permission_id: permission.id } },
        body: {},
      }),
    ),
  said: permission.kind === "question" ? "The agent goes on without an answer." : `Denied: ${permission.title}`,
});
const resume = (task: Task): Done => ({
  run: () => told(POST("/api/v1/tasks/{task}/resume", { params: { path: { task: task.id } } })),
  said: `Task ${task.id} goes on as a new task.`,
});
const dismiss = (task: Task): Done => ({
  run: () => told(POST("/api/v1/tasks/{task}/dismiss", { params: { path: { task: task.id } } })),
  said: `Task ${task.id} is dismissed; its session goes on.`,
});
const again = (change: string): Done => ({
  run: () => told(POST("/api/v1/changes/{change_id}/check", { params: { path: { change_id: change } } })),
  said: "It is checked once more.",
});

/** The one action of a thing; null: to look at it. */
export function primary(item: Item): Done | null {
  if (item.kind === "permission") return item.permission.kind === "permission" ? allow(item.permission) : null;
  return item.kind === "task" ? resume(item.task) : null;
}

/** How one is done with a thing without it; null: only by deciding. */
export function done(item: Item): Done | null {
  if (item.kind === "permission") return deny(item.permission);
  if (item.kind === "task") return dismiss(item.task);
  return item.kind === "check" ? again(item.change.id) : null;
}
