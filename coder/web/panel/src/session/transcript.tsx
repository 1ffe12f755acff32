/** The transcript: turns that are drawn where one looks, older ones as one scrolls up to them, the end as long as the reader is there. */
import { Skeleton } from "@mantine/core";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { GET, type ListedChange, told } from "../api/client";
import { useKeys } from "../app/keys";
import { live } from "../app/live";
import { complain } from "../app/said";
import type { Outgoing } from "../live/live";
import type { View } from "../live/transcript";
import { Empty, Key, plural } from "../ui/parts";
import classes from "./session.module.css";
import { TurnView } from "./turn";
import type { ShownTurn } from "./turns";
import { Queued, Sending } from "./waiting";

interface TranscriptProps {
  session: string;
  view: View;
  turns: readonly ShownTurn[];
  sending: readonly Outgoing[];
  changes: ReadonlyMap<number, ListedChange>;
  /** The task whose end holds the session. */
  heldBy: number | null;
}

const PAGE = 200;
const NEAR_PX = 1_200;
const END_PX = 48;
/** Room above the first turn, for what is said about older ones. */
const TOP_PX = 40;

export function Transcript({ session, view, turns, sending, changes, heldBy }: TranscriptProps) {
  const scroll = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false);
  const { queued } = view;
  const count = turns.length + queued.length + sending.length;
  const keyAt = useCallback(
    (at: number) =>
      turns[at]?.key ??
      queued[at - turns.length]?.task_id ??
      sending[at - turns.length - queued.length]?.message.client_message_id ??
      at,
    [turns, queued, sending],
  );
  const list = useVirtualizer({
    count,
    getScrollElement: () => scroll.current,
    estimateSize: (at) => (at < turns.length ? 180 : 60),
    overscan: 3,
    getItemKey: keyAt,
    paddingStart: TOP_PX,
    paddingEnd: 24,
    // What is read stays where it is when older turns come in front of it, and the end is followed by who is there.
    anchorTo: "end",
    followOnAppend: true,
    scrollEndThreshold: END_PX,
  });
  const shown = list.getVirtualItems();
  const loading = useOlder(session, view, scroll);
  const begun = useRef(false);
  useLayoutEffect(() => {
    if (begun.current || count === 0) return;
    begun.current = true;
    list.scrollToEnd();
  });
  const unseen = useUnseen(away, turns);
  const moved = () => {
    const at = scroll.current;
    if (at !== null) setAway(at.scrollHeight - at.scrollTop - at.clientHeight > END_PX);
  };
  const toEnd = () => list.scrollToEnd();
  useKeys([{ key: "G", does: "To the end", run: toEnd }]);
  const running = turns.at(-1)?.state === "running";
  const row = (at: number) => {
    const turn = turns[at];
    if (turn !== undefined) {
      const last = turn.taskId === heldBy ? "held" : at === turns.length - 1 && queued.length === 0;
      return <TurnView group={session} turn={turn} change={changes.get(turn.taskId)} last={last} />;
    }
    const message = queued[at - turns.length];
    if (message !== undefined) return <Queued session={session} message={message} busy={running} />;
    const outgoing = sending[at - turns.length - queued.length];
    return outgoing !== undefined && <Sending outgoing={outgoing} />;
  };
  return (
    <div className={classes.middle}>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard */}
      <section className={classes.scroll} ref={scroll} onScroll={moved} aria-label="Transcript" tabIndex={0}>
        {view.histories === 0 ? (
          <div className={classes.column}>
            <Skeleton height={44} mt={TOP_PX} mb={12} />
            <Skeleton height={14} width="80%" mb={8} />
            <Skeleton height={14} width="60%" />
          </div>
        ) : count === 0 ? (
          <Empty title="Nothing was said yet">
            <p>Write below what the agent should do.</p>
          </Empty>
        ) : (
          <div className={classes.column} style={{ height: list.getTotalSize() }}>
            <p className={classes.older}>
              {loading
                ? "Reading what was said before…"
                : view.more
                  ? "There is more above."
                  : "The session begins here."}
            </p>
            {shown.map((item) => (
              <div
                key={item.key}
                ref={list.measureElement}
                data-index={item.index}
                className={classes.item}
                style={{ transform: `translateY(${item.start}px)` }}
              >
                {row(item.index)}
              </div>
            ))}
          </div>
        )}
      </section>
      {away && (
        <button type="button" className={classes.jump} onClick={toEnd}>
          {unseen > 0 ? `${plural(unseen, "new turn")} below` : running ? "It goes on below" : "To the end"}{" "}
          <Key of="G" />
        </button>
      )}
    </div>
  );
}

/** Read older messages while the reader comes near the first ones; answers whether some are being read. */
function useOlder(session: string, view: View, scroll: React.RefObject<HTMLElement | null>): boolean {
  const [loading, setLoading] = useState(false);
  const [tried, setTried] = useState(0);
  const first = view.messages[0]?.ordinal;
  useEffect(() => {
    const at = scroll.current;
    if (at === null || !view.more || first === undefined || loading) return;
    const look = () => {
      if (at.scrollTop > NEAR_PX) return;
      at.removeEventListener("scroll", look);
      setLoading(true);
      told(
        GET("/api/v1/sessions/{session_id}/messages", {
          params: { path: { session_id: session }, query: { before: first, limit: PAGE } },
        }),
      )
        .then((page) => live.prepend(session, first, page.items as never, page.next_cursor !== null), complain)
        .finally(() => {
          setLoading(false);
          setTried((before) => before + 1);
        });
    };
    at.addEventListener("scroll", look, { passive: true });
    // What is there may be too short to be scrolled. After a failure only the reader's next move asks again.
    if (tried === 0 || at.scrollHeight <= at.clientHeight + NEAR_PX) requestAnimationFrame(look);
    return () => at.removeEventListener("scroll", look);
  }, [session, view.more, first, loading, tried, scroll]);
  return loading;
}

/** How many turns began below while the reader was away from the end. */
function useUnseen(away: boolean, turns: readonly ShownTurn[]): number {
  const [seen, setSeen] = useState<string | undefined>();
  const last = turns.at(-1)?.key;
  useEffect(() => {
    if (!away) setSeen(last);
  }, [away, last]);
  const at = turns.findLastIndex((each) => each.key === seen);
  return away && at >= 0 ? turns.length - 1 - at : 0;
}
