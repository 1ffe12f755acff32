/** Review: is this right? The diff, what is known and said about it, and the decision. */

import { ActionIcon, NativeSelect, SegmentedControl, Skeleton, useMatches } from "@mantine/core";
import type { DiffLineAnnotation } from "@pierre/diffs";
import { InfoIcon } from "@primer/octicons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { type ReactNode, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Change, Comment } from "../api/client";
import { change as changeQuery, changesOf, comments as commentsQuery, openChanges } from "../api/queries";
import { useKeys } from "../app/keys";
import { Age, Failed, Hint, Lines, Path, plural, State } from "../ui/parts";
import { About } from "./about";
import { CommentView, type Spot, Writing } from "./comments";
import { Decide, OPEN } from "./decide";
import { Diff, type DiffHandle } from "./diff";
import { HunkBar } from "./hunk";
import { useMarks, useStored, useViewed } from "./marks";
import { filesOf, inTreeOrder, type ReviewFile, treeOf } from "./model";
import { firstEdit, type Piece, piecesOf, type Verdict } from "./parts";
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

/** Read a change again when its row says that something became of it: the list is light, the diff is not. */
function useFresh(change: Change): void {
  const cache = useQueryClient();
  const { data } = useQuery(changesOf(change.session_id));
  const row = data?.items.find((each) => each.id === change.id);
  const differs =
    row !== undefined &&
    (row.state !== change.state ||
      row.check_state !== change.check_state ||
      row.superseded_by !== change.superseded_by);
  useEffect(() => {
    if (differs) void cache.invalidateQueries({ queryKey: changeQuery(change.id).queryKey });
  }, [cache, differs, change.id]);
}

/** What stands between the lines. */
type Note = { is: "hunk"; piece: Piece } | { is: "comment"; comment: Comment } | { is: "writing"; spot: Spot };

const NONE: Comment[] = [];

function Review({ change }: { change: Change }) {
  useFresh(change);
  const files = useMemo(() => filesOf(change), [change]);
  const tree = useMemo(() => treeOf(files), [files]);
  const ordered = useMemo(() => inTreeOrder(tree), [tree]);
  const pieces = useMemo(() => piecesOf(ordered), [ordered]);
  const search = route.useSearch() as { file?: string };
  const navigate = useNavigate();
  const [current, setCurrent] = useState<string | undefined>(search.file ?? ordered[0]?.path);
  const [cursor, setCursor] = useState<string | null>(null);
  const [writing, setWriting] = useStored(`writing.${change.id}`);
  const spot = useMemo(() => (writing === null ? null : (JSON.parse(writing) as Spot)), [writing]);
  const setSpot = (at: Spot | null) => setWriting(at === null ? null : JSON.stringify(at));
  const [viewed, setViewed] = useViewed(change.fingerprint);
  const [marks, setMark] = useMarks(change.fingerprint);
  const [layout, setLayout] = useStored("diff-layout");
  const [about, setAbout] = useStored("diff-about");
  const { data: said } = useQuery(commentsQuery(change.id));
  const comments = said?.items ?? NONE;
  const phone = useMatches({ base: true, sm: false });
  const split = layout !== "unified" && !phone;
  const diff = useRef<DiffHandle>(null);
  const moving = useRef(false);
  const open = OPEN.includes(change.state);

  const still = useCallback(() => {
    moving.current = true;
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        moving.current = false;
      }),
    );
  }, []);
  const show = useCallback(
    (path: string) => {
      still();
      setCurrent(path);
      setCursor(null);
      diff.current?.show(path);
      void navigate({ to: "/changes/$id", params: { id: change.id }, search: { file: path }, replace: true });
    },
    [change.id, navigate, still],
  );
  // biome-ignore lint/correctness/useExhaustiveDependencies: only the address that led here
  useEffect(() => {
    if (search.file !== undefined) diff.current?.show(search.file);
  }, []);

  const at = ordered.findIndex((each) => each.path === current);
  const step = (by: number) => {
    const next = ordered[Math.max(0, Math.min(ordered.length - 1, at + by))];
    if (next !== undefined) show(next.path);
  };
  const see = (path: string, seen: boolean) => {
    setViewed(path, seen);
    const next = ordered
      .slice(ordered.findIndex((each) => each.path === path) + 1)
      .find((each) => !viewed.has(each.path));
    if (seen && next !== undefined) show(next.path);
  };
  const piece = pieces.find((each) => each.key === cursor);
  const hop = (to: Piece | undefined) => {
    if (to === undefined) return;
    still();
    setCursor(to.key);
    setCurrent(to.path);
    if (viewed.has(to.path)) setViewed(to.path, false);
    if (to.hunk === null) diff.current?.show(to.path);
    else diff.current?.showLine(to.path, to.start.line, to.start.side);
  };
  const hopBy = (by: number) => {
    const from = pieces.findIndex((each) => each.key === cursor);
    if (from >= 0) hop(pieces[Math.max(0, Math.min(pieces.length - 1, from + by))]);
    else hop(pieces.find((each) => each.path === current) ?? pieces[0]);
  };
  const mark = (on: Piece, verdict: Verdict) => {
    const same = marks[on.key] === verdict;
    setMark(on.key, same ? null : verdict);
    const next = pieces[pieces.indexOf(on) + 1];
    if (!same && next !== undefined) hop(next);
  };
  const comment = (on: Piece | undefined) => {
    const path = on?.path ?? current;
    if (path === undefined || !open) return;
    const file = files.find((each) => each.path === path);
    const edit = on?.hunk != null && file !== undefined ? firstEdit(file.file, on.hunk, change.diff) : null;
    setSpot({ path, side: edit?.side ?? "new", line: edit?.line ?? null, endLine: edit?.line ?? null });
    if (viewed.has(path)) setViewed(path, false);
  };
  const next = useNextChange(change.id);
  useKeys([
    { key: "j", does: "Next file", run: () => step(1) },
    { key: "k", does: "Previous file", run: () => step(-1) },
    { key: "n", does: "Next hunk", run: () => hopBy(1) },
    { key: "p", does: "Previous hunk", run: () => hopBy(-1) },
    ...(piece !== undefined && open
      ? [
          { key: "a", does: "Approve this hunk", run: () => mark(piece, "approve") },
          { key: "r", does: "Refuse this hunk", run: () => mark(piece, "reject") },
          { key: "Escape", does: "Leave the hunk", run: () => setCursor(null) },
        ]
      : []),
    { key: "c", does: "Comment on the hunk, or the file", run: () => comment(piece) },
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

  const notes = useMemo(() => {
    const found = new Map<string, DiffLineAnnotation<Note>[]>();
    const put = (path: string, side: "old" | "new", line: number, metadata: Note) => {
      const here = found.get(path) ?? [];
      here.push({
        side: side === "old" ? "deletions" : "additions",
        lineNumber: line,
        metadata,
      } as DiffLineAnnotation<Note>);
      found.set(path, here);
    };
    for (const each of comments)
      put(each.path, each.side, each.outdated ? 0 : (each.end_line ?? each.line ?? 0), {
        is: "comment",
        comment: each,
      });
    if (spot !== null) put(spot.path, spot.side, spot.endLine ?? spot.line ?? 0, { is: "writing", spot });
    if (pieces.length > 1)
      for (const each of pieces) put(each.path, each.end.side, each.end.line, { is: "hunk", piece: each });
    return found;
  }, [comments, spot, pieces]);
  const drawn = useRef(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: each of these changes what notes look like
  const version = useMemo(() => {
    drawn.current += 1;
    return drawn.current;
  }, [notes, marks, cursor, open]);
  const note = (each: Note): ReactNode => {
    if (each.is === "comment") return <CommentView comment={each.comment} changeId={change.id} />;
    if (each.is === "writing")
      return (
        <Writing
          spot={each.spot}
          changeId={change.id}
          close={() => {
            setSpot(null);
            // The focus was in the field that is gone; keys go on working from here.
            (document.activeElement as HTMLElement | null)?.blur();
          }}
        />
      );
    return (
      <HunkBar
        piece={each.piece}
        verdict={marks[each.piece.key]}
        current={each.piece.key === cursor}
        open={open}
        mark={(verdict) => mark(each.piece, verdict)}
        comment={() => comment(each.piece)}
      />
    );
  };
  const talked = useMemo(() => {
    const count = new Map<string, number>();
    for (const each of comments) if (each.state !== "resolved") count.set(each.path, (count.get(each.path) ?? 0) + 1);
    return count;
  }, [comments]);
  const bare = ordered.filter((each) => each.diff === null);

  return (
    <div className={classes.page}>
      <Top change={change}>
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
      </Top>
      <div className={classes.body} data-about={about === "open" || undefined}>
        <nav className={classes.files} aria-label="Files">
          <div className={`${classes.seen} num`}>
            <span>
              {viewed.size} of {files.length} viewed
            </span>
          </div>
          <Tree folder={tree} current={current} viewed={viewed} talked={talked} open={show} />
        </nav>
        <div className={classes.pick}>
          <NativeSelect
            aria-label="File"
            value={current}
            onChange={(event) => show(event.currentTarget.value)}
            data={ordered.map((each) => ({ value: each.path, label: each.path }))}
          />
        </div>
        <div className={classes.diff} data-diff>
          {bare.length > 0 && <Bare files={bare} />}
          {bare.length < files.length && (
            <Diff<Note>
              ref={diff}
              files={ordered}
              split={split}
              viewed={viewed}
              view={see}
              at={(path) => !moving.current && setCurrent(path)}
              notes={notes}
              note={note}
              version={version}
              pick={(path, side, line, endLine) => open && setSpot({ path, side, line, endLine })}
            />
          )}
        </div>
        {about === "open" && <About change={change} />}
      </div>
      <Decide
        change={change}
        next={next}
        pieces={pieces}
        marks={marks}
        drafts={comments.filter((each) => each.state === "draft").length}
        clear={() => {
          for (const each of pieces) setMark(each.key, null);
        }}
      />
    </div>
  );
}

const CHECKS: Record<string, string> = {
  queued: "check waits",
  running: "check runs",
  passed: "check passed",
  failed: "check failed",
  skipped: "check skipped",
};

function Top({ change, children }: { change: Change; children: ReactNode }) {
  return (
    <header className={classes.top}>
      <h1>{change.title}</h1>
      <div className={classes.facts}>
        <State is={change.state} word={change.state === "pending" ? "to review" : undefined} />
        {change.check_state !== null && <State is={change.check_state} word={CHECKS[change.check_state]} />}
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
        <span className={classes.push}>{children}</span>
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
  );
}

function Bare({ files }: { files: ReviewFile[] }) {
  return (
    <div className={classes.plain}>
      {files.map((each) => (
        <p key={each.path}>
          <Operation of={each.file} /> <Path path={each.path} /> has no lines to show: it is a binary file, it was
          moved, or only its mode changed.
        </p>
      ))}
    </div>
  );
}

/** The next change to review after this one. */
function useNextChange(id: string): string | undefined {
  const { data } = useQuery(openChanges);
  return data?.items.find((each) => each.id !== id)?.id;
}
