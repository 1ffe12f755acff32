/** Small things that all pages share. A state is always an icon and a word, never only a colour. */
import { Button, Tooltip } from "@mantine/core";
import {
  AlertIcon,
  CheckCircleIcon,
  CircleIcon,
  CircleSlashIcon,
  ClockIcon,
  DotFillIcon,
  GitMergeIcon,
  HistoryIcon,
  HourglassIcon,
  StopIcon,
  SyncIcon,
  XCircleIcon,
} from "@primer/octicons-react";
import { type ComponentType, type ReactNode, useEffect, useState } from "react";
import { keyName } from "../app/keys";
import classes from "./ui.module.css";

type Look = { icon: ComponentType<{ size?: number }>; word: string; tone: "good" | "bad" | "warn" | "dim" | "accent" };

const LOOKS: Record<string, Look> = {
  pending: { icon: ClockIcon, word: "pending", tone: "warn" },
  waiting: { icon: ClockIcon, word: "waiting", tone: "dim" },
  running: { icon: DotFillIcon, word: "running", tone: "accent" },
  completed: { icon: CheckCircleIcon, word: "completed", tone: "good" },
  failed: { icon: XCircleIcon, word: "failed", tone: "bad" },
  cancelled: { icon: CircleSlashIcon, word: "cancelled", tone: "dim" },
  interrupted: { icon: StopIcon, word: "interrupted", tone: "warn" },
  applying: { icon: SyncIcon, word: "applying", tone: "accent" },
  approved: { icon: GitMergeIcon, word: "approved", tone: "good" },
  rejected: { icon: XCircleIcon, word: "rejected", tone: "bad" },
  conflicted: { icon: AlertIcon, word: "conflict", tone: "bad" },
  superseded: { icon: HistoryIcon, word: "superseded", tone: "dim" },
  active: { icon: DotFillIcon, word: "active", tone: "accent" },
  idle: { icon: CircleIcon, word: "idle", tone: "dim" },
  closed: { icon: CircleSlashIcon, word: "closed", tone: "dim" },
  undone: { icon: HistoryIcon, word: "undone", tone: "dim" },
  queued: { icon: ClockIcon, word: "waits", tone: "dim" },
  passed: { icon: CheckCircleIcon, word: "passed", tone: "good" },
  skipped: { icon: CircleSlashIcon, word: "skipped", tone: "dim" },
  asks: { icon: HourglassIcon, word: "asks", tone: "warn" },
};

export function State({ is, word }: { is: string; word?: string }) {
  const look = LOOKS[is] ?? { icon: CircleIcon, word: is, tone: "dim" as const };
  const Icon = look.icon;
  return (
    <span
      className={`${classes.badge} ${look.tone}`}
      style={look.tone === "accent" ? { color: "var(--accent)" } : undefined}
    >
      <Icon size={14} />
      {word ?? look.word}
    </span>
  );
}

const UNITS: [number, string][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

/** How long ago, or until when, in one unit. */
export function ago(then: string, now: number): string {
  const seconds = Math.round((now - Date.parse(then)) / 1000);
  const size = Math.abs(seconds);
  const [unit, word] = UNITS.find(([unit]) => size >= unit) ?? [1, "s"];
  if (size < 5) return "now";
  const amount = `${Math.floor(size / unit)} ${word}`;
  return seconds >= 0 ? `${amount} ago` : `in ${amount}`;
}

let now = Date.now();
const clocks = new Set<(now: number) => void>();
setInterval(() => {
  now = Date.now();
  for (const clock of clocks) clock(now);
}, 1_000);

/** The time, every second. */
export function useNow(): number {
  const [seen, setSeen] = useState(now);
  useEffect(() => {
    clocks.add(setSeen);
    return () => void clocks.delete(setSeen);
  }, []);
  return seen;
}

export function Age({ of }: { of: string }) {
  const said = ago(of, useNow());
  return (
    <time className="num dim" dateTime={of} title={new Date(of).toLocaleString()}>
      {said}
    </time>
  );
}

/** A path whose folders give way before the file's name does. */
export function Path({ path }: { path: string }) {
  const cut = path.lastIndexOf("/") + 1;
  return (
    <span className={classes.path} title={path}>
      <span className={classes.folder}>{path.slice(0, cut)}</span>
      <span className={classes.file}>{path.slice(cut)}</span>
    </span>
  );
}

export function Lines({ added, removed }: { added: number; removed: number }) {
  return (
    <span className="num" style={{ whiteSpace: "nowrap" }}>
      <span className="good">+{added.toLocaleString("en")}</span>{" "}
      <span className="bad">−{removed.toLocaleString("en")}</span>
    </span>
  );
}

export function Key({ of, onAccent }: { of: string; onAccent?: boolean }) {
  return (
    <kbd className={`${classes.kbd} ${onAccent ? classes.onAccent : ""}`} aria-hidden>
      {keyName(of)}
    </kbd>
  );
}

/** What a control does, and its key. */
export function Hint({ does, keys, children }: { does: string; keys?: string; children: ReactNode }) {
  return (
    <Tooltip
      label={
        <>
          {does} {keys !== undefined && <Key of={keys} />}
        </>
      }
    >
      {children}
    </Tooltip>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={classes.empty}>
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** An error's own sentence, and a way on. */
export function Failed({ error, retry }: { error: Error; retry?: () => void }) {
  return (
    <div className={classes.failed} role="alert">
      <p>{error.message}</p>
      {retry !== undefined && (
        <Button size="xs" variant="default" onClick={retry}>
          Try again
        </Button>
      )}
    </div>
  );
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
