import { queryOptions } from "@tanstack/react-query";
import { GET, told } from "../api/client";

export const project = (name: string) =>
  queryOptions({
    queryKey: ["projects", "one", name],
    queryFn: () => told(GET("/api/v1/projects/{project}", { params: { path: { project: name } } })),
  });

export const rules = (name: string) =>
  queryOptions({
    queryKey: ["projects", "rules", name],
    queryFn: () =>
      told(
        GET("/api/v1/projects/{project}/permission-rules", {
          params: { path: { project: name }, query: { limit: 200 } },
        }),
      ),
    refetchInterval: 10_000,
  });

/** What is at a path of the service's host, before a project is made of it. */
export const checkout = (path: string) =>
  queryOptions({
    queryKey: ["checkout", path],
    queryFn: () => told(GET("/api/v1/checkout", { params: { query: { path } } })),
    enabled: path !== "",
    retry: false,
    staleTime: 0,
  });
