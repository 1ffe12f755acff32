/** What stands between the lines of a diff, and what it needs to know of the review around it. */
import { createContext, useContext } from "react";
import type { Comment } from "../api/client";
import type { Spot } from "./comments";
import type { Marks, Piece, Verdict } from "./parts";

export type Note = { is: "hunk"; piece: Piece } | { is: "comment"; comment: Comment } | { is: "writing"; spot: Spot };

/** Notes read it by themselves, so that a mark draws again the bars in view and nothing else of a diff. */
export interface Desk {
  changeId: string;
  /** Something can be decided. */
  open: boolean;
  marks: Marks;
  /** The piece that keys are about. */
  cursor: string | null;
  viewed: ReadonlySet<string>;
  mark(piece: Piece, verdict: Verdict): void;
  comment(piece: Piece): void;
  view(path: string, seen: boolean): void;
  stopWriting(): void;
}

const Context = createContext<Desk | null>(null);
export const DeskProvider = Context.Provider;

export function useDesk(): Desk {
  const desk = useContext(Context);
  if (desk === null) throw new Error("A note stands outside of a review.");
  return desk;
}
