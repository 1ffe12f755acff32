/** What of sessions is open and what is folded, in this page: rows that are not drawn are forgotten, what the reader opened is not. */
import { useCallback, useSyncExternalStore } from "react";

const known = new Map<string, boolean>();
const listeners = new Set<() => void>();
const listen = (listener: () => void) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};
const tell = () => {
  for (const listener of listeners) listener();
};

/** Whether the thing of this name is open; names begin with the group they are folded with, and a `/`. */
export function useOpen(name: string, byDefault: boolean): [boolean, (open: boolean) => void] {
  const open = useSyncExternalStore(
    listen,
    () => known.get(name) ?? known.get(name.slice(0, name.indexOf("/"))) ?? byDefault,
  );
  const set = useCallback(
    (next: boolean) => {
      known.set(name, next);
      tell();
    },
    [name],
  );
  return [open, set];
}

/** Open or fold everything of a group, also what comes later. */
export function setAll(group: string, open: boolean): void {
  for (const name of [...known.keys()]) if (name.startsWith(`${group}/`)) known.delete(name);
  known.set(group, open);
  tell();
}
