/** The queue: what is going on? Tasks by state, newest first, drawn only where one looks. */
import { Button, Select } from "@mantine/core";
import { PlusIcon } from "@primer/octicons-react";
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, useState } from "react";
import { POST, type Task, told } from "../api/client";
import { projects, status, type TaskFilter, tasks } from "../api/queries";
import { complain, say } from "../app/said";
import { Command } from "../ui/command";
import rows from "../ui/list.module.css";
import { Age, Empty, Failed, Hint, Key, State } from "../ui/parts";
import { useSelection } from "../ui/selection";
import { Compose } from "./compose";
import classes from "./queue.module.css";

export const route = createLazyRoute("/queue")({ component: QueuePage });

const STATES = [undefined, "pending", "running", "interrupted", "failed", "completed", "cancelled"] as const;
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

function QueuePage() {
  const filter = route.useSearch() as TaskFilter;
  const navigate = useNavigate();
  const cache = useQueryClient();
  const { data, error, hasNextPage, fetchNextPage, isFetchingNextPage, refetch } = useInfiniteQuery(tasks(filter));
  const { data: counts } = useQuery(status);
  const { data: listed } = useQuery(projects);
  const [composing, setComposing] = useState(false);
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  const scroll = useRef<HTMLDivElement>(null);
  const list = useVirtualizer({
    count: items.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => 52,
    overscan: 12,
  });
  const shown = list.getVirtualItems();
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage && last >= items.length - 30) void fetchNextPage();
  }, [last, items.length, hasNextPage, isFetchingNextPage, fetchNextPage]);
  const act = useMutation({
    mutationFn: ({ what, task }: { what: "cancel" | "retry"; task: number }) =>
      what === "cancel"
        ? told(POST("/api/v1/tasks/{task}/cancel", { params: { path: { task } } }))
        : told(POST("/api/v1/tasks/{task}/retry", { params: { path: { task } } })),
    onSuccess: (after, { what, task }) =>
      say(what === "cancel" ? `Task ${task} is cancelled.` : `Task ${task} runs again as task ${after.id}.`),
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: ["tasks"] }),
  });
  const { current, select, at } = useSelection(items, (item) => [
    {
      key: "Enter",
      does: "Open",
      run: () => item && void navigate({ to: "/sessions/$id", params: { id: item.session_id } }),
    },
    { key: "c", does: "Queue a task", run: () => setComposing(true) },
    { key: "x", does: "Cancel the task", run: () => item && act.mutate({ what: "cancel", task: item.id }) },
    { key: "r", does: "Run it again", run: () => item && act.mutate({ what: "retry", task: item.id }) },
  ]);
  useEffect(() => {
    if (at >= 0) list.scrollToIndex(at);
  }, [at, list]);
  const put = (change: TaskFilter) => {
    const { state, project, label } = { ...filter, ...change };
    void navigate({
      to: "/queue",
      search: { ...(state && { state }), ...(project && { project }), ...(label && { label }) },
    });
  };
  return (
    <div className={classes.page}>
      <header className={rows.head}>
        <h1>Queue</h1>
        <nav className={rows.tabs} aria-label="Which tasks">
          {STATES.map((state) => (
            <button
              key={state ?? "all"}
              type="button"
              className={rows.tab}
              aria-pressed={filter.state === state}
              onClick={() => put({ state })}
            >
              {state ?? "all"}
              {state === "pending" && counts !== undefined && <Count of={counts.pending_tasks} />}
              {state === "running" && counts !== undefined && <Count of={counts.running_tasks} />}
            </button>
          ))}
        </nav>
        <Select
          size="xs"
          aria-label="Project"
          placeholder="All projects"
          clearable
          searchable
          value={filter.project ?? null}
          onChange={(project) => put({ project: project ?? undefined })}
          data={(listed?.items ?? []).map((each) => each.name)}
        />
        <Button
          className={classes.push}
          size="xs"
          leftSection={<PlusIcon size={14} />}
          rightSection={<Key of="c" onAccent />}
          onClick={() => setComposing(true)}
        >
          Queue a task
        </Button>
      </header>
      {error !== null && data === undefined && <Failed error={error} retry={() => void refetch()} />}
      {data !== undefined && items.length === 0 && (
        <Empty title={filter.state || filter.project ? "No task is like that" : "The queue is empty"}>
          <p>Queue one here, from the command line, or with an INSERT.</p>
          <Command text={`bin/coder task add ${listed?.items[0]?.name ?? "demo"} "Add a test for the parser"`} />
        </Empty>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard */}
      <section ref={scroll} className={classes.scroll} aria-label="Tasks" tabIndex={0}>
        <ul className={rows.list} style={{ position: "relative", height: list.getTotalSize() }}>
          {shown.map((row) => {
            const item = items[row.index];
            if (item === undefined) return null;
            return (
              <li
                key={item.id}
                ref={list.measureElement}
                data-index={row.index}
                data-row={item.id}
                data-current={item.id === current?.id || undefined}
                className={rows.row}
                style={{ position: "absolute", insetInline: 0, top: 0, transform: `translateY(${row.start}px)` }}
                onMouseDown={() => select(item.id)}
              >
                <TaskRow task={item} act={(what) => act.mutate({ what, task: item.id })} />
              </li>
            );
          })}
        </ul>
      </section>
      <Compose opened={composing} close={() => setComposing(false)} project={filter.project} />
    </div>
  );
}

function Count({ of }: { of: number }) {
  return of > 0 ? <span className={`${classes.count} num`}>{of.toLocaleString("en")}</span> : null;
}

function TaskRow({ task, act }: { task: Task; act: (what: "cancel" | "retry") => void }) {
  return (
    <>
      <State is={task.state} word={task.state === "pending" ? "waiting" : undefined} />
      <div className={rows.what}>
        <Link className={rows.title} to="/sessions/$id" params={{ id: task.session_id }}>
          {task.input.split("\n")[0]}
        </Link>
        <span className={rows.about}>
          <span className="num">{task.id}</span>
          <span>{task.project}</span>
          <span>{task.agent_used ?? task.agent ?? "native"}</span>
          {task.waiting_for !== null && task.waiting_for !== undefined && (
            <span>waits {WAITS[task.waiting_for] ?? task.waiting_for}</span>
          )}
          {task.error !== null && <span className="bad">{task.error}</span>}
          {task.cost_tokens > 0 && <span className="num">{task.cost_tokens.toLocaleString("en")} tokens</span>}
          {task.labels.map((label) => (
            <span key={label} className={rows.code}>
              {label}
            </span>
          ))}
          <Age of={task.ended_at ?? task.claimed_at ?? task.created_at} />
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
