/** What was just done, or could not be: one quiet line at a time, read out by screen readers. */
import { CloseButton } from "@mantine/core";
import { useSyncExternalStore } from "react";
import classes from "./said.module.css";

interface Saying {
  text: string;
  bad: boolean;
}
let saying: Saying | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;
const listeners = new Set<() => void>();

function put(next: Saying | null): void {
  saying = next;
  clearTimeout(timer);
  if (next !== null && !next.bad) timer = setTimeout(() => put(null), 6_000);
  for (const listener of listeners) listener();
}

export const say = (text: string) => put({ text, bad: false });
/** An error's own sentence; it stays until it is closed. */
export const complain = (error: unknown) =>
  put({ text: error instanceof Error ? error.message : String(error), bad: true });

export function Said() {
  const now = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => saying,
  );
  return (
    <div className={classes.place} role="status" aria-live="polite">
      {now !== null && (
        <div className={`${classes.said} ${now.bad ? classes.bad : ""} fade`}>
          <span>{now.text}</span>
          <CloseButton size="sm" aria-label="Close this message" onClick={() => put(null)} />
        </div>
      )}
    </div>
  );
}
