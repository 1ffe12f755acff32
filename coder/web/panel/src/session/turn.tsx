/** One turn: what was asked, what the agent thought, did and said, and what it waits for; or all of that in one line. */
import { Button } from "@mantine/core";
import { CheckIcon, ChevronRightIcon, DotFillIcon, DotIcon, InfoIcon, PersonIcon } from "@primer/octicons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { memo } from "react";
import { type ListedChange, POST, told } from "../api/client";
import { complain, say } from "../app/said";
import type { Part } from "../live/transcript";
import type { PlanEntry, ProviderRetry } from "../live/wire";
import { Age, Lines, State, useNow } from "../ui/parts";
import { Asked } from "./asked";
import { useOpen } from "./folds";
import { Growing, Markdown } from "./markdown";
import classes from "./session.module.css";
import { Fold, Tool } from "./tool";
import { firstLine, type ShownTurn, took } from "./turns";

interface TurnProps {
  /** The group it is folded with. */
  group: string;
  turn: ShownTurn;
  /** What it left to decide on. */
  change: ListedChange | undefined;
  /** It is the last one, so that it can be tried again; `held`: its session waits until somebody says what becomes of it. */
  last: "held" | boolean;
}

export const TurnView = memo(function TurnView({ group, turn, change, last }: TurnProps) {
  const name = `${group}/${turn.key}`;
  const [open, setOpen] = useOpen(name, true);
  const state = turn.state === "complete" ? "completed" : turn.state;
  const facts = (
    <>
      {turn.tokens !== null && turn.tokens > 0 && (
        <span className="num">{turn.tokens.toLocaleString("en")} tokens</span>
      )}
      {turn.endedAt !== null && turn.prompt !== null && <span className="num">{took(turn.at, turn.endedAt)}</span>}
    </>
  );
  if (!open) {
    const said = turn.parts.findLast((each) => each.kind === "text");
    return (
      <article className={classes.folded} aria-label={`Turn of task ${turn.taskId}`}>
        <button type="button" className={classes.line} aria-expanded={false} onClick={() => setOpen(true)}>
          <ChevronRightIcon size={14} className={classes.turnable} />
          <State is={state} />
          <span className={classes.asked}>{firstLine(turn.prompt ?? "")}</span>
          <span className={classes.peek}>{turn.error ?? firstLine(said?.kind === "text" ? said.text : "")}</span>
          <span className={classes.figures}>
            {facts}
            {change !== undefined && <Lines added={change.additions} removed={change.deletions} />}
          </span>
        </button>
      </article>
    );
  }
  return (
    <article className={classes.turn} aria-label={`Turn of task ${turn.taskId}`}>
      <div className={classes.prompt}>
        <button
          type="button"
          className={classes.folder}
          aria-expanded
          aria-label="Fold this turn"
          onClick={() => setOpen(false)}
        >
          <ChevronRightIcon size={14} className={classes.turnable} />
          <PersonIcon size={16} />
        </button>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard */}
        <div tabIndex={0}>{turn.prompt ?? "…"}</div>
      </div>
      <div className={classes.answer}>
        {turn.parts.map((part) => (
          <PartView
            key={part.part}
            name={`in-${name}/${part.part}`}
            part={part}
            running={turn.state === "running" && part === turn.parts.at(-1)}
          />
        ))}
        {turn.plan.length > 0 && <Plan entries={turn.plan} />}
        {turn.permissions.map((each) => (
          <Asked key={each.permission_id} frame={each} />
        ))}
        {turn.retry !== null && <Retry taskId={turn.taskId} retry={turn.retry} />}
        {last === "held" && <Held taskId={turn.taskId} />}
        <div className={classes.foot}>
          <State is={state} />
          {turn.error !== null && <span className="bad">{turn.error}</span>}
          {turn.agent !== null && <span>{turn.agent}</span>}
          {turn.attempt > 1 && <span>attempt {turn.attempt}</span>}
          {facts}
          {turn.state === "running" ? <Elapsed since={turn.at} /> : <Age of={turn.endedAt ?? turn.at} />}
          {change !== undefined && (
            <Link to="/changes/$id" params={{ id: change.id }} search={{}}>
              <Lines added={change.additions} removed={change.deletions} /> · {change.state}
            </Link>
          )}
          {last === true && ["failed", "cancelled"].includes(turn.state) && <Again taskId={turn.taskId} />}
        </div>
      </div>
    </article>
  );
});

function Elapsed({ since }: { since: string }) {
  return <span className="num">{took(since, new Date(useNow()).toISOString())}</span>;
}

function PartView({ name, part, running }: { name: string; part: Part; running: boolean }) {
  if (part.kind === "text") return running ? <Growing text={part.text} /> : <Markdown text={part.text} />;
  if (part.kind === "notice")
    return (
      <p className={classes.notice}>
        <InfoIcon size={14} /> {part.text}
      </p>
    );
  if (part.kind === "tool") return <Tool name={name} call={part.call} />;
  return (
    <Fold
      name={name}
      head={
        <>
          <span className="dim">{running ? "Thinking…" : "Thought"}</span>
          <span className={classes.peek}>{part.text.trim().split("\n").at(-1)}</span>
        </>
      }
    >
      <div className={classes.thought}>{part.text}</div>
    </Fold>
  );
}

const STEPS = {
  completed: [CheckIcon, "done"],
  in_progress: [DotFillIcon, "in progress"],
  pending: [DotIcon, "to do"],
} as const;

function Plan({ entries }: { entries: readonly PlanEntry[] }) {
  return (
    <section className={classes.plan} aria-label="Plan">
      <strong className="num">
        Plan · {entries.filter((each) => each.status === "completed").length} of {entries.length} done
      </strong>
      <ul>
        {entries.map((each, at) => {
          const [Icon, word] = STEPS[each.status];
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: two steps may be called the same
            <li key={at} data-status={each.status}>
              <Icon size={14} aria-label={word} />
              <span>{each.text}</span>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

/** What may become of a task that has ended; the session's own page is where one sees it go on. */
function useTask(taskId: number) {
  const cache = useQueryClient();
  const { isPending, isSuccess, mutate } = useMutation({
    mutationFn: (what: "retry" | "resume" | "dismiss" | "retry-now") =>
      told(POST(`/api/v1/tasks/{task}/${what}`, { params: { path: { task: taskId } } })),
    onSuccess: (_, what) => {
      if (what === "dismiss") say(`Task ${taskId} is dismissed; its session goes on.`);
      void cache.invalidateQueries({ queryKey: ["session"] });
    },
    onError: complain,
  });
  return { busy: isPending || isSuccess, act: mutate };
}

function Again({ taskId }: { taskId: number }) {
  const { busy, act } = useTask(taskId);
  return (
    <Button size="compact-xs" variant="default" disabled={busy} onClick={() => act("retry")}>
      Try again
    </Button>
  );
}

function Held({ taskId }: { taskId: number }) {
  const { busy, act } = useTask(taskId);
  return (
    <section className={classes.card} aria-label="The session waits for a decision">
      <div>
        <strong>This turn was interrupted.</strong> The session waits until you say what becomes of it.
      </div>
      <div className={classes.answers}>
        <Button size="xs" disabled={busy} onClick={() => act("resume")}>
          Go on
        </Button>
        <Button size="xs" variant="default" disabled={busy} onClick={() => act("retry")}>
          From the beginning
        </Button>
        <Button size="xs" variant="default" disabled={busy} onClick={() => act("dismiss")}>
          Leave it
        </Button>
      </div>
    </section>
  );
}

function Retry({ taskId, retry }: { taskId: number; retry: ProviderRetry }) {
  const { busy, act } = useTask(taskId);
  const now = useNow();
  return (
    <section className={classes.card} aria-label="The provider failed">
      <div>
        <strong>The model's provider failed{retry.code !== null && ` (${retry.code})`}.</strong> {retry.message}
        <div className="dim num" role="timer">
          Try {retry.attempt + 2}{" "}
          {Date.parse(retry.retry_at) > now ? `in ${took(new Date(now).toISOString(), retry.retry_at)}` : "now"}
        </div>
      </div>
      <Button size="xs" variant="default" disabled={busy} onClick={() => act("retry-now")}>
        Try now
      </Button>
    </section>
  );
}
