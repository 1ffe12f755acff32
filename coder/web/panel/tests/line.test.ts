import { beforeEach, describe, expect, it } from "vitest";
import { ACK_MS, Line, type LineState, SILENCE_MS } from "../src/live/line";
import type { Frame, SessionHistory } from "../src/live/wire";
import { FakeServer, FakeStore, FakeWorld } from "./fakes";

const history = (session_id: string, seq: number): SessionHistory => ({
  type: "session_history",
  seq,
  session_id,
  messages: [],
  queued: [],
  more: false,
  change_id: null,
});
const change = (session_id: string, seq: number): Frame => ({
  type: "change_pending",
  seq,
  session_id,
  change_id: null,
});

describe("a line", () => {
  let server: FakeServer;
  let world: FakeWorld;
  let store: FakeStore;
  let told: Frame[];
  let states: LineState[];
  let line: Line;
  const make = () =>
    new Line({
      open: server.open,
      ids: { load: () => store.getItem("id"), store: (id) => store.setItem("id", id) },
      onFrames: (frames) => told.push(...frames),
      onState: (state) => states.push(state),
      world,
    });

  beforeEach(() => {
    server = new FakeServer();
    world = new FakeWorld();
    store = new FakeStore();
    told = [];
    states = [];
    line = make();
    line.open();
  });

  it("says hello first, as a new client, and asks for what is wanted once it is welcome", () => {
    line.subscribe("s1");
    expect(server.last.sent).toEqual([]);
    server.last.welcome();
    expect(server.last.sent).toEqual([
      { type: "hello", client_id: line.clientId },
      { type: "chat.subscribe", session_id: "s1" },
    ]);
    expect(line.state).toEqual({ is: "open" });
  });

  it("comes back with its epoch and the last number, and asks only for what was not answered", () => {
    server.last.welcome();
    line.subscribe("s1");
    line.subscribe("s2");
    server.last.tell(history("s1", 1), change("s1", 2));
    server.last.break();
    world.pass(10_000);
    server.last.welcome("replay");
    expect(server.last.sent).toEqual([
      { type: "hello", client_id: line.clientId, epoch: "e1", since: 2 },
      { type: "chat.subscribe", session_id: "s2" },
    ]);
    server.last.tell(change("s1", 3), history("s2", 4));
    expect(told.map((frame) => frame.seq)).toEqual([1, 2, 3, 4]);
  });

  it("hands nothing on twice", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1), change("s1", 2));
    server.last.tell(change("s1", 2), change("s1", 3));
    expect(told.map((frame) => frame.seq)).toEqual([1, 2, 3]);
  });

  it("does not step over a gap: it comes back with the number it has", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1), change("s1", 3));
    expect(told.map((frame) => frame.seq)).toEqual([1]);
    expect(server.last.closed).toBe(true);
    world.pass(10_000);
    server.last.welcome("replay");
    expect(server.last.of("hello")).toEqual([{ type: "hello", client_id: line.clientId, epoch: "e1", since: 1 }]);
  });

  it("asks for everything again after a reset, and takes the next number as it comes", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1));
    server.last.break();
    world.pass(10_000);
    server.last.welcome("reset", "e2");
    expect(server.last.of("chat.subscribe")).toEqual([{ type: "chat.subscribe", session_id: "s1" }]);
    server.last.tell(history("s1", 57));
    server.last.break();
    world.pass(10_000);
    server.last.welcome();
    expect(server.last.of("hello")).toEqual([{ type: "hello", client_id: line.clientId, epoch: "e2", since: 57 }]);
    expect(server.last.of("chat.subscribe")).toEqual([]);
  });

  it("asks for everything again when it read too slowly", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1));
    server.last.tell({ type: "reset", seq: 2, why: "You read too slowly." });
    expect(server.last.of("chat.subscribe")).toHaveLength(2);
    server.last.tell(history("s1", 3));
    expect(told.map((frame) => frame.seq)).toEqual([1, 3]);
  });

  it("acknowledges every 5 s while frames come, and is silent otherwise", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1));
    server.last.tell(change("s1", 2));
    world.pass(ACK_MS - 1);
    expect(server.last.of("ack")).toEqual([]);
    world.pass(1);
    expect(server.last.of("ack")).toEqual([{ type: "ack", seq: 2 }]);
    world.pass(3 * ACK_MS);
    expect(server.last.of("ack")).toHaveLength(1);
    server.last.tell(change("s1", 3));
    world.pass(ACK_MS);
    expect(server.last.of("ack").at(-1)).toEqual({ type: "ack", seq: 3 });
  });

  it("answers pings, and gives up a line on which nothing comes", () => {
    server.last.welcome();
    world.pass(SILENCE_MS - 1);
    server.last.tell({ type: "ping", seq: 0 });
    expect(server.last.of("pong")).toHaveLength(1);
    world.pass(SILENCE_MS - 1);
    expect(server.sockets).toHaveLength(1);
    world.pass(1 + 10_000);
    expect(server.sockets[0]?.closed).toBe(true);
    expect(server.sockets).toHaveLength(2);
  });

  it("waits 1 s, and up to 10 s when it fails again and again, with chance in it", () => {
    const delays: number[] = [];
    for (const chance of [0, 0, 0.999999, 0.999999, 0.999999, 0.999999, 0.5]) {
      world.chance = chance;
      server.last.break();
      expect(line.state.is).toBe("waiting");
      if (line.state.is === "waiting") delays.push(line.state.until - world.now());
      world.pass(10_000);
    }
    expect(delays.map((delay) => Math.round(delay / 100) / 10)).toEqual([1, 1, 8, 10, 10, 10, 5.5]);
    server.last.welcome();
    world.chance = 0.999999;
    server.last.break();
    expect(Math.round((line.state as { until: number }).until - world.now())).toBe(2_000);
  });

  it("connects at once when somebody is in a hurry, and only then", () => {
    server.last.break();
    line.hurry();
    expect(server.sockets).toHaveLength(2);
    line.hurry();
    world.pass(60_000 - 1);
    expect(server.sockets).toHaveLength(2);
  });

  it("takes a new id when another tab has its own, and begins anew", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1));
    const before = line.clientId;
    server.last.break(4409, "This client has opened a newer socket.");
    world.pass(10_000);
    server.last.welcome();
    expect(line.clientId).not.toBe(before);
    expect(store.getItem("id")).toBe(line.clientId);
    expect(server.last.sent).toEqual([
      { type: "hello", client_id: line.clientId },
      { type: "chat.subscribe", session_id: "s1" },
    ]);
    server.last.tell(history("s1", 1));
    expect(told).toHaveLength(2);
  });

  it("does not come back by itself once the login is gone, and does with another one", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1));
    const reason = "The token or login of this socket holds no longer; connect again with another.";
    server.last.break(4401, reason);
    expect(line.state).toEqual({ is: "gone", reason });
    line.hurry();
    world.pass(24 * 3_600_000);
    expect(server.sockets).toHaveLength(1);
    expect(line.send({ type: "pong" })).toBe(false);
    line.open();
    server.last.welcome("reset", "e1");
    expect(line.state).toEqual({ is: "open" });
    expect(server.last.of("chat.subscribe")).toEqual([{ type: "chat.subscribe", session_id: "s1" }]);
  });

  it("keeps its id over a reload", () => {
    expect(make().clientId).toBe(line.clientId);
  });

  it("hands on nothing of a session that nobody watches any more", () => {
    server.last.welcome();
    line.subscribe("s1");
    server.last.tell(history("s1", 1));
    line.unsubscribe("s1");
    server.last.tell(change("s1", 2));
    expect(told).toHaveLength(1);
    expect(server.last.sent.at(-1)).toEqual({ type: "chat.unsubscribe", session_id: "s1" });
  });

  it("stays closed once it is closed", () => {
    server.last.welcome();
    line.close();
    world.pass(100_000);
    expect(server.sockets).toHaveLength(1);
    expect(states.at(-1)).toEqual({ is: "closed" });
  });

  it("sees a surface over all sockets, until it is not wanted any more", () => {
    const surface = (seq: number): Frame => ({
      type: "surface",
      seq,
      session_id: "s1",
      surface: "cache-warming",
      state: {},
    });
    const asked = () => server.last.sent.filter((each) => each.type.startsWith("surface."));
    server.last.welcome();
    line.see("s1", "cache-warming");
    expect(asked()).toHaveLength(1);
    server.last.tell(surface(1));
    expect(told).toEqual([surface(1)]);
    server.last.break();
    world.pass(10_000);
    server.last.welcome("replay");
    expect(asked()).toEqual([]); // it was answered
    server.last.break();
    world.pass(10_000);
    server.last.welcome("reset");
    expect(asked()).toEqual([{ type: "surface.subscribe", session_id: "s1", surface: "cache-warming" }]);
    line.unsee("s1", "cache-warming");
    server.last.tell(surface(7));
    expect(told).toHaveLength(1);
    expect(asked()).toHaveLength(2);
  });
});
