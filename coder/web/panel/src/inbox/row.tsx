/** One thing of the inbox: what it is, whose, since when, and its action. */
import { Button } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import type { Permission } from "../api/client";
import { Answer } from "../ui/answer";
import rows from "../ui/list.module.css";
import { Age, Hint, Lines, plural, State } from "../ui/parts";
import { type Done, done, primary } from "./acts";
import type { Item } from "./items";

const LOOKS = {
  permission: ["asks", "asks you"],
  conflict: ["conflicted", "conflict"],
  change: ["pending", "to review"],
  task: ["interrupted", "interrupted"],
  check: ["failed", "check failed"],
} as const;

interface RowProps {
  item: Item;
  current: boolean;
  select(): void;
  act(what: Done): void;
  busy: boolean;
  answering: boolean;
  answer(is: boolean): void;
}

export function Row({ item, current, select, act, busy, answering, answer }: RowProps) {
  const [is, word] = LOOKS[item.kind];
  return (
    <li className={`${rows.row} fade`} data-current={current || undefined} data-row={item.id} onMouseDown={select}>
      <State is={is} word={word} />
      <div className={rows.what}>
        <Title item={item} />
        <span className={rows.about}>
          <About item={item} />
          <span title="Who asked for the work">for {item.owner}</span>
          <Age of={item.at} />
          {item.kind === "permission" && (
            <span>
              {item.permission.kind === "question" ? "goes on" : "denied"} <Age of={item.permission.deadline} /> without
              an answer
            </span>
          )}
        </span>
      </div>
      <div className={rows.actions}>
        <Actions item={item} current={current} act={act} busy={busy} answer={() => answer(!answering)} />
      </div>
      {answering && item.kind === "permission" && <Answer {...item.permission} className={rows.below} />}
    </li>
  );
}

function Title({ item }: { item: Item }) {
  if ("change" in item)
    return (
      <Link className={rows.title} to="/changes/$id" params={{ id: item.change.id }}>
        {item.change.title}
      </Link>
    );
  const session = item.kind === "permission" ? item.permission.session_id : item.task.session_id;
  return (
    <Link className={rows.title} to="/sessions/$id" params={{ id: session }}>
      {item.kind === "task" ? item.task.input.split("\n")[0] : <Asked permission={item.permission} />}
    </Link>
  );
}

function Asked({ permission }: { permission: Permission }) {
  return permission.kind === "permission" ? <code>{permission.title}</code> : permission.title;
}

function About({ item }: { item: Item }) {
  if ("change" in item)
    return (
      <>
        <span>{item.change.project}</span>
        <span>{item.change.agent}</span>
        <span>{plural(item.change.file_count, "file")}</span>
        <Lines added={item.change.additions} removed={item.change.deletions} />
        {item.change.turn_outcome !== "completed" && (
          <span className="warn">the turn was {item.change.turn_outcome}</span>
        )}
      </>
    );
  if (item.kind === "permission")
    return (
      <>
        <span>{item.permission.project}</span>
        <span>
          {item.permission.agent}
          {item.permission.tool !== null && ` wants to use ${item.permission.tool}`}
        </span>
      </>
    );
  return (
    <>
      <span>{item.task.project}</span>
      <span>{item.task.agent_used ?? item.task.agent ?? "native"}</span>
      <span className="num">task {item.task.id}</span>
      {item.task.error !== null && <span>{item.task.error}</span>}
    </>
  );
}

interface ActionsProps {
  item: Item;
  current: boolean;
  act(what: Done): void;
  busy: boolean;
  answer(): void;
}

const WORDS = {
  permission: { first: "Allow once", allowed: "Allow this once", last: "Deny", denied: "Deny" },
  task: {
    first: "Resume",
    allowed: "Let the agent go on where it was",
    last: "Dismiss",
    denied: "Let the session go on without it",
  },
} as const;

function Actions({ item, current, act, busy, answer }: ActionsProps) {
  const variant = current ? "filled" : "default";
  const [first, last] = [primary(item), done(item)];
  if ("change" in item)
    return (
      <>
        {last !== null && (
          <Hint does="Check it once more" keys="e">
            <Button size="xs" variant="default" disabled={busy} onClick={() => act(last)}>
              Check again
            </Button>
          </Hint>
        )}
        <Hint does={item.kind === "check" ? "See what the check says" : "Review"} keys="a">
          <Button
            component={Link}
            to="/changes/$id"
            params={{ id: item.change.id } as never}
            size="xs"
            variant={variant}
          >
            Review
          </Button>
        </Hint>
      </>
    );
  const words = WORDS[item.kind];
  const question = item.kind === "permission" && item.permission.kind === "question";
  return (
    <>
      {last !== null && (
        <Hint does={question ? "Let it go on without an answer" : words.denied} keys="e">
          <Button size="xs" variant="default" disabled={busy} onClick={() => act(last)}>
            {question ? "No answer" : words.last}
          </Button>
        </Hint>
      )}
      <Hint does={question ? "Answer here" : words.allowed} keys="a">
        <Button size="xs" variant={variant} disabled={busy} onClick={() => (first === null ? answer() : act(first))}>
          {question ? "Answer" : words.first}
        </Button>
      </Hint>
    </>
  );
}
