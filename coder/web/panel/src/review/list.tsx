/** All changes, newest first. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { createLazyRoute, Link, useNavigate } from "@tanstack/react-router";
import { changes } from "../api/queries";
import classes from "../ui/list.module.css";
import { Next } from "../ui/next";
import { Age, Lines, plural, State } from "../ui/parts";
import { Rows, Tabs, useListed } from "../ui/rows";

export const route = createLazyRoute("/changes")({ component: ChangesPage });

const FILTERS = [
  [undefined, "All"],
  ["pending,conflicted", "Open"],
  ["approved", "Approved"],
  ["rejected", "Rejected"],
  ["superseded", "Superseded"],
] as const;

function ChangesPage() {
  const { state } = route.useSearch() as { state?: string };
  const navigate = useNavigate();
  const listed = useListed(useInfiniteQuery(changes(state)), "changes");
  return (
    <Rows
      {...listed}
      title="Changes"
      head={<Tabs label="Which changes" to="/changes" by="state" of={FILTERS} />}
      keys={(item) => [
        {
          key: "Enter",
          does: "Open",
          run: () => item && void navigate({ to: "/changes/$id", params: { id: item.id } }),
        },
      ]}
      none={
        <Next title="No changes here">
          <p>A turn that leaves a diff makes one.</p>
        </Next>
      }
      row={(item) => (
        <>
          <State is={item.state} />
          <div className={classes.what}>
            <Link className={classes.title} to="/changes/$id" params={{ id: item.id }}>
              {item.title}
            </Link>
            <span className={classes.about}>
              <span>{item.project}</span>
              <span>{item.agent}</span>
              <span>{plural(item.file_count, "file")}</span>
              <Lines added={item.additions} removed={item.deletions} />
            </span>
          </div>
          <Age of={item.decided_at ?? item.created_at} />
        </>
      )}
    />
  );
}
