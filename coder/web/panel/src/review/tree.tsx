/** The files of a change as a tree: what happened to each, how many lines, whether it was seen. */
import {
  CheckCircleFillIcon,
  DiffAddedIcon,
  DiffModifiedIcon,
  DiffRemovedIcon,
  DiffRenamedIcon,
  FileDirectoryFillIcon,
} from "@primer/octicons-react";
import { useEffect, useRef } from "react";
import type { ChangedFile } from "../api/client";
import { Lines } from "../ui/parts";
import type { Folder, ReviewFile } from "./model";
import classes from "./review.module.css";

const ICONS: Record<string, [typeof DiffAddedIcon, string]> = {
  added: [DiffAddedIcon, "good"],
  deleted: [DiffRemovedIcon, "bad"],
  renamed: [DiffRenamedIcon, "dim"],
};

export function Operation({ of }: { of: ChangedFile }) {
  const [Icon, tone] = ICONS[of.operation] ?? [DiffModifiedIcon, "warn"];
  return (
    <span className={tone} title={of.operation}>
      <Icon size={14} aria-label={of.operation} />
    </span>
  );
}

interface TreeProps {
  folder: Folder;
  current: string | undefined;
  viewed: ReadonlySet<string>;
  talked: ReadonlyMap<string, number>;
  open(path: string): void;
  depth?: number;
}

export function Tree({ folder, depth = 0, ...rest }: TreeProps) {
  return (
    <>
      {folder.folders.map((each) => (
        <div key={each.path}>
          <div className={classes.folder} style={{ paddingLeft: 12 + depth * 12 }} title={each.path}>
            <FileDirectoryFillIcon size={14} />
            <span>{each.name}</span>
          </div>
          <Tree folder={each} depth={depth + 1} {...rest} />
        </div>
      ))}
      {folder.files.map((each) => (
        <Leaf key={each.path} file={each} depth={depth} {...rest} />
      ))}
    </>
  );
}

function Leaf({
  file,
  depth,
  current,
  viewed,
  talked,
  open,
}: Omit<TreeProps, "folder"> & { file: ReviewFile; depth: number }) {
  const here = file.path === current;
  const seen = viewed.has(file.path);
  const comments = talked.get(file.path) ?? 0;
  const at = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (here) at.current?.scrollIntoView({ block: "nearest" });
  }, [here]);
  return (
    <button
      ref={at}
      type="button"
      className={classes.leaf}
      style={{ paddingLeft: 12 + depth * 12 }}
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
      {file.file.additions !== null && file.file.additions !== undefined && (
        <span className={classes.counts}>
          <Lines added={file.file.additions} removed={file.file.deletions ?? 0} />
        </span>
      )}
    </button>
  );
}
