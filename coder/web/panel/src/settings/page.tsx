/** How this browser shows the panel, and what the service behind it runs with. */
import { SegmentedControl, Switch, useMantineColorScheme } from "@mantine/core";
import { queryOptions, useQuery } from "@tanstack/react-query";
import { createLazyRoute, Link } from "@tanstack/react-router";
import { useState } from "react";
import { GET, told } from "../api/client";
import { status as statusQuery } from "../api/queries";
import { live } from "../app/live";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Failed, plural, State, useNow } from "../ui/parts";

export const route = createLazyRoute("/settings")({ component: SettingsPage });

const settings = queryOptions({ queryKey: ["settings"], queryFn: () => told(GET("/api/v1/settings")) });

function SettingsPage() {
  const scheme = useMantineColorScheme();
  return (
    <>
      <header className={rows.head}>
        <h1>Settings</h1>
      </header>
      <div className={form.column}>
        <section className={form.section}>
          <h2>This browser</h2>
          <div className={form.foot}>
            <SegmentedControl
              aria-label="Theme"
              value={scheme.colorScheme}
              onChange={(value) => scheme.setColorScheme(value as "auto" | "light" | "dark")}
              data={[
                { value: "auto", label: "As the system" },
                { value: "light", label: "Light" },
                { value: "dark", label: "Dark" },
              ]}
            />
          </div>
          <p className="dim">
            Others are let in on the page <Link to="/tokens">Tokens</Link>; the rest of the house is{" "}
            <Link to="/agents">Agents</Link>, <Link to="/projects">Projects</Link> and{" "}
            <Link to="/workspaces">Workspaces</Link>.
          </p>
        </section>
        <House />
        <Runs />
      </div>
    </>
  );
}

function House() {
  const { data, error, refetch } = useQuery(statusQuery);
  useNow();
  return (
    <section className={form.section}>
      <h2>The service</h2>
      {error !== null && <Failed error={error} retry={() => void refetch()} />}
      {data !== undefined && (
        <dl className={form.facts}>
          <dt>Live line</dt>
          <dd>
            <State
              is={live.state.is === "open" ? "completed" : "waiting"}
              word={live.state.is === "open" ? "connected" : "connecting"}
            />
          </dd>
          <dt>Nodes</dt>
          <dd>
            {data.nodes.length === 0 && <span className="warn">No dispatcher runs, so nothing is worked on.</span>}
            {data.nodes.map((node) => (
              <div key={node.id}>
                {node.host}, coder {node.version}, since <Age of={node.started_at} />
              </div>
            ))}
          </dd>
          <dt>Queue</dt>
          <dd className="num">
            {plural(data.running_tasks, "task")} running, {data.pending_tasks.toLocaleString("en")} waiting,{" "}
            {plural(data.held_sessions, "session")} held, {plural(data.open_changes, "open change")}
          </dd>
          <dt>Schema</dt>
          <dd className="num">version {data.schema_version}</dd>
        </dl>
      )}
    </section>
  );
}

function Runs() {
  const { data, error, refetch } = useQuery(settings);
  const [all, setAll] = useState(false);
  const shown = data?.items.filter((each) => all || !each.is_default) ?? [];
  return (
    <section className={form.section}>
      <h2>What it runs with</h2>
      <p className="dim">Set by variables or in .env where it runs, read at its start. Secrets are shown to nobody.</p>
      <Switch
        label="Also what nobody changed"
        checked={all}
        onChange={(event) => setAll(event.currentTarget.checked)}
      />
      {error !== null && <Failed error={error} retry={() => void refetch()} />}
      {data !== undefined && shown.length === 0 && <p className="dim">Everything is as it comes.</p>}
      <ul className={form.lines}>
        {shown.map((each) => (
          <li key={each.name} title={each.description}>
            <code>{each.name}</code>
            <span className={form.value}>
              {each.secret ? (
                <span className="dim">set, secret</span>
              ) : each.value === null ? (
                <span className="dim">not set</span>
              ) : (
                <code>{each.value}</code>
              )}
            </span>
            <span className={`${rows.about} ${form.whole}`}>{each.description}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
