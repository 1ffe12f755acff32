/** A question of an agent, answered in its row: by a choice, or in words of one's own. */
import { Button, Checkbox, Radio, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import type { Permission } from "../api/client";
import { useStored } from "../review/marks";
import { answer, type Done } from "./acts";
import classes from "./inbox.module.css";

interface AnswerProps {
  permission: Permission;
  busy: boolean;
  act(what: Done): void;
  close(): void;
}

export function Answer({ permission, busy, act, close }: AnswerProps) {
  const [picked, setPicked] = useState<string[]>([]);
  const [own, setOwn] = useStored(`draft.answer.${permission.id}`);
  const words = (own ?? "").trim();
  const answers = [...picked, ...(words === "" ? [] : [words])];
  const submit = (event: FormEvent) => {
    event.preventDefault();
    act(answer(permission, answers));
    setOwn(null);
  };
  const { choices, several } = permission;
  const Group = several ? Checkbox.Group : Radio.Group;
  const Choice = several ? Checkbox : Radio;
  return (
    <form className={classes.answer} aria-label="Your answer" onSubmit={submit}>
      {choices.length > 0 && (
        <Group
          value={(several ? picked : (picked[0] ?? null)) as never}
          onChange={(value: string[] | string | null) => setPicked([value ?? []].flat())}
          aria-label="Answers"
        >
          {choices.map((each, at) => (
            <Choice
              key={each.label}
              mt={6}
              value={each.label}
              label={each.label}
              description={each.description}
              autoFocus={at === 0}
            />
          ))}
        </Group>
      )}
      <div className={classes.own}>
        <TextInput
          size="xs"
          placeholder="In your own words"
          aria-label="In your own words"
          autoFocus={choices.length === 0}
          value={own ?? ""}
          onChange={(event) => {
            setOwn(event.currentTarget.value || null);
            if (!several) setPicked([]);
          }}
        />
        <Button size="xs" variant="default" onClick={close}>
          Later
        </Button>
        <Button size="xs" type="submit" disabled={busy || answers.length === 0}>
          Send the answer
        </Button>
      </div>
    </form>
  );
}
