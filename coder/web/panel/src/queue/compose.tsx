/** A new task: what to do, where, and by whom. What was typed survives a reload; sent twice it is queued once. */
import { Button, Modal, NumberInput, Select, Textarea } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { POST, told } from "../api/client";
import { agents as agentsQuery, projects as projectsQuery } from "../api/queries";
import { say } from "../app/said";
import { useStored } from "../review/marks";
import { Key } from "../ui/parts";
import classes from "./queue.module.css";

interface ComposeProps {
  opened: boolean;
  close(): void;
  project: string | undefined;
}

const NATIVE = "native";

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
  const { data: known } = useQuery(agentsQuery);
  const [draft, setDraft] = useStored("draft.task");
  const [last, setLast] = useStored("compose-project");
  const [agent, setAgent] = useStored("compose-agent");
  const [model, setModel] = useState<string | null>(null);
  const [mode, setMode] = useState<string | null>(null);
  const [thinking, setThinking] = useState<string | null>(null);
  const [priority, setPriority] = useState(0);
  const [key, setKey] = useState(() => crypto.randomUUID());
  const names = (listed?.items ?? []).map((each) => each.name);
  const project = given ?? (last !== null && names.includes(last) ? last : (names[0] ?? null));
  const available = [...new Set((known?.items ?? []).filter((each) => each.available).map((each) => each.agent))];
  const facts = known?.items.find((each) => each.agent === (agent ?? NATIVE) && each.available);
  const add = useMutation({
    mutationFn: () =>
      told(
        POST("/api/v1/tasks", {
          body: {
            project: project ?? "",
            input: draft ?? "",
            priority,
            idempotency_key: key,
            ...(agent !== null && agent !== NATIVE && { agent }),
            ...(model !== null && { model }),
            ...(mode !== null && { mode_id: mode }),
            ...(thinking !== null && { thinking_option_id: thinking }),
          } as never,
        }),
      ),
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
  return (
    <form className={classes.form} onSubmit={submit}>
      <Textarea
        label="What to do"
        autosize
        minRows={5}
        maxRows={16}
        data-autofocus
        value={draft ?? ""}
        onChange={(event) => setDraft(event.currentTarget.value || null)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit();
        }}
      />
      <div className={classes.pair}>
        <Select
          label="Project"
          value={project}
          onChange={setLast}
          data={names}
          searchable
          disabled={given !== undefined}
        />
        <Select
          label="Agent"
          value={agent ?? NATIVE}
          onChange={(value) => {
            setAgent(value);
            setModel(null);
            setMode(null);
            setThinking(null);
          }}
          data={available.includes(NATIVE) ? available : [NATIVE, ...available]}
          allowDeselect={false}
        />
        {facts !== undefined && facts.models.length > 0 && (
          <Select
            label="Model"
            placeholder="The agent's own"
            clearable
            searchable
            value={model}
            onChange={setModel}
            data={facts.models}
          />
        )}
        {facts !== undefined && facts.modes.length > 0 && (
          <Select
            label="Mode"
            placeholder="The agent's own"
            clearable
            value={mode}
            onChange={setMode}
            data={facts.modes}
          />
        )}
        {facts !== undefined && facts.thinking_options.length > 0 && (
          <Select
            label="Thinking"
            placeholder="The agent's own"
            clearable
            value={thinking}
            onChange={setThinking}
            data={facts.thinking_options}
          />
        )}
        <NumberInput
          label="Priority"
          description="Higher first, among sessions"
          min={-32768}
          max={32767}
          value={priority}
          onChange={(value) => setPriority(Number(value) || 0)}
        />
      </div>
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
