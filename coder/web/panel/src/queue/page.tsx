/** The queue: what is going on? Tasks by state, newest first, drawn only where one looks. */
import { ActionIcon, Button, Select } from "@mantine/core";
import { GraphIcon, PlusIcon, XIcon } from "@primer/octicons-react";
import { useMutation, useQuery } from "@tanstack/react-query";
import { createLazyRoute, useNavigate } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { POST, PUT, type Task, told } from "../api/client";
import { agents, projects, status } from "../api/queries";
import { complain, say } from "../app/said";
import { useStored } from "../review/marks";
import rows from "../ui/list.module.css";
import { Next } from "../ui/next";
import { Failed, Hint, Key, plural } from "../ui/parts";
import { useSelection } from "../ui/selection";
import { Waiting } from "../ui/waiting";
import { Compose } from "./compose";
import { Order } from "./order";
import classes from "./queue.module.css";
import { type Act, TaskRow } from "./row";
import { type TaskFilter, useTasks } from "./tasks";

export const route = createLazyRoute("/queue")({ component: QueuePage });

const Plots = lazy(() => import("./plots"));
const STATES = [undefined, "pending", "running", "interrupted", "failed", "completed", "cancelled"] as const;
const ROW = 52;
const [LOWEST, HIGHEST] = [-32_768, 32_767];

function QueuePage() {
  const filter = route.useSearch() as TaskFilter;
  // Another filter is another list, read and scrolled from its top.
  return <Tasks key={JSON.stringify(filter)} filter={filter} />;
}

function useAct(put: (task: Task) => void) {
  // The priority that was asked for last; keys may be quicker than answers.
  const wanted = useRef(new Map<number, number>());
  const act = useMutation({
    scope: { id: "queue" }, // one after the other, so that the last one counts
    mutationFn: ({ what, task }: { what: "cancel" | "retry" | number; task: Task }) => {
      const path = { params: { path: { task: task.id } } };
      if (typeof what === "number")
        return told(PUT("/api/v1/tasks/{task}/priority", { ...path, body: { priority: what } }));
      return what === "cancel"
        ? told(POST("/api/v1/tasks/{task}/cancel", path))
        : told(POST("/api/v1/tasks/{task}/retry", path));
    },
    onSuccess: (after, { what, task }) => {
      if (typeof what === "number" && wanted.current.get(task.id) !== what) return;
      wanted.current.delete(task.id);
      if (after.id === task.id) put(after);
      if (typeof what === "number") say(`Task ${task.id} has priority ${after.priority}.`);
      else if (what === "retry") say(`Task ${task.id} runs again as task ${after.id}.`);
      else say(after.state === "cancelled" ? `Task ${task.id} is cancelled.` : `Task ${task.id} is being stopped.`);
    },
    onError: (error, { task }) => {
      wanted.current.delete(task.id);
      put(task);
      complain(error);
    },
  });
  const rank = (task: Task, by: 1 | -1) => {
    if (task.state !== "pending")
      return complain(`Task ${task.id} is ${task.state}; only one that waits has a priority.`);
    const next = (wanted.current.get(task.id) ?? task.priority) + by;
    if (next < LOWEST || next > HIGHEST) return;
    wanted.current.set(task.id, next);
    put({ ...task, priority: next });
    act.mutate({ what: next, task });
  };
  return { end: (what: "cancel" | "retry", task: Task) => act.mutate({ what, task }), rank };
}

function Tasks({ filter }: { filter: TaskFilter }) {
  const navigate = useNavigate();
  const { data: counts } = useQuery(status);
  const { data: listed } = useQuery(projects);
  const [composing, setComposing] = useState(false);
  const [ordering, setOrdering] = useState<string>();
  const [drawn, setDrawn] = useStored("plots");
  // On a phone they are in the way until one wants them.
  const plots = drawn === "on" || (drawn === null && window.matchMedia("(min-width: 721px)").matches);
  const flip = () => setDrawn(plots ? "off" : "on");
  const [top, setTop] = useState(true);
  const [chosen, setChosen] = useState(false);
  const scroll = useRef<HTMLDivElement>(null);
  const seen = useRef<readonly number[]>([]);
  const { items, waiting, loaded, error, reload, more, put } = useTasks(filter, () => seen.current, top && !chosen);
  const list = useVirtualizer({
    count: items.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => ROW,
    overscan: 8,
    getItemKey: (at) => items[at]?.id ?? at,
  });
  const shown = list.getVirtualItems();
  seen.current = shown.flatMap((row) => items[row.index]?.id ?? []);
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (last >= items.length - 30) more();
  });
  const act = useAct(put);
  const does = (task: Task | undefined, what: Act) => {
    if (task === undefined) return;
    if (what === "order") setOrdering(task.session_id);
    else if (what === "sooner" || what === "later") act.rank(task, what === "sooner" ? 1 : -1);
    else act.end(what, task);
  };
  const { current, select, at } = useSelection(items, (item) => [
    {
      key: "Enter",
      does: "Open",
      run: () => item && void navigate({ to: "/sessions/$id", params: { id: item.session_id } }),
    },
    { key: "c", does: "Queue a task", run: () => setComposing(true) },
    { key: "x", does: "Cancel the task", run: () => does(item, "cancel") },
    { key: "r", does: "Run it again", run: () => does(item, "retry") },
    { key: "+", does: "Let it run sooner: a higher priority", run: () => does(item, "sooner") },
    { key: "-", does: "Let it run later: a lower priority", run: () => does(item, "later") },
    { key: "o", does: "Order what waits in its session", run: () => does(item, "order") },
    { key: "g", does: "Show or hide what went on over time", run: flip },
    ...(waiting > 0 ? [{ key: ".", does: "Show the new ones", run: () => toNew() }] : []),
  ]);
  useEffect(() => setChosen(current !== undefined), [current]);
  useEffect(() => {
    if (at >= 0) list.scrollToIndex(at);
  }, [at, list]);
  const toNew = () => {
    reload();
    scroll.current?.scrollTo({ top: 0 });
  };
  const scrolled = () => setTop((scroll.current?.scrollTop ?? 0) < ROW / 2);
  const look = (change: TaskFilter) => {
    const next = Object.entries({ ...filter, ...change }).filter(([, value]) => value);
    void navigate({ to: "/queue", search: Object.fromEntries(next) });
  };
  const filtered = Object.keys(filter).length > 0;
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
              onClick={() => look({ state })}
            >
              {state === "pending" ? "waiting" : (state ?? "all")}
              {state === "pending" && counts !== undefined && <Count of={counts.pending_tasks} />}
              {state === "running" && counts !== undefined && <Count of={counts.running_tasks} />}
            </button>
          ))}
        </nav>
        <span className={classes.push}>
          <Hint does={plots ? "Hide what went on over time" : "Show what went on over time"} keys="g">
            <ActionIcon variant="default" size={30} aria-label="Over time" aria-pressed={plots} onClick={flip}>
              <GraphIcon size={14} />
            </ActionIcon>
          </Hint>
          <Button
            size="xs"
            leftSection={<PlusIcon size={14} />}
            rightSection={<Key of="c" onAccent />}
            onClick={() => setComposing(true)}
          >
            Queue a task
          </Button>
        </span>
        <Filters filter={filter} look={look} projects={(listed?.items ?? []).map((each) => each.name)} />
      </header>
      <div className={classes.over}>
        {plots && !(loaded && items.length === 0 && !filtered) && (
          <Suspense fallback={<div className={classes.room} />}>
            <Plots project={filter.project} />
          </Suspense>
        )}
      </div>
      {waiting > 0 && (
        <button type="button" className={`${rows.pill} ${classes.fresh}`} onClick={toNew}>
          {waiting >= 100 ? "100 or more" : waiting} new <Key of="." onAccent />
        </button>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard */}
      <section ref={scroll} className={classes.scroll} aria-label="Tasks" tabIndex={0} onScroll={scrolled}>
        {error !== null && <Failed error={error} retry={reload} />}
        {!loaded && error === null && <Waiting />}
        {loaded && items.length === 0 && (
          <Next title={filtered ? "No task is like that" : "The queue is empty"} project={filter.project}>
            <p>Queue one here, from the command line, or with an INSERT.</p>
            {filtered && (
              <Button size="xs" variant="default" onClick={() => void navigate({ to: "/queue", search: {} })}>
                Show all tasks
              </Button>
            )}
          </Next>
        )}
        <ul
          className={rows.list}
          style={{ position: "relative", height: list.getTotalSize() }}
          aria-label={plural(items.length, "task")}
        >
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
                <TaskRow task={item} act={(what) => does(item, what)} look={look} />
              </li>
            );
          })}
        </ul>
      </section>
      <Compose opened={composing} close={() => setComposing(false)} project={filter.project} />
      <Order session={ordering} close={() => setOrdering(undefined)} />
    </div>
  );
}

interface FiltersProps {
  filter: TaskFilter;
  look(change: TaskFilter): void;
  projects: readonly string[];
}

function Filters({ filter, look, projects }: FiltersProps) {
  const { data: known } = useQuery(agents);
  const names = [...new Set(["native", ...(known?.items ?? []).map((each) => each.agent)])];
  const only = (["label", "session"] as const).filter((name) => filter[name] !== undefined);
  return (
    <span className={classes.filters}>
      <Select
        size="xs"
        w={136}
        aria-label="Project"
        placeholder="All projects"
        clearable
        searchable
        value={filter.project ?? null}
        onChange={(project) => look({ project: project ?? undefined })}
        data={[...new Set([...projects, ...(filter.project ? [filter.project] : [])])]}
      />
      <Select
        size="xs"
        w={128}
        aria-label="Agent"
        placeholder="All agents"
        clearable
        searchable
        value={filter.agent ?? null}
        onChange={(agent) => look({ agent: agent ?? undefined })}
        data={[...new Set([...names, ...(filter.agent ? [filter.agent] : [])])]}
      />
      {only.map((name) => (
        <button
          key={name}
          type="button"
          className={classes.only}
          aria-label={`No longer only of ${name} ${filter[name]}`}
          onClick={() => look({ [name]: undefined })}
        >
          <span>{name === "session" ? `session ${filter.session?.slice(0, 8)}` : filter[name]}</span>
          <XIcon size={12} />
        </button>
      ))}
    </span>
  );
}

function Count({ of }: { of: number }) {
  return of > 0 ? <span className={`${classes.count} num`}>{of.toLocaleString("en")}</span> : null;
}
