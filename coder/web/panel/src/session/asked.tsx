/** What an agent asks a person, to be answered where one reads it. */
import { Button, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { POST, told } from "../api/client";
import { complain } from "../app/said";
import type { PermissionRequest, PermissionRequested, Question } from "../live/wire";
import { useStored } from "../review/marks";
import { Answer } from "../ui/answer";
import classes from "./session.module.css";

export function Asked({ frame }: { frame: PermissionRequested }) {
  return "text" in frame.request ? (
    <Questioned id={frame.permission_id} question={frame.request} />
  ) : (
    <Permitted id={frame.permission_id} request={frame.request} />
  );
}

function Permitted({ id, request }: { id: string; request: PermissionRequest }) {
  const [message, setMessage] = useStored(`draft.asked.${id}`);
  const path = { params: { path: { permission_id: id } } };
  const answer = useMutation({
    mutationFn: (scope: "once" | "session" | "project" | null) =>
      scope === null
        ? told(
            POST("/api/v1/permissions/{permission_id}/deny", {
              ...path,
              body: message === null || message.trim() === "" ? {} : { message: message.trim() },
            }),
          )
        : told(POST("/api/v1/permissions/{permission_id}/allow", { ...path, body: { scope } })),
    onSuccess: () => setMessage(null),
    onError: complain,
  });
  const busy = answer.isPending || answer.isSuccess;
  return (
    <section className={`${classes.card} ${classes.ask}`} aria-label="A permission is asked for">
      <div>
        <strong>The agent wants to use {request.tool}</strong>
        <pre>{request.title}</pre>
        {request.paths.length > 0 && <div className="dim">{request.paths.join(", ")}</div>}
      </div>
      <div className={classes.answers}>
        <Button size="xs" disabled={busy} onClick={() => answer.mutate("once")}>
          Allow once
        </Button>
        <Button size="xs" variant="default" disabled={busy} onClick={() => answer.mutate("session")}>
          Always in this session
        </Button>
        <Button size="xs" variant="default" disabled={busy} onClick={() => answer.mutate("project")}>
          Always in this project
        </Button>
        <TextInput
          size="xs"
          placeholder="Why not; the agent reads it"
          aria-label="Why not"
          value={message ?? ""}
          onChange={(event) => setMessage(event.currentTarget.value || null)}
        />
        <Button size="xs" variant="default" color="red" disabled={busy} onClick={() => answer.mutate(null)}>
          Deny
        </Button>
      </div>
    </section>
  );
}

function Questioned({ id, question }: { id: string; question: Question }) {
  return (
    <Answer id={id} choices={question.choices} several={question.several} className={`${classes.card} ${classes.ask}`}>
      <strong>{question.text}</strong>
    </Answer>
  );
}
