/**
 * A list of tasks that stays true without being asked for again as a whole: what is known of it, newest first, and what was heard
 * since of some of its rows.
 */
import type { Task } from "../api/client";

export interface Heard {
  /** The newest tasks that fit, as far as they were asked for. */
  head: readonly Task[];
  /** Whether older ones fit as well; the cursor they come after. */
  next: string | null;
  /** Rows of the list that were asked for by their ids, and what came of them. */
  asked: readonly number[];
  rows: readonly Task[];
}

/** The list with what was heard of its own rows. One that is gone is left out; one that no longer fits stays where it is read. */
export function updated(items: readonly Task[], { head, asked, rows }: Omit<Heard, "next">): Task[] {
  const known = new Map([...head, ...rows].map((task) => [task.id, task]));
  const gone = new Set(asked.filter((id) => !known.has(id)));
  return items.filter((task) => !gone.has(task.id)).map((task) => known.get(task.id) ?? task);
}

/** Of the newest tasks, those the list lacks; only what is newer than its last row, since the rest is not loaded yet. */
export function fresh(items: readonly Task[], head: readonly Task[], complete: boolean): Task[] {
  const known = new Set(items.map((task) => task.id));
  const last = complete ? 0 : (items.at(-1)?.id ?? 0);
  return head.filter((task) => !known.has(task.id) && task.id > last);
}

/** Both, newest first. */
export function together(items: readonly Task[], more: readonly Task[]): Task[] {
  return [...items, ...more].toSorted((one, other) => other.id - one.id);
}
