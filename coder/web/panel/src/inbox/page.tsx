/** The inbox: what needs a person, with one action each. */
import { Button } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { type Permission, POST, type Task, told } from "../api/client";
import { projects } from "../api/queries";
import { complain, say } from "../app/said";
import { Command } from "../ui/command";
import rows from "../ui/list.module.css";
import { Age, Empty, Failed, Hint, Lines, plural, State } from "../ui/parts";
import { useSelection } from "../ui/selection";
import { type Item, useInbox } from "./items";

export const route = createLazyRoute("/")({ component: InboxPage });

const OF_KIND = { permission: "asks", conflict: "conflicted", change: "pending", task: "interrupted" } as const;
const WORD = { permission: "asks you", conflict: "conflict", change: "to review", task: "interrupted" } as const;

function useAct() {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: ({ run }: { run: () => Promise<unknown>; done: string }) => run(),
    onSuccess: (_, { done }) => say(done),
    onError: complain,
    onSettled: () => cache.invalidateQueries(),
  });
}

const allow = (permission: Permission) => ({
  run: () =>
    told(
      POST("/api/v1/permissions/{permission_id}/allow", {
        params: { path: { permission_id: permission.id } },
        body: { scope: "once" },
      }),
    ),
  done: `Allowed once: ${permission.title}`,
});
const deny = (permission: Permission) => ({
  run: () =>
    told(
      POST("/api/v1/permissions/{permission_id}/deny", {
        params: { path: { permission_id: permission.id } },
        body: {},
      }),
    ),
  done: `Denied: ${permission.title}`,
});
const resume = (task: Task) => ({
  run: () => told(POST("/api/v1/tasks/{task}/resume", { params: { path: { task: task.id } } })),
  done: `Task ${task.id} goes on as a new task.`,
});
const dismiss = (task: Task) => ({
  run: () => told(POST("/api/v1/tasks/{task}/dismiss", { params: { path: { task: task.id } } })),
  done: `Task ${task.id} is dismissed; its session goes on.`,
});

function InboxPage() {
  const { items, loaded, error } = useInbox();
  const navigate = useNavigate();
  const act = useAct();
  const open = (item: Item) => {
    if ("change" in item) void navigate({ to: "/changes/$id", params: { id: item.change.id } });
    else
      void navigate({
        to: "/sessions/$id",
        params: { id: item.kind === "permission" ? item.permission.session_id : item.task.session_id },
      });
  };
  const { current, select } = useSelection(items, (item) => [
    { key: "Enter", does: "Open", run: () => item && open(item) },
    {
      key: "a",
      does: "Allow once, resume, or review",
      run: () => {
        if (item?.kind === "permission" && item.permission.kind === "permission") act.mutate(allow(item.permission));
        else if (item?.kind === "task") act.mutate(resume(item.task));
        else if (item) open(item);
      },
    },
    {
      key: "d",
      does: "Deny, or dismiss",
      run: () => {
        if (item?.kind === "permission") act.mutate(deny(item.permission));
        else if (item?.kind === "task") act.mutate(dismiss(item.task));
      },
    },
  ]);
  return (
    <>
      <header className={rows.head}>
        <h1>Inbox</h1>
        <span className="dim">{loaded && items.length > 0 ? `${plural(items.length, "thing")} for you` : ""}</span>
      </header>
      {error !== null && !loaded && <Failed error={error} />}
      {loaded && items.length === 0 && <Nothing />}
      <ul className={rows.list}>
        {items.map((item) => (
          <Row
            key={item.id}
            item={item}
            current={item.id === current?.id}
            select={() => select(item.id)}
            act={(what) => act.mutate(what)}
            busy={act.isPending}
          />
        ))}
      </ul>
    </>
  );
}

function Nothing() {
  const { data } = useQuery(projects);
  if (data !== undefined && data.items.length === 0)
    return (
      <Empty title="Begin with a project">
        <p>Name a git repository that has a commit, then queue a task for it.</p>
        <Command text="bin/coder project add demo /path/to/repository" />
        <Command text={'bin/coder task add demo "Add a test for the parser"'} />
      </Empty>
    );
  const name = data?.items[0]?.name ?? "demo";
  return (
    <Empty title="Nothing needs you">
      <p>Changes to review, questions of agents and interrupted tasks show up here.</p>
      <Command text={`bin/coder task add ${name} "Add a test for the parser"`} />
    </Empty>
  );
}

interface RowProps {
  item: Item;
  current: boolean;
  select(): void;
  act(what: { run: () => Promise<unknown>; done: string }): void;
  busy: boolean;
}

function Row({ item, current, select, act, busy }: RowProps) {
  return (
    <li className={`${rows.row} fade`} data-current={current || undefined} data-row={item.id} onMouseDown={select}>
      <State
        is={OF_KIND[item.kind]}
        word={item.kind === "permission" && item.permission.kind === "question" ? "asks you" : WORD[item.kind]}
      />
      <div className={rows.what}>
        {"change" in item ? (
          <>
            <Link className={rows.title} to="/changes/$id" params={{ id: item.change.id }}>
              {item.change.title}
            </Link>
            <span className={rows.about}>
              <span>{item.change.project}</span>
              <span>{item.change.agent}</span>
              <span>{plural(item.change.file_count, "file")}</span>
              <Lines added={item.change.additions} removed={item.change.deletions} />
              {item.change.turn_outcome !== "completed" && (
                <span className="warn">the turn was {item.change.turn_outcome}</span>
              )}
              <Age of={item.at} />
            </span>
          </>
        ) : item.kind === "permission" ? (
          <>
            <Link className={rows.title} to="/sessions/$id" params={{ id: item.permission.session_id }}>
              {item.permission.kind === "permission" ? <code>{item.permission.title}</code> : item.permission.title}
            </Link>
            <span className={rows.about}>
              <span>{item.permission.project}</span>
              <span>
                {item.permission.agent}
                {item.permission.tool !== null && ` wants to use ${item.permission.tool}`}
              </span>
              <Age of={item.at} />
              <span>
                denied <Age of={item.permission.deadline} /> without an answer
              </span>
            </span>
          </>
        ) : (
          <>
            <Link className={rows.title} to="/sessions/$id" params={{ id: item.task.session_id }}>
              {item.task.input.split("\n")[0]}
            </Link>
            <span className={rows.about}>
              <span>{item.task.project}</span>
              <span>task {item.task.id}</span>
              {item.task.error !== null && <span>{item.task.error}</span>}
              <Age of={item.at} />
            </span>
          </>
        )}
      </div>
      <div className={rows.actions}>
        {"change" in item ? (
          <Button
            component={Link}
            to="/changes/$id"
            params={{ id: item.change.id } as never}
            size="xs"
            variant={current ? "filled" : "default"}
          >
            Review
          </Button>
        ) : item.kind === "permission" ? (
          item.permission.kind === "permission" ? (
            <>
              <Hint does="Deny" keys="d">
                <Button size="xs" variant="default" disabled={busy} onClick={() => act(deny(item.permission))}>
                  Deny
                </Button>
              </Hint>
              <Hint does="Allow this once" keys="a">
                <Button
                  size="xs"
                  variant={current ? "filled" : "default"}
                  disabled={busy}
                  onClick={() => act(allow(item.permission))}
                >
                  Allow once
                </Button>
              </Hint>
            </>
          ) : (
            <Button
              component={Link}
              to="/sessions/$id"
              params={{ id: item.permission.session_id } as never}
              size="xs"
              variant="default"
            >
              Answer
            </Button>
          )
        ) : (
          <>
            <Hint does="Let the session go on without it" keys="d">
              <Button size="xs" variant="default" disabled={busy} onClick={() => act(dismiss(item.task))}>
                Dismiss
              </Button>
            </Hint>
            <Hint does="Let the agent go on where it was" keys="a">
              <Button
                size="xs"
                variant={current ? "filled" : "default"}
                disabled={busy}
                onClick={() => act(resume(item.task))}
              >
                Resume
              </Button>
            </Hint>
          </>
        )}
      </div>
    </li>
  );
}
