/** The pages and their addresses; everything that one looks at has one. */
import { Button } from "@mantine/core";
import { createRootRoute, createRoute, createRouter, type ErrorComponentProps, Link } from "@tanstack/react-router";
import { Empty, Failed } from "../ui/parts";
import { Shell } from "./shell";

const root = createRootRoute({ component: Shell, notFoundComponent: Nowhere, errorComponent: Broken });

function Nowhere() {
  return (
    <Empty title="There is nothing at this address">
      <p>What was here may have another name now.</p>
      <Button component={Link} to="/" variant="default">
        Go to the inbox
      </Button>
    </Empty>
  );
}

function Broken({ error, reset }: ErrorComponentProps) {
  return <Failed error={error as Error} retry={reset} />;
}

const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);

const FILTERS = ["state", "project", "label", "agent", "session"] as const;
type Filtered = { [name in (typeof FILTERS)[number]]?: string };

const inbox = createRoute({ getParentRoute: () => root, path: "/" }).lazy(() =>
  import("../inbox/page").then((page) => page.route),
);
const queue = createRoute({
  getParentRoute: () => root,
  path: "/queue",
  validateSearch: (search: Record<string, unknown>): Filtered =>
    Object.fromEntries(FILTERS.flatMap((name) => (text(search[name]) ? [[name, text(search[name])]] : []))),
}).lazy(() => import("../queue/page").then((page) => page.route));
const sessions = createRoute({
  getParentRoute: () => root,
  path: "/sessions",
  validateSearch: (search: Record<string, unknown>): { status?: string } => {
    const status = text(search.status);
    return status ? { status } : {};
  },
}).lazy(() => import("../session/list").then((page) => page.route));
const session = createRoute({ getParentRoute: () => root, path: "/sessions/$id" }).lazy(() =>
  import("../session/page").then((page) => page.route),
);
const changes = createRoute({
  getParentRoute: () => root,
  path: "/changes",
  validateSearch: (search: Record<string, unknown>): { state?: string } => {
    const state = text(search.state);
    return state ? { state } : {};
  },
}).lazy(() => import("../review/list").then((page) => page.route));
const review = createRoute({
  getParentRoute: () => root,
  path: "/changes/$id",
  validateSearch: (search: Record<string, unknown>): { file?: string; since?: string } => {
    const [file, since] = [text(search.file), text(search.since)];
    return { ...(file ? { file } : {}), ...(since ? { since } : {}) };
  },
}).lazy(() => import("../review/page").then((page) => page.route));

const agents = createRoute({
  getParentRoute: () => root,
  path: "/agents",
  validateSearch: (search: Record<string, unknown>): { agent?: string } => {
    const agent = text(search.agent);
    return agent ? { agent } : {};
  },
}).lazy(() => import("../agents/page").then((page) => page.route));
const projects = createRoute({
  getParentRoute: () => root,
  path: "/projects",
  validateSearch: (search: Record<string, unknown>): { add?: true } => (search.add === true ? { add: true } : {}),
}).lazy(() => import("../projects/list").then((page) => page.route));
const project = createRoute({ getParentRoute: () => root, path: "/projects/$name" }).lazy(() =>
  import("../projects/page").then((page) => page.route),
);
const workspaces = createRoute({
  getParentRoute: () => root,
  path: "/workspaces",
  validateSearch: (search: Record<string, unknown>): { make?: true } => (search.make === true ? { make: true } : {}),
}).lazy(() => import("../workspaces/list").then((page) => page.route));
const workspace = createRoute({ getParentRoute: () => root, path: "/workspaces/$id" }).lazy(() =>
  import("../workspaces/page").then((page) => page.route),
);
const tokens = createRoute({
  getParentRoute: () => root,
  path: "/tokens",
  validateSearch: (search: Record<string, unknown>): { make?: true } => (search.make === true ? { make: true } : {}),
}).lazy(() => import("../tokens/page").then((page) => page.route));
const settings = createRoute({ getParentRoute: () => root, path: "/settings" }).lazy(() =>
  import("../settings/page").then((page) => page.route),
);

export const router = createRouter({
  routeTree: root.addChildren([
    inbox,
    queue,
    sessions,
    session,
    changes,
    review,
    agents,
    projects,
    project,
    workspaces,
    workspace,
    tokens,
    settings,
  ]),
  defaultPreload: "intent",
  scrollRestoration: false,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
