/**
 * Keys: a page names what it listens to, with a word for each, and `?` lists what works at this moment.
 *
 * A key is ignored while somebody types, unless it is Escape or comes with Ctrl or Cmd; the page that came last is asked first.
 */
import { useEffect, useRef, useSyncExternalStore } from "react";
import { flushSync } from "react-dom";

export interface Binding {
  /** As `KeyboardEvent.key` says it; `mod+k` with Ctrl or Cmd; a capital letter with Shift. */
  key: string;
  does: string;
  run(): void;
  /** Also while somebody types. */
  typing?: boolean;
}

type Layer = { bindings: readonly Binding[] };
let layers: readonly Layer[] = [];
const listeners = new Set<() => void>();
const changed = () => {
  for (const listener of listeners) listener();
};

function typing(target: EventTarget | null): boolean {
  const at = target instanceof HTMLElement ? target : null;
  return (
    at !== null && (at.isContentEditable || at.matches("input:not([type=checkbox], [type=radio]), textarea, select"))
  );
}

function name(event: KeyboardEvent): string {
  return event.ctrlKey || event.metaKey ? `mod+${event.key.toLowerCase()}` : event.key;
}

window.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.isComposing) return;
  // A dialog or an open list has the keys for itself.
  const wanted = name(event);
  const busy = typing(event.target);
  const dialog =
    document.querySelector('[role="dialog"][aria-modal="true"]') !== null ||
    (event.target instanceof Element &&
      event.target.closest('[role="dialog"], [role="listbox"], [role="menu"]') !== null);
  for (const layer of layers.toReversed()) {
    const found = layer.bindings.find((each) => each.key === wanted && (!busy || each.typing === true));
    if (found === undefined) continue;
    if (dialog && !wanted.startsWith("mod+")) return;
    event.preventDefault();
    // At once: the next key may come before the page would be drawn by itself, and is about what this one selected.
    flushSync(found.run);
    return;
  }
});

/** Listen to keys as long as the component is there. */
export function useKeys(bindings: readonly Binding[]): void {
  const layer = useRef<Layer>({ bindings });
  useEffect(() => {
    layer.current.bindings = bindings;
  });
  useEffect(() => {
    const mine = layer.current;
    layers = [...layers, mine];
    changed();
    return () => {
      layers = layers.filter((each) => each !== mine);
      changed();
    };
  }, []);
}

/** What works now, each key once. */
export function useBindings(): readonly Binding[] {
  const all = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => layers,
  );
  const known = new Set<string>();
  return all
    .toReversed()
    .flatMap((layer) => layer.bindings)
    .filter((each) => !known.has(each.key) && known.add(each.key));
}

const WORDS: Record<string, string> = { ArrowUp: "↑", ArrowDown: "↓", Enter: "↵", Escape: "Esc", " ": "Space" };

/** A key as people read it. */
export function keyName(key: string): string {
  const mac = navigator.platform.startsWith("Mac");
  if (key.startsWith("mod+")) return `${mac ? "⌘" : "Ctrl"} ${keyName(key.slice(4)).toUpperCase()}`;
  if (/^[A-Z]$/.test(key)) return `⇧ ${key}`;
  return WORDS[key] ?? key;
}
