/** Comments in the diff: threads where they stand, and the one that is being written. */
import { Button, Textarea } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { type Comment, DELETE, PATCH, POST, told } from "../api/client";
import { comments as commentsQuery } from "../api/queries";
import { complain, say } from "../app/said";
import { Age, Key } from "../ui/parts";
import { useStored } from "./marks";
import classes from "./review.module.css";

/** Where a comment is being written. */
export interface Spot {
  path: string;
  side: "old" | "new";
  /** Null: about the file. */
  line: number | null;
  endLine: number | null;
}

function useCommentAct(changeId: string) {
  const cache = useQueryClient();
  return useMutation({
    mutationFn: (run: () => Promise<unknown>) => run(),
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: commentsQuery(changeId).queryKey }),
  });
}

export function CommentView({ comment, changeId }: { comment: Comment; changeId: string }) {
  const act = useCommentAct(changeId);
  const [editing, setEditing] = useState<string | null>(null);
  const path = { params: { path: { comment_id: comment.id } } };
  const save = (event?: FormEvent) => {
    event?.preventDefault();
    if (editing === null || editing.trim() === "") return;
    act.mutate(() => told(PATCH("/api/v1/comments/{comment_id}", { ...path, body: { body: editing } })), {
      onSuccess: () => setEditing(null),
    });
  };
  return (
    <article className={classes.comment} aria-label={`Comment of ${comment.author}`}>
      <header>
        <strong>{comment.author}</strong>
        {comment.state === "draft" && <span className="warn">draft</span>}
        {comment.state === "resolved" && <span className="good">resolved</span>}
        {comment.outdated && <span className="dim">outdated: its lines are gone</span>}
        <Age of={comment.edited_at ?? comment.created_at} />
      </header>
      {comment.outdated && comment.code !== "" && <pre>{comment.code}</pre>}
      {editing === null ? (
        <p>{comment.body}</p>
      ) : (
        <form onSubmit={save}>
          <Textarea
            autosize
            minRows={2}
            aria-label="Comment"
            data-autofocus
            value={editing}
            onChange={(event) => setEditing(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Escape") setEditing(null);
              if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) save();
            }}
          />
        </form>
      )}
      <footer>
        {comment.state === "draft" ? (
          editing === null ? (
            <>
              <button type="button" className={classes.check} onClick={() => setEditing(comment.body)}>
                Edit
              </button>
              <button
                type="button"
                className={classes.check}
                onClick={() => act.mutate(() => told(DELETE("/api/v1/comments/{comment_id}", path)))}
              >
                Delete
              </button>
            </>
          ) : (
            <button type="button" className={classes.check} onClick={() => save()}>
              Save
            </button>
          )
        ) : (
          <button
            type="button"
            className={classes.check}
            onClick={() =>
              act.mutate(() =>
                told(
                  POST("/api/v1/comments/{comment_id}/resolve", {
                    ...path,
                    body: { resolved: comment.state !== "resolved" },
                  }),
                ),
              )
            }
          >
            {comment.state === "resolved" ? "Open again" : "Resolve"}
          </button>
        )}
      </footer>
    </article>
  );
}

export function Writing({ spot, changeId, close }: { spot: Spot; changeId: string; close(): void }) {
  const act = useCommentAct(changeId);
  const [draft, setDraft] = useStored(`draft.comment.${changeId}`);
  const save = (event?: FormEvent) => {
    event?.preventDefault();
    if (draft === null || draft.trim() === "" || act.isPending) return;
    act.mutate(
      () =>
        told(
          POST("/api/v1/changes/{change_id}/comments", {
            params: { path: { change_id: changeId } },
            body: {
              path: spot.path,
              side: spot.side,
              body: draft,
              ...(spot.line !== null && { line: spot.line, end_line: spot.endLine ?? spot.line }),
            },
          }),
        ),
      {
        onSuccess: () => {
          setDraft(null);
          close();
          say("Kept as a draft; only you see it until you send it.");
        },
      },
    );
  };
  const where =
    spot.line === null
      ? "the file"
      : spot.endLine !== null && spot.endLine !== spot.line
        ? `lines ${spot.line} to ${spot.endLine}`
        : `line ${spot.line}`;
  return (
    <form className={classes.comment} onSubmit={save} aria-label={`A comment on ${where}`}>
      <Textarea
        label={`On ${where}`}
        autosize
        minRows={2}
        maxRows={12}
        autoFocus
        value={draft ?? ""}
        onChange={(event) => setDraft(event.currentTarget.value || null)}
        onKeyDown={(event) => {
          if (event.key === "Escape") close();
          if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) save();
        }}
      />
      <footer>
        <Button size="compact-sm" variant="default" onClick={close}>
          Close
        </Button>
        <Button
          size="compact-sm"
          type="submit"
          loading={act.isPending}
          disabled={draft === null || draft.trim() === ""}
          rightSection={<Key of="mod+Enter" onAccent />}
        >
          Keep as a draft
        </Button>
      </footer>
    </form>
  );
}

/** In the foot of the review: how many drafts there are, and sending them. */
export function SendComments({ changeId, drafts }: { changeId: string; drafts: number }) {
  const cache = useQueryClient();
  const send = useMutation({
    mutationFn: () =>
      told(POST("/api/v1/changes/{change_id}/send", { params: { path: { change_id: changeId } }, body: {} })),
    onSuccess: (task) => say(`Task ${task.id} tells the agent; what it does takes this change's place.`),
    onError: complain,
    onSettled: () => cache.invalidateQueries(),
  });
  if (drafts === 0) return null;
  return (
    <Button variant="default" loading={send.isPending} onClick={() => send.mutate()}>
      Send {drafts === 1 ? "1 comment" : `${drafts} comments`}
    </Button>
  );
}
