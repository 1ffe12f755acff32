/** The diff of all files, drawn only where one looks. */

import { useComputedColorScheme } from "@mantine/core";
import type { CodeViewDiffItem, DiffLineAnnotation, SelectedLineRange } from "@pierre/diffs";
import { CodeView, type CodeViewHandle, WorkerPoolContextProvider } from "@pierre/diffs/react";
import DiffWorker from "@pierre/diffs/worker/worker.js?worker";
import { type ReactNode, type Ref, useImperativeHandle, useMemo, useRef } from "react";
import { Key } from "../ui/parts";
import type { ReviewFile } from "./model";
import classes from "./review.module.css";
import { THEMES } from "./themes";

export const POOL = { workerFactory: () => new DiffWorker(), poolSize: 2 };
export const HIGHLIGHTING = { theme: THEMES, preferredHighlighter: "shiki-js" as const };

export interface DiffHandle {
  show(path: string): void;
  showLine(path: string, line: number, side: "old" | "new"): void;
}

interface DiffProps<Note> {
  files: readonly ReviewFile[];
  split: boolean;
  viewed: ReadonlySet<string>;
  view(path: string, seen: boolean): void;
  /** The file at the top changed by scrolling. */
  at(path: string): void;
  notes: ReadonlyMap<string, DiffLineAnnotation<Note>[]>;
  note(note: Note): ReactNode;
  /** Grows with the notes, so that the view draws them again. */
  version: number;
  /** Somebody wants to say something about lines. */
  pick(path: string, side: "old" | "new", line: number, endLine: number): void;
  ref: Ref<DiffHandle>;
}

export function Diff<Note>({ files, split, viewed, view, at, notes, note, version, pick, ref }: DiffProps<Note>) {
  const scheme = useComputedColorScheme("light");
  const code = useRef<CodeViewHandle<Note, undefined>>(null);
  const picked = useRef(pick);
  picked.current = pick;
  const container = useRef<HTMLDivElement>(null);
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
        picked.current(context.item.id, side, Math.min(range.start, range.end), Math.max(range.start, range.end));
      },
      // What scrolls sideways must be reachable with the keyboard.
      onPostRender: (node: HTMLElement) => {
        for (const each of node.shadowRoot?.querySelectorAll<HTMLElement>("[data-code]") ?? []) each.tabIndex = 0;
      },
      lineDiffType: "word-alt" as const,
      layout: { paddingTop: 0, paddingBottom: 24, gap: 8 },
    }),
    [scheme, split],
  );
  const items = useMemo(
    () =>
      files.flatMap(({ path, diff }): CodeViewDiffItem<Note>[] =>
        diff === null
          ? []
          : [
              {
                id: path,
                type: "diff",
                fileDiff: diff,
                collapsed: viewed.has(path),
                version,
                annotations: notes.get(path) ?? [],
              },
            ],
      ),
    [files, viewed, notes, version],
  );
  return (
    <WorkerPoolContextProvider poolOptions={POOL} highlighterOptions={HIGHLIGHTING}>
      <CodeView<Note>
        ref={code}
        containerRef={container}
        className={classes.view}
        items={items}
        options={options as never}
        onScroll={(_, viewer) => {
          const top = container.current?.getBoundingClientRect().top ?? 0;
          const passed = viewer
            .getRenderedItems()
            .filter((each) => each.element.getBoundingClientRect().top <= top + 40);
          const last = passed.at(-1);
          if (last !== undefined) at(last.id);
        }}
        renderHeaderMetadata={(item) => (
          <span className={classes.headButtons}>
            <button
              type="button"
              className={classes.check}
              aria-pressed={viewed.has(item.id)}
              onClick={() => view(item.id, !viewed.has(item.id))}
            >
              Viewed <Key of="v" />
            </button>
          </span>
        )}
        renderAnnotation={(...args) => note((args[0] as { metadata: Note }).metadata)}
      />
    </WorkerPoolContextProvider>
  );
}
