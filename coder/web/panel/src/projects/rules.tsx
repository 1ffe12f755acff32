/** What agents of a project may use without asking: the rules there are, a new one, and taking one back. */
import { Button, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { DELETE, POST, type Schemas, told } from "../api/client";
import { complain, say } from "../app/said";
import { useStored } from "../review/marks";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Failed } from "../ui/parts";
import { rules as rulesQuery } from "./queries";

type Rule = Schemas["PermissionRule"];

export function Rules({ project }: { project: string }) {
  const cache = useQueryClient();
  const { data, error } = useQuery(rulesQuery(project));
  const again = () => cache.invalidateQueries({ queryKey: rulesQuery(project).queryKey });
  const revoke = useMutation({
    mutationFn: (rule: Rule) =>
      told(
        DELETE("/api/v1/projects/{project}/permission-rules/{rule_id}", {
          params: { path: { project, rule_id: rule.id } },
        }),
      ),
    onSuccess: (rule) => say(`Agents ask again before they use ${rule.tool} for ${rule.pattern}.`),
    onError: complain,
    onSettled: again,
  });
  return (
    <section className={form.section}>
      <h2>Permission rules</h2>
      <p className="dim">What fits one is allowed without asking; answering “from now on” makes one as well.</p>
      {error !== null && data === undefined && <Failed error={error} />}
      {data !== undefined && data.items.length === 0 && <p className="dim">There are none.</p>}
      <ul className={form.lines}>
        {data?.items.map((rule) => (
          <li key={rule.id}>
            <span className={rows.code}>{rule.tool}</span>
            <span className={rows.code} title={rule.pattern}>
              {rule.pattern}
            </span>
            {rule.session_id !== null && (
              <Link to="/sessions/$id" params={{ id: rule.session_id }}>
                only in one session
              </Link>
            )}
            <span className={`${rows.about} ${form.push}`}>
              <span>by {rule.actor}</span>
              <Age of={rule.created_at} />
            </span>
            <Button
              size="compact-xs"
              variant="default"
              disabled={revoke.isPending}
              aria-label={`Revoke the rule for ${rule.tool}: ${rule.pattern}`}
              onClick={() => revoke.mutate(rule)}
            >
              Revoke
            </Button>
          </li>
        ))}
      </ul>
      <Add project={project} added={again} />
    </section>
  );
}

function Add({ project, added }: { project: string; added(): Promise<unknown> }) {
  const [tool, setTool] = useState("*");
  const [pattern, setPattern] = useStored(`draft.rule.${project}`);
  const add = useMutation({
    mutationFn: () =>
      told(
        POST("/api/v1/projects/{project}/permission-rules", {
          params: { path: { project } },
          body: { tool, pattern: pattern ?? "" },
        }),
      ),
    onSuccess: (rule) => {
      setPattern(null);
      say(`${rule.tool === "*" ? "Any tool" : rule.tool} is allowed for ${rule.pattern}, also in requests that wait.`);
      return added();
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    add.mutate();
  };
  return (
    <form className={form.section} style={{ padding: 0, border: 0 }} onSubmit={submit}>
      <div className={form.pair}>
        <TextInput
          label="Tool"
          description="As the agent names it; * = any"
          spellCheck={false}
          classNames={{ input: "mono" }}
          value={tool}
          onChange={(event) => setTool(event.currentTarget.value)}
        />
        <TextInput
          label="What it is used for"
          description="* is any text, ? any character, \ takes the next as it is"
          placeholder="npm *"
          spellCheck={false}
          classNames={{ input: "mono" }}
          value={pattern ?? ""}
          onChange={(event) => setPattern(event.currentTarget.value || null)}
        />
      </div>
      {add.error !== null && (
        <p className="bad" role="alert">
          {add.error.message}
        </p>
      )}
      <div className={form.foot}>
        <Button
          type="submit"
          variant="default"
          loading={add.isPending}
          disabled={pattern === null || tool.trim() === ""}
        >
          Allow it from now on
        </Button>
      </div>
    </form>
  );
}
