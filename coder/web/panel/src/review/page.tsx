/** Review: is this right? The diff, what is known about it, and the decision. */
import { ActionIcon, Button, NativeSelect, SegmentedControl, Skeleton, useMatches } from "@mantine/core";
import { InfoIcon } from "@primer/octicons-react";
import { useQuery } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Change } from "../api/client";
import { change as changeQuery, openChanges, task as taskQuery } from "../api/queries";
import { useKeys } from "../app/keys";
import { Age, Failed, Hint, Lines, Path, plural, State } from "../ui/parts";
import { Decide } from "./decide";
import { Diff, type DiffHandle } from "./diff";
import { useStored, useViewed } from "./marks";
import { filesOf, inTreeOrder, treeOf } from "./model";
import classes from "./review.module.css";
import { Operation, Tree } from "./tree";

export const route = createLazyRoute("/changes/$id")({ component: ReviewPage });

function ReviewPage() {
  const { id } = route.useParams() as { id: string };
  const { data, error, refetch } = useQuery(changeQuery(id));
  if (error !== null && data === undefined) return <Failed error={error} retry={() => void refetch()} />;
  if (data === undefined)
    return (
      <div className={classes.skeleton} aria-busy="true">
        <Skeleton height={20} width="40%" />
        <Skeleton height={14} width="60%" />
        <Skeleton height={320} mt={16} />
      </div>
    );
  return <Review key={data.id} change={data} />;
}

const NO_NOTES = new Map<string, never[]>();

function Review({ change }: { change: Change }) {
  const files = useMemo(() => filesOf(change), [change]);
  const tree = useMemo(() => treeOf(files), [files]);
  const ordered = useMemo(() => inTreeOrder(tree), [tree]);
  const search = route.useSearch() as { file?: string };
  const navigate = useNavigate();
  const [current, setCurrent] = useState<string | undefined>(search.file ?? ordered[0]?.path);
  const [viewed, setViewed] = useViewed(change.fingerprint);
  const [layout, setLayout] = useStored("diff-layout");
  const [about, setAbout] = useStored("diff-about");
  const phone = useMatches({ base: true, sm: false });
  const split = layout !== "unified" && !phone;
  const diff = useRef<DiffHandle>(null);
  const moving = useRef(false);

  const open = useCallback(
    (path: string) => {
      moving.current = true;
      setCurrent(path);
      diff.current?.show(path);
      void navigate({ to: "/changes/$id", params: { id: change.id }, search: { file: path }, replace: true });
      requestAnimationFrame(() => requestAnimationFrame(() => (moving.current = false)));
    },
    [change.id, navigate],
  );
  // biome-ignore lint/correctness/useExhaustiveDependencies: only the address that led here
  useEffect(() => {
    if (search.file !== undefined) diff.current?.show(search.file);
  }, []);

  const at = ordered.findIndex((each) => each.path === current);
  const step = (by: number) => {
    const next = ordered[Math.max(0, Math.min(ordered.length - 1, at + by))];
    if (next !== undefined) open(next.path);
  };
  const see = (path: string, seen: boolean) => {
    setViewed(path, seen);
    const next = ordered
      .slice(ordered.findIndex((each) => each.path === path) + 1)
      .find((each) => !viewed.has(each.path));
    if (seen && next !== undefined) open(next.path);
  };
  const next = useNextChange(change.id);
  useKeys([
    { key: "j", does: "Next file", run: () => step(1) },
    { key: "k", does: "Previous file", run: () => step(-1) },
    {
      key: "v",
      does: "Viewed, and on to the next file",
      run: () => current !== undefined && see(current, !viewed.has(current)),
    },
    { key: "s", does: "Side by side, or in one column", run: () => setLayout(split ? "unified" : "split") },
    { key: "i", does: "Prompt and answer", run: () => setAbout(about === "open" ? null : "open") },
    {
      key: "]",
      does: "Next change",
      run: () => next !== undefined && void navigate({ to: "/changes/$id", params: { id: next } }),
    },
  ]);
  const bare = files.filter((each) => each.diff === null);

  return (
    <div className={classes.page}>
      <header className={classes.top}>
        <h1>{change.title}</h1>
        <div className={classes.facts}>
          <State is={change.state} word={change.state === "pending" ? "to review" : undefined} />
          <Link to="/queue" search={{ project: change.project }}>
            {change.project}
          </Link>
          <Link to="/sessions/$id" params={{ id: change.session_id }}>
            session {change.session_id.slice(0, 8)}
          </Link>
          <span>{change.agent}</span>
          {change.turn_outcome !== "completed" && <span className="warn">the turn was {change.turn_outcome}</span>}
          <span>{plural(change.file_count, "file")}</span>
          <Lines added={change.additions} removed={change.deletions} />
          <Age of={change.created_at} />
          <span className={classes.push}>
            <SegmentedControl
              size="xs"
              visibleFrom="sm"
              aria-label="How the diff is laid out"
              value={split ? "split" : "unified"}
              onChange={setLayout}
              data={[
                { value: "split", label: "Split" },
                { value: "unified", label: "Unified" },
              ]}
            />
            <Hint does="Prompt and answer" keys="i">
              <ActionIcon
                variant={about === "open" ? "light" : "default"}
                aria-label="Prompt and answer"
                aria-pressed={about === "open"}
                onClick={() => setAbout(about === "open" ? null : "open")}
              >
                <InfoIcon size={16} />
              </ActionIcon>
            </Hint>
          </span>
        </div>
        {(change.warnings.length > 0 || change.superseded_by !== null) && (
          <ul className={classes.notes}>
            {change.superseded_by !== null && (
              <li>
                A newer change took its place:{" "}
                <Link to="/changes/$id" params={{ id: change.superseded_by }}>
                  {change.superseded_by.slice(0, 8)}
                </Link>
              </li>
            )}
            {change.warnings.map((warning) => (
              <li key={warning}>{warning}</li>
            ))}
          </ul>
        )}
      </header>
      <div className={classes.body} data-about={about === "open" || undefined}>
        <nav className={classes.files} aria-label="Files">
          <div className={`${classes.seen} num`}>
            <span>
              {viewed.size} of {files.length} viewed
            </span>
          </div>
          <Tree folder={tree} current={current} viewed={viewed} talked={NO_TALK} open={open} />
        </nav>
        <div className={classes.pick}>
          <NativeSelect
            aria-label="File"
            value={current}
            onChange={(event) => open(event.currentTarget.value)}
            data={ordered.map((each) => ({ value: each.path, label: each.path }))}
          />
        </div>
        <div className={classes.diff}>
          {bare.length === files.length ? (
            <Bare files={bare.map((each) => each)} />
          ) : (
            <Diff<never>
              ref={diff}
              files={ordered}
              split={split}
              viewed={viewed}
              view={see}
              at={(path) => !moving.current && setCurrent(path)}
              notes={NO_NOTES}
              note={() => null}
              version={0}
            />
          )}
        </div>
        {about === "open" && <About change={change} />}
      </div>
      <Decide change={change} next={next} />
    </div>
  );
}

const NO_TALK = new Map<string, number>();

function Bare({ files }: { files: ReturnType<typeof filesOf> }) {
  return (
    <div className={classes.plain}>
      {files.map((each) => (
        <p key={each.path}>
          <Operation of={each.file} /> <Path path={each.path} /> has no lines to show: it is a binary file, or only its
          mode changed.
        </p>
      ))}
    </div>
  );
}

/** The next change to review after this one. */
function useNextChange(id: string): string | undefined {
  const { data } = useQuery(openChanges);
  const open = (data?.items ?? []).filter((each) => each.id !== id);
  return open[0]?.id;
}

function About({ change }: { change: Change }) {
  const { data, error } = useQuery(taskQuery(change.task_id));
  return (
    <aside className={classes.about} aria-label="About this change">
      {error !== null && <Failed error={error} />}
      {data !== undefined && (
        <>
          <h2>Prompt</h2>
          <pre>{data.input}</pre>
          <h2>Answer</h2>
          <pre>{data.output_summary ?? "The agent said nothing."}</pre>
          <h2>Task</h2>
          <p className="num">
            {data.id} · {data.agent_used ?? data.agent ?? "native"}
            {data.model !== null && ` · ${data.model}`} · {data.cost_tokens.toLocaleString("en")} tokens
          </p>
          {data.notices.map((notice) => (
            <p key={notice} className="warn">
              {notice}
            </p>
          ))}
          <h2>Worktree</h2>
          <p>
            <code>{change.worktree ?? "removed"}</code>
          </p>
        </>
      )}
      <Button
        component={Link}
        to="/sessions/$id"
        params={{ id: change.session_id } as never}
        size="xs"
        variant="default"
        mt={12}
      >
        Open the session
      </Button>
    </aside>
  );
}
