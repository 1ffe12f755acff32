/** The agents of each host: which can be run, what each can do, and how to get one that is missing. */
import { Button } from "@mantine/core";
import { SyncIcon } from "@primer/octicons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, useNavigate } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import { type Agent, POST, told } from "../api/client";
import { agents as agentsQuery, status as statusQuery } from "../api/queries";
import { complain, say } from "../app/said";
import { Command } from "../ui/command";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Empty, Failed, Hint, Key, Path, plural, State } from "../ui/parts";
import { useSelection } from "../ui/selection";
import { Waiting } from "../ui/waiting";
import classes from "./agents.module.css";

export const route = createLazyRoute("/agents")({ component: AgentsPage });

const PROBING_MS = 500;
const MANY = 40;

interface Probing {
  since: string;
  hosts: readonly string[];
}

/** Looking again is over once each host that has a node has said what it found since it was asked. */
function isOver(probing: Probing, found: readonly Agent[]): boolean {
  return found
    .filter((each) => probing.hosts.includes(each.host_id))
    .every((each) => Date.parse(each.probed_at) > Date.parse(probing.since));
}

function AgentsPage() {
  const { agent: opened } = route.useSearch() as { agent?: string };
  const navigate = useNavigate();
  const cache = useQueryClient();
  const [probing, setProbing] = useState<Probing | null>(null);
  const { data, error, refetch } = useQuery({
    ...agentsQuery,
    ...(probing !== null && { refetchInterval: PROBING_MS }),
  });
  const { data: house } = useQuery(statusQuery);
  const items = (data?.items ?? [])
    .map((each) => ({ ...each, id: `${each.agent}@${each.host_id}` }))
    .toSorted((one, other) => one.host.localeCompare(other.host) || Number(other.available) - Number(one.available));
  const hosts = [...new Set(items.map((each) => each.host_id))];
  const open = (id: string | undefined) =>
    void navigate({ to: "/agents", search: id === undefined ? {} : { agent: id }, replace: true });
  const probe = useMutation({
    mutationFn: () => told(POST("/api/v1/agents/probe")),
    onSuccess: ({ hosts: asked, requested_at }) => {
      if (asked === 0) say("No host has a dispatcher at this moment; each looks when one starts.");
      else setProbing({ since: requested_at, hosts: (house?.nodes ?? []).map((node) => node.host_id) });
      void cache.invalidateQueries({ queryKey: agentsQuery.queryKey });
    },
    onError: complain,
  });
  const over = probing !== null && data !== undefined && isOver(probing, data.items);
  useEffect(() => {
    if (!over) return;
    setProbing(null);
    say(`${plural(items.filter((each) => each.available).length, "agent")} can be run.`);
  }, [over, items]);
  const look = () => {
    if (!probe.isPending && probing === null) probe.mutate();
  };
  const { current, select } = useSelection(items, (item) => [
    { key: "Enter", does: "Show what it can do", run: () => item && open(item.id === opened ? undefined : item.id) },
    { key: "p", does: "Look for the agents again", run: look },
  ]);
  return (
    <>
      <header className={rows.head}>
        <h1>Agents</h1>
        <span className="dim num">
          {items.length > 0 && `${items.filter((each) => each.available).length} of ${items.length} can be run`}
        </span>
        <Button
          className={rows.push}
          size="xs"
          variant="default"
          leftSection={<SyncIcon size={14} />}
          rightSection={<Key of="p" />}
          loading={probe.isPending || probing !== null}
          onClick={look}
        >
          Look again
        </Button>
      </header>
      {error !== null && data === undefined && <Failed error={error} retry={() => void refetch()} />}
      {data === undefined && error === null && <Waiting />}
      {data !== undefined && items.length === 0 && (
        <Empty title="No host has said yet which agents it has">
          <p>A dispatcher looks for them when it starts.</p>
          <Command text="bin/up" />
        </Empty>
      )}
      {hosts.map((host) => {
        const here = items.filter((each) => each.host_id === host);
        return (
          <section key={host} aria-label={`Agents of ${here[0]?.host}`}>
            {hosts.length > 1 && <h2 className={classes.host}>{here[0]?.host}</h2>}
            <ul className={rows.list}>
              {here.map((item) => (
                <li
                  key={item.id}
                  className={classes.agent}
                  data-row={item.id}
                  data-current={item.id === current?.id || undefined}
                  onMouseDown={() => select(item.id)}
                >
                  <Row
                    item={item}
                    opened={item.id === opened}
                    toggle={() => open(item.id === opened ? undefined : item.id)}
                  />
                </li>
              ))}
            </ul>
          </section>
        );
      })}
    </>
  );
}

function Row({ item, opened, toggle }: { item: Agent; opened: boolean; toggle(): void }) {
  return (
    <>
      <div className={`${rows.row} ${classes.row}`}>
        <State is={item.available ? "completed" : "cancelled"} word={item.available ? "can be run" : "missing"} />
        <div className={rows.what}>
          <Hint does={opened ? "Show less" : "Show what it can do"} keys="Enter">
            <button type="button" className={`${rows.title} ${classes.name}`} aria-expanded={opened} onClick={toggle}>
              {item.agent}
            </button>
          </Hint>
          <span className={rows.about}>
            {item.version !== null && <span className="num">{item.version}</span>}
            <span>{item.execution_path}</span>
            {item.models.length > 0 && <span className="num">{plural(item.models.length, "model")}</span>}
            {item.path !== null && <Path path={item.path} />}
            {item.detail !== "" && <span className={item.available ? "warn" : ""}>{item.detail}</span>}
          </span>
        </div>
        <span className={classes.age}>
          looked <Age of={item.probed_at} />
        </span>
      </div>
      {!item.available && item.install !== null && (
        <div className={classes.install}>
          <Command text={item.install} />
        </div>
      )}
      {opened && <Facts item={item} />}
    </>
  );
}

function Facts({ item }: { item: Agent }) {
  return (
    <dl className={`${form.facts} ${classes.facts}`}>
      <Words name="Models" of={item.models} none="none told; a task may name one all the same" />
      <Words name="Modes" of={item.modes} none="none" />
      <Words name="Thinking" of={item.thinking_options} none="no options" />
      <dt>Commands</dt>
      <dd>
        {item.commands.length === 0 ? (
          <span className="dim">none known before its first session</span>
        ) : (
          <ul className={classes.commands}>
            {item.commands.map((each) => (
              <li key={each.name}>
                <code>
                  /{each.name}
                  {each.hint !== "" && ` ${each.hint}`}
                </code>
                <span className="dim">{each.description}</span>
              </li>
            ))}
          </ul>
        )}
      </dd>
      {item.available && item.install !== null && (
        <>
          <dt>To install it anew</dt>
          <dd>
            <Command text={item.install} />
          </dd>
        </>
      )}
    </dl>
  );
}

function Words({ name, of, none }: { name: string; of: readonly string[]; none: string }) {
  const [all, setAll] = useState(false);
  const shown = all ? of : of.slice(0, MANY);
  return (
    <>
      <dt>{name}</dt>
      <dd>
        {of.length === 0 ? (
          <span className="dim">{none}</span>
        ) : (
          <span className={form.chips}>
            {shown.map((word) => (
              <span key={word} className={rows.code}>
                {word}
              </span>
            ))}
            {shown.length < of.length && (
              <Button size="compact-xs" variant="default" onClick={() => setAll(true)}>
                All {of.length}
              </Button>
            )}
          </span>
        )}
      </dd>
    </>
  );
}
