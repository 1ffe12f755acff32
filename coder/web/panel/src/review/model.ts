/** What a review shows of a change's files: their diffs in the order of the API, as a tree, and which were seen. Pure. */
import { type FileDiffMetadata, getFiletypeFromFileName, parsePatchFiles } from "@pierre/diffs";
import type { Change, ChangedFile } from "../api/client";
import { bundledLanguages } from "./languages";

export interface ReviewFile {
  /** Also its id in the diff view. */
  path: string;
  file: ChangedFile;
  /** Null where there is nothing to draw: a binary file, a mode alone. */
  diff: FileDiffMetadata | null;
}

/** The files of a change with their diffs. */
export function filesOf(change: Pick<Change, "id" | "diff" | "files" | "fingerprint">): ReviewFile[] {
  const parsed = parsePatchFiles(change.diff, { cacheKeyPrefix: change.fingerprint }).flatMap((patch) => patch.files);
  const byName = new Map(parsed.map((each) => [each.name, each]));
  const inOrder = parsed.length === change.files.length;
  return change.files.map((file, at) => {
    const diff = (inOrder ? parsed[at] : undefined) ?? byName.get(file.path) ?? null;
    return { path: file.path, file, diff: diff !== null && diff.hunks.length > 0 ? coloured(diff) : null };
  });
}

/** A diff in a language that has colours here, else as plain text. */
export function coloured(diff: FileDiffMetadata): FileDiffMetadata {
  return getFiletypeFromFileName(diff.name) in bundledLanguages ? diff : { ...diff, lang: "text" };
}

export interface Folder {
  name: string;
  path: string;
  folders: Folder[];
  files: ReviewFile[];
}

/** The files as a tree; a folder that holds but one folder is written with it on one line. */
export function treeOf(files: readonly ReviewFile[]): Folder {
  const root: Folder = { name: "", path: "", folders: [], files: [] };
  for (const file of files) {
    let at = root;
    const steps = file.path.split("/");
    for (const [depth, name] of steps.slice(0, -1).entries()) {
      const path = steps.slice(0, depth + 1).join("/");
      let next = at.folders.find((each) => each.path === path);
      if (next === undefined) {
        next = { name, path, folders: [], files: [] };
        at.folders.push(next);
      }
      at = next;
    }
    at.files.push(file);
  }
  return { ...root, folders: root.folders.map(joined) };
}

function joined(folder: Folder): Folder {
  const [only] = folder.folders;
  if (folder.folders.length === 1 && folder.files.length === 0 && only !== undefined)
    return joined({ ...only, name: `${folder.name}/${only.name}` });
  return { ...folder, folders: folder.folders.map(joined) };
}

/** The files in the order the tree shows them. */
export function inTreeOrder(folder: Folder): ReviewFile[] {
  return [...folder.folders.flatMap(inTreeOrder), ...folder.files];
}
