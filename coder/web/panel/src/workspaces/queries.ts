import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { GET, told } from "../api/client";

const SOON = 2_000;

export const workspaces = infiniteQueryOptions({
  queryKey: ["workspaces", "list"],
  queryFn: ({ pageParam }) =>
    told(GET("/api/v1/workspaces", { params: { query: { limit: 100, ...(pageParam && { cursor: pageParam }) } } })),
  initialPageParam: "",
  getNextPageParam: (last) => last.next_cursor ?? undefined,
  refetchInterval: SOON,
});

export const workspace = (id: string) =>
  queryOptions({
    queryKey: ["workspaces", "one", id],
    queryFn: () => told(GET("/api/v1/workspaces/{workspace_id}", { params: { path: { workspace_id: id } } })),
    refetchInterval: SOON,
  });

export const sessionsOf = (id: string, status?: string) =>
  queryOptions({
    queryKey: ["sessions", "workspace", id, status ?? "all"],
    queryFn: () =>
      told(GET("/api/v1/sessions", { params: { query: { workspace_id: id, limit: 100, ...(status && { status }) } } })),
    refetchInterval: SOON,
  });
