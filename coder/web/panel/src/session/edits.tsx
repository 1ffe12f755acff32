/** What a tool call changed, as diffs; loaded when the first such call is opened. */
import { useComputedColorScheme } from "@mantine/core";
import { type FileDiffMetadata, parseDiffFromFile, parsePatchFiles } from "@pierre/diffs";
import { FileDiff, WorkerPoolContextProvider } from "@pierre/diffs/react";
import { useMemo } from "react";
import { HIGHLIGHTING, POOL } from "../review/diff";
import { coloured } from "../review/model";
import { THEMES } from "../review/themes";
import type { Edit } from "./calls";
import classes from "./session.module.css";

function diffsOf(edits: readonly Edit[]): FileDiffMetadata[] {
  return edits
    .flatMap((edit) =>
      "patch" in edit
        ? parsePatchFiles(edit.patch).flatMap((patch) => patch.files)
        : [parseDiffFromFile({ name: edit.path, contents: edit.old }, { name: edit.path, contents: edit.new })],
    )
    .map(coloured);
}

export default function Edits({ edits }: { edits: readonly Edit[] }) {
  const scheme = useComputedColorScheme("light");
  const diffs = useMemo(() => diffsOf(edits), [edits]);
  const options = useMemo(
    () => ({
      theme: THEMES,
      themeType: scheme,
      preferredHighlighter: "shiki-js" as const,
      diffStyle: "unified" as const,
      hunkSeparators: "line-info" as const,
      overflow: "scroll" as const,
      disableFileHeader: true,
      // What scrolls sideways must be reachable with the keyboard.
      onPostRender: (node: HTMLElement) => {
        for (const each of node.shadowRoot?.querySelectorAll<HTMLElement>("[data-code]") ?? []) each.tabIndex = 0;
      },
    }),
    [scheme],
  );
  return (
    <WorkerPoolContextProvider poolOptions={POOL} highlighterOptions={HIGHLIGHTING}>
      {diffs.map((diff, at) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: several edits of one file have nothing else to be told apart by
        <div key={at} className={classes.edit}>
          <FileDiff fileDiff={diff} options={options as never} />
        </div>
      ))}
    </WorkerPoolContextProvider>
  );
}
