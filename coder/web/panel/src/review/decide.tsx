/** The foot of a review: what can be decided, in words what will happen, and what became of it. */
import { Button, Checkbox, Popover, SegmentedControl, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { type Change, type Decision, GET, POST, told } from "../api/client";
import { change as changeQuery } from "../api/queries";
import { useKeys } from "../app/keys";
import { say } from "../app/said";
import { Key, Lines, plural, State } from "../ui/parts";
import { SendComments } from "./comments";
import { useStored } from "./marks";
import { inWords, type Marks, type Piece, partsOf, tally } from "./parts";
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

export function Decide({ change, next, pieces, marks, drafts, clear }: DecideProps) {
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
  const title = some ? "Decide…" : "Approve…";
  useKeys(
    open
      ? [
          { key: "a", does: some ? "Decide on what is marked…" : "Approve…", run: () => ask("approve") },
          { key: "A", does: some ? "Decide on what is marked…" : "Approve…", run: () => ask("approve") },
          { key: "r", does: "Reject…", run: () => ask("reject") },
          { key: "R", does: "Reject…", run: () => ask("reject") },
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
            <State is={change.state} /> {outcome(change, decision.data)}
          </>
        ) : some ? (
          inWords(count, `${change.project}'s checkout or a branch`)
        ) : change.state === "conflicted" ? (
          <>
            <State is="conflicted" /> The checkout was changed where this change edits it. Put the work on what is there
            now, and let the agent merge.
          </>
        ) : (
          <>
            <State is="pending" word="to review" /> {plural(change.file_count, "file")},{" "}
            <Lines added={change.additions} removed={change.deletions} />, from {change.agent}
          </>
        )}
        {asking === null && decision.error !== null && <span className="bad"> {decision.error.message}</span>}
      </p>
      {open && <SendComments changeId={change.id} drafts={drafts} />}
      {open && some && (
        <Button variant="subtle" color="gray" onClick={clear}>
          Forget the marks
        </Button>
      )}
      {open && change.state === "conflicted" && (
        <Button
          variant="default"
          loading={decision.isPending}
          onClick={() =>
            decision.mutate(() =>
              told(
                POST("/api/v1/changes/{change_id}/rebase", {
                  ...path,
                  body: { fingerprint: change.fingerprint, target: "checkout", resolve: true },
                }),
              ),
            )
          }
        >
          Update from the checkout
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
          opened={asking === "approve"}
          toggle={(opened) => (opened ? ask("approve") : setAsking(null))}
        >
          <Approve {...form} pieces={pieces} marks={marks} />
        </Asking>
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
}

const SAID: Record<string, string> = {
  part: "Done. What was left is this change.",
  undo: "Undone: the target is as before, and the work waits here again.",
  rebase: "This is the work on what the checkout is now.",
};

function outcome(change: Change, decision: Decision | undefined): string {
  const files = plural(change.file_count, "file");
  if (change.state === "approved") {
    if (decision?.target === "branch") return `${files} are on branch ${decision.branch ?? ""}.`;
    if (decision !== undefined)
      return `${files} are in ${change.project}'s checkout${decision.commit ? ", committed" : ""}.`;
    return "It was carried out.";
  }
  if (change.state === "rejected") return "The agent is told with the next prompt.";
  if (change.state === "superseded") return "A newer change of its session took its place.";
  if (change.state === "applying") return "It is being carried out.";
  return "";
}

interface AskingProps {
  title: string;
  keys: string;
  colour?: string;
  opened: boolean;
  toggle(opened: boolean): void;
  children: React.ReactNode;
}

function Asking({ title, keys, colour, opened, toggle, children }: AskingProps) {
  return (
    <Popover
      opened={opened}
      onChange={toggle}
      position="top-end"
      shadow="md"
      trapFocus
      returnFocus
      withinPortal
      radius={8}
    >
      <Popover.Target>
        <Button
          variant={colour ? "default" : "filled"}
          rightSection={<Key of={keys} onAccent={!colour} />}
          onClick={() => toggle(!opened)}
        >
          {title}
        </Button>
      </Popover.Target>
      <Popover.Dropdown aria-label={title.replace("…", "")}>{children}</Popover.Dropdown>
    </Popover>
  );
}

interface FormProps {
  change: Change;
  busy: boolean;
  error: Error | null;
  decide(send: () => Promise<Decision>): void;
}

function Approve({
  change,
  busy,
  error,
  decide,
  pieces,
  marks,
}: FormProps & { pieces: readonly Piece[]; marks: Marks }) {
  const [target, setTarget] = useStored("approve-target");
  const [branch, setBranch] = useState("");
  const [commit, setCommit] = useStored("approve-commit");
  const onBranch = target === "branch";
  const proposed = `coder/${change.session_id.slice(0, 8)}`;
  const count = tally(pieces, marks);
  const some = count.approved + count.refused > 0;
  const where = onBranch ? `branch ${branch.trim() || proposed}` : `${change.project}'s checkout`;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const body = {
      fingerprint: change.fingerprint,
      target: onBranch ? ("branch" as const) : ("checkout" as const),
      commit: !onBranch && commit === "yes",
      push: false,
      ...(onBranch && branch.trim() !== "" ? { branch: branch.trim() } : {}),
    };
    const path = { params: { path: { change_id: change.id } } };
    decide(() =>
      some
        ? told(
            POST("/api/v1/changes/{change_id}/decide", { ...path, body: { ...body, parts: partsOf(pieces, marks) } }),
          )
        : told(POST("/api/v1/changes/{change_id}/approve", { ...path, body })),
    );
  };
  return (
    <form className={classes.decide} onSubmit={submit}>
      <SegmentedControl
        aria-label="Where it goes"
        value={onBranch ? "branch" : "checkout"}
        onChange={(value) => setTarget(value)}
        data={[
          { value: "checkout", label: "Into the checkout" },
          { value: "branch", label: "Onto a branch" },
        ]}
      />
      {onBranch ? (
        <TextInput
          label="Branch"
          placeholder={proposed}
          value={branch}
          onChange={(event) => setBranch(event.currentTarget.value)}
        />
      ) : (
        <Checkbox
          label="Commit just these files"
          checked={commit === "yes"}
          onChange={(event) => setCommit(event.currentTarget.checked ? "yes" : null)}
        />
      )}
      <p>
        {some
          ? `${inWords(count, where)}. What is refused leaves the worktree, and the agent is told.`
          : `${plural(change.file_count, "file")}, +${change.additions} −${change.deletions}, `}
        {some
          ? ""
          : onBranch
            ? `as a commit on branch ${branch.trim() || proposed} of ${change.project}. The checkout stays as it is.`
            : `into ${change.project}'s checkout${commit === "yes" ? ", committed" : ", left uncommitted"}.`}
      </p>
      {error !== null && (
        <p className="bad" role="alert">
          {error.message}
        </p>
      )}
      <div className={classes.right}>
        <Button type="submit" loading={busy} data-autofocus>
          {some ? "Decide" : onBranch ? "Approve onto the branch" : "Approve into the checkout"}
        </Button>
      </div>
    </form>
  );
}

function Reject({ change, busy, error, decide }: FormProps) {
  const [reason, setReason] = useStored(`draft.reject.${change.id}`);
  const [work, setWork] = useState<"keep" | "discard">("keep");
  const send = () =>
    decide(async () => {
      const decision = await told(
        POST("/api/v1/changes/{change_id}/reject", {
          params: { path: { change_id: change.id } },
          body: { fingerprint: change.fingerprint, work, ...(reason?.trim() ? { reason: reason.trim() } : {}) },
        }),
      );
      setReason(null);
      return decision;
    });
  return (
    <form
      className={classes.decide}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <Textarea
        label="Reason"
        description="Told to the agent with the next prompt"
        autosize
        minRows={3}
        maxRows={8}
        data-autofocus
        value={reason ?? ""}
        onChange={(event) => setReason(event.currentTarget.value || null)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
            event.preventDefault();
            send();
          }
        }}
      />
      <SegmentedControl
        aria-label="What becomes of the work"
        value={work}
        onChange={(value) => setWork(value as "keep" | "discard")}
        data={[
          { value: "keep", label: "Keep the work" },
          { value: "discard", label: "Discard it" },
        ]}
      />
      <p>
        {work === "keep"
          ? "The work stays in the session's worktree, for the agent to go on with. The checkout is not touched."
          : "The session's worktree goes back to where it began. The checkout is not touched; the work is kept under a ref of coder's."}
      </p>
      {error !== null && (
        <p className="bad" role="alert">
          {error.message}
        </p>
      )}
      <div className={classes.right}>
        <Button type="submit" color="red" loading={busy} rightSection={<Key of="mod+Enter" onAccent />}>
          Reject
        </Button>
      </div>
    </form>
  );
}
