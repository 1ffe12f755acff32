/** A new task: what to do, where, and by whom. What was typed survives a reload; sent twice it is queued once. */
import { Button, Modal, NumberInput, Select, Textarea } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type FormEvent, useRef, useState } from "react";
import { POST, told } from "../api/client";
import { projects as projectsQuery } from "../api/queries";
import { say } from "../app/said";
import { useStored } from "../review/marks";
import { NATIVE, Picker, useAgent, useChoices } from "../session/choices";
import { useCommands } from "../session/commands";
import { Next } from "../ui/next";
import { Key } from "../ui/parts";
import classes from "./queue.module.css";

interface ComposeProps {
  opened: boolean;
  close(): void;
  project: string | undefined;
}

export function Compose({ opened, close, project }: ComposeProps) {
  return (
    <Modal opened={opened} onClose={close} title="Queue a task" size="lg">
      <Form close={close} given={project} />
    </Modal>
  );
}

function Form({ close, given }: { close(): void; given: string | undefined }) {
  const cache = useQueryClient();
  const navigate = useNavigate();
  const { data: listed } = useQuery(projectsQuery);
  const [draft, setDraft] = useStored("draft.task");
  const [last, setLast] = useStored("compose-project");
  const [choices, choose] = useChoices("new", undefined);
  const [priority, setPriority] = useState(0);
  const [key, setKey] = useState(() => crypto.randomUUID());
  const names = (listed?.items ?? []).map((each) => each.name);
  const [chosen, setChosen] = useState(given);
  const project = chosen ?? (last !== null && names.includes(last) ? last : (names[0] ?? null));
  const { known } = useAgent(choices.agent);
  const field = useRef<HTMLTextAreaElement>(null);
  const commands = useCommands(draft ?? "", known?.commands ?? [], (text) => {
    setDraft(text);
    field.current?.focus();
  });
  const add = useMutation({
    mutationFn: () => {
      const { agent, ...features } = choices;
      return told(
        POST("/api/v1/tasks", {
          body: {
            project: project ?? "",
            input: draft ?? "",
            priority,
            idempotency_key: key,
            ...(agent !== NATIVE && { agent }),
            ...Object.fromEntries(Object.entries(features).filter(([, value]) => value !== null)),
          } as never,
        }),
      );
    },
    onSuccess: (task) => {
      say(`Task ${task.id} is queued.`);
      setDraft(null);
      setLast(project);
      setKey(crypto.randomUUID());
      void cache.invalidateQueries({ queryKey: ["queue"] });
      close();
      void navigate({ to: "/sessions/$id", params: { id: task.session_id } });
    },
  });
  const ready = draft !== null && draft.trim() !== "" && project !== null;
  const submit = (event?: FormEvent) => {
    event?.preventDefault();
    if (ready && !add.isPending) add.mutate();
  };
  if (listed?.items.length === 0) return <Next title="Begin with a project" />;
  return (
    <form className={classes.form} onSubmit={submit}>
      {commands.list}
      <Textarea
        ref={field}
        label="What to do"
        description="A / at the beginning offers the commands of the agent"
        autosize
        minRows={5}
        maxRows={16}
        data-autofocus
        value={draft ?? ""}
        {...commands.field}
        data-mantine-stop-propagation={commands.list ? true : undefined} // Escape closes the list, not the dialog
        onChange={(event) => setDraft(event.currentTarget.value || null)}
        onKeyDown={(event) => {
          if (commands.key(event)) return;
          if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit();
        }}
      />
      <div className={classes.pair}>
        <Select
          label="Project"
          value={project}
          onChange={(name) => {
            setChosen(name ?? undefined);
            setLast(name);
          }}
          data={names}
          searchable
          allowDeselect={false}
        />
        <NumberInput
          label="Priority"
          description="Higher first, among sessions"
          min={-32768}
          max={32767}
          value={priority}
          onChange={(value) => setPriority(Number(value) || 0)}
        />
      </div>
      <fieldset className={classes.who}>
        <legend>Who does it</legend>
        <Picker choices={choices} choose={choose} />
      </fieldset>
      {add.error !== null && (
        <p className="bad" role="alert">
          {add.error.message}
        </p>
      )}
      <Button type="submit" disabled={!ready} loading={add.isPending} rightSection={<Key of="mod+Enter" onAccent />}>
        Queue the task
      </Button>
    </form>
  );
}
