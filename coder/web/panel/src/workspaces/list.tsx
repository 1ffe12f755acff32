/** The workspaces, last active first, and how a new one is made. */
import { Button, Modal, TextInput } from "@mantine/core";
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { PUT, told } from "../api/client";
import { say } from "../app/said";
import { useStored } from "../review/marks";
import rows from "../ui/list.module.css";
import { Age, Path, plural } from "../ui/parts";
import { Adding, Rows, useListed } from "../ui/rows";
import { workspaces } from "./queries";

export const route = createLazyRoute("/workspaces")({ component: WorkspacesPage });

function WorkspacesPage() {
  const { make } = route.useSearch() as { make?: true };
  const navigate = useNavigate();
  const listed = useListed(useInfiniteQuery(workspaces), "workspaces");
  const making = (is: boolean) => void navigate({ to: "/workspaces", search: is ? { make: true } : {} });
  return (
    <>
      <Rows
        {...listed}
        title="Workspaces"
        head={<Adding push word="Make a workspace" run={() => making(true)} />}
        keys={(item) => [
          {
            key: "Enter",
            does: "Open",
            run: () => item && void navigate({ to: "/workspaces/$id", params: { id: item.id } }),
          },
          { key: "c", does: "Make a workspace", run: () => making(true) },
        ]}
        row={(item) => (
          <>
            <span className={`${rows.about} num`}>{plural(item.session_count, "session")}</span>
            <div className={rows.what}>
              <Link className={rows.title} to="/workspaces/$id" params={{ id: item.id }}>
                {item.title || item.id}
              </Link>
              <span className={rows.about}>
                <code>{item.id}</code>
                {item.default_cwd !== null && <Path path={item.default_cwd} />}
              </span>
            </div>
            <span className={rows.about}>
              active <Age of={item.last_activity_at} />
            </span>
          </>
        )}
      />
      <Modal opened={make === true} onClose={() => making(false)} title="Make a workspace" size="md">
        <Make />
      </Modal>
    </>
  );
}

function Make() {
  const cache = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useStored("draft.workspace");
  const [wrong, setWrong] = useState<string | null>(null);
  const make = useMutation({
    mutationFn: async (id: string) => {
      const answer = PUT("/api/v1/workspaces/{workspace_id}", { params: { path: { workspace_id: id } } });
      const workspace = await told(answer);
      return { made: (await answer).response.status === 201, workspace };
    },
    onSuccess: ({ made, workspace }) => {
      say(made ? `Workspace ${workspace.id} is made.` : `Workspace ${workspace.id} was there already.`);
      setName(null);
      void cache.invalidateQueries({ queryKey: ["workspaces"] });
      void navigate({ to: "/workspaces/$id", params: { id: workspace.id } });
    },
    onError: (error) => setWrong(error.message),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (name !== null) make.mutate(name.trim());
  };
  return (
    <form onSubmit={submit}>
      <TextInput
        label="Name"
        description="1 to 40 of a–z, 0–9 and -, not at the ends; tasks and sessions name it so"
        data-autofocus
        autoComplete="off"
        spellCheck={false}
        value={name ?? ""}
        error={wrong}
        onChange={(event) => {
          setWrong(null);
          setName(event.currentTarget.value || null);
        }}
      />
      <Button type="submit" mt={16} fullWidth loading={make.isPending} disabled={name === null || name.trim() === ""}>
        Make it
      </Button>
    </form>
  );
}
