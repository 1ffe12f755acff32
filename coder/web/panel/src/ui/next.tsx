/** What stands where there is nothing yet: what it is about, and the next step with the command to copy. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { projects } from "../api/queries";
import { Command } from "./command";
import { Empty } from "./parts";

/** Without a project everything begins with one; else with a task. */
export function Next({
  title,
  project,
  children,
}: {
  title: string;
  project?: string | undefined;
  children?: ReactNode;
}) {
  const { data } = useQuery(projects);
  if (data?.items.length === 0)
    return (
      <Empty title="Begin with a project">
        <p>Name a git repository that has a commit, then queue a task for it.</p>
        <Command text="bin/coder project add demo /path/to/repository" />
        <Command text={'bin/coder task add demo "Add a test for the parser"'} />
        <p>
          Or{" "}
          <Link to="/projects" search={{ add: true }}>
            add one here
          </Link>
          .
        </p>
      </Empty>
    );
  const name = project ?? data?.items[0]?.name ?? "demo";
  return (
    <Empty title={title}>
      {children}
      <Command text={`bin/coder task add ${name} "Add a test for the parser"`} />
    </Empty>
  );
}
