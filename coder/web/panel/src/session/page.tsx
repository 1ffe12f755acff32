/** A session: what is it doing? Its turns as they happen, what waits behind them, and a place to say more. */
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute } from "@tanstack/react-router";
import { useEffect, useMemo } from "react";
import type { OneSession } from "../api/client";
import { changesOf, session as sessionQuery } from "../api/queries";
import { useSession } from "../app/live";
import { Failed } from "../ui/parts";
import { Composer } from "./composer";
import { Head } from "./head";
import classes from "./session.module.css";
import { Transcript } from "./transcript";
import { turnsOf } from "./turns";

export const route = createLazyRoute("/sessions/$id")({ component: SessionPage });

function SessionPage() {
  const { id } = route.useParams() as { id: string };
  const { data, error, refetch } = useQuery(sessionQuery(id));
  if (error !== null && data === undefined) return <Failed error={error} retry={() => void refetch()} />;
  return <Watched key={id} id={id} session={data} />;
}

function Watched({ id, session }: { id: string; session: OneSession | undefined }) {
  const { view, sending } = useSession(id);
  const turns = useMemo(() => turnsOf(view), [view]);
  const cache = useQueryClient();
  const { data } = useQuery(changesOf(id));
  const last = turns.at(-1);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another change or another state of a turn is why it is asked for again
  useEffect(() => {
    void cache.invalidateQueries({ queryKey: changesOf(id).queryKey });
    void cache.invalidateQueries({ queryKey: sessionQuery(id).queryKey });
  }, [cache, id, view.changeId, last?.key, last?.state]);
  const changes = useMemo(
    () => new Map((data?.items ?? []).toReversed().map((each) => [each.task_id, each])),
    [data?.items],
  );
  const running = view.turns.find((each) => each.ended === null);
  return (
    <div className={classes.page}>
      <Head
        id={id}
        session={session}
        changeId={view.changeId}
        change={data?.items.find((each) => each.id === view.changeId)}
        running={running?.taskId}
        agent={last?.agent ?? null}
      />
      <Transcript
        session={id}
        view={view}
        turns={turns}
        sending={sending}
        changes={changes}
        heldBy={session?.held_by ?? null}
      />
      <Composer
        id={id}
        busy={running !== undefined}
        closed={session?.status === "closed"}
        told={view.turns.at(-1)?.commands ?? []}
        turns={turns.length}
      />
    </div>
  );
}
