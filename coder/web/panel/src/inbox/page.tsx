/** The inbox: what needs a person, with one action each. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { complain, say } from "../app/said";
import rows from "../ui/list.module.css";
import { Next } from "../ui/next";
import { Failed, Key, plural } from "../ui/parts";
import { useSelection } from "../ui/selection";
import { Waiting } from "../ui/waiting";
import { type Done, done, primary } from "./acts";
import { type Item, useInbox } from "./items";
import { Row } from "./row";

export const route = createLazyRoute("/")({ component: InboxPage });

function InboxPage() {
  const { items, loaded, error } = useInbox();
  const navigate = useNavigate();
  const cache = useQueryClient();
  const [answering, setAnswering] = useState<string>();
  const act = useMutation({
    mutationFn: ({ run }: Done) => run(),
    onSuccess: (_, { said }) => say(said),
    onError: complain,
    onSettled: () => cache.invalidateQueries(),
  });
  const open = (item: Item) => {
    if ("change" in item) void navigate({ to: "/changes/$id", params: { id: item.change.id } });
    else
      void navigate({
        to: "/sessions/$id",
        params: { id: item.kind === "permission" ? item.permission.session_id : item.task.session_id },
      });
  };
  const isQuestion = (item: Item) => item.kind === "permission" && item.permission.kind === "question";
  const first = (item: Item | undefined) => {
    if (item === undefined || act.isPending) return;
    const found = primary(item);
    if (isQuestion(item)) setAnswering(item.id);
    else if (found === null) open(item);
    else act.mutate(found);
  };
  const last = (item: Item | undefined) => {
    const found = item && done(item);
    if (item === undefined || act.isPending) return;
    if (found) act.mutate(found);
    else say("A change is done with once it is approved or rejected; Enter opens it.");
  };
  const { current, select } = useSelection(items, (item) => [
    { key: "Enter", does: "Open", run: () => item && open(item) },
    { key: "a", does: "Allow once, answer, resume, or review", run: () => first(item) },
    { key: "e", does: "Be done with it: deny, dismiss, or check again", run: () => last(item) },
  ]);
  return (
    <>
      <header className={rows.head}>
        <h1>Inbox</h1>
        <span className="dim">{loaded && items.length > 0 ? `${plural(items.length, "thing")} for you` : ""}</span>
        {items.length > 0 && (
          <span className={`${rows.push} dim`}>
            <Key of="j" /> <Key of="k" /> <Key of="Enter" /> <Key of="a" /> <Key of="e" />
          </span>
        )}
      </header>
      {error !== null && !loaded && <Failed error={error} />}
      {!loaded && error === null && <Waiting />}
      {loaded && items.length === 0 && (
        <Next title="Nothing needs you">
          <p>Questions of agents, changes to review, interrupted tasks and failed checks show up here.</p>
        </Next>
      )}
      <ul className={rows.list}>
        {items.map((item) => (
          <Row
            key={item.id}
            item={item}
            current={item.id === current?.id}
            select={() => select(item.id)}
            act={(what) => act.mutate(what)}
            busy={act.isPending}
            answering={answering === item.id}
            answer={(is) => setAnswering(is ? item.id : undefined)}
          />
        ))}
      </ul>
    </>
  );
}
