import { describe, expect, it } from "vitest";
import type { Task } from "../src/api/client";
import { fresh, together, updated } from "../src/queue/merge";

const task = (id: number, state = "pending") => ({ id, state }) as Task;
const ids = (items: readonly Task[]) => items.map((each) => each.id);
const items = [9, 8, 7, 5].map((id) => task(id));

describe("a list of tasks that is heard of", () => {
  it("shows its rows as they are by now, and in their places", () => {
    const now = updated(items, { head: [task(9, "running")], asked: [7], rows: [task(7, "completed")] });
    expect(now.map((each) => each.state)).toEqual(["running", "pending", "completed", "pending"]);
  });
  it("leaves out a row that was asked for and is gone", () => {
    expect(ids(updated(items, { head: [], asked: [8, 7], rows: [task(7)] }))).toEqual([9, 7, 5]);
  });
  it("counts what is new, also in the middle, and not what is not loaded yet", () => {
    const head = [11, 10, 9, 6, 4].map((id) => task(id));
    expect(ids(fresh(items, head, false))).toEqual([11, 10, 6]);
    expect(ids(fresh(items, head, true))).toEqual([11, 10, 6, 4]);
    expect(ids(together(items, fresh(items, head, true)))).toEqual([11, 10, 9, 8, 7, 6, 5, 4]);
  });
});
