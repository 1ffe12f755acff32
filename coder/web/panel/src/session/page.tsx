/** A session: what is it doing? Its turns as they happen, what waits behind them, and a place to say more. */
import { Button, CopyButton, Skeleton, Textarea } from "@mantine/core";
import { ClockIcon, SyncIcon } from "@primer/octicons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type FormEvent, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { POST, type Session, told } from "../api/client";
import { changesOf, session as sessionQuery } from "../api/queries";
import { useKeys } from "../app/keys";
import { live, useSession } from "../app/live";
import { complain, say } from "../app/said";
import type { Outgoing } from "../live/live";
import type { QueuedMessage } from "../live/wire";
import { useStored } from "../review/marks";
import { Age, Empty, Failed, Key, State } from "../ui/parts";
import classes from "./session.module.css";
import { TurnView } from "./turn";
import { turnsOf } from "./turns";

export const route = createLazyRoute("/sessions/$id")({ component: SessionPage });

function SessionPage() {
  const { id } = route.useParams() as { id: string };
  const { data, error, refetch } = useQuery(sessionQuery(id));
  if (error !== null && data === undefined) return <Failed error={error} retry={() => void refetch()} />;
  return <Watched key={id} id={id} session={data} />;
}

function Watched({ id, session }: { id: string; session: Session | undefined }) {
  const { view, sending } = useSession(id);
  const turns = useMemo(() => turnsOf(view), [view]);
  return (
    <div className={classes.page}>
      <Head
        id={id}
        session={session}
        changeId={view.changeId}
        running={view.turns.find((each) => each.ended === null)?.taskId}
      />
      <Transcript
        key={view.histories === 0 ? "loading" : "there"}
        loading={view.histories === 0}
        turns={turns}
        more={view.more}
        queued={view.queued}
        sending={sending}
      />
      <Composer id={id} busy={view.turns.some((each) => each.ended === null)} />
    </div>
  );
}

interface HeadProps {
  id: string;
  session: Session | undefined;
  changeId: string | null;
  running: number | undefined;
}

function Head({ id, session, changeId, running }: HeadProps) {
  const cache = useQueryClient();
  const { data: changes } = useQuery(changesOf(id));
  // biome-ignore lint/correctness/useExhaustiveDependencies: another change is why it is asked for again
  useEffect(() => {
    void cache.invalidateQueries({ queryKey: changesOf(id).queryKey });
  }, [cache, id, changeId]);
  const change = changes?.items.find((each) => each.id === changeId);
  const stop = useMutation({
    mutationFn: (task: number) => told(POST("/api/v1/tasks/{task}/cancel", { params: { path: { task } } })),
    onSuccess: (_, task) => say(`Task ${task} is being stopped.`),
    onError: complain,
  });
  return (
    <header className={classes.top}>
      <h1>
        {session === undefined ? <Skeleton height={20} width="40%" /> : session.title || "A session without a title"}
      </h1>
      <div className={classes.facts}>
        {session !== undefined && (
          <>
            <State is={session.status} />
            <Link to="/queue" search={{ project: session.project }}>
              {session.project}
            </Link>
            {session.held_by !== null && session.held_by !== undefined && (
              <span className="warn">held by task {session.held_by}</span>
            )}
            <Context session={session} />
            <span>
              active <Age of={session.last_activity_at} />
            </span>
            {session.worktree !== null && session.worktree !== undefined && (
              <CopyButton value={session.worktree}>
                {({ copied, copy }) => (
                  <Button size="compact-xs" variant="subtle" color="gray" onClick={copy} title={session.worktree ?? ""}>
                    {copied ? "Copied" : "Copy the worktree's path"}
                  </Button>
                )}
              </CopyButton>
            )}
          </>
        )}
        <span className={classes.push}>
          {running !== undefined && (
            <Button size="xs" variant="default" loading={stop.isPending} onClick={() => stop.mutate(running)}>
              Stop
            </Button>
          )}
          {changeId !== null && (
            <Button component={Link} to="/changes/$id" params={{ id: changeId } as never} size="xs">
              Review{" "}
              {change !== undefined && (
                <span style={{ marginLeft: 6, fontWeight: 400 }}>
                  +{change.additions} −{change.deletions}
                </span>
              )}
            </Button>
          )}
        </span>
      </div>
    </header>
  );
}

function Context({ session }: { session: Session }) {
  const { context_size: size, context_limit: limit } = session;
  if (size === null || size === undefined) return null;
  const said = limit
    ? `${Math.round((100 * size) / limit)}% of ${Math.round(limit / 1000)}k`
    : `${Math.round(size / 1000)}k tokens`;
  return (
    <span className={`${classes.meter} num`} title={`${size.toLocaleString("en")} tokens of context`}>
      {limit ? <meter min={0} max={limit} value={size} aria-label="Context used" /> : null}
      context {said}
    </span>
  );
}

interface TranscriptProps {
  loading: boolean;
  turns: ReturnType<typeof turnsOf>;
  more: boolean;
  queued: readonly QueuedMessage[];
  sending: readonly Outgoing[];
}

function Transcript({ loading, turns, more, queued, sending }: TranscriptProps) {
  const scroll = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [away, setAway] = useState(false);
  const list = useVirtualizer({
    count: turns.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => 160,
    overscan: 4,
    getItemKey: (at) => turns[at]?.key ?? at,
    scrollMargin: 16,
  });
  const height = list.getTotalSize();
  // Follow the end as long as the reader is there, and only then.
  // biome-ignore lint/correctness/useExhaustiveDependencies: what grows is what is followed
  useLayoutEffect(() => {
    const at = scroll.current;
    if (at !== null && following.current) at.scrollTop = at.scrollHeight;
  }, [height, turns, queued, sending]);
  const moved = () => {
    const at = scroll.current;
    if (at === null) return;
    following.current = at.scrollHeight - at.scrollTop - at.clientHeight < 48;
    setAway(!following.current);
  };
  const toEnd = () => {
    following.current = true;
    setAway(false);
    scroll.current?.scrollTo({ top: scroll.current.scrollHeight });
  };
  useKeys([{ key: "G", does: "To the end", run: toEnd }]);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard
    <section className={classes.scroll} ref={scroll} onScroll={moved} aria-label="Transcript" tabIndex={0}>
      <div className={classes.column}>
        {loading && (
          <>
            <Skeleton height={44} mb={12} />
            <Skeleton height={14} width="80%" mb={8} />
            <Skeleton height={14} width="60%" />
          </>
        )}
        {!loading && turns.length === 0 && queued.length === 0 && sending.length === 0 && (
          <Empty title="Nothing was said yet">
            <p>Write below what the agent should do.</p>
          </Empty>
        )}
        {more && <p className="dim">Older turns are in the database; the newest 200 messages are shown.</p>}
        <div style={{ position: "relative", height }}>
          {list.getVirtualItems().map((row) => {
            const turn = turns[row.index];
            return (
              turn !== undefined && (
                <div
                  key={row.key}
                  ref={list.measureElement}
                  data-index={row.index}
                  style={{ position: "absolute", insetInline: 0, top: 0, transform: `translateY(${row.start - 16}px)` }}
                >
                  <TurnView turn={turn} />
                </div>
              )
            );
          })}
        </div>
        {queued.map((each) => (
          <Queued key={each.task_id} message={each} />
        ))}
        {sending.map((each) => (
          <Sending key={each.message.client_message_id} outgoing={each} />
        ))}
      </div>
      {away && (
        <button type="button" className={classes.jump} onClick={toEnd}>
          To the end <Key of="G" />
        </button>
      )}
    </section>
  );
}

function Queued({ message }: { message: QueuedMessage }) {
  const remove = useMutation({
    mutationFn: () => told(POST("/api/v1/tasks/{task}/cancel", { params: { path: { task: message.task_id } } })),
    onSuccess: () => say("Taken out of the queue."),
    onError: complain,
  });
  return (
    <div className={classes.waiting}>
      <ClockIcon size={14} aria-label="queued" />
      <div>{message.text}</div>
      <Button
        size="compact-xs"
        variant="subtle"
        color="gray"
        loading={remove.isPending}
        onClick={() => remove.mutate()}
      >
        Remove
      </Button>
    </div>
  );
}

function Sending({ outgoing }: { outgoing: Outgoing }) {
  const id = outgoing.message.client_message_id;
  return (
    <div className={classes.waiting}>
      <SyncIcon size={14} aria-label={outgoing.refused === null ? "being sent" : "refused"} />
      <div>
        {outgoing.message.text}
        {outgoing.refused !== null && <p className="bad">{outgoing.refused}</p>}
      </div>
      {outgoing.refused !== null && (
        <>
          <Button size="compact-xs" variant="default" onClick={() => live.again(id)}>
            Send again
          </Button>
          <Button size="compact-xs" variant="subtle" color="gray" onClick={() => live.discard(id)}>
            Discard
          </Button>
        </>
      )}
    </div>
  );
}

function Composer({ id, busy }: { id: string; busy: boolean }) {
  const [draft, setDraft] = useStored(`draft.session.${id}`);
  const field = useRef<HTMLTextAreaElement>(null);
  const send = (event?: FormEvent) => {
    event?.preventDefault();
    if (draft === null || draft.trim() === "") return;
    live.send(id, draft);
    setDraft(null);
  };
  useKeys([{ key: "c", does: "Write a message", run: () => field.current?.focus() }]);
  return (
    <div className={classes.composer}>
      <form onSubmit={send}>
        <Textarea
          ref={field}
          aria-label="Message"
          placeholder={busy ? "Queue a message behind the turn that runs" : "What should the agent do next?"}
          autosize
          minRows={2}
          maxRows={10}
          value={draft ?? ""}
          onChange={(event) => setDraft(event.currentTarget.value || null)}
          onKeyDown={(event) => {
            if (event.key === "Escape") field.current?.blur();
            if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) send();
          }}
        />
        <div className={classes.row}>
          <span>A draft is kept in this browser.</span>
          <Button
            type="submit"
            size="xs"
            disabled={draft === null || draft.trim() === ""}
            rightSection={<Key of="mod+Enter" onAccent />}
          >
            {busy ? "Queue" : "Send"}
          </Button>
        </div>
      </form>
    </div>
  );
}
