import { describe, expect, it } from "vitest";
import { piecesOf } from "../src/session/pieces";

describe("text that grows", () => {
  it("is cut where a paragraph begins, and joined is what it was", () => {
    const text = "# One\n\nTwo\nthree\n\nFour";
    expect(piecesOf(text)).toEqual(["# One\n", "Two\nthree\n", "Four"]);
    expect(piecesOf(text).join("\n")).toBe(text);
  });

  it("is whole where code, a list, a quote or a table goes on", () => {
    for (const text of ["```\na\n\nb\n```", "- a\n\n- b\n\n  c", "> a\n\n> b", "1. a\n\n2. b", "~~~\n```\n\nx\n~~~"])
      expect(piecesOf(text)).toEqual([text]);
  });

  it("leaves a block of code that is not closed yet alone", () => {
    expect(piecesOf("Look:\n\n```py\nx = 1\n\ny = 2")).toEqual(["Look:\n", "```py\nx = 1\n\ny = 2"]);
  });
});
