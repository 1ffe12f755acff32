/** What this browser remembers of reviews: which files were seen, as they are in this very diff, and how diffs are laid out. */
import { useCallback, useSyncExternalStore } from "react";

const listeners = new Set<() => void>();
const listen = (listener: () => void) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};

export function useStored(name: string): [string | null, (value: string | null) => void] {
  const key = `coder.${name}`;
  const value = useSyncExternalStore(listen, () => localStorage.getItem(key));
  const set = useCallback(
    (next: string | null) => {
      if (next === null) localStorage.removeItem(key);
      else localStorage.setItem(key, next);
      for (const listener of listeners) listener();
    },
    [key],
  );
  return [value, set];
}

/** The paths that were seen of the diff with this fingerprint, and how to change whether one was. */
export function useViewed(fingerprint: string): [ReadonlySet<string>, (path: string, seen: boolean) => void] {
  const [stored, set] = useStored(`viewed.${fingerprint}`);
  const seen = new Set<string>(stored === null ? [] : (JSON.parse(stored) as string[]));
  return [
    seen,
    (path, is) => {
      const next = new Set(seen);
      if (is) next.add(path);
      else next.delete(path);
      set(next.size === 0 ? null : JSON.stringify([...next]));
    },
  ];
}
