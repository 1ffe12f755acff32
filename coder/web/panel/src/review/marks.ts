/** What this browser remembers of reviews: which files were seen, as their diffs were then, which change was looked at last, and how
 * diffs are laid out. */
import { useCallback, useEffect, useMemo, useSyncExternalStore } from "react";
import type { Change } from "../api/client";
import type { ReviewFile } from "./model";
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

/** The paths of a session's files that were seen with the very diff they have now, and how to change whether one was. */
export function useViewed(
  session: string,
  files: readonly ReviewFile[],
): [ReadonlySet<string>, (path: string, seen: boolean) => void] {
  const [stored, set] = useStored(`viewed.${session}`);
  const seen = useMemo(() => (stored === null ? {} : (JSON.parse(stored) as Record<string, string>)), [stored]);
  const viewed = useMemo(
    () => new Set(files.filter((each) => seen[each.path] === each.digest).map((each) => each.path)),
    [files, seen],
  );
  return [
    viewed,
    (path, is) => {
      const { [path]: _, ...rest } = seen;
      const digest = files.find((each) => each.path === path)?.digest;
      set(JSON.stringify(is && digest !== undefined ? { ...rest, [path]: digest } : rest));
    },
  ];
}

interface Looked {
  id: string;
  fingerprint: string;
  created: string;
  /** The change that was looked at before this one. */
  before: string | null;
}

/** Remember that a change was looked at; answers the one of its session that was looked at before it, if it says something else. */
export function useLooked(change: Change): string | null {
  const [stored, set] = useStored(`looked.${change.session_id}`);
  const looked = useMemo(() => (stored === null ? null : (JSON.parse(stored) as Looked)), [stored]);
  const { id, fingerprint, created_at: created } = change;
  useEffect(() => {
    if (looked !== null && (looked.id === id || looked.created >= created)) return;
    const before = looked === null ? null : looked.fingerprint === fingerprint ? looked.before : looked.id;
    set(JSON.stringify({ id, fingerprint, created, before } satisfies Looked));
  }, [looked, set, id, fingerprint, created]);
  return looked?.id === id ? looked.before : null;
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
