/** One workspace: its title, where its turns start, its sessions, and what deleting it does. */
import { Button, Modal, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { DELETE, PUT, type Schemas, told } from "../api/client";
import { useKeys } from "../app/keys";
import { complain, say } from "../app/said";
import { useStored } from "../review/marks";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Failed, Key, plural, State } from "../ui/parts";
import { Waiting } from "../ui/waiting";
import { sessionsOf, workspace as workspaceQuery } from "./queries";

export const route = createLazyRoute("/workspaces/$id")({ component: WorkspacePage });

type Workspace = Schemas["Workspace"];
const DEFAULT = "default";

function WorkspacePage() {
  const { id } = route.useParams();
  const { data, error, refetch } = useQuery(workspaceQuery(id));
  return (
    <>
      <header className={rows.head}>
        <h1>{data?.title || id}</h1>
        <span className="dim">
          {data !== undefined && (
            <>
              <span className="num">{plural(data.session_count, "session")}</span>, active{" "}
              <Age of={data.last_activity_at} />
            </>
          )}
        </span>
      </header>
      {error !== null && <Failed error={error} retry={() => void refetch()} />}
      {data === undefined && error === null && <Waiting />}
      {data !== undefined && (
        <div className={form.column}>
          <Settings key={id} of={data} />
          <Sessions of={data} />
          {id !== DEFAULT && <Delete of={data} />}
        </div>
      )}
    </>
  );
}

/** One text of the workspace: what was typed and not saved yet stays, also over a reload. */
function Settings({ of }: { of: Workspace }) {
  const cache = useQueryClient();
  const [title, setTitle] = useStored(`draft.workspace.${of.id}.title`);
  const [cwd, setCwd] = useStored(`draft.workspace.${of.id}.cwd`);
  const [wrong, setWrong] = useState<{ title?: string; cwd?: string }>({});
  const path = { params: { path: { workspace_id: of.id } } };
  const save = useMutation({
    mutationFn: async () => {
      const failed: { title?: string; cwd?: string } = {};
      if (title !== null && title !== of.title)
        await told(PUT("/api/v1/workspaces/{workspace_id}/title", { ...path, body: { title } })).then(
          () => setTitle(null),
          (error: Error) => {
            failed.title = error.message;
          },
        );
      if (cwd !== null && cwd !== (of.default_cwd ?? ""))
        await told(
          PUT("/api/v1/workspaces/{workspace_id}/default-cwd", {
            ...path,
            body: { cwd: cwd.trim() === "" ? null : cwd },
          }),
        ).then(
          () => setCwd(null),
          (error: Error) => {
            failed.cwd = error.message;
          },
        );
      return failed;
    },
    onSuccess: (failed) => {
      setWrong(failed);
      if (Object.keys(failed).length === 0) say(`Workspace ${of.id} is saved.`);
      return cache.invalidateQueries({ queryKey: ["workspaces"] });
    },
  });
  const changed = (title !== null && title !== of.title) || (cwd !== null && cwd !== (of.default_cwd ?? ""));
  const submit = (event?: FormEvent) => {
    event?.preventDefault();
    if (changed && !save.isPending) save.mutate();
  };
  useKeys([{ key: "mod+s", does: "Save", run: submit, typing: true }]);
  return (
    <form className={form.section} onSubmit={submit}>
      <TextInput
        label="Title"
        value={title ?? of.title}
        error={wrong.title}
        onChange={(event) => setTitle(event.currentTarget.value)}
      />
      <TextInput
        label="Default directory"
        description="Where turns of its sessions start, in projects that it is inside of; empty = at the root of each project"
        placeholder="/srv/demo/api"
        spellCheck={false}
        value={cwd ?? of.default_cwd ?? ""}
        error={wrong.cwd}
        onChange={(event) => setCwd(event.currentTarget.value)}
      />
      <div className={form.foot}>
        <Button type="submit" disabled={!changed} loading={save.isPending} rightSection={<Key of="mod+s" onAccent />}>
          Save
        </Button>
        {changed && (
          <Button
            variant="subtle"
            color="gray"
            onClick={() => {
              setTitle(null);
              setCwd(null);
              setWrong({});
            }}
          >
            Forget what I typed
          </Button>
        )}
      </div>
    </form>
  );
}

function Sessions({ of }: { of: Workspace }) {
  const { data, error } = useQuery(sessionsOf(of.id));
  return (
    <section className={form.section}>
      <h2>Sessions</h2>
      {error !== null && data === undefined && <Failed error={error} />}
      {data !== undefined && data.items.length === 0 && (
        <p className="dim">None yet; a task that names this workspace and no session opens one.</p>
      )}
      <ul className={form.lines}>
        {data?.items.map((each) => (
          <li key={each.id}>
            <State is={each.status} />
            <Link to="/sessions/$id" params={{ id: each.id }}>
              {each.title || "A session without a title"}
            </Link>
            <span className={`${rows.about} ${form.push}`}>
              <span>{each.project}</span>
              <Age of={each.last_activity_at} />
            </span>
          </li>
        ))}
      </ul>
      {data !== undefined && data.next_cursor !== null && (
        <p className="dim">These are the last {data.items.length} that were active.</p>
      )}
    </section>
  );
}

function Delete({ of }: { of: Workspace }) {
  const cache = useQueryClient();
  const navigate = useNavigate();
  const [asking, setAsking] = useState(false);
  const { data } = useQuery(sessionsOf(of.id, "active,idle"));
  const open = data === undefined ? null : plural(data.items.length, "session");
  const running = data?.items.filter((each) => each.running_task !== null).length ?? 0;
  const waiting = data?.items.reduce((sum, each) => sum + each.pending_tasks, 0) ?? 0;
  const remove = useMutation({
    mutationFn: () => told(DELETE("/api/v1/workspaces/{workspace_id}", { params: { path: { workspace_id: of.id } } })),
    onSuccess: async ({ closed_count }) => {
      say(`Workspace ${of.id} is deleted; ${plural(closed_count, "session")} closed, all are in default now.`);
      await navigate({ to: "/workspaces" });
      void cache.invalidateQueries({ queryKey: ["workspaces"] });
    },
    onError: complain,
  });
  const said = (
    <>
      {of.session_count === 0
        ? `It has no sessions; nothing but the name ${of.id} goes.`
        : `Its ${plural(of.session_count, "session")} ${of.session_count === 1 ? "moves" : "move"} to default. ${
            open === null || data?.items.length === 0
              ? "None of them is open."
              : `${open}${data?.next_cursor ? " or more" : ""} that ${data?.items.length === 1 ? "is" : "are"} open ${
                  data?.items.length === 1 ? "is" : "are"
                } closed${running > 0 ? `, ${plural(running, "turn")} that run${running === 1 ? "s" : ""} stopped` : ""}${
                  waiting > 0 ? `, ${plural(waiting, "waiting task")} cancelled` : ""
                }.`
          } Their changes and what was said stay, and they can be opened again.`}
    </>
  );
  return (
    <section className={`${form.section} ${form.danger}`}>
      <h2>Delete the workspace</h2>
      <p>{said}</p>
      <div className={form.foot}>
        <Button variant="default" onClick={() => setAsking(true)}>
          Delete {of.id}…
        </Button>
      </div>
      <Modal opened={asking} onClose={() => setAsking(false)} title={`Delete workspace ${of.id}`} size="md">
        <p>{said}</p>
        <Button color="red.9" fullWidth data-autofocus loading={remove.isPending} onClick={() => remove.mutate()}>
          Delete workspace {of.id}
        </Button>
      </Modal>
    </section>
  );
}
