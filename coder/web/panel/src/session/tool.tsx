/** A tool call as one line that opens: a command with its output, an edit as its diff, anything else with what went in and out. */
import { CheckIcon, ChevronRightIcon, DotFillIcon, XIcon } from "@primer/octicons-react";
import { lazy, type ReactNode, Suspense, useMemo } from "react";
import type { ToolCall } from "../live/wire";
import { Lines, Path } from "../ui/parts";
import { commandOf, editsOf, gist, pretty, sizeOf } from "./calls";
import { useOpen } from "./folds";
import classes from "./session.module.css";

const Edits = lazy(() => import("./edits"));

const STATUS = {
  running: [DotFillIcon, "running", "var(--accent)"],
  completed: [CheckIcon, "completed", "var(--good)"],
  failed: [XIcon, "failed", "var(--bad)"],
} as const;
const SHOWN_CHARACTERS = 20_000;

interface FoldProps {
  name: string;
  head: ReactNode;
  children: ReactNode;
}

/** One line that opens; what is in it is drawn only then. */
export function Fold({ name, head, children }: FoldProps) {
  const [open, setOpen] = useOpen(name, false);
  return (
    <div className={classes.fold}>
      <button type="button" className={classes.line} aria-expanded={open} onClick={() => setOpen(!open)}>
        <ChevronRightIcon size={14} className={classes.turnable} />
        {head}
      </button>
      {open && children}
    </div>
  );
}

export function Tool({ name, call }: { name: string; call: ToolCall }) {
  const [Icon, word, colour] = STATUS[call.status];
  const edits = useMemo(() => editsOf(call), [call]);
  const command = commandOf(call);
  const sizes = edits.map(sizeOf);
  const total = (what: "added" | "removed") => sizes.reduce((sum, each) => sum + each[what], 0);
  const [edit] = edits;
  return (
    <Fold
      name={name}
      head={
        <>
          <span style={{ color: colour }} title={word}>
            <Icon size={14} aria-label={word} />
          </span>
          <span className={classes.tool}>{call.name}</span>
          {edit === undefined ? (
            <code className={classes.peek}>{gist(call).split("\n")[0]}</code>
          ) : (
            <span className={classes.peek}>
              <Path path={edit.path} />
            </span>
          )}
          {edit !== undefined && <Lines added={total("added")} removed={total("removed")} />}
          {call.exit_code !== null && (
            <span className={`${call.exit_code === 0 ? "dim" : "bad"} num`}>exit {call.exit_code}</span>
          )}
        </>
      }
    >
      <div className={classes.call}>
        {edit !== undefined ? (
          <Suspense fallback={<div className={classes.edit} aria-busy="true" />}>
            <Edits edits={edits} />
          </Suspense>
        ) : command !== null ? (
          <Block label="Command" text={`$ ${command}`} />
        ) : (
          <Block label="Input" text={pretty(call)} />
        )}
        {call.output !== "" && (edit === undefined || !("patch" in edit)) && (
          <Block
            label={`Output${call.exit_code === null ? "" : `, exit code ${call.exit_code}`}`}
            text={call.output}
            end
          />
        )}
        {call.output === "" && call.status === "running" && <p className="dim">Nothing came out of it yet.</p>}
      </div>
    </Fold>
  );
}

/** Text as it is; of very much text the beginning, or the end. */
function Block({ label, text, end = false }: { label: string; text: string; end?: boolean }) {
  const left = text.length - SHOWN_CHARACTERS;
  const shown = left <= 0 ? text : end ? text.slice(left) : text.slice(0, SHOWN_CHARACTERS);
  return (
    <>
      <div className={classes.label}>
        {label}
        {left > 0 &&
          ` · the ${end ? "last" : "first"} ${SHOWN_CHARACTERS.toLocaleString("en")} of ${text.length.toLocaleString("en")} characters`}
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard */}
      <pre tabIndex={0}>{shown}</pre>
    </>
  );
}
