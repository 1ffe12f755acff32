/** By whom the next message is done: as its session's latest task was, until somebody chooses something else. */
import { Select } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import type { Agent, Task } from "../api/client";
import { agents as agentsQuery } from "../api/queries";
import { useStored } from "../review/marks";
import classes from "./session.module.css";

export const NATIVE = "native";

/** What a message may say about who does it; null: whatever the agent does by itself. */
export interface Choices {
  agent: string;
  model: string | null;
  mode_id: string | null;
  thinking_option_id: string | null;
}

/** The choices for the next message of a session, and how to change them; kept in this browser until then. */
export function useChoices(session: string, latest: Task | undefined): [Choices, (next: Choices) => void] {
  const [stored, set] = useStored(`choices.${session}`);
  const choices = useMemo(
    () =>
      stored !== null
        ? (JSON.parse(stored) as Choices)
        : {
            agent: latest?.agent ?? NATIVE,
            model: latest?.model ?? null,
            mode_id: latest?.mode_id ?? null,
            thinking_option_id: latest?.thinking_option_id ?? null,
          },
    [stored, latest],
  );
  return [choices, (next) => set(JSON.stringify(next))];
}

/** What is known of an agent on a host where it can be run. */
export function useAgent(name: string): { known: Agent | undefined; available: string[] } {
  const { data } = useQuery(agentsQuery);
  const there = (data?.items ?? []).filter((each) => each.available);
  return { known: there.find((each) => each.agent === name), available: [...new Set(there.map((each) => each.agent))] };
}

const FEATURES = [
  ["model", "Model", "models"],
  ["mode_id", "Mode", "modes"],
  ["thinking_option_id", "Thinking", "thinking_options"],
] as const;

interface PickerProps {
  choices: Choices;
  choose(next: Choices): void;
}

export function Picker({ choices, choose }: PickerProps) {
  const { known, available } = useAgent(choices.agent);
  const names = [...new Set([NATIVE, ...available, choices.agent])];
  return (
    <div className={classes.choices}>
      <Select
        size="xs"
        aria-label="Agent"
        value={choices.agent}
        onChange={(agent) => agent !== null && choose({ agent, model: null, mode_id: null, thinking_option_id: null })}
        data={names.map((value) => ({ value, label: available.includes(value) ? value : `${value} (not here)` }))}
        allowDeselect={false}
      />
      {FEATURES.map(([field, word, list]) => {
        const offered = known?.[list] ?? [];
        const value = choices[field];
        if (offered.length === 0 && value === null) return null;
        return (
          <Select
            key={field}
            size="xs"
            aria-label={word}
            placeholder={word}
            searchable={offered.length > 9}
            clearable
            value={value}
            onChange={(next) => choose({ ...choices, [field]: next })}
            data={[...new Set([...offered, ...(value === null ? [] : [value])])]}
          />
        );
      })}
    </div>
  );
}
