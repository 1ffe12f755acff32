/** All sessions, last active first. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { sessions } from "../api/queries";
import classes from "../ui/list.module.css";
import { Next } from "../ui/next";
import { Age, plural, State } from "../ui/parts";
import { Rows, Tabs, useListed } from "../ui/rows";

export const route = createLazyRoute("/sessions")({ component: SessionsPage });

const FILTERS = [
  [undefined, "All"],
  ["active", "Active"],
  ["idle", "Idle"],
  ["closed", "Closed"],
] as const;

function SessionsPage() {
  const { status } = route.useSearch() as { status?: string };
  const navigate = useNavigate();
  const listed = useListed(useInfiniteQuery(sessions({ status })), "sessions");
  return (
    <Rows
      {...listed}
      title="Sessions"
      head={<Tabs label="Which sessions" to="/sessions" by="status" of={FILTERS} />}
      keys={(item) => [
        {
          key: "Enter",
          does: "Open",
          run: () => item && void navigate({ to: "/sessions/$id", params: { id: item.id } }),
        },
      ]}
      none={
        <Next title="No sessions here">
          <p>A task without a session opens one.</p>
        </Next>
      }
      row={(item) => (
        <>
          <State is={item.status} />
          <div className={classes.what}>
            <Link className={classes.title} to="/sessions/$id" params={{ id: item.id }}>
              {item.title || "A session without a title"}
            </Link>
            <span className={classes.about}>
              <span>{item.project}</span>
              {item.workspace_id !== "default" && <span>{item.workspace_id}</span>}
              {item.pending_tasks > 0 && <span className="num">{plural(item.pending_tasks, "task")} waiting</span>}
              {item.open_change_id != null && <span className="warn">a change to review</span>}
              {item.held_by != null && <span className="warn">held by task {item.held_by}</span>}
            </span>
          </div>
          <Age of={item.last_activity_at} />
        </>
      )}
    />
  );
}
