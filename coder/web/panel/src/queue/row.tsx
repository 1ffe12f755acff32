/** One task of the queue: what it is about, why it waits, and what can be done with it. */
import { ActionIcon, Button } from "@mantine/core";
import { ChevronDownIcon, ChevronUpIcon, ListOrderedIcon } from "@primer/octicons-react";
import { Link } from "@tanstack/react-router";
import type { Task } from "../api/client";
import rows from "../ui/list.module.css";
import { Age, Hint, State } from "../ui/parts";
import classes from "./queue.module.css";
import type { TaskFilter } from "./tasks";

export type Act = "cancel" | "retry" | "sooner" | "later" | "order";

const ENDED = ["interrupted", "failed", "cancelled"];
const WAITS: Record<string, string> = {
  run_at: "for its time",
  decision: "for a decision",
  host: "for its host",
  session: "behind another task",
  dispatcher: "for a free slot",
  permission: "for a permission",
  question: "for an answer",
  provider: "for the provider",
};

interface TaskRowProps {
  task: Task;
  act(what: Act): void;
  look(change: TaskFilter): void;
}

export function TaskRow({ task, act, look }: TaskRowProps) {
  return (
    <>
      <State is={task.state === "pending" ? "waiting" : task.state} />
      <div className={rows.what}>
        <Link className={rows.title} to="/sessions/$id" params={{ id: task.session_id }}>
          {task.input.split("\n")[0]}
        </Link>
        <span className={`${rows.about} ${classes.about}`}>
          <span className="num">{task.id}</span>
          <span>{task.project}</span>
          <span>{task.agent_used ?? task.agent ?? "native"}</span>
          {task.priority !== 0 && (
            <span className={`${classes.priority} num`}>
              priority {task.priority > 0 ? `+${task.priority}` : `−${-task.priority}`}
            </span>
          )}
          {task.waiting_for !== null && task.waiting_for !== undefined && (
            <span>waits {WAITS[task.waiting_for] ?? task.waiting_for}</span>
          )}
          {task.cost_tokens > 0 && <span className="num">{task.cost_tokens.toLocaleString("en")} tokens</span>}
          {task.labels.map((label) => (
            <button
              key={label}
              type="button"
              className={`${rows.code} ${classes.label}`}
              title={`Only tasks with the label ${label}`}
              onClick={() => look({ label })}
            >
              {label}
            </button>
          ))}
          <Age of={task.ended_at ?? task.claimed_at ?? task.created_at} />
          {task.error !== null && (
            <span className="bad" title={task.error}>
              {task.error}
            </span>
          )}
        </span>
      </div>
      <div className={rows.actions}>
        {task.change_id !== null && task.change_id !== undefined && (
          <Button
            component={Link}
            to="/changes/$id"
            params={{ id: task.change_id } as never}
            size="compact-xs"
            variant="default"
          >
            Change
          </Button>
        )}
        {task.state === "pending" && <Place task={task} act={act} />}
        {(task.state === "pending" || task.state === "running") && (
          <Hint does="Cancel" keys="x">
            <Button size="compact-xs" variant="default" onClick={() => act("cancel")}>
              Cancel
            </Button>
          </Hint>
        )}
        {ENDED.includes(task.state) && task.retried_by === null && (
          <Hint does="Run it again" keys="r">
            <Button size="compact-xs" variant="default" onClick={() => act("retry")}>
              Retry
            </Button>
          </Hint>
        )}
      </div>
    </>
  );
}

function Place({ task, act }: { task: Task; act(what: Act): void }) {
  return (
    <ActionIcon.Group>
      <Hint does="Sooner: a higher priority" keys="+">
        <ActionIcon
          variant="default"
          size={22}
          aria-label={`Let task ${task.id} run sooner`}
          onClick={() => act("sooner")}
        >
          <ChevronUpIcon size={14} />
        </ActionIcon>
      </Hint>
      <Hint does="Later: a lower priority" keys="-">
        <ActionIcon
          variant="default"
          size={22}
          aria-label={`Let task ${task.id} run later`}
          onClick={() => act("later")}
        >
          <ChevronDownIcon size={14} />
        </ActionIcon>
      </Hint>
      <Hint does="Order what waits in its session" keys="o">
        <ActionIcon
          variant="default"
          size={22}
          aria-label={`Order what waits in the session of task ${task.id}`}
          onClick={() => act("order")}
        >
          <ListOrderedIcon size={14} />
        </ActionIcon>
      </Hint>
    </ActionIcon.Group>
  );
}
