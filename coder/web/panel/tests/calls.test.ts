import { describe, expect, it } from "vitest";
import type { ToolCall } from "../src/live/wire";
import { commandOf, editsOf, gist, sizeOf } from "../src/session/calls";

const call = (name: string, input: unknown, given: Partial<ToolCall> = {}): ToolCall => ({
  id: "c",
  name,
  input: JSON.stringify(input),
  status: "completed",
  output: "",
  exit_code: null,
  ...given,
});

describe("tool calls, whichever agent's", () => {
  it("are edits where they say what is written in place of what", () => {
    expect(editsOf(call("edit", { path: "a.py", old: "1", new: "2" }))).toEqual([{ path: "a.py", old: "1", new: "2" }]);
    expect(editsOf(call("edit", { filePath: "a.py", oldString: "1", newString: "2" }))).toHaveLength(1);
    const several = {
      file_path: "a",
      edits: [
        { old_string: "1", new_string: "2" },
        { old_string: "3", new_string: "" },
      ],
    };
    expect(editsOf(call("MultiEdit", several)).map((each) => each.path)).toEqual(["a", "a"]);
    expect(editsOf(call("write", { path: "n", content: "x\ny\n" }))).toEqual([{ path: "n", old: "", new: "x\ny\n" }]);
  });

  it("are edits where they answer with a patch", () => {
    const patch = "--- /dev/null\n+++ /srv/tree/a.txt\n@@ -0,0 +1,2 @@\n+one\n+two";
    const [edit] = editsOf(call("edit", {}, { output: patch }));
    expect(edit).toEqual({ path: "/srv/tree/a.txt", patch });
    expect(edit && sizeOf(edit)).toEqual({ added: 2, removed: 0 });
  });

  it("are none where nothing was changed", () => {
    expect(editsOf(call("edit", { path: "a", old: "1", new: "2" }, { status: "failed" }))).toEqual([]);
    expect(editsOf(call("read", { path: "a" }))).toEqual([]);
    expect(editsOf(call("odd", "no object", { input: "{" }))).toEqual([]);
  });

  it("have a size: what differs between what is the same at both ends", () => {
    const size = (old: string, next: string) => sizeOf({ path: "a", old, new: next });
    expect(size("a\nb\nc", "a\nB\nB2\nc")).toEqual({ added: 2, removed: 1 });
    expect(size("", "a\nb\n")).toEqual({ added: 2, removed: 0 });
    expect(size("same", "same")).toEqual({ added: 0, removed: 0 });
  });

  it("are about their command, their file, or whatever text they have", () => {
    expect(commandOf(call("bash", { command: "make" }))).toBe("make");
    expect(gist(call("read", { file_path: "a.py" }))).toBe("a.py");
    expect(gist(call("task", { number: 1, prompt: "look" }))).toBe("look");
    expect(gist(call("odd", 0, { input: "plain" }))).toBe("plain");
  });
});
