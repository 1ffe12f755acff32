/** Where one says more: to the agent of one's choice, behind the turn that runs or instead of it. */
import { Button, Checkbox, Textarea } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useRef, useState } from "react";
import { latestTask } from "../api/queries";
import { useKeys } from "../app/keys";
import { live } from "../app/live";
import type { Command } from "../live/wire";
import { useStored } from "../review/marks";
import { Key } from "../ui/parts";
import { NATIVE, Picker, useAgent, useChoices } from "./choices";
import { useCommands } from "./commands";
import classes from "./session.module.css";

interface ComposerProps {
  id: string;
  /** A turn runs. */
  busy: boolean;
  closed: boolean;
  /** What the agent of the latest turn said it offers. */
  told: readonly Command[];
  /** Grows with the session's turns. */
  turns: number;
}

export function Composer({ id, busy, closed, told, turns }: ComposerProps) {
  const [draft, setDraft] = useStored(`draft.session.${id}`);
  const { data: latest } = useQuery(latestTask(id, turns));
  const [choices, choose] = useChoices(id, latest ?? undefined);
  const [interrupt, setInterrupt] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const { known } = useAgent(choices.agent);
  const offered = told.length > 0 && choices.agent === (latest?.agent ?? NATIVE) ? told : (known?.commands ?? []);
  const commands = useCommands(draft ?? "", offered, (text) => {
    setDraft(text);
    field.current?.focus();
  });
  const empty = draft === null || draft.trim() === "";
  const send = (event?: FormEvent) => {
    event?.preventDefault();
    if (draft === null || empty) return;
    const { agent, ...features } = choices;
    const given = Object.fromEntries(Object.entries(features).filter(([, value]) => value !== null));
    live.send(id, draft, {
      ...(agent !== NATIVE && { agent }),
      ...given,
      ...(busy && interrupt && { interrupt: true }),
    });
    setDraft(null);
    setInterrupt(false);
  };
  useKeys([{ key: "c", does: "Write a message", run: () => field.current?.focus() }]);
  return (
    <div className={classes.composer}>
      <form onSubmit={send}>
        {commands.list}
        <Textarea
          ref={field}
          aria-label="Message"
          placeholder={
            closed
              ? "The session is closed; what you say opens it again"
              : busy
                ? "Queue a message behind the turn that runs"
                : "What should the agent do next?"
          }
          autosize
          minRows={2}
          maxRows={10}
          value={draft ?? ""}
          {...commands.field}
          onChange={(event) => setDraft(event.currentTarget.value || null)}
          onKeyDown={(event) => {
            if (commands.key(event)) return;
            if (event.key === "Escape") field.current?.blur();
            if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) send();
          }}
        />
        <div className={classes.row}>
          <Picker choices={choices} choose={choose} />
          <span className={classes.push}>
            {busy && (
              <Checkbox
                size="xs"
                label="Interrupt"
                title="Stop the turn that runs, and do this first"
                checked={interrupt}
                onChange={(event) => setInterrupt(event.currentTarget.checked)}
              />
            )}
            <Button type="submit" size="xs" disabled={empty} rightSection={<Key of="mod+Enter" onAccent />}>
              {!busy ? "Send" : interrupt ? "Stop it and send" : "Queue"}
            </Button>
          </span>
        </div>
      </form>
    </div>
  );
}
