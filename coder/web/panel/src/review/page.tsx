/** Review: is this right? The diff, what is known and said about it, and the decision. */

import { ActionIcon, NativeSelect, SegmentedControl, Skeleton, useMatches } from "@mantine/core";
import { InfoIcon } from "@primer/octicons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, useNavigate } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Change, Comment } from "../api/client";
import { change as changeQuery, changesOf, comments as commentsQuery, openChanges } from "../api/queries";
import { useKeys } from "../app/keys";
import { Empty, Failed, Hint } from "../ui/parts";
import { useStable } from "../ui/stable";
import type { Spot } from "./comments";
import { Conflict } from "./conflict";
import { Decide, OPEN } from "./decide";
import { DeskProvider } from "./desk";
import { Diff, type DiffHandle } from "./diff";
import { useMarks, useStored, useViewed } from "./marks";
import { filesIn, filesOf, rowsOf, treeOf } from "./model";
import { useNotes } from "./notes";
import { firstEdit, type Piece, piecesOf, type Verdict } from "./parts";
import classes from "./review.module.css";
import { SinceBar, useSince } from "./since";
import { Top } from "./top";
import { Tree } from "./tree";

// What agents wrote is drawn as markdown, which not every review needs.
const About = lazy(() => import("./about").then((page) => ({ default: page.About })));

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

const NONE: Comment[] = [];
const NO_PIECES: Piece[] = [];
const REST_MS = 100;

function Review({ change }: { change: Change }) {
  useFresh(change);
  const search = route.useSearch() as { file?: string; since?: string };
  const since = useSince(change, search.since);
  // Only what changed, when that is asked for; marks and decisions are about the whole change all the same.
  const alone = search.since !== undefined && since.comparison !== undefined;
  const whole = useMemo(() => filesOf(change), [change]);
  const files = useMemo(
    () => (alone && since.comparison !== undefined ? filesOf(since.comparison) : whole),
    [alone, since.comparison, whole],
  );
  const rows = useMemo(() => rowsOf(treeOf(files)), [files]);
  const ordered = useMemo(() => rows.flatMap(filesIn), [rows]);
  const pieces = useMemo(() => piecesOf(rowsOf(treeOf(whole)).flatMap(filesIn)), [whole]);
  const navigate = useNavigate();
  const [current, setCurrent] = useState<string | undefined>(search.file ?? ordered[0]?.path);
  const [cursor, setCursor] = useState<string | null>(null);
  const [writing, setWriting] = useStored(`writing.${change.id}`);
  const spot = useMemo(() => (writing === null ? null : (JSON.parse(writing) as Spot)), [writing]);
  const setSpot = (at: Spot | null) => setWriting(at === null ? null : JSON.stringify(at));
  const [viewed, setViewed] = useViewed(change.session_id, whole);
  const [marks, setMark] = useMarks(change.fingerprint);
  const [layout, setLayout] = useStored("diff-layout");
  const [about, setAbout] = useStored("diff-about");
  const { data: said } = useQuery(commentsQuery(change.id));
  const comments = said?.items ?? NONE;
  const phone = useMatches({ base: true, sm: false });
  const split = layout !== "unified" && !phone;
  const diff = useRef<DiffHandle>(null);
  const moving = useRef(false);
  const resting = useRef(0);
  const open = OPEN.includes(change.state);

  const still = useCallback(() => {
    window.clearTimeout(resting.current);
    moving.current = true;
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        moving.current = false;
      }),
    );
  }, []);
  const kept = useMemo(() => (search.since === undefined ? {} : { since: search.since }), [search.since]);
  const show = useCallback(
    (path: string) => {
      still();
      setCurrent(path);
      setCursor(null);
      diff.current?.show(path);
      void navigate({ to: "/changes/$id", params: { id: change.id }, search: { ...kept, file: path }, replace: true });
    },
    [change.id, navigate, still, kept],
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
    if (to === undefined || alone) return;
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
  const toggle = () => {
    if (since.id === null) return;
    setCursor(null);
    const search = alone ? {} : { since: since.id };
    void navigate({ to: "/changes/$id", params: { id: change.id }, search, replace: true });
  };
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
    ...(since.id !== null ? [{ key: "w", does: "Only what changed since you looked, or all of it", run: toggle }] : []),
    { key: "s", does: "Side by side, or in one column", run: () => setLayout(split ? "unified" : "split") },
    { key: "i", does: "Prompt and answer", run: () => setAbout(about === "open" ? null : "open") },
    {
      key: "]",
      does: "Next change",
      run: () => next !== undefined && void navigate({ to: "/changes/$id", params: { id: next } }),
    },
  ]);

  const notes = useNotes(alone || !open ? NO_PIECES : pieces, comments, spot);
  const talked = useMemo(() => {
    const count = new Map<string, number>();
    for (const each of comments) if (each.state !== "resolved") count.set(each.path, (count.get(each.path) ?? 0) + 1);
    return count;
  }, [comments]);
  const desk = {
    changeId: change.id,
    open,
    marks,
    cursor,
    viewed,
    mark,
    comment,
    view: see,
    stopWriting: () => {
      setSpot(null);
      // The focus was in the field that is gone; keys go on working from here.
      (document.activeElement as HTMLElement | null)?.blur();
    },
  };
  const scrolledTo = useStable((path: string) => {
    window.clearTimeout(resting.current);
    // Nothing but the diff moves while somebody scrolls.
    if (!moving.current) resting.current = window.setTimeout(() => setCurrent(path), REST_MS);
  });
  const pick = useStable((path: string, side: "old" | "new", line: number, endLine: number) => {
    if (open) setSpot({ path, side, line, endLine });
  });
  const openFile = useStable(show);
  const clear = useStable(() => {
    for (const each of pieces) setMark(each.key, null);
  });

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
      <SinceBar {...since} alone={alone} toggle={toggle} />
      <div className={classes.body} data-about={about === "open" || undefined}>
        <Tree rows={rows} current={current} viewed={viewed} talked={talked} open={openFile} />
        <div className={classes.pick}>
          <NativeSelect
            aria-label="File"
            value={current}
            onChange={(event) => show(event.currentTarget.value)}
            data={ordered.map((each) => ({ value: each.path, label: each.path }))}
          />
        </div>
        <div className={classes.diff} data-diff>
          {change.state === "conflicted" && <Conflict change={change} />}
          {alone && files.length === 0 && (
            <Empty title="Nothing differs">
              <p>This change says what the one you looked at said.</p>
            </Empty>
          )}
          <DeskProvider value={desk}>
            <Diff ref={diff} files={ordered} split={split} viewed={viewed} at={scrolledTo} notes={notes} pick={pick} />
          </DeskProvider>
        </div>
        {about === "open" && (
          <Suspense fallback={<aside className={classes.about} aria-busy="true" aria-label="About this change" />}>
            <About change={change} />
          </Suspense>
        )}
      </div>
      <Decide
        change={change}
        next={next}
        pieces={pieces}
        marks={marks}
        drafts={comments.filter((each) => each.state === "draft").length}
        clear={clear}
      />
    </div>
  );
}

/** The next change to review after this one. */
function useNextChange(id: string): string | undefined {
  const { data } = useQuery(openChanges);
  return data?.items.find((each) => each.id !== id)?.id;
}
