/** One row of a list is the current one: `j` and `k` move, and it stays the same row when others come or go. */
import { useEffect, useRef, useState } from "react";
import { type Binding, useKeys } from "../app/keys";

export function useSelection<T extends { id: string | number }>(
  items: readonly T[],
  more: (current: T | undefined) => Binding[],
) {
  const [id, setId] = useState<T["id"] | null>(null);
  const before = useRef(0);
  const found = items.findIndex((each) => each.id === id);
  // What was current is gone: what took its place is current now.
  const at = found >= 0 ? found : id === null ? -1 : Math.min(before.current, items.length - 1);
  const current = items[at];
  useEffect(() => {
    if (at >= 0) before.current = at;
    if (current !== undefined && current.id !== id) setId(current.id);
  }, [at, current, id]);
  const go = (to: number) => {
    const next = items[Math.max(0, Math.min(items.length - 1, to))];
    if (next === undefined) return;
    setId(next.id);
    document.querySelector(`[data-row="${next.id}"]`)?.scrollIntoView({ block: "nearest" });
  };
  useKeys([
    { key: "j", does: "Next", run: () => go(at + 1) },
    { key: "k", does: "Previous", run: () => go(at - 1) },
    ...more(current),
  ]);
  return { current, at, select: setId };
}
