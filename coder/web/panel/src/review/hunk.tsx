/** The bar below a hunk: what becomes of it. */
import { CheckIcon, CommentIcon, XIcon } from "@primer/octicons-react";
import { Key } from "../ui/parts";
import { useDesk } from "./desk";
import type { Piece } from "./parts";
import classes from "./review.module.css";

const SAID = { approve: " will be approved", reject: " will be refused" };

export function HunkBar({ piece }: { piece: Piece }) {
  const { marks, cursor, open, mark, comment } = useDesk();
  const [verdict, current] = [marks[piece.key], cursor === piece.key];
  const name =
    piece.hunk === null ? "This file" : piece.of === 1 ? "The only hunk" : `Hunk ${piece.hunk} of ${piece.of}`;
  return (
    <div className={classes.hunk} data-current={current || undefined} data-verdict={verdict} data-piece={piece.key}>
      <span className={classes.hunkName}>
        {verdict === "approve" && <CheckIcon size={14} />}
        {verdict === "reject" && <XIcon size={14} />}
        {name}
        {verdict !== undefined && SAID[verdict]}
      </span>
      {open && (
        <>
          <button
            type="button"
            className={classes.check}
            aria-pressed={verdict === "approve"}
            onClick={() => mark(piece, "approve")}
          >
            Approve {current && <Key of="a" />}
          </button>
          <button
            type="button"
            className={classes.check}
            aria-pressed={verdict === "reject"}
            onClick={() => mark(piece, "reject")}
          >
            Refuse {current && <Key of="r" />}
          </button>
          <button
            type="button"
            className={classes.check}
            onClick={() => comment(piece)}
            aria-label={`Comment on ${name.toLowerCase()}`}
          >
            <CommentIcon size={12} /> {current && <Key of="c" />}
          </button>
        </>
      )}
    </div>
  );
}
