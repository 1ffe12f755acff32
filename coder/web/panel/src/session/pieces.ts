/** Markdown in pieces that mean the same one by one: cut at empty lines that stand in no block of code, list or quote. Pure. */
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const BEGINS = /^[^\s>*+\-\d|]/;

export function piecesOf(text: string): string[] {
  const pieces: string[] = [];
  let piece: string[] = [];
  let fence: string | null = null;
  let empty = false;
  for (const line of text.split("\n")) {
    // A paragraph or heading after an empty line stands for itself, whatever comes before it.
    if (empty && fence === null && piece.length > 0 && BEGINS.test(line)) {
      pieces.push(piece.join("\n"));
      piece = [];
    }
    const mark = FENCE.exec(line)?.[1];
    if (mark !== undefined) {
      if (fence === null) fence = mark;
      else if (mark[0] === fence[0] && mark.length >= fence.length) fence = null;
    }
    piece.push(line);
    empty = line.trim() === "";
  }
  pieces.push(piece.join("\n"));
  return pieces;
}
