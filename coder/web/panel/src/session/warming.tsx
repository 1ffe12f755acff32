/** Whether the provider's prompt cache of a session is kept warm, when next, and what it takes. */
import { Button, NumberInput, Popover, Switch } from "@mantine/core";
import { FlameIcon } from "@primer/octicons-react";
import { useState } from "react";
import { live, useSurface } from "../app/live";
import { complain } from "../app/said";
import { Age, ago, plural, useNow } from "../ui/parts";
import classes from "./session.module.css";

const SURFACE = "cache-warming";

/** As docs/wire.md shows the surface. */
interface Warming {
  enabled: boolean;
  interval_seconds: number;
  timer: { next_warm_at: string | null; last_warm_at: string | null };
  cache_percent: number | null;
  retention_seconds: number | null;
  cost: { warms: number; input_tokens: number; cached_tokens: number; output_tokens: number };
  stopped: "tokens" | "idle" | null;
  error: string | null;
}

const STOPPED = {
  tokens: "It stopped by itself: its warms took as many tokens as they may.",
  idle: "It stopped by itself: there was no turn for too long.",
};

function use(session: string, action: string, value: boolean | number): void {
  if (!live.invoke(session, SURFACE, action, value))
    complain("There is no connection right now; try again when it is back.");
}

/** When the next warm is due; one that is overdue waits for the turn that runs. */
function Next({ at }: { at: string }) {
  const now = useNow();
  return <span className="num">{Date.parse(at) <= now ? "waiting…" : `next ${ago(at, now)}`}</span>;
}

export function WarmingControl({ session }: { session: string }) {
  const warming = useSurface(session, SURFACE) as unknown as Warming | undefined;
  if (warming === undefined) return null;
  const { enabled, timer, stopped, error } = warming;
  return (
    <Popover position="bottom-start" withinPortal={false} trapFocus returnFocus width={320}>
      <Popover.Target>
        <Button
          size="compact-xs"
          variant="subtle"
          color={error !== null || stopped !== null ? "red" : "gray"}
          leftSection={<FlameIcon size={14} />}
          className={enabled ? classes.warm : ""}
        >
          {enabled ? "Cache kept warm" : stopped !== null ? "Cache warming stopped" : "Cache not kept warm"}
          {timer.next_warm_at !== null && (
            <>
              {" · "}
              <Next at={timer.next_warm_at} />
            </>
          )}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        <Details session={session} warming={warming} />
      </Popover.Dropdown>
    </Popover>
  );
}

function Details({ session, warming }: { session: string; warming: Warming }) {
  const { enabled, timer, cost, stopped, error } = warming;
  const [seconds, setSeconds] = useState<number | string>(warming.interval_seconds);
  const said = Number(seconds);
  return (
    <div className={classes.warming}>
      <Switch
        label="Keep the prompt cache warm"
        description="Sends the session's prompt again between turns, so that the provider does not forget it; also while nobody looks."
        checked={enabled}
        onChange={(event) => use(session, "toggle", event.currentTarget.checked)}
      />
      <form
        className={classes.interval}
        onSubmit={(event) => {
          event.preventDefault();
          if (said >= 10) use(session, "interval", said);
        }}
      >
        <NumberInput
          label="Every so many seconds"
          min={10}
          max={86_400}
          size="xs"
          value={seconds}
          onChange={setSeconds}
        />
        <Button type="submit" size="xs" variant="default" disabled={!(said >= 10) || said === warming.interval_seconds}>
          Set
        </Button>
      </form>
      {stopped !== null && <p className="warn">{STOPPED[stopped]}</p>}
      {error !== null && <p className="bad">{error}</p>}
      <dl>
        <dt>Next</dt>
        <dd>{timer.next_warm_at === null ? "never" : <Next at={timer.next_warm_at} />}</dd>
        <dt>Last</dt>
        <dd>{timer.last_warm_at === null ? "never" : <Age of={timer.last_warm_at} />}</dd>
        <dt>From the cache</dt>
        <dd className="num">{warming.cache_percent === null ? "not known" : `${warming.cache_percent}%`}</dd>
        <dt>Still there after</dt>
        <dd className="num">{warming.retention_seconds === null ? "not known" : `${warming.retention_seconds} s`}</dd>
        <dt>Took</dt>
        <dd className="num">
          {plural(cost.warms, "warm")}, {(cost.input_tokens + cost.output_tokens).toLocaleString("en")} tokens
          {cost.cached_tokens > 0 && `, ${cost.cached_tokens.toLocaleString("en")} of them from the cache`}
        </dd>
      </dl>
    </div>
  );
}
