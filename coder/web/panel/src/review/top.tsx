/** The head of a review: what it is about, where it comes from, how it stands. */
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { Change } from "../api/client";
import { Age, Lines, plural, State } from "../ui/parts";
import classes from "./review.module.css";

const CHECKS: Record<string, string> = {
  queued: "check waits",
  running: "check runs",
  passed: "check passed",
  failed: "check failed",
  skipped: "check skipped",
};

export function Top({ change, children }: { change: Change; children: ReactNode }) {
  return (
    <header className={classes.top}>
      <h1>{change.title}</h1>
      <div className={classes.facts}>
        <State is={change.state} word={change.state === "pending" ? "to review" : undefined} />
        {change.check_state !== null && <State is={change.check_state} word={CHECKS[change.check_state]} />}
        <Link to="/queue" search={{ project: change.project }}>
          {change.project}
        </Link>
        <Link to="/sessions/$id" params={{ id: change.session_id }}>
          session {change.session_id.slice(0, 8)}
        </Link>
        <span>{change.agent}</span>
        {change.turn_outcome !== "completed" && <span className="warn">the turn was {change.turn_outcome}</span>}
        <span>{plural(change.file_count, "file")}</span>
        <Lines added={change.additions} removed={change.deletions} />
        <Age of={change.created_at} />
        <span className={classes.push}>{children}</span>
      </div>
      {(change.warnings.length > 0 || change.superseded_by !== null) && (
        <ul className={classes.notes}>
          {change.superseded_by !== null && (
            <li>
              A newer change took its place:{" "}
              <Link to="/changes/$id" params={{ id: change.superseded_by }}>
                {change.superseded_by.slice(0, 8)}
              </Link>
              , and{" "}
              <Link to="/changes/$id" params={{ id: change.superseded_by }} search={{ since: change.id }}>
                what it changed
              </Link>
            </li>
          )}
          {change.warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
        </ul>
      )}
    </header>
  );
}
