/**
 * What pages read, as queries of one cache. Lists are asked for again every few seconds while they are looked at; what is shown
 * stays until the new answer differs, so nothing flickers.
 */
import { infiniteQueryOptions, QueryClient, queryOptions } from "@tanstack/react-query";
import type { ToolCall } from "../live/wire";
import { ApiError, GET, told } from "./client";

export const SOON = 2_000;
export const SOMETIMES = 10_000;

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 1_000,
      retry: (failures, error) => failures < 2 && error instanceof ApiError && error.status === 503,
      refetchOnWindowFocus: true,
    },
  },
});

export const status = queryOptions({
  queryKey: ["status"],
  queryFn: () => told(GET("/api/v1/status")),
  refetchInterval: SOON,
  refetchIntervalInBackground: true,
});

export const projects = queryOptions({
  queryKey: ["projects"],
  queryFn: () => told(GET("/api/v1/projects", { params: { query: { limit: 200 } } })),
  refetchInterval: SOMETIMES,
});

export const agents = queryOptions({
  queryKey: ["agents"],
  queryFn: () => told(GET("/api/v1/agents")),
  refetchInterval: SOMETIMES,
});

export const openChanges = queryOptions({
  queryKey: ["changes", "open"],
  queryFn: () => told(GET("/api/v1/changes", { params: { query: { state: "pending,conflicted", limit: 200 } } })),
  refetchInterval: SOON,
});

export const requests = queryOptions({
  queryKey: ["permissions", "requested"],
  queryFn: () => told(GET("/api/v1/permissions", { params: { query: { state: "requested", limit: 200 } } })),
  refetchInterval: SOON,
});

export const interrupted = queryOptions({
  queryKey: ["tasks", "interrupted"],
  queryFn: () => told(GET("/api/v1/tasks", { params: { query: { state: "interrupted", limit: 200 } } })),
  refetchInterval: SOON,
});

export const change = (id: string) =>
  queryOptions({
    queryKey: ["change", id],
    queryFn: () => told(GET("/api/v1/changes/{change_id}", { params: { path: { change_id: id } } })),
  });

export const check = (id: string) =>
  queryOptions({
    queryKey: ["check", id],
    queryFn: () => told(GET("/api/v1/changes/{change_id}/check", { params: { path: { change_id: id } } })),
    refetchInterval: SOON,
  });

export const comments = (id: string) =>
  queryOptions({
    queryKey: ["comments", id],
    queryFn: () => told(GET("/api/v1/comments", { params: { query: { change_id: id, limit: 200 } } })),
    refetchInterval: SOON * 2,
  });

export const decision = (id: string | null) =>
  queryOptions({
    queryKey: ["decision", id],
    queryFn: () => told(GET("/api/v1/decisions/{decision_id}", { params: { path: { decision_id: id ?? "" } } })),
    enabled: id !== null,
  });

/** The commands that a task ran: its calls that ended with a code. */
export const ranIn = (session: string, task: number) =>
  queryOptions({
    queryKey: ["ran", task],
    queryFn: async () => {
      const query = { task, limit: 200 };
      const path = { session_id: session };
      const { items } = await told(GET("/api/v1/sessions/{session_id}/messages", { params: { path, query } }));
      const calls = items.flatMap((each) => each.tool_calls as unknown as ToolCall[]);
      return calls.filter((each) => each.exit_code !== null);
    },
  });

export const task = (id: number) =>
  queryOptions({
    queryKey: ["task", id],
    queryFn: () => told(GET("/api/v1/tasks/{task}", { params: { path: { task: id } } })),
  });

/** The session's latest task; `turns`: so many it had when it was asked for. */
export const latestTask = (session: string, turns: number) =>
  queryOptions({
    queryKey: ["tasks", "latest", session, turns],
    queryFn: async () =>
      (await told(GET("/api/v1/tasks", { params: { query: { session_id: session, limit: 1 } } }))).items[0] ?? null,
    placeholderData: (before) => before,
  });

export const session = (id: string) =>
  queryOptions({
    queryKey: ["session", id],
    queryFn: () => told(GET("/api/v1/sessions/{session_id}", { params: { path: { session_id: id } } })),
    refetchInterval: SOON,
  });

export const changesOf = (id: string) =>
  queryOptions({
    queryKey: ["changes", "session", id],
    queryFn: () => told(GET("/api/v1/changes", { params: { query: { session_id: id, limit: 200 } } })),
    refetchInterval: SOON,
  });

export const changes = (state: string | undefined) =>
  infiniteQueryOptions({
    queryKey: ["changes", "list", state ?? "all"],
    queryFn: ({ pageParam }) =>
      told(
        GET("/api/v1/changes", {
          params: { query: { limit: 100, ...(state ? { state } : {}), ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    refetchInterval: SOON * 2,
  });

export const sessions = (filter: { status?: string | undefined }) =>
  infiniteQueryOptions({
    queryKey: ["sessions", "list", filter],
    queryFn: ({ pageParam }) =>
      told(
        GET("/api/v1/sessions", {
          params: {
            query: {
              limit: 100,
              ...(filter.status ? { status: filter.status } : {}),
              ...(pageParam ? { cursor: pageParam } : {}),
            },
          },
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    refetchInterval: SOON * 2,
  });
