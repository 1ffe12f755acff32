/** What a review shows of a change's files: their diffs in the order of the API, as a tree, and which were seen. Pure. */
import { type FileDiffMetadata, getFiletypeFromFileName, parsePatchFiles } from "@pierre/diffs";
import type { Change, ChangedFile } from "../api/client";
import { bundledLanguages } from "./languages";

export interface ReviewFile {
  /** Also its id in the diff view. */
  path: string;
  file: ChangedFile;
  /** Without hunks where there is nothing to draw: a binary file, a move or a mode alone. */
  diff: FileDiffMetadata;
  /** Tells its part of the diff from any other. */
  digest: string;
}

/** The files of a change, or of a comparison, with their diffs. */
export function filesOf({ diff, files }: Pick<Change, "diff" | "files">): ReviewFile[] {
  const sections = diff.split(/^(?=diff --git )/m);
  let at = 0;
  return files.map((file) => {
    // Another type is written as a deletion and a creation.
    const until = at + (file.operation === "type_changed" ? 2 : 1);
    const section = sections.slice(at, until).join("");
    at = until;
    const digest = digestOf(section);
    return { path: file.path, file, diff: diffOf(file, section, digest), digest };
  });
}

function diffOf(file: ChangedFile, section: string, digest: string): FileDiffMetadata {
  const parsed = parsePatchFiles(section, { cacheKeyPrefix: digest }).flatMap((patch) => patch.files);
  const found = parsed.findLast((each) => each.hunks.length > 0) ?? parsed.at(-1);
  const missing = found === undefined && { cacheKey: digest, type: TYPES[file.operation] ?? ("change" as const) };
  return coloured({ ...(found ?? EMPTY), ...missing, name: file.path });
}

/** A diff in a language that has colours here, else as plain text. */
export function coloured(diff: FileDiffMetadata): FileDiffMetadata {
  return getFiletypeFromFileName(diff.name) in bundledLanguages ? diff : { ...diff, lang: "text" };
}

const TYPES: Record<string, FileDiffMetadata["type"]> = { added: "new", deleted: "deleted", renamed: "rename-pure" };

const EMPTY: FileDiffMetadata = {
  name: "",
  type: "change",
  hunks: [],
  splitLineCount: 0,
  unifiedLineCount: 0,
  isPartial: true,
  deletionLines: [],
  additionLines: [],
  deletionCharacterCount: 0,
  additionCharacterCount: 0,
};

/** A short name of a text (cyrb53), the same for the same text and hardly ever for another. */
function digestOf(text: string): string {
  let [high, low] = [0xdeadbeef, 0x41c6ce57];
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return (4294967296 * (2097151 & low) + (high >>> 0)).toString(36);
}

/** What its lines do not say of a file: why there are none, or what became of its mode; null where nothing. */
export function remarkOf({ file, diff }: ReviewFile): string | null {
  const said = modeSaid(file);
  if (diff.hunks.length === 0) {
    if (file.old_path !== null) said.unshift(`${file.operation} without an edit`);
    if (file.additions === null) said.unshift("binary");
    if (said.length === 0) said.push("empty");
  }
  return said.length === 0 ? null : said.join(", ");
}

function modeSaid({ old_mode: before, new_mode: after }: ChangedFile): string[] {
  if (before === after || before === "000000" || after === "000000") return [];
  if (before === "100644" && after === "100755") return ["made executable"];
  if (before === "100755" && after === "100644") return ["no longer executable"];
  return [`mode ${before} became ${after}`];
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

/** One line of the tree: a folder's name, or a file. */
export type TreeRow = { depth: number; key: string } & ({ folder: Folder } | { file: ReviewFile });

export function filesIn(row: TreeRow): ReviewFile[] {
  return "file" in row ? [row.file] : [];
}

/** The lines of a tree, from the top. */
export function rowsOf(folder: Folder, depth = 0): TreeRow[] {
  return [
    ...folder.folders.flatMap((each): TreeRow[] => [
      { depth, key: `${each.path}/`, folder: each },
      ...rowsOf(each, depth + 1),
    ]),
    ...folder.files.map((file) => ({ depth, key: file.path, file })),
  ];
}
