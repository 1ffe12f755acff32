/** The diff of all files, drawn only where one looks. */

import { useComputedColorScheme } from "@mantine/core";
import type { CodeViewDiffItem, DiffLineAnnotation, SelectedLineRange } from "@pierre/diffs";
import { CodeView, type CodeViewHandle, WorkerPoolContextProvider } from "@pierre/diffs/react";
import DiffWorker from "@pierre/diffs/worker/worker.js?worker";
import { memo, type Ref, useImperativeHandle, useMemo, useRef } from "react";
import { Key } from "../ui/parts";
import { useStable } from "../ui/stable";
import { type Note, useDesk } from "./desk";
import { type ReviewFile, remarkOf } from "./model";
import { NoteView } from "./note";
import classes from "./review.module.css";
import { THEMES } from "./themes";

export const POOL = { workerFactory: () => new DiffWorker(), poolSize: 2 };
export const HIGHLIGHTING = { theme: THEMES, preferredHighlighter: "shiki-js" as const };
const NEAR_PX = 40;

export interface DiffHandle {
  show(path: string): void;
  showLine(path: string, line: number, side: "old" | "new"): void;
}

export type Notes = ReadonlyMap<string, DiffLineAnnotation<Note>[]>;
type Item = CodeViewDiffItem<Note>;

interface DiffProps {
  files: readonly ReviewFile[];
  split: boolean;
  viewed: ReadonlySet<string>;
  /** The file at the top changed by scrolling. */
  at(path: string): void;
  notes: Notes;
  /** Somebody wants to say something about lines. */
  pick(path: string, side: "old" | "new", line: number, endLine: number): void;
  ref: Ref<DiffHandle>;
}

const NO_NOTES: DiffLineAnnotation<Note>[] = [];

/** The files as the view takes them: one that is as it was is the same object, one that is not has a higher version. */
function useItems(files: readonly ReviewFile[], viewed: ReadonlySet<string>, notes: Notes): readonly Item[] {
  const known = useRef(new Map<string, Item>());
  return useMemo(() => {
    const items = files.map(({ path, diff }): Item => {
      const [before, annotations, collapsed] = [known.current.get(path), notes.get(path) ?? NO_NOTES, viewed.has(path)];
      const same =
        before !== undefined &&
        before.fileDiff === diff &&
        before.annotations === annotations &&
        before.collapsed === collapsed;
      if (same) return before;
      return { id: path, type: "diff", fileDiff: diff, collapsed, version: (before?.version ?? 0) + 1, annotations };
    });
    known.current = new Map(items.map((each) => [each.id, each]));
    return items;
  }, [files, viewed, notes]);
}

export const Diff = memo(function Diff({ files, split, viewed, at, notes, pick, ref }: DiffProps) {
  const scheme = useComputedColorScheme("light");
  const code = useRef<CodeViewHandle<Note, undefined>>(null);
  useImperativeHandle(ref, () => ({
    show: (path) => code.current?.scrollTo({ type: "item", id: path, align: "start", behavior: "instant" }),
    showLine: (path, line, side) =>
      code.current?.scrollTo({
        type: "line",
        id: path,
        lineNumber: line,
        side: side === "old" ? "deletions" : "additions",
        align: "center",
        behavior: "instant",
      }),
  }));
  const options = useMemo(
    () => ({
      theme: THEMES,
      themeType: scheme,
      preferredHighlighter: "shiki-js" as const,
      diffStyle: split ? ("split" as const) : ("unified" as const),
      hunkSeparators: "line-info" as const,
      overflow: "scroll" as const,
      stickyHeaders: true,
      enableGutterUtility: true,
      onGutterUtilityClick: (range: SelectedLineRange, context: { item: { id: string } }) => {
        const side = (range.endSide ?? range.side) === "deletions" ? "old" : "new";
        pick(context.item.id, side, Math.min(range.start, range.end), Math.max(range.start, range.end));
      },
      // What scrolls sideways must be reachable with the keyboard.
      onPostRender: (node: HTMLElement) => {
        for (const each of node.shadowRoot?.querySelectorAll<HTMLElement>("[data-code]") ?? []) each.tabIndex = 0;
      },
      lineDiffType: "word-alt" as const,
      layout: { paddingTop: 0, paddingBottom: 24, gap: 8 },
    }),
    [scheme, split, pick],
  );
  const items = useItems(files, viewed, notes);
  const byPath = useMemo(() => new Map(files.map((each) => [each.path, each])), [files]);
  const remark = useStable((item: { id: string }) => {
    const file = byPath.get(item.id);
    return file === undefined ? null : <span className={classes.remark}>{remarkOf(file)}</span>;
  });
  return (
    <WorkerPoolContextProvider poolOptions={POOL} highlighterOptions={HIGHLIGHTING}>
      <CodeView<Note>
        ref={code}
        className={classes.view}
        items={items}
        options={options as never}
        onScroll={(top, viewer) => {
          const passed = (id: string) => (viewer.getTopForItem(id) ?? 0) <= top + NEAR_PX;
          const last = viewer.getRenderedItems().findLast((each) => passed(each.id));
          if (last !== undefined) at(last.id);
        }}
        renderHeaderFilenameSuffix={remark}
        renderHeaderMetadata={seenButton}
        renderAnnotation={noteAt}
      />
    </WorkerPoolContextProvider>
  );
});

const seenButton = (item: { id: string }) => <SeenButton path={item.id} />;
const noteAt = (...[annotation]: unknown[]) => <NoteView note={(annotation as { metadata: Note }).metadata} />;

function SeenButton({ path }: { path: string }) {
  const { viewed, view } = useDesk();
  const seen = viewed.has(path);
  return (
    <span className={classes.headButtons}>
      <button type="button" className={classes.check} aria-pressed={seen} onClick={() => view(path, !seen)}>
        Viewed <Key of="v" />
      </button>
    </span>
  );
}
