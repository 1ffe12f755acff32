/** What is around every page: where one can go, whether the service is there, the palette, and the list of keys. */
import { Modal, useMantineColorScheme } from "@mantine/core";
import { Spotlight, spotlight } from "@mantine/spotlight";
import {
  CommentDiscussionIcon,
  DotFillIcon,
  GearIcon,
  GitPullRequestIcon,
  HubotIcon,
  InboxIcon,
  KeyIcon,
  MoonIcon,
  ProjectRoadmapIcon,
  RepoIcon,
  SearchIcon,
  SignOutIcon,
  SunIcon,
  TasklistIcon,
} from "@primer/octicons-react";
import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { openChanges, projects, status } from "../api/queries";
import { useInbox } from "../inbox/items";
import { Key, useNow } from "../ui/parts";
import { keyName, useBindings, useKeys } from "./keys";
import { live, useLine } from "./live";
import { leave } from "./login";
import { complain } from "./said";
import classes from "./shell.module.css";

const PLACES = [
  { to: "/", word: "Inbox", icon: InboxIcon, keys: "1" },
  { to: "/queue", word: "Queue", icon: TasklistIcon, keys: "2" },
  { to: "/sessions", word: "Sessions", icon: CommentDiscussionIcon, keys: "3" },
  { to: "/changes", word: "Changes", icon: GitPullRequestIcon, keys: "4" },
] as const;
/** What coder works with; on a phone the palette leads there. */
const HOUSE = [
  { to: "/agents", word: "Agents", icon: HubotIcon, keys: "5" },
  { to: "/projects", word: "Projects", icon: RepoIcon, keys: "6" },
  { to: "/workspaces", word: "Workspaces", icon: ProjectRoadmapIcon, keys: "7" },
  { to: "/tokens", word: "Tokens", icon: KeyIcon, keys: "8" },
  { to: "/settings", word: "Settings", icon: GearIcon, keys: "9" },
] as const;
const PAGES = [...PLACES, ...HOUSE];

export function Shell() {
  const navigate = useNavigate();
  const [help, setHelp] = useState(false);
  const scheme = useMantineColorScheme();
  const line = useLine();
  const inbox = useInbox();
  const dark = document.documentElement.dataset.mantineColorScheme === "dark";
  const flip = () => scheme.setColorScheme(dark ? "light" : "dark");
  useKeys([
    { key: "mod+k", does: "Go to anything", run: () => spotlight.open(), typing: true },
    { key: "?", does: "Show the keys", run: () => setHelp(true) },
    ...PAGES.map(({ to, word, keys }) => ({ key: keys, does: `Go to ${word}`, run: () => void navigate({ to }) })),
  ]);
  return (
    <div className={classes.shell}>
      <a className={classes.skip} href="#content">
        Skip to the content
      </a>
      <nav className={classes.rail} aria-label="Pages">
        <div className={classes.brand}>coder</div>
        <button type="button" className={classes.search} onClick={() => spotlight.open()}>
          <SearchIcon size={14} />
          <span>Go to…</span>
          <Key of="mod+k" />
        </button>
        {PLACES.map(({ to, word, icon: Icon }) => (
          <Link key={to} to={to} className={classes.place} activeOptions={{ exact: to === "/" }}>
            <Icon size={16} />
            <span className={classes.word}>{word}</span>
            {to === "/" && inbox.items.length > 0 && (
              <span className={`${classes.count} num`}>{inbox.items.length}</span>
            )}
          </Link>
        ))}
        <div className={classes.house}>
          {HOUSE.map(({ to, word, icon: Icon }) => (
            <Link key={to} to={to} className={classes.place}>
              <Icon size={16} />
              <span className={classes.word}>{word}</span>
            </Link>
          ))}
        </div>
        <div className={classes.foot}>
          <Nodes />
          <button type="button" className={classes.place} onClick={flip}>
            {dark ? <SunIcon size={16} /> : <MoonIcon size={16} />}
            <span className={classes.word}>{dark ? "Light" : "Dark"}</span>
          </button>
          <button type="button" className={classes.place} onClick={() => leave().catch(complain)}>
            <SignOutIcon size={16} />
            <span className={classes.word}>Log out</span>
          </button>
        </div>
      </nav>
      <div className={classes.main}>
        {line.is === "waiting" && <Lost until={line.until} />}
        <main id="content" className={classes.content} tabIndex={-1}>
          <Outlet />
        </main>
      </div>
      <Palette flip={flip} />
      <Modal opened={help} onClose={() => setHelp(false)} title="Keys" size="md">
        <Keys />
      </Modal>
    </div>
  );
}

function Lost({ until }: { until: number }) {
  const left = Math.max(0, Math.ceil((until - useNow()) / 1000));
  return (
    <div className={classes.lost} role="status">
      <span>
        The connection is lost. Nothing is lost with it;{" "}
        <span className="num">{left > 0 ? `trying again in ${left} s` : "trying now"}</span>.
      </span>
      <button type="button" onClick={() => live.hurry()}>
        Try now
      </button>
    </div>
  );
}

function Nodes() {
  const { data, error } = useQuery(status);
  if (error !== null && data === undefined) return <div className={`${classes.node} bad`}>not reached</div>;
  if (data === undefined) return <div className={classes.node}>&nbsp;</div>;
  const nodes = data.nodes.length;
  return (
    <div className={`${classes.node} ${nodes === 0 ? "warn" : "dim"}`}>
      <DotFillIcon size={14} />
      <span className="num">
        {nodes === 0
          ? "no dispatcher runs"
          : `${nodes} ${nodes === 1 ? "node" : "nodes"}, ${data.running_tasks} running`}
      </span>
    </div>
  );
}

function Palette({ flip }: { flip: () => void }) {
  const navigate = useNavigate();
  const { data: open } = useQuery(openChanges);
  const { data: listed } = useQuery(projects);
  return (
    <Spotlight
      shortcut={null}
      highlightQuery
      scrollable
      maxHeight={400}
      limit={30}
      nothingFound="Nothing is called so."
      searchProps={{
        placeholder: "A page, a change, a project…",
        "aria-label": "Go to",
        leftSection: <SearchIcon size={16} />,
      }}
      actions={[
        {
          group: "Pages",
          actions: PAGES.map(({ to, word, keys }) => ({
            id: to,
            label: word,
            rightSection: <Key of={keys} />,
            onClick: () => void navigate({ to }),
          })),
        },
        {
          group: "Changes to review",
          actions: (open?.items ?? []).map((each) => ({
            id: each.id,
            label: each.title,
            description: `${each.project} · ${each.agent} · ${each.id.slice(0, 8)}`,
            onClick: () => void navigate({ to: "/changes/$id", params: { id: each.id } }),
          })),
        },
        {
          group: "Projects",
          actions: (listed?.items ?? []).map((each) => ({
            id: `project-${each.id}`,
            label: each.name,
            description: `Tasks of ${each.name}`,
            onClick: () => void navigate({ to: "/queue", search: { project: each.name } }),
          })),
        },
        {
          group: "House",
          actions: [
            ...(listed?.items ?? []).map((each) => ({
              id: `settings-${each.id}`,
              label: `Settings of ${each.name}`,
              description: each.path,
              onClick: () => void navigate({ to: "/projects/$name", params: { name: each.name } }),
            })),
            {
              id: "project-add",
              label: "Add a project",
              onClick: () => void navigate({ to: "/projects", search: { add: true } }),
            },
            {
              id: "workspace-make",
              label: "Make a workspace",
              onClick: () => void navigate({ to: "/workspaces", search: { make: true } }),
            },
            {
              id: "token-make",
              label: "Make a token",
              onClick: () => void navigate({ to: "/tokens", search: { make: true } }),
            },
          ],
        },
        { group: "Looks", actions: [{ id: "theme", label: "Switch between light and dark", onClick: flip }] },
      ]}
    />
  );
}

function Keys() {
  return (
    <dl className={classes.keys}>
      {useBindings().map((each) => (
        <div key={each.key}>
          <dt>
            <kbd>{keyName(each.key)}</kbd>
          </dt>
          <dd>{each.does}</dd>
        </div>
      ))}
    </dl>
  );
}
