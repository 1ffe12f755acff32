/** Beside the diff: why it is there. The prompt, the answer, what was run, the check, where the work is. */
import { Button } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type Change, POST, told } from "../api/client";
import { check as checkQuery, ranIn, task as taskQuery } from "../api/queries";
import { complain } from "../app/said";
import { gist } from "../session/calls";
import { Markdown } from "../session/markdown";
import { Failed, State } from "../ui/parts";
import classes from "./review.module.css";

export function About({ change }: { change: Change }) {
  const { data, error } = useQuery(taskQuery(change.task_id));
  return (
    <aside className={classes.about} aria-label="About this change">
      {error !== null && <Failed error={error} />}
      {data !== undefined && (
        <>
          <h2>Prompt</h2>
          <pre>{data.input}</pre>
          <h2>Answer</h2>
          {data.output_summary ? <Markdown text={data.output_summary} /> : <p className="dim">Nothing was said.</p>}
        </>
      )}
      <Ran change={change} />
      {change.check_state !== null && <Checked change={change} />}
      {data !== undefined && (
        <>
          <h2>Task</h2>
          <p className="num">
            {data.id} · {data.agent_used ?? data.agent ?? "native"}
            {data.model !== null && ` · ${data.model}`} · {data.cost_tokens.toLocaleString("en")} tokens
          </p>
          {data.notices.map((notice) => (
            <p key={notice} className="warn">
              {notice}
            </p>
          ))}
        </>
      )}
      <h2>Worktree</h2>
      <p>
        <code>{change.worktree ?? "removed"}</code>
      </p>
      <Button
        component={Link}
        to="/sessions/$id"
        params={{ id: change.session_id } as never}
        size="xs"
        variant="default"
        mt={12}
      >
        Open the session
      </Button>
    </aside>
  );
}

/** The commands of the turn that made the change, in order, with how each ended; what they printed opens. */
function Ran({ change }: { change: Change }) {
  const { data } = useQuery(ranIn(change.session_id, change.task_id));
  if (data === undefined) return null;
  return (
    <>
      <h2>Commands</h2>
      {data.length === 0 && <p className="dim">The agent ran none.</p>}
      {data.map((call) => (
        <details key={call.id} className={classes.ran}>
          <summary>
            <code>{gist(call)}</code>
            <span className={`num ${call.exit_code === 0 ? "dim" : "bad"}`}>exit {call.exit_code}</span>
          </summary>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard */}
          <pre className={classes.output} tabIndex={0}>
            {call.output === "" ? "It printed nothing." : call.output}
          </pre>
        </details>
      ))}
    </>
  );
}

function Checked({ change }: { change: Change }) {
  const cache = useQueryClient();
  const { data } = useQuery(checkQuery(change.id));
  const again = useMutation({
    mutationFn: () => told(POST("/api/v1/changes/{change_id}/check", { params: { path: { change_id: change.id } } })),
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: checkQuery(change.id).queryKey }),
  });
  if (data === undefined) return null;
  const going = data.state === "queued" || data.state === "running";
  return (
    <>
      <h2>Check</h2>
      <p>
        <State is={data.state} /> <code>{data.command}</code> {data.detail}
      </p>
      {data.output !== "" && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard
        <pre className={classes.output} tabIndex={0}>
          {data.output}
        </pre>
      )}
      {!going && change.state === "pending" && (
        <Button size="compact-xs" variant="default" mt={6} loading={again.isPending} onClick={() => again.mutate()}>
          Check again
        </Button>
      )}
    </>
  );
}
