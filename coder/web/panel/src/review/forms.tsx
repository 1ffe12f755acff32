/** What is asked before a decision: where the work goes, or why it is refused. */
import { Button, Checkbox, Popover, SegmentedControl, Textarea, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";
import { type Change, type Decision, POST, told } from "../api/client";
import { projects } from "../api/queries";
import { checkout } from "../projects/queries";
import { Key, plural } from "../ui/parts";
import { useStored } from "./marks";
import { inWords, type Marks, type Piece, partsOf, tally } from "./parts";
import classes from "./review.module.css";

interface AskingProps {
  title: string;
  keys: string;
  colour?: string;
  /** Something else is what most want to do. */
  quiet?: boolean;
  opened: boolean;
  toggle(opened: boolean): void;
  children: ReactNode;
}

export function Asking({ title, keys, colour, quiet, opened, toggle, children }: AskingProps) {
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
          variant={colour || quiet ? "default" : "filled"}
          rightSection={<Key of={keys} onAccent={!colour && !quiet} />}
          onClick={() => toggle(!opened)}
        >
          {title}
        </Button>
      </Popover.Target>
      <Popover.Dropdown aria-label={title.replace("…", "")}>{children}</Popover.Dropdown>
    </Popover>
  );
}

/** The button that was pressed has the focus again when a decision is refused: a disabled one loses it. */
function useFocusAgain(error: Error | null) {
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (error !== null) button.current?.focus();
  }, [error]);
  return button;
}

interface FormProps {
  change: Change;
  busy: boolean;
  error: Error | null;
  decide(send: () => Promise<Decision>): void;
}

export function Approve({
  change,
  busy,
  error,
  decide,
  pieces,
  marks,
}: FormProps & { pieces: readonly Piece[]; marks: Marks }) {
  const button = useFocusAgain(error);
  const [target, setTarget] = useStored("approve-target");
  const [branch, setBranch] = useState("");
  const [commit, setCommit] = useStored("approve-commit");
  const [push, setPush] = useStored("approve-push");
  const { data: known } = useQuery(projects);
  const { data: found } = useQuery(checkout(known?.items.find((each) => each.id === change.project_id)?.path ?? ""));
  const remote = found?.remote ?? null;
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
      push: onBranch && remote !== null && push === "yes",
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
        <>
          <TextInput
            label="Branch"
            placeholder={proposed}
            value={branch}
            onChange={(event) => setBranch(event.currentTarget.value)}
          />
          {remote !== null && (
            <Checkbox
              label={`Push it to ${remote}`}
              checked={push === "yes"}
              onChange={(event) => setPush(event.currentTarget.checked ? "yes" : null)}
            />
          )}
        </>
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
            ? `as a commit on branch ${branch.trim() || proposed} of ${change.project}${
                remote !== null && push === "yes" ? `, pushed to ${remote}` : ""
              }. The checkout stays as it is.`
            : `into ${change.project}'s checkout${commit === "yes" ? ", committed" : ", left uncommitted"}.`}
      </p>
      {error !== null && (
        <p className="bad" role="alert">
          {error.message}
        </p>
      )}
      <div className={classes.right}>
        <Button ref={button} type="submit" loading={busy} data-autofocus>
          {some ? "Decide" : onBranch ? "Approve onto the branch" : "Approve into the checkout"}
        </Button>
      </div>
    </form>
  );
}

export function Reject({ change, busy, error, decide }: FormProps) {
  const button = useFocusAgain(error);
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
        <Button ref={button} type="submit" color="red" loading={busy} rightSection={<Key of="mod+Enter" onAccent />}>
          Reject
        </Button>
      </div>
    </form>
  );
}
