/** What changed since this browser last looked at the session's change: said at the top, and shown alone when asked for. */
import { Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type Change, GET, type Schemas, told } from "../api/client";
import { Key, plural } from "../ui/parts";
import { useLooked } from "./marks";
import classes from "./review.module.css";

type Comparison = Schemas["Comparison"];

export interface Since {
  /** The earlier change there is to compare with. */
  id: string | null;
  comparison: Comparison | undefined;
  error: Error | null;
}

/** Compare with the change that the address names, else with the one this browser looked at before. */
export function useSince(change: Change, named: string | undefined): Since {
  const before = useLooked(change);
  const id = named ?? before;
  const { data, error } = useQuery({
    queryKey: ["comparison", change.id, id],
    queryFn: () =>
      told(
        GET("/api/v1/changes/{change_id}/compare", {
          params: { path: { change_id: change.id }, query: { since: id ?? "" } },
        }),
      ),
    enabled: id !== null,
    retry: false,
    staleTime: Number.POSITIVE_INFINITY,
  });
  return { id, comparison: data, error };
}

interface SinceBarProps extends Since {
  /** Only what changed is shown. */
  alone: boolean;
  toggle(): void;
}

export function SinceBar({ id, comparison, error, alone, toggle }: SinceBarProps) {
  if (id === null || (comparison === undefined && error === null)) return null;
  if (comparison?.files.length === 0 && !alone) return null;
  const files = comparison?.files.length ?? 0;
  return (
    <div className={classes.since} role="status">
      {error !== null ? (
        <span className="warn">It changed since you looked, but what changed cannot be shown: {error.message}</span>
      ) : (
        <span>
          {alone ? "Only what changed since you looked is shown: " : "Changed since you looked: "}
          {files === 0 ? "nothing" : plural(files, "file")}. Viewed marks stay where nothing changed.
        </span>
      )}
      {(alone || error === null) && (
        <Button size="compact-xs" variant="default" rightSection={<Key of="w" />} onClick={toggle}>
          {alone ? "Show the whole change" : "Show only that"}
        </Button>
      )}
    </div>
  );
}
