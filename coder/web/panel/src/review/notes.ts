/** Where notes stand in a diff: by file, each with the line it stands below. */
import type { DiffLineAnnotation } from "@pierre/diffs";
import { useMemo } from "react";
import type { Comment } from "../api/client";
import type { Spot } from "./comments";
import type { Note } from "./desk";
import type { Notes } from "./diff";
import type { Piece } from "./parts";

function at(side: "old" | "new", line: number, metadata: Note): DiffLineAnnotation<Note> {
  return { side: side === "old" ? "deletions" : "additions", lineNumber: line, metadata } as DiffLineAnnotation<Note>;
}

/** The notes of a review; those of a file are the same array as long as nothing of that file changed. */
export function useNotes(pieces: readonly Piece[], comments: readonly Comment[], spot: Spot | null): Notes {
  const standing = useMemo(() => {
    const found = new Map<string, DiffLineAnnotation<Note>[]>();
    const put = (path: string, note: DiffLineAnnotation<Note>) => {
      const here = found.get(path);
      if (here === undefined) found.set(path, [note]);
      else here.push(note);
    };
    for (const comment of comments) {
      const line = comment.outdated ? 0 : (comment.end_line ?? comment.line ?? 0);
      put(comment.path, at(comment.side, line, { is: "comment", comment }));
    }
    if (pieces.length > 1)
      for (const piece of pieces) put(piece.path, at(piece.end.side, piece.end.line, { is: "hunk", piece }));
    return found;
  }, [pieces, comments]);
  return useMemo(() => {
    if (spot === null) return standing;
    const writing = at(spot.side, spot.endLine ?? spot.line ?? 0, { is: "writing", spot });
    return new Map(standing).set(spot.path, [writing, ...(standing.get(spot.path) ?? [])]);
  }, [standing, spot]);
}
