/** The projects, and how a repository becomes one: what is at the path is said before anything is made. */
import { Button, Modal, Select, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { POST, type Project, told } from "../api/client";
import { projects } from "../api/queries";
import { say } from "../app/said";
import { useStored } from "../review/marks";
import { Command } from "../ui/command";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Empty, Path } from "../ui/parts";
import { Adding, Rows } from "../ui/rows";
import { checkout } from "./queries";
import { choices, NETWORKS, POLICIES } from "./words";

export const route = createLazyRoute("/projects")({ component: ProjectsPage });

function ProjectsPage() {
  const { add } = route.useSearch() as { add?: true };
  const navigate = useNavigate();
  const { data, error, refetch } = useQuery(projects);
  const adding = (is: boolean) => void navigate({ to: "/projects", search: is ? { add: true } : {} });
  return (
    <>
      <Rows
        items={data?.items}
        error={error}
        refetch={refetch}
        title="Projects"
        head={<Adding push word="Add a project" run={() => adding(true)} />}
        keys={(item) => [
          {
            key: "Enter",
            does: "Open",
            run: () => item && void navigate({ to: "/projects/$name", params: { name: item.name } }),
          },
          { key: "c", does: "Add a project", run: () => adding(true) },
        ]}
        none={
          <Empty title="There are no projects">
            <p>Name a git repository that has a commit, here or where it is:</p>
            <Command text="bin/coder project add demo /path/to/repository" />
          </Empty>
        }
        row={(item) => (
          <>
            <Link className={rows.title} to="/projects/$name" params={{ name: item.name }} title={item.name}>
              {item.name}
            </Link>
            <div className={rows.what}>
              <Path path={item.path} />
              <span className={rows.about}>
                <span>{POLICIES[item.permission_policy]}</span>
                {item.network === "off" && <span>{NETWORKS.off}</span>}
                {item.check_command !== null && (
                  <span>
                    checked by <code>{item.check_command}</code>
                  </span>
                )}
              </span>
            </div>
            <span className={rows.about}>
              added <Age of={item.created_at} />
            </span>
          </>
        )}
      />
      <Modal opened={add === true} onClose={() => adding(false)} title="Add a project" size="lg">
        <Add />
      </Modal>
    </>
  );
}

/** A name that a project may have, of the last part of a path. */
function nameOf(path: string): string {
  const last = path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  return last.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+|-+$/g, "");
}

function Add() {
  const cache = useQueryClient();
  const navigate = useNavigate();
  const [path, setPath] = useStored("draft.project.path");
  const [name, setName] = useStored("draft.project.name");
  const [policy, setPolicy] = useState<Project["permission_policy"]>("allow_in_worktree");
  const [network, setNetwork] = useState<Project["network"]>("on");
  const typed = (path ?? "").trim();
  const [asked] = useDebouncedValue(typed, 250);
  const { data: found, error, isFetching } = useQuery(checkout(asked));
  const settled = asked === typed && !isFetching;
  const called = name ?? (found !== undefined ? nameOf(found.path) : "");
  const add = useMutation({
    mutationFn: (root: string) =>
      told(POST("/api/v1/projects", { body: { name: called, path: root, permission_policy: policy, network } })),
    onSuccess: (project) => {
      say(`Project ${project.name} is added.`);
      setPath(null);
      setName(null);
      void cache.invalidateQueries({ queryKey: ["projects"] });
      void navigate({ to: "/projects/$name", params: { name: project.name } });
    },
  });
  const ready = settled && found !== undefined && called !== "";
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (ready && !add.isPending) add.mutate(found.path);
  };
  return (
    <form className={form.section} onSubmit={submit}>
      <TextInput
        label="Path"
        description="The repository, as the host that runs coder names it"
        placeholder="/srv/demo"
        data-autofocus
        autoComplete="off"
        spellCheck={false}
        value={path ?? ""}
        error={settled && error !== null ? error.message : null}
        onChange={(event) => setPath(event.currentTarget.value || null)}
      />
      <p className={settled && found !== undefined ? "good" : "dim"} role="status">
        {typed === ""
          ? "What is there is said here, before anything is made."
          : !settled
            ? "Looking…"
            : found !== undefined
              ? `A repository ${found.branch === null ? "with a detached HEAD" : `on ${found.branch}`}${
                  found.path === typed ? "" : `; its top level is ${found.path}`
                }. Agents work in worktrees of their own; nothing in it changes before you approve.`
              : "Nothing is made as long as this is so."}
      </p>
      <TextInput
        label="Name"
        description="1 to 100 of A–Z, a–z, 0–9, . _ and -; tasks name it so"
        autoComplete="off"
        spellCheck={false}
        value={called}
        onChange={(event) => setName(event.currentTarget.value)}
      />
      <div className={form.pair}>
        <Select
          label="What its agents want to do"
          allowDeselect={false}
          value={policy}
          onChange={(value) => value !== null && setPolicy(value as Project["permission_policy"])}
          data={choices(POLICIES)}
        />
        <Select
          label="Network"
          allowDeselect={false}
          value={network}
          onChange={(value) => value !== null && setNetwork(value as Project["network"])}
          data={choices(NETWORKS)}
        />
      </div>
      {add.error !== null && (
        <p className="bad" role="alert">
          {add.error.message}
        </p>
      )}
      <Button type="submit" disabled={!ready} loading={add.isPending}>
        {called === "" ? "Add the project" : `Add ${called}`}
      </Button>
    </form>
  );
}
