/** What waits behind the turn that runs: messages that can still be changed, taken back or sent at once, and those on their way. */
import { Button, Textarea } from "@mantine/core";
import { ClockIcon, SyncIcon } from "@primer/octicons-react";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { DELETE, POST, PUT, told } from "../api/client";
import { live } from "../app/live";
import { complain, say } from "../app/said";
import type { Outgoing } from "../live/live";
import type { QueuedMessage } from "../live/wire";
import { useStored } from "../review/marks";
import classes from "./session.module.css";

interface QueuedProps {
  session: string;
  message: QueuedMessage;
  /** A turn runs, which would be cancelled for it. */
  busy: boolean;
}

export function Queued({ session, message, busy }: QueuedProps) {
  const path = { params: { path: { session_id: session, task: message.task_id } } };
  const [draft, setDraft] = useStored(`draft.queued.${message.task_id}`);
  const [editing, setEditing] = useState(draft !== null);
  const close = () => {
    setDraft(null);
    setEditing(false);
  };
  const remove = useMutation({
    mutationFn: () => told(DELETE("/api/v1/sessions/{session_id}/queue/{task}", path)),
    onSuccess: () => {
      setDraft(null);
      say("Taken out of the queue.");
    },
    onError: complain,
  });
  const now = useMutation({
    mutationFn: () => told(POST("/api/v1/sessions/{session_id}/queue/{task}/now", path)),
    onSuccess: () => say("The turn that runs is stopped for it."),
    onError: complain,
  });
  const change = useMutation({
    mutationFn: (input: string) =>
      told(PUT("/api/v1/sessions/{session_id}/queue/{task}", { ...path, body: { input } })),
    onSuccess: close,
    onError: complain,
  });
  const text = draft ?? message.text;
  const save = () => {
    if (text.trim() === "") return;
    if (text === message.text) close();
    else change.mutate(text);
  };
  if (editing)
    return (
      <form
        className={classes.waiting}
        onSubmit={(event) => {
          event.preventDefault();
          save();
        }}
      >
        <Textarea
          aria-label="Message that waits"
          autosize
          minRows={2}
          maxRows={12}
          value={text}
          onChange={(event) => setDraft(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") event.currentTarget.blur();
            if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) save();
          }}
        />
        <div className={classes.buttons}>
          <Button type="submit" size="compact-xs" disabled={text.trim() === ""} loading={change.isPending}>
            Save
          </Button>
          <Button size="compact-xs" variant="subtle" color="gray" onClick={close}>
            Leave it as it was
          </Button>
        </div>
      </form>
    );
  return (
    <section className={classes.waiting} aria-label="It waits">
      <ClockIcon size={14} aria-label="queued" />
      <div>{message.text}</div>
      <div className={classes.buttons}>
        {busy && (
          <Button
            size="compact-xs"
            variant="subtle"
            loading={now.isPending}
            title="Stops the turn that runs"
            onClick={() => now.mutate()}
          >
            Send now
          </Button>
        )}
        <Button size="compact-xs" variant="subtle" color="gray" onClick={() => setEditing(true)}>
          Edit
        </Button>
        <Button
          size="compact-xs"
          variant="subtle"
          color="gray"
          loading={remove.isPending}
          onClick={() => remove.mutate()}
        >
          Remove
        </Button>
      </div>
    </section>
  );
}

export function Sending({ outgoing }: { outgoing: Outgoing }) {
  const id = outgoing.message.client_message_id;
  return (
    <div className={classes.waiting}>
      <SyncIcon size={14} aria-label={outgoing.refused === null ? "being sent" : "refused"} />
      <div>
        {outgoing.message.text}
        {outgoing.refused !== null && <p className="bad">{outgoing.refused}</p>}
      </div>
      {outgoing.refused !== null && (
        <div className={classes.buttons}>
          <Button size="compact-xs" variant="default" onClick={() => live.again(id)}>
            Send again
          </Button>
          <Button size="compact-xs" variant="subtle" color="gray" onClick={() => live.discard(id)}>
            Discard
          </Button>
        </div>
      )}
    </div>
  );
}
