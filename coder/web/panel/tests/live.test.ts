import { beforeEach, describe, expect, it } from "vitest";
import { Live } from "../src/live/live";
import type { SessionFrame } from "../src/live/wire";
import { FakeServer, FakeStore, FakeWorld } from "./fakes";

const history = (seq: number, queued: { task_id: number; client_message_id: string }[] = []): SessionFrame => ({
  type: "session_history",
  seq,
  session_id: "s1",
  messages: [],
  queued: queued.map((each) => ({ ...each, text: "hi", created_at: "" })),
  more: false,
  change_id: null,
});

describe("the live view", () => {
  let server: FakeServer;
  let world: FakeWorld;
  let store: FakeStore;
  let live: Live;
  const make = () => {
    live = new Live({ open: server.open, store, world });
    live.open();
    return live;
  };
  const texts = () => live.sending("s1").map((each) => each.message.text);

  beforeEach(() => {
    server = new FakeServer();
    world = new FakeWorld();
    store = new FakeStore();
    make();
  });

  it("subscribes once for all who watch a session, and lets go when the last has left", () => {
    server.last.welcome();
    const first = live.watch("s1");
    const second = live.watch("s1");
    server.last.tell(history(1));
    expect(server.last.of("chat.subscribe")).toHaveLength(1);
    first();
    expect(live.view("s1").histories).toBe(1);
    second();
    expect(server.last.of("chat.unsubscribe")).toHaveLength(1);
    expect(live.view("s1").histories).toBe(0);
  });

  it("keeps a typed message until the server shows it", () => {
    server.last.welcome();
    live.watch("s1");
    server.last.tell(history(1));
    const id = live.send("s1", "hello");
    expect(texts()).toEqual(["hello"]);
    server.last.tell({
      type: "accepted",
      seq: 0,
      client_message_id: id,
      session_id: "s1",
      task_id: 42,
      existed: false,
    });
    expect(texts()).toEqual(["hello"]);
    server.last.tell({
      type: "task_state",
      seq: 2,
      session_id: "s1",
      task_id: 42,
      state: "pending",
      reason: null,
      text: "hello",
      client_message_id: id,
    });
    expect(texts()).toEqual([]);
    expect(live.view("s1").queued.map((each) => each.text)).toEqual(["hello"]);
  });

  it("sends what was typed offline, or before a reload, exactly as it was", () => {
    live.watch("s1");
    const id = live.send("s1", "typed offline", { model: "m1" });
    expect(server.last.sent).toEqual([]);
    make();
    expect(texts()).toEqual(["typed offline"]);
    server.last.welcome();
    const sent = server.last.of("chat.send");
    expect(sent).toEqual([
      { type: "chat.send", client_message_id: id, session_id: "s1", text: "typed offline", model: "m1" },
    ]);
    server.last.tell({ type: "accepted", seq: 0, client_message_id: id, session_id: "s1", task_id: 42, existed: true });
    expect(texts()).toEqual([]);
    make();
    expect(texts()).toEqual([]);
  });

  it("sends again what it has no answer to, and only that", () => {
    server.last.welcome();
    live.watch("s1");
    const first = live.send("s1", "one");
    const second = live.send("s1", "two");
    server.last.tell({
      type: "accepted",
      seq: 0,
      client_message_id: first,
      session_id: "s1",
      task_id: 1,
      existed: false,
    });
    server.last.break();
    world.pass(10_000);
    server.last.welcome();
    expect(server.last.of("chat.send").map((each) => each.client_message_id)).toEqual([second]);
  });

  it("keeps a message that was refused, with the reason, until it is sent again or taken back", () => {
    server.last.welcome();
    live.watch("s1");
    const id = live.send("s1", "hello");
    server.last.tell({
      type: "error",
      seq: 0,
      code: "unavailable",
      message: "The database cannot be reached.",
      operation: "chat.send",
      about: id,
    });
    expect(live.sending("s1")[0]?.refused).toBe("The database cannot be reached.");
    server.last.break();
    world.pass(10_000);
    server.last.welcome();
    expect(server.last.of("chat.send")).toHaveLength(0);
    live.again(id);
    expect(server.last.of("chat.send")).toHaveLength(1);
    expect(live.sending("s1")[0]?.refused).toBeNull();
    expect(live.discard(id)).toBe("hello");
    expect(texts()).toEqual([]);
  });

  it("answers the same objects until something changes, and tells listeners once per message", () => {
    server.last.welcome();
    live.watch("s1");
    let told = 0;
    live.listen(() => {
      told += 1;
    });
    const before = live.view("s1");
    expect(live.view("s1")).toBe(before);
    expect(live.sending("s1")).toBe(live.sending("s1"));
    server.last.tell(history(1), { type: "change_pending", seq: 2, session_id: "s1", change_id: "c" });
    expect(told).toBe(1);
    expect(live.view("s1")).not.toBe(before);
  });
});
