/** One project: where it is, what its agents may do, what runs beside them, and its permission rules. */
import { Button, NumberInput, Select, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link } from "@tanstack/react-router";
import type { FormEvent } from "react";
import { PATCH, type Project, type Schemas, told } from "../api/client";
import { useKeys } from "../app/keys";
import { say } from "../app/said";
import { useStored } from "../review/marks";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Failed, Key, Path } from "../ui/parts";
import { Waiting } from "../ui/waiting";
import { project as projectQuery } from "./queries";
import { Rules } from "./rules";
import { choices, FALLBACKS, NETWORKS, POLICIES } from "./words";

export const route = createLazyRoute("/projects/$name")({ component: ProjectPage });

type Changes = Schemas["ProjectChanges"];

function ProjectPage() {
  const { name } = route.useParams();
  const { data, error, refetch } = useQuery(projectQuery(name));
  return (
    <>
      <header className={rows.head}>
        <h1>{data?.name ?? name}</h1>
        {data !== undefined && (
          <>
            <Path path={data.path} />
            <span className="dim">
              added <Age of={data.created_at} />
            </span>
            <Button
              className={rows.push}
              component={Link}
              to="/queue"
              search={{ project: data.name } as never}
              size="xs"
              variant="default"
            >
              Its tasks
            </Button>
          </>
        )}
      </header>
      {error !== null && <Failed error={error} retry={() => void refetch()} />}
      {data === undefined && error === null && <Waiting />}
      {data !== undefined && (
        <div className={form.column}>
          <Settings key={data.id} of={data} />
          <Rules project={data.name} />
        </div>
      )}
    </>
  );
}

/** What is given of a draft and differs from what is set. */
function changesOf(draft: Changes, of: Project): Changes {
  return Object.fromEntries(
    Object.entries(draft).filter(
      ([name, value]) => JSON.stringify(value) !== JSON.stringify(of[name as keyof Changes] ?? ""),
    ),
  );
}

function Settings({ of }: { of: Project }) {
  const cache = useQueryClient();
  const [stored, store] = useStored(`draft.project.${of.id}`);
  const draft = stored === null ? {} : (JSON.parse(stored) as Changes);
  const changes = changesOf(draft, of);
  const changed = Object.keys(changes).length > 0;
  const now = { ...of, ...draft };
  const put = (change: Changes) => store(JSON.stringify({ ...draft, ...change }));
  const save = useMutation({
    mutationFn: () =>
      told(PATCH("/api/v1/projects/{project}", { params: { path: { project: of.name } }, body: changes })),
    onSuccess: (after) => {
      store(null);
      say(`Project ${after.name} is saved; turns that run go on as they began.`);
      cache.setQueryData(projectQuery(of.name).queryKey, after);
      void cache.invalidateQueries({ queryKey: ["projects"] });
    },
  });
  const submit = (event?: FormEvent) => {
    event?.preventDefault();
    if (changed && !save.isPending) save.mutate();
  };
  useKeys([{ key: "mod+s", does: "Save", run: submit, typing: true }]);
  return (
    <form className={form.column} style={{ padding: 0 }} onSubmit={submit}>
      <section className={form.section}>
        <h2>What its agents may do</h2>
        <div className={form.pair}>
          <Select
            label="What they want to do"
            description="Where no permission rule fits"
            allowDeselect={false}
            value={now.permission_policy}
            onChange={(value) => put({ permission_policy: value as Project["permission_policy"] })}
            data={choices(POLICIES)}
          />
          <Select
            label="Network"
            description="Of agents, their commands and checks"
            allowDeselect={false}
            value={now.network}
            onChange={(value) => put({ network: value as Project["network"] })}
            data={choices(NETWORKS)}
          />
          <Select
            label="A missing agent"
            description="When a task names one that is not there"
            allowDeselect={false}
            value={now.agent_fallback}
            onChange={(value) => put({ agent_fallback: value as Project["agent_fallback"] })}
            data={choices(FALLBACKS)}
          />
        </div>
      </section>
      <section className={form.section}>
        <h2>A fresh worktree</h2>
        <TextInput
          label="Setup command"
          description="Run once in every fresh worktree, before the first turn; empty = none"
          placeholder="npm ci"
          spellCheck={false}
          classNames={{ input: "mono" }}
          value={now.setup_command ?? ""}
          onChange={(event) => put({ setup_command: event.currentTarget.value })}
        />
        <Textarea
          label="Copied files"
          description="Ignored files that it gets from the checkout, one pattern a line"
          placeholder={".env\nconfig/*.local"}
          autosize
          minRows={2}
          maxRows={10}
          spellCheck={false}
          classNames={{ input: "mono" }}
          value={(now.copy_globs ?? []).join("\n")}
          onChange={(event) => {
            const lines = event.currentTarget.value;
            put({ copy_globs: lines === "" ? [] : lines.split("\n") });
          }}
        />
      </section>
      <section className={form.section}>
        <h2>The check of each turn</h2>
        <TextInput
          label="Check command"
          description="Run in the worktree on what each turn left; empty = none"
          placeholder="make test"
          spellCheck={false}
          classNames={{ input: "mono" }}
          value={now.check_command ?? ""}
          onChange={(event) => put({ check_command: event.currentTarget.value })}
        />
        <div className={form.pair}>
          <NumberInput
            label="Time limit"
            description="After it the check has failed"
            suffix=" s"
            min={1}
            max={604800}
            value={now.check_seconds ?? ""}
            onChange={(value) => typeof value === "number" && put({ check_seconds: value })}
          />
          <NumberInput
            label="Sent back to the agent"
            description="How often in a row a failed check is; 0 = never"
            suffix=" times"
            min={0}
            max={20}
            allowDecimal={false}
            value={now.auto_fix ?? ""}
            onChange={(value) => typeof value === "number" && put({ auto_fix: value })}
          />
        </div>
      </section>
      {save.error !== null && (
        <p className="bad" role="alert">
          {save.error.message}
        </p>
      )}
      <div className={form.foot}>
        <Button type="submit" disabled={!changed} loading={save.isPending} rightSection={<Key of="mod+s" onAccent />}>
          Save
        </Button>
        {changed && (
          <Button variant="subtle" color="gray" onClick={() => store(null)}>
            Forget what I typed
          </Button>
        )}
      </div>
    </form>
  );
}
