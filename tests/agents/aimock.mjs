// A scripted model for the tests: aimock's HTTP surface (OpenAI chat and Responses, Anthropic, Gemini; streaming, usage, journal)
// driven by directives in the user's prompt. It serves coder's native backend and every real agent alike, since it looks the
// tools' names and parameters up in the request.
//
// Directives, one a line, carried out one tool step per model response:
//   write PATH: text      edit PATH: old => new      read PATH      run: command      (\n, \t, \0 and \uXXXX are escapes in texts)
//   ask: command          the same as run, asking to do it without the agent's own sandbox, where its tool has that (codex)
//   call TOOL: JSON       the tool of that name, whatever it is, with those arguments
//   + <tool step>         the same response as the step before
//   say: text             the answer, or text in front of the next tool call      think: text   reasoning, likewise
//   heard WORD            an answer that says whether the conversation before held that word
//   error STATUS [TIMES]  that HTTP error instead of the next response, TIMES times (default: for ever)
//   slow                  the answer comes word by word, 50 ms apart              hang          the first words, then nothing
//   cut                   the connection breaks in mid-answer                     garbage       a 200 that is no JSON
//   badjson               a tool call whose arguments are broken JSON             unknowntool   a call of a tool that there is not
//   loop                  a tool call in every response, without end              empty         an answer without anything in it
// A request without directives, or without tools (titles, classifiers), gets one plain sentence.
//
// Invariant: what is answered depends on the request alone, except `error STATUS TIMES`, which counts. It prints one line with its
// base URL and ends when its standard input does, so it never outlives the test run.

import { LLMock } from "@copilotkit/aimock";

const PLAIN = "This is the scripted model; it does what directives in the prompt say.";
const USAGE = { prompt_tokens: 1200, completion_tokens: 34, prompt_tokens_details: { cached_tokens: 1000 }, input_tokens: 200, output_tokens: 34, cache_read_input_tokens: 1000 };
const HOUR = 3_600_000;

const TOOLS = {
  write: [/^(write|write_file|create_file)$/i, { path: /^(file_?path|path|filename)$/i, text: /^(content|contents|text|file_text)$/i }],
  edit: [/^(edit|replace|edit_file|str_replace)$/i, { path: /^(file_?path|path)$/i, old: /^(old|old_?string|old_str|before)$/i, new: /^(new|new_?string|new_str|after)$/i }],
  read: [/^(read|read_file|view)$/i, { path: /^(file_?path|absolute_path|path)$/i }],
  run: [/^(run|bash|shell|run_shell_command|exec_command)$/i, { command: /^(command|cmd)$/i, description: /^description$/i, freely: /^sandbox_permissions$/, why: /^justification$/ }],
};

// What aimock leaves out of gemini's requests: its tools' parameters are `parametersJsonSchema`.
const UNTOLD = { write_file: { file_path: 0, content: 0 }, replace: { file_path: 0, old_string: 0, new_string: 0 }, read_file: { file_path: 0 }, run_shell_command: { command: 0, description: 0 } };

const unescape = (text) =>
  text.replace(/\\(u[0-9a-fA-F]{4}|.)/g, (_, e) => ({ n: "\n", t: "\t", 0: "\0", "\\": "\\" })[e] ?? (e.length === 5 ? String.fromCharCode(parseInt(e.slice(1), 16)) : e));

const textOf = (content) => (typeof content === "string" ? content : Array.isArray(content) ? content.map((part) => part.text ?? "").join("\n") : "");
// Without what an agent puts there itself: qwen lists its skills in the user's message, a word a line, and one is called "loop";
// gemini tells where it is in front of the first prompt, with no new line between.
const said = (text) => text.replace(/<(system-reminder|session_context)>[^]*?<\/\1>/g, "");
const saidBy = (message) => said(textOf(message.content));

function parseLine(line) {
  const joined = line.startsWith("+");
  if (joined) line = line.slice(1).trimStart();
  let m;
  if ((m = line.match(/^write (.+?): ?(.*)$/))) return { kind: "write", path: m[1], text: unescape(m[2]), joined };
  if ((m = line.match(/^edit (.+?): ?(.*?) => (.*)$/))) return { kind: "edit", path: m[1], old: unescape(m[2]), new: unescape(m[3]), joined };
  if ((m = line.match(/^read (\S+)$/))) return { kind: "read", path: m[1], joined };
  if ((m = line.match(/^run: ?(.*)$/))) return { kind: "run", command: unescape(m[1]), description: "a scripted command", joined };
  if ((m = line.match(/^ask: ?(.*)$/))) return { kind: "run", command: unescape(m[1]), description: "a scripted command", freely: "require_escalated", why: "May it?", joined };
  if ((m = line.match(/^call (\S+?): ?(.*)$/))) return { kind: "call", tool: m[1], arguments: m[2], joined };
  if ((m = line.match(/^(say|think): ?(.*)$/))) return { kind: m[1], text: unescape(m[2]) };
  if ((m = line.match(/^error (\d{3})(?: (\d+))?$/))) return { kind: "error", status: Number(m[1]), times: m[2] ? Number(m[2]) : Infinity };
  if ((m = line.match(/^heard (\S+)$/))) return { kind: "heard", word: m[1] };
  if ((m = line.match(/^(slow|hang|cut|garbage|badjson|unknowntool|loop|empty)$/))) return { kind: m[1] };
  return null;
}

const isTool = (step) => step.kind in TOOLS || ["call", "badjson", "unknowntool", "loop"].includes(step.kind);

// Groups of steps, one group per model response.
function responses(prompt) {
  const groups = [];
  let open = { steps: [] };
  for (const step of said(prompt).split("\n").map((line) => parseLine(line.trim())).filter(Boolean)) {
    if (step.joined && groups.length && open.steps.length === 0) groups.at(-1).steps.push(step);
    else {
      open.steps.push(step);
      if (isTool(step)) {
        groups.push(open);
        open = { steps: [] };
      }
    }
  }
  groups.push(open);
  return groups.map((group) => group.steps);
}

function toolCall(step, req) {
  const tools = (req.tools ?? []).map((tool) => tool.function ?? tool);
  if (step.kind === "call") return { name: step.tool, arguments: step.arguments };
  if (step.kind === "unknowntool") return { name: "no_such_tool", arguments: "{}" };
  if (step.kind === "loop") step = { kind: "run", command: "true", description: "again" };
  if (step.kind === "badjson") return { ...toolCall({ kind: "read", path: "README" }, req), arguments: '{"path": "README' };
  const [name, parameters] = TOOLS[step.kind];
  const tool = tools.find((candidate) => name.test(candidate.name));
  if (!tool && step.kind === "write") return toolCall({ kind: "run", command: `printf '%s' '${step.text.replaceAll("'", `'\\''`)}' > '${step.path}'`, description: "write" }, req);
  if (!tool && step.kind === "read") return toolCall({ kind: "run", command: `cat '${step.path}'`, description: "read" }, req);
  if (!tool) return { name: step.kind, arguments: JSON.stringify(step) };
  const values = {};
  for (const property of Object.keys(tool.parameters?.properties ?? UNTOLD[tool.name] ?? {}))
    for (const [field, pattern] of Object.entries(parameters))
      if (pattern.test(property) && step[field] !== undefined) values[property] = field === "path" ? placed(step.path, property, req) : step[field];
  return { name: tool.name, arguments: JSON.stringify(values) };
}

// qwen and claude want absolute paths and name their working directory in the system prompt.
function placed(path, property, req) {
  if (path.startsWith("/") || !/^(file_path|absolute_path)$/.test(property)) return path;
  for (const message of req.messages) {
    const m = textOf(message.content).match(/(?:working directory|current directory|cwd)\b[^\n/]*(\/[^\s`"'<>,]+)/i);
    if (m) return `${m[1].replace(/[.:]$/, "")}/${path}`;
  }
  return path;
}

const errors = new Map();

// What this request gets: { kind, response }; a pure function of it but for counted errors, so it is worked out once per request.
const plans = new WeakMap();
function plan(req) {
  if (!plans.has(req)) plans.set(req, decide(req));
  return plans.get(req);
}

function decide(req) {
  const user = req.messages.findLastIndex((message) => message.role === "user" && responses(saidBy(message)).flat().length > 0);
  if (user < 0 || !(req.tools ?? []).length) return { kind: "plain", response: { content: PLAIN, usage: USAGE } };
  const prompt = saidBy(req.messages[user]);
  const done = req.messages.slice(user + 1).filter((message) => message.role === "assistant" && message.tool_calls?.length).length;
  const groups = responses(prompt);
  const endless = groups.findIndex((steps) => steps.some((step) => step.kind === "loop"));
  const index = endless >= 0 && done >= endless ? endless : Math.min(done, groups.length - 1);
  const steps = groups[index];
  const failing = steps.find((step) => step.kind === "error");
  if (failing) {
    const key = `${prompt}\u0000${index}`;
    errors.set(key, (errors.get(key) ?? 0) + 1);
    if (errors.get(key) <= failing.times)
      return { kind: "error", response: { error: { message: `scripted error ${failing.status}`, type: "scripted_error", code: "scripted" }, status: failing.status } };
  }
  const before = req.messages.slice(0, user).map((message) => textOf(message.content)).join("\n");
  for (const step of steps) if (step.kind === "heard") Object.assign(step, { kind: "say", text: `${before.includes(step.word) ? "I heard" : "I never heard"} ${step.word}.` });
  const joined = (kind) => steps.filter((step) => step.kind === kind).map((step) => step.text).join("\n");
  const calls = steps.filter(isTool).map((step) => toolCall(step, req));
  const kind = steps.find((step) => ["slow", "hang", "cut", "garbage"].includes(step.kind))?.kind ?? "plain";
  const content = steps.some((step) => step.kind === "empty") ? "" : joined("say") || (calls.length ? "" : kind === "plain" ? "Done." : "One two three four five six seven eight nine ten.");
  const reasoning = joined("think") || undefined;
  if (!calls.length) return { kind, response: { content, reasoning, usage: USAGE } };
  return { kind, response: content ? { content, toolCalls: calls, reasoning, usage: USAGE } : { toolCalls: calls, reasoning, usage: USAGE } };
}

const mock = new LLMock({ port: 0, host: "127.0.0.1", logLevel: "silent", chunkSize: 16 });
const serve = (kind, options) => mock.addFixture({ match: { predicate: (req) => plan(req).kind === kind }, response: (req) => plan(req).response, ...options });
serve("slow", { chunkSize: 4, latency: 50 });
serve("hang", { chunkSize: 4, streamingProfile: { ttft: 0, tps: 1000 / HOUR } });
serve("cut", { chunkSize: 4, latency: 20, truncateAfterChunks: 6 });
serve("garbage", { chaos: { malformedRate: 1 } });
serve("error", {});
serve("plain", {});
for (const model of ["m1", "m2"]) mock.addFixture({ match: { model, predicate: () => false }, response: { content: "" } }); // for GET /v1/models

console.log(await mock.start());
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
