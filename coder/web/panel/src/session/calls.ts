/** What a tool call is about, whichever agent's tool it is. Pure. */
import type { ToolCall } from "../live/wire";

/** What a call changed in a file: its text before and after, as far as the call says, or a patch. */
export type Edit = { path: string; patch: string } | { path: string; old: string; new: string };

type Fields = Readonly<Record<string, unknown>>;

/** The arguments of a call; none where they are no JSON object. */
export function argumentsOf(call: ToolCall): Fields {
  try {
    const input = JSON.parse(call.input) as unknown;
    return typeof input === "object" && input !== null ? (input as Fields) : {};
  } catch {
    return {};
  }
}

function first(fields: Fields, names: readonly string[]): string | null {
  for (const name of names) {
    const value = fields[name];
    if (typeof value === "string") return value;
  }
  return null;
}

const PATH = ["path", "file_path", "filePath", "absolute_path"];
const OLD = ["old", "old_string", "oldString", "old_str", "before"];
const NEW = ["new", "new_string", "newString", "new_str", "after"];
const CONTENT = ["content", "contents", "file_text", "text"];
const PATCH = /^(diff --git |--- )[\s\S]*?\n\+\+\+ (?:b\/)?(.+?)(?:\t.*)?\n@@ /;

/** What the call changed in files, in order; nothing for a call that edits nothing, or failed. */
export function editsOf(call: ToolCall): Edit[] {
  if (call.status === "failed") return [];
  const patched = PATCH.exec(call.output);
  if (patched !== null) return [{ path: patched[2] ?? "", patch: call.output }];
  const fields = argumentsOf(call);
  const path = first(fields, PATH);
  if (path === null) return [];
  const several = Array.isArray(fields.edits) ? (fields.edits as Fields[]) : [fields];
  const edits = several.flatMap((each): Edit[] => {
    const [old, next] = [first(each, OLD), first(each, NEW)];
    return old === null || next === null ? [] : [{ path, old, new: next }];
  });
  const written = first(fields, CONTENT);
  return edits.length === 0 && written !== null ? [{ path, old: "", new: written }] : edits;
}

/** Lines that an edit adds and removes, counted as they stand in it. */
export function sizeOf(edit: Edit): { added: number; removed: number } {
  if (!("patch" in edit)) {
    const [before, after] = [linesOf(edit.old), linesOf(edit.new)];
    let head = 0;
    while (head < before.length && head < after.length && before[head] === after[head]) head += 1;
    let tail = 0;
    while (
      tail < before.length - head &&
      tail < after.length - head &&
      before[before.length - 1 - tail] === after[after.length - 1 - tail]
    )
      tail += 1;
    return { added: after.length - head - tail, removed: before.length - head - tail };
  }
  const lines = edit.patch.slice(edit.patch.indexOf("\n@@ ")).split("\n");
  const count = (sign: string) => lines.filter((line) => line.startsWith(sign)).length;
  return { added: count("+"), removed: count("-") };
}

const linesOf = (text: string) => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));

/** The command that a call ran; null when it ran none. */
export function commandOf(call: ToolCall): string | null {
  return first(argumentsOf(call), ["command", "cmd"]);
}

/** The first of the questions that a call asks. */
function questionOf(fields: Fields): string | null {
  const asked = Array.isArray(fields.questions) ? (fields.questions as Fields[])[0] : undefined;
  return asked === undefined ? null : first(asked, ["question"]);
}

/** The one thing of a call's arguments that says what it is about. */
export function gist(call: ToolCall): string {
  const fields = argumentsOf(call);
  return (
    commandOf(call) ??
    questionOf(fields) ??
    first(fields, [...PATH, "pattern", "url", "query"]) ??
    String(Object.values(fields).find((each) => typeof each === "string") ?? (call.input === "{}" ? "" : call.input))
  );
}

/** The arguments as people read them. */
export function pretty(call: ToolCall): string {
  const fields = argumentsOf(call);
  const [only, ...others] = Object.values(fields);
  if (typeof only === "string" && others.length === 0) return only;
  return Object.keys(fields).length === 0 ? call.input : JSON.stringify(fields, null, 2);
}
