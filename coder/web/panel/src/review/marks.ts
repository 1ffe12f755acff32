/** What this browser remembers of reviews: which files were seen, as they are in this very diff, and how diffs are laid out. */
import { useCallback, useMemo, useSyncExternalStore } from "react";
import type { Marks, Verdict } from "./parts";

const listeners = new Set<() => void>();
// Another tab of this browser writes into the same store.
window.addEventListener("storage", () => {
  for (const listener of listeners) listener();
});
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
  const seen = useMemo(() => new Set<string>(stored === null ? [] : (JSON.parse(stored) as string[])), [stored]);
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

/** What is to become of the pieces of the diff with this fingerprint, and how to say it; null: nothing yet. */
export function useMarks(fingerprint: string): [Marks, (key: string, verdict: Verdict | null) => void] {
  const name = `marks.${fingerprint}`;
  const [stored, set] = useStored(name);
  const marks = useMemo(() => (stored === null ? {} : (JSON.parse(stored) as Marks)), [stored]);
  const mark = (key: string, verdict: Verdict | null) => {
    // As it is stored now: several may be said before anything is drawn again.
    const { [key]: _, ...rest } = JSON.parse(localStorage.getItem(`coder.${name}`) ?? "{}") as Record<string, Verdict>;
    const next = verdict === null ? rest : { ...rest, [key]: verdict };
    set(Object.keys(next).length === 0 ? null : JSON.stringify(next));
  };
  return [marks, mark];
}
