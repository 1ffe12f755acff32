/** The files of a change as a tree: what happened to each, how many lines, whether it was seen. Drawn only where one looks. */
import {
  CheckCircleFillIcon,
  DiffAddedIcon,
  DiffModifiedIcon,
  DiffRemovedIcon,
  DiffRenamedIcon,
  FileDirectoryFillIcon,
} from "@primer/octicons-react";
import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useEffect, useRef } from "react";
import type { ChangedFile } from "../api/client";
import { Lines } from "../ui/parts";
import { filesIn, type ReviewFile, type TreeRow } from "./model";
import classes from "./review.module.css";

const ICONS: Record<string, [typeof DiffAddedIcon, string]> = {
  added: [DiffAddedIcon, "good"],
  deleted: [DiffRemovedIcon, "bad"],
  renamed: [DiffRenamedIcon, "dim"],
};
const ROW_PX = 28;

function Operation({ of }: { of: ChangedFile }) {
  const [Icon, tone] = ICONS[of.operation] ?? [DiffModifiedIcon, "warn"];
  return (
    <span className={tone} title={of.operation}>
      <Icon size={14} aria-label={of.operation} />
    </span>
  );
}

interface TreeProps {
  rows: readonly TreeRow[];
  current: string | undefined;
  viewed: ReadonlySet<string>;
  talked: ReadonlyMap<string, number>;
  open(path: string): void;
}

export const Tree = memo(function Tree({ rows, current, viewed, talked, open }: TreeProps) {
  const area = useRef<HTMLElement>(null);
  const files = rows.flatMap(filesIn);
  const seen = files.filter((each) => viewed.has(each.path)).length;
  const list = useVirtualizer({
    count: rows.length,
    getScrollElement: () => area.current,
    estimateSize: () => ROW_PX,
    getItemKey: (at) => rows[at]?.key ?? at,
    paddingStart: 34,
    paddingEnd: 16,
    overscan: 10,
  });
  const here = rows.findIndex((row) => row.key === current);
  useEffect(() => {
    if (here >= 0) list.scrollToIndex(here, { align: "auto" });
  }, [here, list]);
  return (
    <nav className={classes.files} aria-label="Files" ref={area}>
      <div style={{ height: list.getTotalSize() }} className={classes.rows}>
        <div className={`${classes.seen} num`}>
          {seen} of {files.length} viewed
        </div>
        {list.getVirtualItems().map(({ index, key, start }) => {
          const row = rows[index];
          if (row === undefined) return null;
          const place = { transform: `translateY(${start}px)`, paddingLeft: 12 + row.depth * 12 };
          return "folder" in row ? (
            <div key={key} className={classes.folder} style={place} title={row.folder.path}>
              <FileDirectoryFillIcon size={14} />
              <span>{row.folder.name}</span>
            </div>
          ) : (
            <Leaf
              key={key}
              file={row.file}
              place={place}
              here={index === here}
              seen={viewed.has(row.file.path)}
              comments={talked.get(row.file.path) ?? 0}
              open={open}
            />
          );
        })}
      </div>
    </nav>
  );
});

interface LeafProps {
  file: ReviewFile;
  place: React.CSSProperties;
  here: boolean;
  seen: boolean;
  comments: number;
  open(path: string): void;
}

function Leaf({ file, place, here, seen, comments, open }: LeafProps) {
  return (
    <button
      type="button"
      className={classes.leaf}
      style={place}
      aria-current={here || undefined}
      data-seen={seen || undefined}
      title={file.path}
      onClick={() => open(file.path)}
    >
      {seen ? (
        <span className="dim" title="viewed">
          <CheckCircleFillIcon size={14} aria-label="viewed" />
        </span>
      ) : (
        <Operation of={file.file} />
      )}
      <span className={classes.name}>{file.path.slice(file.path.lastIndexOf("/") + 1)}</span>
      {comments > 0 && <span className={`${classes.talk} num`}>{comments}</span>}
      {file.file.additions !== null && (
        <span className={classes.counts}>
          <Lines added={file.file.additions} removed={file.file.deletions ?? 0} />
        </span>
      )}
    </button>
  );
}
