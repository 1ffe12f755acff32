/** A question of an agent, answered where one reads it: by a choice, or in one's own words, whose draft is kept. */
import { Button, Checkbox, Radio, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { POST, type Schemas, told } from "../api/client";
import { complain, say } from "../app/said";
import { useStored } from "../review/marks";
import classes from "./ui.module.css";

interface AnswerProps {
  id: string;
  choices: readonly Schemas["PermissionChoice"][];
  several: boolean;
  className?: string;
  /** What stands above the choices. */
  children?: ReactNode;
}

export function Answer({ id, choices, several, className = "", children }: AnswerProps) {
  const cache = useQueryClient();
  const [picked, setPicked] = useState<string[]>([]);
  const [own, setOwn] = useStored(`draft.asked.${id}`);
  const words = (own ?? "").trim();
  // Where one answer is wanted, a choice goes before words that were typed, which stay in their field.
  const answers = [...picked, ...(words === "" || (!several && picked.length > 0) ? [] : [words])];
  const send = useMutation({
    mutationFn: () =>
      told(
        POST("/api/v1/permissions/{permission_id}/answer", {
          params: { path: { permission_id: id } },
          body: { answers },
        }),
      ),
    onSuccess: () => {
      setOwn(null);
      say(`Answered: ${answers.join(", ")}`);
    },
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: ["permissions"] }),
  });
  const Group = several ? Checkbox.Group : Radio.Group;
  const Choice = several ? Checkbox : Radio;
  return (
    <form
      className={className}
      aria-label="The agent asks"
      onSubmit={(event) => {
        event.preventDefault();
        send.mutate();
      }}
    >
      {children}
      {choices.length > 0 && (
        <Group
          value={(several ? picked : (picked[0] ?? null)) as never}
          onChange={(value: string[] | string | null) => setPicked([value ?? []].flat())}
          aria-label="Answers"
        >
          {choices.map((each) => (
            <Choice
              size="xs"
              key={each.label}
              mt={6}
              value={each.label}
              label={each.label}
              description={each.description}
            />
          ))}
        </Group>
      )}
      <div className={classes.own}>
        <TextInput
          size="xs"
          placeholder="In your own words"
          aria-label="In your own words"
          value={own ?? ""}
          onChange={(event) => {
            setOwn(event.currentTarget.value || null);
            if (!several) setPicked([]);
          }}
        />
        <Button size="xs" type="submit" disabled={answers.length === 0 || send.isPending || send.isSuccess}>
          Answer
        </Button>
      </div>
    </form>
  );
}
