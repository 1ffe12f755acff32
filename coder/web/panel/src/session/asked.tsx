/** What an agent asks a person, to be answered where one reads it. */
import { Button, Checkbox, Radio, TextInput } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { POST, told } from "../api/client";
import { complain } from "../app/said";
import type { PermissionRequest, PermissionRequested, Question } from "../live/wire";
import { useStored } from "../review/marks";
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
  const [picked, setPicked] = useState<string[]>([]);
  const [own, setOwn] = useStored(`draft.asked.${id}`);
  const answers = [...picked, ...(own === null || own.trim() === "" ? [] : [own.trim()])];
  const send = useMutation({
    mutationFn: () =>
      told(
        POST("/api/v1/permissions/{permission_id}/answer", {
          params: { path: { permission_id: id } },
          body: { answers },
        }),
      ),
    onSuccess: () => setOwn(null),
    onError: complain,
  });
  return (
    <form
      className={`${classes.card} ${classes.ask}`}
      aria-label="The agent asks"
      onSubmit={(event) => {
        event.preventDefault();
        send.mutate();
      }}
    >
      <strong>{question.text}</strong>
      {question.several ? (
        <Checkbox.Group value={picked} onChange={setPicked} aria-label="Answers">
          {question.choices.map((each) => (
            <Checkbox key={each.label} mt={6} value={each.label} label={each.label} description={each.description} />
          ))}
        </Checkbox.Group>
      ) : (
        <Radio.Group
          value={picked[0] ?? null}
          onChange={(value) => setPicked(value === null ? [] : [value])}
          aria-label="Answers"
        >
          {question.choices.map((each) => (
            <Radio key={each.label} mt={6} value={each.label} label={each.label} description={each.description} />
          ))}
        </Radio.Group>
      )}
      <div className={classes.answers}>
        <TextInput
          size="xs"
          placeholder="In your own words"
          aria-label="In your own words"
          value={own ?? ""}
          onChange={(event) => {
            setOwn(event.currentTarget.value || null);
            if (!question.several) setPicked([]);
          }}
        />
        <Button size="xs" type="submit" disabled={answers.length === 0 || send.isPending || send.isSuccess}>
          Answer
        </Button>
      </div>
    </form>
  );
}
