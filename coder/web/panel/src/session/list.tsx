/** All sessions, last active first. */
import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { sessions } from "../api/queries";
import rows from "../ui/list.module.css";
import { Age, Empty, Failed, plural, State } from "../ui/parts";
import { useSelection } from "../ui/selection";

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
  const { data, error, hasNextPage, fetchNextPage, isFetchingNextPage, refetch } = useInfiniteQuery(
    sessions({ status }),
  );
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  const { current, select } = useSelection(items, (item) => [
    { key: "Enter", does: "Open", run: () => item && void navigate({ to: "/sessions/$id", params: { id: item.id } }) },
  ]);
  return (
    <>
      <header className={rows.head}>
        <h1>Sessions</h1>
        <nav className={rows.tabs} aria-label="Which sessions">
          {FILTERS.map(([value, word]) => (
            <Link
              key={word}
              className={rows.tab}
              to="/sessions"
              search={value ? { status: value } : {}}
              aria-current={value === status}
            >
              {word}
            </Link>
          ))}
        </nav>
      </header>
      {error !== null && data === undefined && <Failed error={error} retry={() => void refetch()} />}
      {data !== undefined && items.length === 0 && (
        <Empty title="No sessions here">
          <p>A task without a session opens one.</p>
        </Empty>
      )}
      <ul className={rows.list}>
        {items.map((item) => (
          <li
            key={item.id}
            className={rows.row}
            data-row={item.id}
            data-current={item.id === current?.id || undefined}
            onMouseDown={() => select(item.id)}
          >
            <State is={item.status} />
            <div className={rows.what}>
              <Link className={rows.title} to="/sessions/$id" params={{ id: item.id }}>
                {item.title || "A session without a title"}
              </Link>
              <span className={rows.about}>
                <span>{item.project}</span>
                {item.workspace_id !== "default" && <span>{item.workspace_id}</span>}
                {item.pending_tasks > 0 && <span className="num">{plural(item.pending_tasks, "task")} waiting</span>}
                {item.open_change_id !== null && item.open_change_id !== undefined && (
                  <span className="warn">a change to review</span>
                )}
                {item.held_by !== null && item.held_by !== undefined && (
                  <span className="warn">held by task {item.held_by}</span>
                )}
              </span>
            </div>
            <Age of={item.last_activity_at} />
          </li>
        ))}
      </ul>
      {hasNextPage && (
        <div className={rows.more}>
          <Button variant="default" loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>
            Older sessions
          </Button>
        </div>
      )}
    </>
  );
}
