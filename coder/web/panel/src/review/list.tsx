/** All changes, newest first. */
import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { changes } from "../api/queries";
import rows from "../ui/list.module.css";
import { Age, Empty, Failed, Lines, plural, State } from "../ui/parts";
import { useSelection } from "../ui/selection";

export const route = createLazyRoute("/changes")({ component: ChangesPage });

const FILTERS = [
  [undefined, "All"],
  ["pending,conflicted", "Open"],
  ["approved", "Approved"],
  ["rejected", "Rejected"],
  ["superseded", "Superseded"],
] as const;

function ChangesPage() {
  const { state } = route.useSearch() as { state?: string };
  const navigate = useNavigate();
  const { data, error, hasNextPage, fetchNextPage, isFetchingNextPage, refetch } = useInfiniteQuery(changes(state));
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  const { current, select } = useSelection(items, (item) => [
    { key: "Enter", does: "Open", run: () => item && void navigate({ to: "/changes/$id", params: { id: item.id } }) },
  ]);
  return (
    <>
      <header className={rows.head}>
        <h1>Changes</h1>
        <nav className={rows.tabs} aria-label="Which changes">
          {FILTERS.map(([value, word]) => (
            <Link
              key={word}
              className={rows.tab}
              to="/changes"
              search={value ? { state: value } : {}}
              aria-current={value === state}
            >
              {word}
            </Link>
          ))}
        </nav>
      </header>
      {error !== null && data === undefined && <Failed error={error} retry={() => void refetch()} />}
      {data !== undefined && items.length === 0 && (
        <Empty title="No changes here">
          <p>A turn that leaves a diff makes one.</p>
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
            <State is={item.state} />
            <div className={rows.what}>
              <Link className={rows.title} to="/changes/$id" params={{ id: item.id }}>
                {item.title}
              </Link>
              <span className={rows.about}>
                <span>{item.project}</span>
                <span>{item.agent}</span>
                <span>{plural(item.file_count, "file")}</span>
                <Lines added={item.additions} removed={item.deletions} />
              </span>
            </div>
            <Age of={item.decided_at ?? item.created_at} />
          </li>
        ))}
      </ul>
      {hasNextPage && (
        <div className={rows.more}>
          <Button variant="default" loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>
            Older changes
          </Button>
        </div>
      )}
    </>
  );
}
