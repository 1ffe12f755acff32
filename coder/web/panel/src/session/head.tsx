/** What a session is, in a few lines: its name, state, context, cost and place, and what can be done with all of it. */
import { ActionIcon, Button, CopyButton, Menu, Modal, Skeleton, TextInput } from "@mantine/core";
import { CopyIcon, KebabHorizontalIcon, PencilIcon } from "@primer/octicons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { DELETE, type ListedChange, type OneSession, POST, PUT, told } from "../api/client";
import { session as sessionQuery } from "../api/queries";
import { useKeys } from "../app/keys";
import { complain, say } from "../app/said";
import { useStored } from "../review/marks";
import { Age, Path, State } from "../ui/parts";
import { setAll } from "./folds";
import classes from "./session.module.css";
import { WarmingControl } from "./warming";

interface HeadProps {
  id: string;
  session: OneSession | undefined;
  changeId: string | null;
  change: ListedChange | undefined;
  /** The task that runs. */
  running: number | undefined;
  /** The agent of its latest turn; only native sessions have a prompt cache that we could keep warm. */
  agent: string | null;
}

export function Head({ id, session, changeId, change, running, agent }: HeadProps) {
  const [folded, setFolded] = useState(false);
  const fold = () => {
    setAll(id, folded);
    setFolded(!folded);
  };
  useKeys([{ key: "z", does: folded ? "Unfold all turns" : "Fold all turns", run: fold }]);
  const stop = useMutation({
    mutationFn: (task: number) => told(POST("/api/v1/tasks/{task}/cancel", { params: { path: { task } } })),
    onSuccess: (_, task) => say(`Task ${task} is being stopped.`),
    onError: complain,
  });
  return (
    <header className={classes.top}>
      <div className={classes.headline}>
        <Title id={id} session={session} />
        <span className={classes.push}>
          {running !== undefined && (
            <Button size="xs" variant="default" loading={stop.isPending} onClick={() => stop.mutate(running)}>
              Stop
            </Button>
          )}
          {changeId !== null && (
            <Button component={Link} to="/changes/$id" params={{ id: changeId } as never} size="xs">
              Review
              {change !== undefined && (
                <span className={classes.counts}>
                  +{change.additions.toLocaleString("en")} −{change.deletions.toLocaleString("en")}
                </span>
              )}
            </Button>
          )}
          {session !== undefined && <Actions session={session} folded={folded} fold={fold} />}
        </span>
      </div>
      <div className={classes.facts}>
        {session === undefined ? (
          <Skeleton height={14} width={260} />
        ) : (
          <>
            <State is={session.status} />
            <Link to="/queue" search={{ project: session.project }}>
              {session.project}
            </Link>
            {session.workspace_id !== "default" && (
              <Link to="/workspaces/$id" params={{ id: session.workspace_id }}>
                {session.workspace_id}
              </Link>
            )}
            {session.held_by !== null && session.held_by !== undefined && (
              <span className="warn">held by task {session.held_by}</span>
            )}
            {session.waiting_for_host && <span className="warn">waits for its host, where no node runs</span>}
            <Context session={session} />
            {session.cost_tokens > 0 && (
              <span className="num" title="What all turns of this session took">
                {session.cost_tokens.toLocaleString("en")} tokens
              </span>
            )}
            {agent === "native" && <WarmingControl session={id} />}
            <span>
              active <Age of={session.last_activity_at} />
            </span>
            <Place session={session} />
          </>
        )}
      </div>
    </header>
  );
}

function Title({ id, session }: { id: string; session: OneSession | undefined }) {
  const cache = useQueryClient();
  const [draft, setDraft] = useStored(`draft.title.${id}`);
  const save = useMutation({
    mutationFn: (title: string) =>
      told(PUT("/api/v1/sessions/{session_id}/title", { params: { path: { session_id: id } }, body: { title } })),
    onSuccess: () => {
      setDraft(null);
      return cache.invalidateQueries({ queryKey: sessionQuery(id).queryKey });
    },
    onError: complain,
  });
  if (session === undefined)
    return (
      <div className={classes.unnamed}>
        <Skeleton height={20} width={320} />
      </div>
    );
  if (draft !== null)
    return (
      <form
        className={classes.naming}
        onSubmit={(event) => {
          event.preventDefault();
          if (draft.trim() !== "") save.mutate(draft);
        }}
      >
        <TextInput
          size="xs"
          aria-label="Title"
          value={draft}
          maxLength={200}
          ref={(field) => {
            if (field !== null && document.activeElement === document.body) field.focus();
          }}
          onChange={(event) => setDraft(event.currentTarget.value)}
        />
        <Button type="submit" size="xs" disabled={draft.trim() === ""} loading={save.isPending}>
          Save
        </Button>
        <Button size="xs" variant="subtle" color="gray" onClick={() => setDraft(null)}>
          Leave it
        </Button>
      </form>
    );
  return (
    <>
      <h1 title={session.title}>{session.title || "A session without a title"}</h1>
      <ActionIcon
        variant="subtle"
        color="gray"
        size="sm"
        aria-label="Change the title"
        onClick={() => setDraft(session.title)}
      >
        <PencilIcon size={14} />
      </ActionIcon>
    </>
  );
}

/** Where its turns start, and the worktree as a path to be copied. */
function Place({ session }: { session: OneSession }) {
  const path = session.worktree ?? session.effective_cwd;
  return (
    <span className={classes.place}>
      <Path path={session.cwd ?? path} />
      <CopyButton value={path}>
        {({ copied, copy }) => (
          <ActionIcon
            size="sm"
            variant="subtle"
            color="gray"
            title={path}
            aria-label={session.worktree === null ? "Copy the path of its directory" : "Copy the path of its worktree"}
            onClick={copy}
          >
            {copied ? <span className={classes.copied}>copied</span> : <CopyIcon size={14} />}
          </ActionIcon>
        )}
      </CopyButton>
    </span>
  );
}

export function Context({ session }: { session: OneSession }) {
  const { context_size: size, context_limit: limit } = session;
  if (size === null || size === undefined) return null;
  const said = limit
    ? `${Math.round((100 * size) / limit)}% of ${Math.round(limit / 1000)}k`
    : size < 10_000
      ? `${size.toLocaleString("en")} tokens`
      : `${Math.round(size / 1000)}k tokens`;
  return (
    <span className={`${classes.meter} num`} title={`${size.toLocaleString("en")} tokens of context`}>
      {limit ? <meter min={0} max={limit} value={size} high={0.8 * limit} aria-label="Context used" /> : null}
      context {said}
    </span>
  );
}

interface ActionsProps {
  session: OneSession;
  folded: boolean;
  fold(): void;
}

function Actions({ session, folded, fold }: ActionsProps) {
  const cache = useQueryClient();
  const [placing, setPlacing] = useState(false);
  const path = { params: { path: { session_id: session.id } } };
  const { mutate } = useMutation({
    mutationFn: (what: "compact" | "chats" | "close" | "reopen") =>
      told(POST(`/api/v1/sessions/{session_id}/${what}`, path) as never),
    onSuccess: (_, what) => {
      say(DONE[what]);
      void cache.invalidateQueries({ queryKey: ["session", session.id] });
    },
    onError: complain,
  });
  const closed = session.status === "closed";
  return (
    <>
      <Menu position="bottom-end" withinPortal={false} withInitialFocusPlaceholder={false}>
        <Menu.Target>
          <ActionIcon variant="default" size={30} aria-label="More about this session">
            <KebabHorizontalIcon size={16} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={fold}>{folded ? "Unfold all turns" : "Fold all turns"}</Menu.Item>
          <Menu.Item onClick={() => setPlacing(true)}>Directory of its turns…</Menu.Item>
          <Menu.Divider />
          <Menu.Item onClick={() => mutate("compact")}>Compact: go on from a summary</Menu.Item>
          <Menu.Item onClick={() => mutate("chats")}>Begin a fresh context</Menu.Item>
          <Menu.Divider />
          {closed ? (
            <Menu.Item onClick={() => mutate("reopen")}>Open it again</Menu.Item>
          ) : (
            <Menu.Item onClick={() => mutate("close")}>Close: stop what runs, drop what waits</Menu.Item>
          )}
        </Menu.Dropdown>
      </Menu>
      <Modal opened={placing} onClose={() => setPlacing(false)} title="Where its turns start">
        <Directory session={session} close={() => setPlacing(false)} />
      </Modal>
    </>
  );
}

const DONE = {
  compact: "A summary is queued; what is said after it goes on from there.",
  chats: "The next message begins with a fresh context, in the same worktree.",
  close: "The session is closed; saying something opens it again.",
  reopen: "The session is open again.",
};

function Directory({ session, close }: { session: OneSession; close(): void }) {
  const cache = useQueryClient();
  const [draft, setDraft] = useStored(`draft.cwd.${session.id}`);
  const path = { params: { path: { session_id: session.id } } };
  const save = useMutation({
    mutationFn: (cwd: string | null) =>
      cwd === null
        ? told(DELETE("/api/v1/sessions/{session_id}/cwd", path))
        : told(PUT("/api/v1/sessions/{session_id}/cwd", { ...path, body: { cwd } })),
    onSuccess: () => {
      setDraft(null);
      close();
      return cache.invalidateQueries({ queryKey: sessionQuery(session.id).queryKey });
    },
  });
  const cwd = draft ?? session.cwd ?? "";
  return (
    <form
      className={classes.directory}
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(cwd.trim() === "" ? null : cwd.trim());
      }}
    >
      <TextInput
        label="Directory"
        description={`Inside the project; empty: ${session.effective_cwd}`}
        data-autofocus
        value={cwd}
        error={save.error?.message}
        onChange={(event) => setDraft(event.currentTarget.value)}
      />
      <Button type="submit" loading={save.isPending}>
        Start turns there
      </Button>
    </form>
  );
}
