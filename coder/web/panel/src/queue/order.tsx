/** What waits in one session, in the order in which it runs; moved by dragging, by the buttons, or with Alt and the arrows. */
import { ActionIcon, Button, Modal } from "@mantine/core";
import { ArrowDownIcon, ArrowUpIcon, GrabberIcon } from "@primer/octicons-react";
import { queryOptions, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type KeyboardEvent, useState } from "react";
import { GET, POST, type Schemas, told } from "../api/client";
import { SOON } from "../api/queries";
import { complain, say } from "../app/said";
import rows from "../ui/list.module.css";
import { Empty, Failed, Key } from "../ui/parts";
import classes from "./queue.module.css";

const line = (session: string) =>
  queryOptions({
    queryKey: ["line", session],
    queryFn: () =>
      told(
        GET("/api/v1/sessions/{session_id}/queue", {
          params: { path: { session_id: session }, query: { limit: 200 } },
        }),
      ),
    refetchInterval: SOON,
  });

type Waiting = Schemas["QueuedTask"];

/** The line with one of it put before the one that is at a place now; behind all where there is none. */
function moved(items: readonly Waiting[], from: number, to: number): Waiting[] {
  const taken = items[from];
  if (taken === undefined) return [...items];
  const rest = items.toSpliced(from, 1);
  return rest.toSpliced(from < to ? to - 1 : to, 0, taken);
}

export function Order({ session, close }: { session: string | undefined; close(): void }) {
  return (
    <Modal opened={session !== undefined} onClose={close} title="What waits in this session" size="lg">
      {session !== undefined && <Line session={session} close={close} />}
    </Modal>
  );
}

function Line({ session, close }: { session: string; close(): void }) {
  const cache = useQueryClient();
  const query = line(session);
  const { data, error } = useQuery(query);
  const [dragged, setDragged] = useState<number | null>(null);
  const [over, setOver] = useState<number | null>(null);
  const move = useMutation({
    mutationFn: ({ task, before }: { task: number; before: number | null }) =>
      told(
        POST("/api/v1/sessions/{session_id}/queue/{task}/move", {
          params: { path: { session_id: session, task } },
          body: { before },
        }),
      ),
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: query.queryKey }),
  });
  const items = data?.items ?? [];
  /** Before the one at `to`; past the last, behind all. */
  const put = async (from: number, to: number) => {
    const task = items[from];
    if (task === undefined || to < 0 || to > items.length || to === from || to === from + 1) return;
    await cache.cancelQueries({ queryKey: query.queryKey });
    cache.setQueryData(query.queryKey, (old) => old && { ...old, items: moved(old.items, from, to) });
    say(`Task ${task.id} runs ${items[to] === undefined ? "last" : `before task ${items[to].id}`}.`);
    move.mutate({ task: task.id, before: items[to]?.id ?? null });
  };
  const keys = (at: number) => (event: KeyboardEvent) => {
    if (!event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    void put(at, event.key === "ArrowUp" ? at - 1 : at + 2);
  };
  if (error !== null && data === undefined) return <Failed error={error} />;
  if (data !== undefined && items.length === 0)
    return (
      <Empty title="Nothing waits in this session">
        <p>What is said in it while a turn runs waits here.</p>
      </Empty>
    );
  return (
    <>
      <p className={classes.lead}>
        One after the other, from the top. Drag a row, or move it with <Key of="Alt" /> <Key of="ArrowUp" />{" "}
        <Key of="ArrowDown" />.
      </p>
      <ol className={classes.line}>
        {items.map((item, at) => (
          <li
            key={item.id}
            draggable
            data-dragged={dragged === at || undefined}
            data-over={(over === at && dragged !== at) || undefined}
            onDragStart={(event) => {
              setDragged(at);
              event.dataTransfer.effectAllowed = "move";
              event.dataTransfer.setData("text/plain", String(item.id));
            }}
            onDragOver={(event) => {
              if (dragged === null) return;
              event.preventDefault();
              setOver(at);
            }}
            onDragEnd={() => {
              setDragged(null);
              setOver(null);
            }}
            onDrop={(event) => {
              event.preventDefault();
              if (dragged !== null) void put(dragged, dragged < at ? at + 1 : at);
              setDragged(null);
              setOver(null);
            }}
          >
            <GrabberIcon size={16} />
            <span className={`${classes.words} num`}>
              <span className={rows.about}>
                <span>{item.id}</span>
                {item.run_at !== null && <span>not before {new Date(item.run_at).toLocaleString()}</span>}
              </span>
              <span>{item.input.split("\n")[0]}</span>
            </span>
            <ActionIcon
              variant="default"
              aria-label={`Move task ${item.id} up`}
              disabled={at === 0}
              onClick={() => void put(at, at - 1)}
              onKeyDown={keys(at)}
            >
              <ArrowUpIcon size={14} />
            </ActionIcon>
            <ActionIcon
              variant="default"
              aria-label={`Move task ${item.id} down`}
              disabled={at === items.length - 1}
              onClick={() => void put(at, at + 2)}
              onKeyDown={keys(at)}
            >
              <ArrowDownIcon size={14} />
            </ActionIcon>
          </li>
        ))}
      </ol>
      <Button
        component={Link}
        to="/queue"
        search={{ session } as never}
        onClick={close}
        size="xs"
        variant="default"
        mt={12}
      >
        All tasks of this session
      </Button>
    </>
  );
}
