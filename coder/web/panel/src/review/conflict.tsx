/** A change that its target got in the way of: which lines both edited, and the ways out. */
import { useQuery } from "@tanstack/react-query";
import { type Change, type Decision, POST, told } from "../api/client";
import { decision as decisionQuery } from "../api/queries";
import { Path, plural } from "../ui/parts";
import classes from "./review.module.css";

/** Where a decision brings the work, in words. */
export function targetOf(decision: Decision | undefined, change: Change): string {
  return decision?.target === "branch" ? `branch ${decision.branch}` : `${change.project}'s checkout`;
}

/** Have the agent merge a change with what got in its way, where the latest decision wanted it to go. */
export function useResolve(change: Change, decide: (send: () => Promise<Decision>) => void) {
  const { data } = useQuery(decisionQuery(change.decision_id));
  return () =>
    decide(() =>
      told(
        POST("/api/v1/changes/{change_id}/rebase", {
          params: { path: { change_id: change.id } },
          body: {
            fingerprint: change.fingerprint,
            target: data?.target ?? "checkout",
            resolve: true,
            ...(data?.target === "branch" && data.branch !== null && { branch: data.branch }),
          },
        }),
      ),
    );
}

export function Conflict({ change }: { change: Change }) {
  const { data } = useQuery(decisionQuery(change.decision_id));
  const target = targetOf(data, change);
  const files = change.conflicts;
  const regions = files.reduce((sum, each) => sum + each.hunks.length, 0);
  return (
    <section className={classes.conflict} aria-label="Conflict">
      <h2>
        {regions > 0
          ? `${target} and this change edit the same lines: ${plural(regions, "place")} in ${plural(files.length, "file")}`
          : `This change could not go into ${target}`}
      </h2>
      <p>
        {regions === 0 && data?.error != null && <>{data.error} </>}
        Nothing was touched. Let the agent merge both, approve again once {target} no longer differs there, or reject.
      </p>
      {files.map((file) => (
        <article key={file.path} aria-label={file.path}>
          <h3>
            <Path path={file.path} />
          </h3>
          {file.hunks.length === 0 && <p className="dim">{file.detail}</p>}
          {file.hunks.map((hunk) => (
            <div key={hunk.line} className={classes.sides}>
              <Side of={`${target}, from line ${hunk.line}`} text={hunk.ours} />
              <Side of="This change" text={hunk.theirs} />
            </div>
          ))}
        </article>
      ))}
    </section>
  );
}

function Side({ of, text }: { of: string; text: string }) {
  return (
    <figure>
      <figcaption>{of}</figcaption>
      {text === "" ? (
        <p className="dim">These lines are gone.</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard
        <pre tabIndex={0}>{text}</pre>
      )}
    </figure>
  );
}
