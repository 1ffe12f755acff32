/** Throughput, waiting time and tokens over time, as three small plots; each says in words what it shows, and all are also a table. */
import { Button, SegmentedControl } from "@mantine/core";
import { keepPreviousData, queryOptions, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { GET, type Schemas, told } from "../api/client";
import { SOMETIMES } from "../api/queries";
import { useStored } from "../review/marks";
import { Failed, plural } from "../ui/parts";
import classes from "./plots.module.css";

type Stretch = Schemas["Stretch"];
interface Bar {
  /** From the bottom up, with the names of their colours. */
  parts: readonly [string, number][];
  /** What is drawn over it as a mark. */
  mark?: number | undefined;
  says: string;
}

const WINDOWS = { "1": "1 hour", "24": "1 day", "168": "1 week" } as const;
const STRETCHES = { "1": 30, "24": 48, "168": 42 } as const;
type Hours = keyof typeof WINDOWS;

const stats = (hours: Hours, project: string | undefined) =>
  queryOptions({
    queryKey: ["stats", hours, project],
    queryFn: () =>
      told(
        GET("/api/v1/stats", {
          params: {
            query: { hours: Number(hours), stretches: STRETCHES[hours], ...(project && { project_id: project }) },
          },
        }),
      ),
    refetchInterval: SOMETIMES,
    placeholderData: keepPreviousData,
  });

const sum = (of: readonly Stretch[], what: (each: Stretch) => number) => of.reduce((all, each) => all + what(each), 0);
const stopped = (each: Stretch) => each.cancelled + each.interrupted;

/** A number in three figures at most: 950, 9.5k, 1.2M. */
export function brief(of: number): string {
  if (of < 1_000) return String(Math.round(of));
  const [size, unit] = of < 1e6 ? [of / 1e3, "k"] : [of / 1e6, "M"];
  return `${size < 10 ? size.toFixed(1) : Math.round(size)}${unit}`;
}

/** A span of time in one unit. */
export function span(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3_600).toFixed(1)} h`;
}

function clock(at: string, hours: Hours): string {
  const when = new Date(at);
  return hours === "168"
    ? when.toLocaleString("en-GB", { weekday: "short", hour: "2-digit", minute: "2-digit" })
    : when.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

export default function Plots({ project }: { project: string | undefined }) {
  const [stored, setHours] = useStored("plots-hours");
  const hours: Hours = stored !== null && stored in WINDOWS ? (stored as Hours) : "24";
  const [table, setTable] = useState(false);
  const { data, error } = useQuery(stats(hours, project));
  const items = data?.items ?? [];
  const waits = items.filter((each) => each.wait_median_seconds !== null);
  const longest = Math.max(0, ...waits.map((each) => each.wait_p95_seconds ?? 0));
  const usual = waits.map((each) => each.wait_median_seconds ?? 0).toSorted((one, other) => one - other);
  const median = usual[Math.floor(usual.length / 2)];
  const at = (each: Stretch) => clock(each.at, hours);
  if (error !== null && data === undefined) return <Failed error={error} />;
  return (
    <section className={classes.plots} aria-label="Over time">
      <Plot
        name="Turns"
        figure={brief(sum(items, (each) => each.began))}
        about={`${sum(items, (each) => each.failed)} failed, ${sum(items, stopped)} stopped`}
        bars={items.map((each) => ({
          parts: [
            ["good", each.completed],
            ["bad", each.failed],
            ["dim", stopped(each)],
            ["accent", each.running],
          ],
          says: `${at(each)}: ${plural(each.began, "turn")}, ${each.completed} completed, ${each.failed} failed, ${stopped(each)} stopped`,
        }))}
      />
      <Plot
        name="Waited"
        figure={median === undefined ? "–" : span(median)}
        about={median === undefined ? "nothing began" : `mostly; at worst 95 % within ${span(longest)}`}
        bars={items.map((each) => ({
          parts: [["warn", each.wait_median_seconds ?? 0]],
          mark: each.wait_p95_seconds ?? undefined,
          says: `${at(each)}: ${each.wait_median_seconds === null ? "nothing began" : `half within ${span(each.wait_median_seconds)}, 95 % within ${span(each.wait_p95_seconds ?? 0)}`}`,
        }))}
      />
      <Plot
        name="Tokens"
        figure={brief(sum(items, (each) => each.input_tokens + each.output_tokens))}
        about={`${brief(sum(items, (each) => each.input_tokens))} read, ${brief(sum(items, (each) => each.output_tokens))} written`}
        bars={items.map((each) => ({
          parts: [
            ["accent", each.output_tokens],
            ["soft", each.input_tokens],
          ],
          says: `${at(each)}: ${brief(each.input_tokens)} read, of these ${brief(each.cached_tokens)} cached; ${brief(each.output_tokens)} written`,
        }))}
      />
      <div className={classes.foot}>
        <SegmentedControl
          size="xs"
          aria-label="How far back"
          value={hours}
          onChange={setHours}
          data={Object.entries(WINDOWS).map(([value, label]) => ({ value, label }))}
        />
        <Button size="compact-xs" variant="subtle" color="gray" aria-expanded={table} onClick={() => setTable(!table)}>
          {table ? "Hide the table" : "As a table"}
        </Button>
      </div>
      {table && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard
        <section className={classes.table} aria-label="The same as a table" tabIndex={0}>
          <table className="num">
            <thead>
              <tr>
                {[
                  "Since",
                  "Turns",
                  "Completed",
                  "Failed",
                  "Stopped",
                  "Half waited",
                  "95 % waited",
                  "Read",
                  "Written",
                ].map((word) => (
                  <th key={word} scope="col">
                    {word}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {items.toReversed().map((each) => (
                <tr key={each.at}>
                  <th scope="row">{at(each)}</th>
                  <td>{each.began}</td>
                  <td>{each.completed}</td>
                  <td>{each.failed}</td>
                  <td>{stopped(each)}</td>
                  <td>{each.wait_median_seconds === null ? "" : span(each.wait_median_seconds)}</td>
                  <td>{each.wait_p95_seconds === null ? "" : span(each.wait_p95_seconds)}</td>
                  <td>{each.input_tokens.toLocaleString("en")}</td>
                  <td>{each.output_tokens.toLocaleString("en")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </section>
  );
}

const HIGH = 40;

function Plot({ name, figure, about, bars }: { name: string; figure: string; about: string; bars: readonly Bar[] }) {
  const heights = bars.map((bar) => bar.parts.reduce((all, [, part]) => all + part, 0));
  const most = Math.max(...heights, ...bars.map((bar) => bar.mark ?? 0), Number.MIN_VALUE);
  const scale = (of: number) => (HIGH * of) / most;
  return (
    <figure className={classes.plot}>
      <figcaption>
        <span className="dim">{name}</span>
        <strong className="num">{figure}</strong>
        <span className={`${classes.about} num`} title={about}>
          {about}
        </span>
      </figcaption>
      <svg
        viewBox={`0 0 ${Math.max(1, bars.length) * 4} ${HIGH}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${name} over time: ${figure}, ${about}`}
      >
        {bars.map((bar, at) => {
          let top = HIGH;
          return (
            <g key={bar.says}>
              <rect className={classes.ground} x={4 * at} y={0} width={4} height={HIGH}>
                <title>{bar.says}</title>
              </rect>
              {bar.parts.map(([tone, part]) => {
                // What is not nothing is seen, however small beside the rest.
                const height = part === 0 ? 0 : Math.max(1, scale(part));
                top -= height;
                return height === 0 ? null : (
                  <rect key={tone} className={classes[tone]} x={4 * at + 0.5} y={top} width={3} height={height} />
                );
              })}
              {bar.mark !== undefined && bar.mark > 0 && (
                <rect
                  className={classes.mark}
                  x={4 * at + 0.5}
                  y={Math.max(0, HIGH - scale(bar.mark))}
                  width={3}
                  height={1}
                />
              )}
            </g>
          );
        })}
      </svg>
    </figure>
  );
}
