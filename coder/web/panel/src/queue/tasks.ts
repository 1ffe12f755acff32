/** The tasks that fit a filter: page by page as one scrolls, and live where one looks, however many there are. */
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo } from "react";
import { GET, type Task, told } from "../api/client";
import { SOON } from "../api/queries";
import { fresh, type Heard, together, updated } from "./merge";

export interface TaskFilter {
  state?: string | undefined;
  project?: string | undefined;
  label?: string | undefined;
  agent?: string | undefined;
  session?: string | undefined;
}

const PAGE = 200;
const HEAD = 100;

function ask(filter: TaskFilter, more: { limit: number; cursor?: string; ids?: string }) {
  const { state, project, label, agent, session } = filter;
  const query = {
    ...(state && { state }),
    ...(project && { project_id: project }),
    ...(label && { label }),
    ...(agent && { agent }),
    ...(session && { session_id: session }),
    ...more,
  };
  return told(GET("/api/v1/tasks", { params: { query } }));
}

interface Listed {
  items: readonly Task[];
  /** How many came since the list was read, and are not in it so that nothing moves under the reader. */
  waiting: number;
  loaded: boolean;
  error: Error | null;
  /** Read it anew, from the top. */
  reload(): void;
  /** Scrolled to: the next page is wanted. */
  more(): void;
  /** What was just done to a task shows at once. */
  put(task: Task): void;
}

/**
 * @param seen the ids of the rows one sees at this moment.
 * @param calm whether nobody reads anywhere but at the top, so that what is new may be put there.
 */
export function useTasks(filter: TaskFilter, seen: () => readonly number[], calm: boolean): Listed {
  const cache = useQueryClient();
  const key = useMemo(() => ["queue", filter] as const, [filter]);
  const { data, error, hasNextPage, fetchNextPage, isFetchingNextPage, refetch } = useInfiniteQuery({
    queryKey: key,
    queryFn: ({ pageParam }) => ask(filter, { limit: PAGE, ...(pageParam && { cursor: pageParam }) }),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    // It is never asked for again as a whole while one looks: what is heard of it is written into it.
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  });
  const { data: heard } = useQuery({
    queryKey: [...key, "heard"],
    queryFn: async (): Promise<Heard> => {
      const asked = seen();
      const [head, rows] = await Promise.all([
        ask(filter, { limit: HEAD }),
        asked.length === 0 ? null : ask({}, { limit: PAGE, ids: asked.join(",") }),
      ]);
      return { head: head.items, next: head.next_cursor ?? null, asked, rows: rows?.items ?? [] };
    },
    refetchInterval: SOON,
    enabled: data !== undefined,
    gcTime: 0,
  });
  const items = useMemo(() => data?.pages.flatMap((page) => page.items) ?? [], [data]);
  const missing = useMemo(
    () => (heard === undefined ? [] : fresh(items, heard.head, data !== undefined && !hasNextPage)),
    [heard, items, data, hasNextPage],
  );
  const write = useCallback(
    (change: (items: readonly Task[], page: number) => readonly Task[]) =>
      cache.setQueryData<typeof data>(
        key,
        (old) =>
          old && { ...old, pages: old.pages.map((page, at) => ({ ...page, items: [...change(page.items, at)] })) },
      ),
    [cache, key],
  );
  useEffect(() => {
    if (heard !== undefined) write((page) => updated(page, heard));
  }, [heard, write]);
  // The list begins anew with the newest; what is behind them is read when it is scrolled to.
  const anew = useCallback(() => {
    if (heard === undefined) void cache.resetQueries({ queryKey: key, exact: true });
    else cache.setQueryData(key, { pages: [{ items: [...heard.head], next_cursor: heard.next }], pageParams: [""] });
  }, [cache, key, heard]);
  // All of the newest are new: between them and the list there may be others.
  const gap = heard !== undefined && heard.next !== null && missing.length === heard.head.length;
  useEffect(() => {
    if (!calm || heard === undefined) return;
    if (gap) return anew();
    const fits = (task: Task) => filter.state === undefined || task.state === filter.state;
    write((page, at) => (at === 0 && missing.length > 0 ? together(page, missing) : page).filter(fits));
  }, [calm, heard, missing, filter, write, gap, anew]);
  return {
    items,
    waiting: calm ? 0 : missing.length,
    loaded: data !== undefined,
    error: data === undefined ? error : null,
    reload: data === undefined ? () => void refetch() : anew,
    more: () => {
      if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
    },
    put: (task) => {
      write((page) => page.map((each) => (each.id === task.id ? task : each)));
      void cache.invalidateQueries({ queryKey: [...key, "heard"] });
    },
  };
}
