/** A server's end of sockets, and a clock that moves when told. */
import type { Socket, World } from "../src/live/line";
import type { Frame, Operation } from "../src/live/wire";

export class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly sent: Operation[] = [];
  closed = false;

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Operation);
  }
  close(): void {
    this.closed = true;
  }
  tell(...frames: Frame[]): void {
    this.onmessage?.({ data: JSON.stringify(frames.length === 1 ? frames[0] : frames) });
  }
  welcome(answer: "current" | "replay" | "reset" = "current", epoch = "e1"): void {
    this.onopen?.();
    this.tell({ type: "hello", seq: 0, client_id: "x", epoch, answer });
  }
  break(code = 1006, reason = ""): void {
    this.onclose?.({ code, reason });
  }
  of<T extends Operation["type"]>(type: T): Extract<Operation, { type: T }>[] {
    return this.sent.filter((each): each is Extract<Operation, { type: T }> => each.type === type);
  }
}

export class FakeWorld implements World {
  time = 0;
  chance = 0.5;
  private ids = 0;
  private timers: { at: number; then: () => void }[] = [];

  now(): number {
    return this.time;
  }
  after(ms: number, then: () => void): unknown {
    const timer = { at: this.time + ms, then };
    this.timers.push(timer);
    return timer;
  }
  cancel(timer: unknown): void {
    this.timers = this.timers.filter((each) => each !== timer);
  }
  random(): number {
    return this.chance;
  }
  newId(): string {
    this.ids += 1;
    return `id-${this.ids}-abcdefgh`;
  }
  /** Let time pass; what is due happens in order. */
  pass(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      const next = this.timers.filter((each) => each.at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.time = next.at;
      this.cancel(next);
      next.then();
    }
    this.time = end;
  }
}

export class FakeStore {
  readonly held = new Map<string, string>();
  getItem(key: string): string | null {
    return this.held.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.held.set(key, value);
  }
}

/** Sockets as they are opened. */
export class FakeServer {
  readonly sockets: FakeSocket[] = [];
  open = (): FakeSocket => {
    const socket = new FakeSocket();
    this.sockets.push(socket);
    return socket;
  };
  get last(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (socket === undefined) throw new Error("nobody has connected");
    return socket;
  }
}
