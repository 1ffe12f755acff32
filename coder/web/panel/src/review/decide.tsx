/** The foot of a review: what can be decided, in words what will happen, and what became of it. */
import { Button } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { memo, useEffect, useRef, useState } from "react";
import { ApiError, type Change, type Decision, GET, POST, told } from "../api/client";
import { change as changeQuery, decision as decisionQuery } from "../api/queries";
import { useKeys } from "../app/keys";
import { say } from "../app/said";
import { Key, Lines, plural, State } from "../ui/parts";
import { SendComments } from "./comments";
import { targetOf, useResolve } from "./conflict";
import { Approve, Asking, Reject } from "./forms";
import { inWords, type Marks, type Piece, tally } from "./parts";
import classes from "./review.module.css";

export const OPEN = ["pending", "conflicted"];

/** Ask for a decision that was stored until it is carried out. */
async function carriedOut(decision: Decision): Promise<Decision> {
  let found = decision;
  while (found.state === "queued" || found.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, 500));
    found = await told(GET("/api/v1/decisions/{decision_id}", { params: { path: { decision_id: decision.id } } }));
  }
  if (found.state === "failed")
    throw new Error(found.error ?? "The decision could not be carried out; read the change again.");
  return found;
}

interface DecideProps {
  change: Change;
  /** The next change to review. */
  next: string | undefined;
  pieces: readonly Piece[];
  marks: Marks;
  /** How many comments wait to be sent. */
  drafts: number;
  /** Forget the marks: they were decided on. */
  clear(): void;
}

export const Decide = memo(function Decide({ change, next, pieces, marks, drafts, clear }: DecideProps) {
  const cache = useQueryClient();
  const navigate = useNavigate();
  const [asking, setAsking] = useState<"approve" | "reject" | null>(null);
  const done = useRef<HTMLAnchorElement>(null);
  const decision = useMutation({
    mutationFn: (send: () => Promise<Decision>) => send().then(carriedOut),
    onSuccess: (decided) => {
      setAsking(null);
      clear();
      if (decided.kind === "approve" || decided.kind === "reject" || decided.left_change_id === null) return;
      say(SAID[decided.kind] ?? "Done.");
      void navigate({ to: "/changes/$id", params: { id: decided.left_change_id } });
    },
    onError: (error) => {
      // The page itself shows what clashes.
      if (error instanceof ApiError && error.code === "conflict") setAsking(null);
    },
    onSettled: () => {
      void cache.invalidateQueries({ queryKey: ["changes"] });
      return cache.invalidateQueries({ queryKey: changeQuery(change.id).queryKey });
    },
  });
  const open = OPEN.includes(change.state);
  const decided = decision.isSuccess;
  useEffect(() => {
    if (decided) done.current?.focus();
  }, [decided]);
  const ask = (what: "approve" | "reject") => {
    decision.reset();
    setAsking(what);
  };
  const count = tally(pieces, marks);
  const some = count.approved + count.refused > 0;
  const title = some ? "Decide…" : change.state === "conflicted" ? "Approve again…" : "Approve…";
  const resolve = useResolve(change, decision.mutate);
  const { data: latest } = useQuery(decisionQuery(change.decision_id));
  useKeys(
    open
      ? [
          { key: "a", does: some ? "Decide on what is marked…" : "Approve…", run: () => ask("approve") },
          { key: "A", does: some ? "Decide on what is marked…" : "Approve…", run: () => ask("approve") },
          { key: "r", does: "Reject…", run: () => ask("reject") },
          { key: "R", does: "Reject…", run: () => ask("reject") },
          ...(change.state === "conflicted" ? [{ key: "m", does: "Let the agent merge", run: resolve }] : []),
        ]
      : [],
  );
  const form = { change, busy: decision.isPending, error: decision.error, decide: decision.mutate };
  const path = { params: { path: { change_id: change.id } } };
  return (
    <footer className={classes.bar}>
      <p aria-live="polite">
        {!open ? (
          <>
            <State is={change.state} /> {outcome(change, decision.data ?? latest)}
          </>
        ) : some ? (
          inWords(count, `${change.project}'s checkout or a branch`)
        ) : change.state === "conflicted" ? (
          <>
            <State is="conflicted" /> Nothing was touched; the places are listed above.
          </>
        ) : (
          <>
            <State is="pending" word="to review" /> {plural(change.file_count, "file")},{" "}
            <Lines added={change.additions} removed={change.deletions} />, from {change.agent}
          </>
        )}
        {asking === null && decision.error !== null && change.state !== "conflicted" && (
          <span className="bad"> {decision.error.message}</span>
        )}
      </p>
      {open && <SendComments changeId={change.id} drafts={drafts} />}
      {open && some && (
        <Button variant="subtle" color="gray" onClick={clear}>
          Forget the marks
        </Button>
      )}
      {open && (
        <Asking
          title="Reject…"
          keys="R"
          colour="red"
          opened={asking === "reject"}
          toggle={(opened) => (opened ? ask("reject") : setAsking(null))}
        >
          <Reject {...form} />
        </Asking>
      )}
      {open && (
        <Asking
          title={title}
          keys="A"
          quiet={change.state === "conflicted"}
          opened={asking === "approve"}
          toggle={(opened) => (opened ? ask("approve") : setAsking(null))}
        >
          <Approve {...form} pieces={pieces} marks={marks} />
        </Asking>
      )}
      {open && change.state === "conflicted" && (
        <Button loading={decision.isPending} rightSection={<Key of="m" onAccent />} onClick={resolve}>
          Let the agent merge
        </Button>
      )}
      {change.state === "approved" && (
        <Button
          variant="default"
          loading={decision.isPending}
          onClick={() => decision.mutate(() => told(POST("/api/v1/changes/{change_id}/undo", { ...path, body: {} })))}
        >
          Undo
        </Button>
      )}
      {!open &&
        (next !== undefined ? (
          <Button
            component={Link}
            ref={done}
            to="/changes/$id"
            params={{ id: next } as never}
            rightSection={<Key of="]" onAccent />}
          >
            Next change
          </Button>
        ) : (
          <Button component={Link} ref={done} to="/" variant="default">
            Back to the inbox
          </Button>
        ))}
    </footer>
  );
});

const SAID: Record<string, string> = {
  part: "Done. What was left is this change.",
  undo: "Undone: the target is as before, and the work waits here again.",
  rebase: "This is the work on what the checkout is now.",
};

/** What became of a change that is decided on. */
function outcome(change: Change, decision: Decision | undefined): string {
  if (change.state === "approved") {
    if (decision === undefined) return "It was carried out.";
    const where = decision.target === "branch" ? "on" : "in";
    const committed = decision.target !== "branch" && decision.commit ? ", committed" : "";
    const is = change.file_count === 1 ? "is" : "are";
    const said = `${plural(change.file_count, "file")} ${is} ${where} ${targetOf(decision, change)}${committed}`;
    return `${said}${pushed(decision)}.`;
  }
  if (change.state === "rejected") {
    const why = decision?.reason ? `“${decision.reason}” ` : "";
    return `${why}The agent is told with the next prompt.`;
  }
  if (change.state === "superseded") return "A newer change of its session took its place.";
  if (change.state === "applying") return "It is being carried out.";
  return "";
}

/** What the remote said, where the branch was to be pushed. */
function pushed({ facts }: Decision): string {
  const { remote, error } = (facts.pushed ?? {}) as { remote?: string; error?: string | null };
  if (remote === undefined) return "";
  return error == null ? `, and pushed to ${remote}` : `, but ${remote} did not take it: ${error}`;
}
