/** What of a change is to be approved, refused or left: by hunk, and by file where a file can only be decided on whole. Pure. */
import type { ChangedFile } from "../api/client";
import type { ReviewFile } from "./model";

export type Verdict = "approve" | "reject";
export type Marks = Readonly<Record<string, Verdict>>;

/** Something that can be decided on by itself: a hunk of a file, or a file without hunks. */
export interface Piece {
  key: string;
  path: string;
  /** Its number in the file, from 1; null for a whole file. */
  hunk: number | null;
  /** How many pieces its file has. */
  of: number;
  /** Where it ends in the diff: a side and a line there. Line 0 is the head of the file. */
  end: { side: "old" | "new"; line: number };
  start: { side: "old" | "new"; line: number };
}

/** The pieces of files, in the order of the files. */
export function piecesOf(files: readonly ReviewFile[]): Piece[] {
  return files.flatMap(({ path, file }): Piece[] => {
    const hunks = file.hunks ?? [];
    if (hunks.length === 0)
      return [{ key: path, path, hunk: null, of: 1, start: { side: "new", line: 0 }, end: { side: "new", line: 0 } }];
    return hunks.map((hunk) => {
      const side = hunk.new_lines > 0 ? ("new" as const) : ("old" as const);
      const [first, count] = side === "new" ? [hunk.new_start, hunk.new_lines] : [hunk.old_start, hunk.old_lines];
      return {
        key: `${path}#${hunk.number}`,
        path,
        hunk: hunk.number,
        of: hunks.length,
        start: { side, line: first },
        end: { side, line: first + count - 1 },
      };
    });
  });
}

/** What `POST …/decide` takes. */
export function partsOf(pieces: readonly Piece[], marks: Marks): { path: string; hunk?: number; verdict: Verdict }[] {
  return pieces.flatMap(({ key, path, hunk }) => {
    const verdict = marks[key];
    return verdict === undefined ? [] : [{ path, ...(hunk !== null && { hunk }), verdict }];
  });
}

export interface Tally {
  approved: number;
  refused: number;
  left: number;
}

export function tally(pieces: readonly Piece[], marks: Marks): Tally {
  const count = (verdict: Verdict) => pieces.filter((each) => marks[each.key] === verdict).length;
  const [approved, refused] = [count("approve"), count("reject")];
  return { approved, refused, left: pieces.length - approved - refused };
}

/** What will happen, in words. */
export function inWords({ approved, refused, left }: Tally, where: string): string {
  const hunks = (count: number) => `${count} ${count === 1 ? "hunk" : "hunks"}`;
  const said = [
    ...(approved > 0 ? [`${hunks(approved)} into ${where}`] : []),
    ...(refused > 0 ? [`${hunks(refused)} refused`] : []),
    ...(left > 0 ? [`${hunks(left)} left`] : []),
  ];
  return said.join(", ");
}

/** The first line that a hunk adds or removes, which a comment on it is about. */
export function firstEdit(file: ChangedFile, hunk: number, diff: string): { side: "old" | "new"; line: number } | null {
  const found = (file.hunks ?? []).find((each) => each.number === hunk);
  if (found === undefined) return null;
  let [before, after] = [found.old_start, found.new_start];
  for (const line of diff.split("\n").slice(found.diff_line, found.diff_line + found.diff_lines - 1)) {
    if (line.startsWith("+")) return { side: "new", line: after };
    if (line.startsWith("-")) return { side: "old", line: before };
    before += 1;
    after += 1;
  }
  return null;
}
