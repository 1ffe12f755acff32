/** The bar below a hunk: what becomes of it. */
import { CheckIcon, CommentIcon, XIcon } from "@primer/octicons-react";
import { Key } from "../ui/parts";
import type { Piece, Verdict } from "./parts";
import classes from "./review.module.css";

interface HunkBarProps {
  piece: Piece;
  verdict: Verdict | undefined;
  current: boolean;
  open: boolean;
  mark(verdict: Verdict): void;
  comment(): void;
}

export function HunkBar({ piece, verdict, current, open, mark, comment }: HunkBarProps) {
  const name =
    piece.hunk === null ? "This file" : piece.of === 1 ? "The only hunk" : `Hunk ${piece.hunk} of ${piece.of}`;
  return (
    <div className={classes.hunk} data-current={current || undefined} data-verdict={verdict} data-piece={piece.key}>
      <span className={classes.hunkName}>
        {verdict === "approve" && <CheckIcon size={14} />}
        {verdict === "reject" && <XIcon size={14} />}
        {name}
        {verdict === "approve" ? " will be approved" : verdict === "reject" ? " will be refused" : ""}
      </span>
      {open && (
        <>
          <button
            type="button"
            className={classes.check}
            aria-pressed={verdict === "approve"}
            onClick={() => mark("approve")}
          >
            Approve {current && <Key of="a" />}
          </button>
          <button
            type="button"
            className={classes.check}
            aria-pressed={verdict === "reject"}
            onClick={() => mark("reject")}
          >
            Refuse {current && <Key of="r" />}
          </button>
          <button
            type="button"
            className={classes.check}
            onClick={comment}
            aria-label={`Comment on ${name.toLowerCase()}`}
          >
            <CommentIcon size={12} /> {current && <Key of="c" />}
          </button>
        </>
      )}
    </div>
  );
}
