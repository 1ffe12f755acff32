/**
 * One client of the live view: its socket, which comes back by itself, and the numbers of what it has.
 *
 * Frames are handed on in order, each once. What is known survives a broken line as long as the server remembers this client;
 * when it does not (`reset`), everything is subscribed to again, and each history replaces what was known of its session.
 */
import type { ChatSubscribe, Frame, Operation, SessionFrame, SurfaceSubscribe } from "./wire";

export const ACK_MS = 5_000;
export const FIRST_RETRY_MS = 1_000;
export const LONGEST_RETRY_MS = 10_000;
/** Two pings of the server (25 s each) and some patience: a line on which nothing came for so long is dead. */
export const SILENCE_MS = 60_000;
export const REPLACED = 4409;
export const GONE = 4401;

/** What of a WebSocket is needed. */
export interface Socket {
  send(text: string): void;
  close(code?: number, reason?: string): void;
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
}

/** Time and chance, so that tests bring their own. */
export interface World {
  now(): number;
  after(ms: number, then: () => void): unknown;
  cancel(timer: unknown): void;
  /** 0 ≤ x < 1 */
  random(): number;
  newId(): string;
}

export const world: World = {
  now: () => Date.now(),
  after: (ms, then) => setTimeout(then, ms),
  cancel: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
  random: Math.random,
  newId: () =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""),
};

/** Where a tab keeps its client id: over a reload the server then has one client of it, not two. */
export interface IdStore {
  load(): string | null;
  store(id: string): void;
}

export type LineState =
  | { is: "connecting" }
  | { is: "open" }
  | { is: "waiting"; until: number; code: number; reason: string }
  /** The login holds no longer; it stays closed until somebody who has another opens it. */
  | { is: "gone"; reason: string }
  | { is: "closed" };

type Subscription = ChatSubscribe | SurfaceSubscribe;

/** What a subscription or a frame is about: a session, or one of its surfaces. */
function about(what: Subscription | SessionFrame): string {
  return "surface" in what ? `${what.session_id} ${what.surface}` : what.session_id;
}

export interface LineOptions {
  open(): Socket;
  ids: IdStore;
  /** Frames that came together, in order. */
  onFrames(frames: readonly Frame[]): void;
  onState(state: LineState): void;
  world?: World;
}

export class Line {
  state: LineState = { is: "closed" };
  clientId: string;
  private readonly options: LineOptions;
  private readonly world: World;
  private socket: Socket | null = null;
  private epoch: string | null = null;
  /** The highest number that was handed on; null: whatever comes next is the beginning. */
  private cursor: number | null = 0;
  private acknowledged = 0;
  private failures = 0;
  private timers: { ack?: unknown; retry?: unknown; silence?: unknown } = {};
  /** Subscriptions, by what they are about. */
  private readonly wanted = new Map<string, Subscription>();
  private readonly unanswered = new Set<string>();

  constructor(options: LineOptions) {
    this.options = options;
    this.world = options.world ?? world;
    this.clientId = options.ids.load() ?? this.renew();
  }

  /** Connect, and stay connected until `close`, or until the login is gone. */
  open(): void {
    if (this.state.is === "closed" || this.state.is === "gone") this.connect();
  }

  close(): void {
    this.drop();
    this.stop("retry");
    this.become({ is: "closed" });
  }

  /** Try now instead of when the time comes: the network is back, or somebody asks for it. */
  hurry(): void {
    if (this.state.is !== "waiting") return;
    this.stop("retry");
    this.connect();
  }

  /** The network is gone: what is sent now would be heard by nobody, and a socket may take a minute to find out. */
  cut(): void {
    if (this.socket !== null) this.lost(1006, "The network is gone.");
  }

  /** Watch a session, over all sockets to come. */
  subscribe(session: string): void {
    this.want({ type: "chat.subscribe", session_id: session });
  }

  unsubscribe(session: string): void {
    if (this.forget(session)) this.send({ type: "chat.unsubscribe", session_id: session });
  }

  /** See a surface of a session, over all sockets to come. */
  see(session: string, surface: string): void {
    this.want({ type: "surface.subscribe", session_id: session, surface });
  }

  unsee(session: string, surface: string): void {
    const operation = { type: "surface.subscribe", session_id: session, surface } as const;
    if (this.forget(about(operation))) this.send({ ...operation, type: "surface.unsubscribe" });
  }

  /** Send an operation, if the line is open; says whether it was. */
  send(operation: Operation): boolean {
    if (this.state.is !== "open" || this.socket === null) return false;
    this.socket.send(JSON.stringify(operation));
    return true;
  }

  private want(subscription: Subscription): void {
    if (this.wanted.has(about(subscription))) return;
    this.wanted.set(about(subscription), subscription);
    this.ask(subscription);
  }

  private forget(what: string): boolean {
    this.unanswered.delete(what);
    return this.wanted.delete(what);
  }

  private ask(subscription: Subscription): void {
    this.unanswered.add(about(subscription));
    this.send(subscription);
  }

  private renew(): string {
    const id = this.world.newId();
    this.options.ids.store(id);
    return id;
  }

  private connect(): void {
    this.become({ is: "connecting" });
    const socket = this.options.open();
    this.socket = socket;
    this.listen();
    socket.onopen = () => {
      const before = this.epoch === null ? {} : { epoch: this.epoch, since: this.cursor ?? 0 };
      socket.send(JSON.stringify({ type: "hello", client_id: this.clientId, ...before } satisfies Operation));
    };
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.listen();
      const content = JSON.parse(String(event.data)) as Frame | Frame[];
      this.take(Array.isArray(content) ? content : [content]);
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.lost(event.code, event.reason);
    };
  }

  private take(frames: readonly Frame[]): void {
    const told: Frame[] = [];
    let broken: string | null = null;
    for (const frame of frames) {
      if (frame.seq === 0) {
        if (frame.type === "hello") this.welcome(frame.epoch, frame.answer === "reset");
        else if (frame.type === "ping") this.socket?.send(JSON.stringify({ type: "pong" } satisfies Operation));
        else {
          if (frame.type === "accepted" && !this.wanted.has(frame.session_id))
            this.wanted.set(frame.session_id, { type: "chat.subscribe", session_id: frame.session_id }); // its sender is subscribed
          told.push(frame);
        }
        continue;
      }
      if (this.cursor !== null && frame.seq !== this.cursor + 1) {
        if (frame.seq <= this.cursor) continue;
        broken = `Frame ${frame.seq} follows frame ${this.cursor}.`; // what is missing comes again, or a reset
        break;
      }
      this.cursor = frame.seq;
      if (frame.type === "reset") for (const each of this.wanted.values()) this.ask(each);
      else if (frame.type === "accepted" || !("session_id" in frame)) told.push(frame);
      else if (this.wanted.has(about(frame))) {
        if (frame.type === "session_history" || frame.type === "surface") this.unanswered.delete(about(frame));
        told.push(frame);
      }
    }
    if (this.cursor !== null && this.cursor > this.acknowledged)
      this.timers.ack ??= this.world.after(ACK_MS, () => this.ack());
    if (told.length > 0) this.options.onFrames(told);
    if (broken !== null) this.lost(1002, broken);
  }

  private welcome(epoch: string, reset: boolean): void {
    if (reset) this.cursor = null;
    const fresh = this.epoch === null;
    this.epoch = epoch;
    this.failures = 0;
    this.acknowledged = 0;
    this.become({ is: "open" });
    for (const [what, each] of [...this.wanted]) if (reset || fresh || this.unanswered.has(what)) this.ask(each);
  }

  private ack(): void {
    this.timers.ack = undefined;
    if (this.cursor !== null && this.send({ type: "ack", seq: this.cursor })) this.acknowledged = this.cursor;
  }

  private listen(): void {
    this.stop("silence");
    this.timers.silence = this.world.after(SILENCE_MS, () => this.lost(4408, "Nothing was heard of the server."));
  }

  private lost(code: number, reason: string): void {
    this.drop();
    if (code === GONE) {
      this.become({ is: "gone", reason });
      return;
    }
    if (code === REPLACED) {
      // Another tab has this id, a copy of this one for example; whoever lives takes a new one, and begins anew.
      this.clientId = this.renew();
      this.epoch = null;
      this.cursor = 0;
    }
    const ceiling = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.failures + 1));
    const delay = FIRST_RETRY_MS + this.world.random() * (ceiling - FIRST_RETRY_MS);
    this.failures += 1;
    this.become({ is: "waiting", until: this.world.now() + delay, code, reason });
    this.timers.retry = this.world.after(delay, () => this.connect());
  }

  private drop(): void {
    this.stop("ack");
    this.stop("silence");
    const socket = this.socket;
    this.socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  private stop(name: "ack" | "retry" | "silence"): void {
    this.world.cancel(this.timers[name]);
    this.timers[name] = undefined;
  }

  private become(state: LineState): void {
    this.state = state;
    this.options.onState(state);
  }
}
