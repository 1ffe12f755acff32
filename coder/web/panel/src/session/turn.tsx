/** One turn: what was asked, what the agent thought, did and said, and what it waits for. */
import { Button } from "@mantine/core";
import { CheckIcon, ChevronRightIcon, DotFillIcon, DotIcon, InfoIcon, PersonIcon, XIcon } from "@primer/octicons-react";
import { memo } from "react";
import { POST, told } from "../api/client";
import { complain, say } from "../app/said";
import type { Part } from "../live/transcript";
import type { PlanEntry, ProviderRetry, ToolCall } from "../live/wire";
import { Age, State, useNow } from "../ui/parts";
import { Asked } from "./asked";
import { Markdown } from "./markdown";
import classes from "./session.module.css";
import type { ShownTurn } from "./turns";

const STATES: Record<string, string> = { complete: "completed" };

export const TurnView = memo(function TurnView({ turn }: { turn: ShownTurn }) {
  return (
    <article className={classes.turn} aria-label={`Turn of task ${turn.taskId}`}>
      {turn.prompt !== null && (
        <div className={classes.prompt}>
          <PersonIcon size={16} />
          <div>{turn.prompt}</div>
        </div>
      )}
      <div className={classes.answer}>
        {turn.parts.map((part) => (
          <PartView key={part.part} part={part} running={turn.state === "running" && part === turn.parts.at(-1)} />
        ))}
        {turn.plan.length > 0 && <Plan entries={turn.plan} />}
        {turn.permissions.map((each) => (
          <Asked key={each.permission_id} frame={each} />
        ))}
        {turn.retry !== null && <Retry taskId={turn.taskId} retry={turn.retry} />}
        <div className={classes.foot}>
          <State is={STATES[turn.state] ?? turn.state} />
          {turn.error !== null && <span className="bad">{turn.error}</span>}
          {turn.agent !== null && <span>{turn.agent}</span>}
          {turn.attempt > 1 && <span>attempt {turn.attempt}</span>}
          {turn.usage !== null && (
            <span className="num">
              {(turn.usage.input_tokens + turn.usage.output_tokens).toLocaleString("en")} tokens
            </span>
          )}
          <Age of={turn.endedAt ?? turn.at} />
        </div>
      </div>
    </article>
  );
});

function PartView({ part, running }: { part: Part; running: boolean }) {
  if (part.kind === "text") return <Markdown text={part.text} />;
  if (part.kind === "notice")
    return (
      <p className={classes.notice}>
        <InfoIcon size={14} /> {part.text}
      </p>
    );
  if (part.kind === "tool") return <Tool call={part.call} />;
  return (
    <details className={classes.fold}>
      <summary>
        <ChevronRightIcon size={14} className={classes.turnable} />
        <span className="dim">{running ? "Thinking…" : "Thought"}</span>
        <span className={classes.peek}>{part.text.trim().split("\n").at(-1)}</span>
      </summary>
      <div className={classes.thought}>{part.text}</div>
    </details>
  );
}

const TOOL = {
  running: [DotFillIcon, "running", "var(--accent)"],
  completed: [CheckIcon, "completed", "var(--good)"],
  failed: [XIcon, "failed", "var(--bad)"],
} as const;

/** The one thing of a call's arguments that says what it is about. */
function gist(call: ToolCall): string {
  try {
    const input = JSON.parse(call.input) as unknown;
    if (typeof input === "string") return input;
    if (typeof input === "object" && input !== null) {
      const fields = input as Record<string, unknown>;
      const told = ["command", "path", "file_path", "filePath", "pattern", "url", "query"]
        .map((name) => fields[name])
        .find((each) => typeof each === "string");
      return String(told ?? Object.values(fields).find((each) => typeof each === "string") ?? "");
    }
  } catch {
    return call.input;
  }
  return "";
}

function Tool({ call }: { call: ToolCall }) {
  const [Icon, word, colour] = TOOL[call.status];
  return (
    <details className={classes.fold}>
      <summary>
        <ChevronRightIcon size={14} className={classes.turnable} />
        <span style={{ color: colour }} title={word}>
          <Icon size={14} aria-label={word} />
        </span>
        <span className={classes.tool}>{call.name}</span>
        <code className={classes.peek}>{gist(call).split("\n")[0]}</code>
        {call.exit_code !== null && call.exit_code !== 0 && <span className="bad num">exit {call.exit_code}</span>}
      </summary>
      <div className={classes.call}>
        <h4>Input</h4>
        <Block text={pretty(call.input)} />
        {call.output !== "" && (
          <>
            <h4>Output{call.exit_code !== null && ` · exit ${call.exit_code}`}</h4>
            <Block text={call.output} />
          </>
        )}
      </div>
    </details>
  );
}

function Block({ text }: { text: string }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard
    <pre tabIndex={0}>{text}</pre>
  );
}

function pretty(json: string): string {
  try {
    const value = JSON.parse(json) as unknown;
    if (typeof value === "string") return value;
    if (typeof value === "object" && value !== null && Object.keys(value).length === 1) {
      const only = Object.values(value)[0];
      if (typeof only === "string") return only;
    }
    return JSON.stringify(value, null, 2);
  } catch {
    return json;
  }
}

function Plan({ entries }: { entries: readonly PlanEntry[] }) {
  return (
    <ul className={classes.plan} aria-label="Plan">
      {entries.map((each) => (
        <li key={each.text} data-status={each.status}>
          {each.status === "completed" ? (
            <CheckIcon size={14} aria-label="done" />
          ) : each.status === "in_progress" ? (
            <DotFillIcon size={14} aria-label="in progress" />
          ) : (
            <DotIcon size={14} aria-label="to do" />
          )}
          {each.text}
        </li>
      ))}
    </ul>
  );
}

function Retry({ taskId, retry }: { taskId: number; retry: ProviderRetry }) {
  const left = Math.max(0, Math.ceil((Date.parse(retry.retry_at) - useNow()) / 1000));
  const now = () =>
    told(POST("/api/v1/tasks/{task}/retry-now", { params: { path: { task: taskId } } })).then(
      () => say("Asked again."),
      complain,
    );
  return (
    <div className={classes.card} role="status">
      <div>
        <strong>The model's provider failed{retry.code !== null && ` (${retry.code})`}.</strong> {retry.message}
        <div className="dim num">
          Try {retry.attempt + 2} {left > 0 ? `in ${left} s` : "now"}
        </div>
      </div>
      <Button size="xs" variant="default" onClick={now}>
        Try now
      </Button>
    </div>
  );
}
