/** A note between the lines: the bar below a hunk, a comment, or the field where one is written. */
import { useEffect, useRef, useState } from "react";
import { CommentView, Writing } from "./comments";
import { type Note, useDesk } from "./desk";
import { HunkBar } from "./hunk";
import type { Piece } from "./parts";
import classes from "./review.module.css";

export function NoteView({ note }: { note: Note }) {
  const { changeId, stopWriting } = useDesk();
  if (note.is === "comment") return <CommentView comment={note.comment} changeId={changeId} />;
  if (note.is === "writing") return <Writing spot={note.spot} changeId={changeId} close={stopWriting} />;
  return <Bar piece={note.piece} />;
}

// The diff view makes every note of a file in view, but a place only for those whose lines it draws.
const bars = new Map<Element, (there: boolean) => void>();
const places = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) bars.get(target)?.(contentRect.width > 0);
});

/** The bar of a hunk where its lines are drawn; elsewhere but its place. */
function Bar({ piece }: { piece: Piece }) {
  const at = useRef<HTMLDivElement>(null);
  const [there, setThere] = useState(false);
  useEffect(() => {
    const place = at.current;
    if (place === null) return;
    bars.set(place, setThere);
    places.observe(place);
    return () => {
      places.unobserve(place);
      bars.delete(place);
    };
  }, []);
  return (
    <div ref={at} className={classes.hunkPlace}>
      {there && <HunkBar piece={piece} />}
    </div>
  );
}
