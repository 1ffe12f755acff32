/**
 * The live view as pages use it: sessions that are watched, the state of the line, and messages that were typed here and are
 * kept until the history, the queue or a turn shows them.
 *
 * Listeners are told once per message of the socket, however many frames it held. What `view`, `sending` and `state` answer
 * is the same object until it changes.
 */
import { type IdStore, Line, type LineState, type Socket, type World, world } from "./line";
import { EMPTY, fold, type HeldMessage, prepend, shows, type View } from "./transcript";
import type { ChatSend, Frame } from "./wire";

/** A message that was typed here and is not shown by the server yet. */
export interface Outgoing {
  message: ChatSend;
  /** The task it became; null until the server said so. */
  taskId: number | null;
  /** Why the server did not take it. */
  refused: string | null;
}

/** Where what was typed survives a reload; `sessionStorage` is one. */
export type Store = Pick<Storage, "getItem" | "setItem">;

export interface LiveOptions {
  open(): Socket;
  store: Store;
  /** A control of a surface could not be used; the server's own sentence. */
  complain?(message: string): void;
  world?: World;
}

const CLIENT_ID = "coder.client-id";
const OUTGOING = "coder.outgoing";
const NOTHING: readonly Outgoing[] = [];

export class Live {
  private readonly line: Line;
  private readonly store: Store;
  private readonly complain: ((message: string) => void) | undefined;
  private readonly world: World;
  private readonly listeners = new Set<() => void>();
  private readonly watchers = new Map<string, number>();
  private readonly views = new Map<string, View>();
  private outgoing: readonly Outgoing[];
  private bySession = new Map<string, readonly Outgoing[]>();

  constructor(options: LiveOptions) {
    this.store = options.store;
    this.complain = options.complain;
    this.world = options.world ?? world;
    this.outgoing = JSON.parse(this.store.getItem(OUTGOING) ?? "[]") as Outgoing[];
    const ids: IdStore = {
      load: () => this.store.getItem(CLIENT_ID),
      store: (id) => this.store.setItem(CLIENT_ID, id),
    };
    this.line = new Line({
      open: options.open,
      ids,
      world: this.world,
      onFrames: (frames) => this.take(frames),
      onState: (state) => {
        if (state.is === "open") this.flush();
        this.tell();
      },
    });
    this.sort();
  }

  get state(): LineState {
    return this.line.state;
  }

  open(): void {
    this.line.open();
  }

  close(): void {
    this.line.close();
  }

  hurry(): void {
    this.line.hurry();
  }

  cut(): void {
    this.line.cut();
  }

  /** Call `listener` whenever something changed; answers how to stop. */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Watch a session until the answer is called. */
  watch(session: string): () => void {
    this.watchers.set(session, (this.watchers.get(session) ?? 0) + 1);
    this.line.subscribe(session);
    return () => {
      const left = (this.watchers.get(session) ?? 1) - 1;
      this.watchers.set(session, left);
      if (left > 0) return;
      this.watchers.delete(session);
      this.views.delete(session);
      this.line.unsubscribe(session);
    };
  }

  /** See a surface of a session until the answer is called; its state is in the session's view. */
  see(session: string, surface: string): () => void {
    this.line.see(session, surface);
    return () => this.line.unsee(session, surface);
  }

  /** Use a control of a surface; says whether the line was open for it. */
  invoke(session: string, surface: string, action: string, value: boolean | number): boolean {
    return this.line.send({ type: "surface.invoke", session_id: session, surface, action, value });
  }

  /** Put messages before those of a session's view, as `prepend` says. */
  prepend(session: string, before: number, older: readonly HeldMessage[], more: boolean): void {
    this.views.set(session, prepend(this.view(session), before, older, more));
    this.tell();
  }

  view(session: string): View {
    return this.views.get(session) ?? EMPTY;
  }

  /** Messages for a session that it does not show yet, oldest first. */
  sending(session: string): readonly Outgoing[] {
    return this.bySession.get(session) ?? NOTHING;
  }

  /** Queue a message for a session; it is kept and sent again until the server has it. Answers its id. */
  send(
    session: string,
    text: string,
    choices: Partial<Pick<ChatSend, "agent" | "model" | "mode_id" | "thinking_option_id" | "interrupt">> = {},
  ): string {
    const message: ChatSend = {
      ...choices,
      type: "chat.send",
      client_message_id: this.world.newId(),
      session_id: session,
      text,
    };
    this.hold([...this.outgoing, { message, taskId: null, refused: null }]);
    this.line.send(message);
    this.tell();
    return message.client_message_id;
  }

  /** Send a message that was refused again. */
  again(id: string): void {
    this.change(id, { refused: null });
    const found = this.outgoing.find((each) => each.message.client_message_id === id);
    if (found !== undefined) this.line.send(found.message);
    this.tell();
  }

  /** Forget a message that was refused; answers its text. */
  discard(id: string): string {
    const found = this.outgoing.find((each) => each.message.client_message_id === id);
    this.hold(this.outgoing.filter((each) => each !== found));
    this.tell();
    return found?.message.text ?? "";
  }

  private flush(): void {
    for (const each of this.outgoing) if (each.taskId === null && each.refused === null) this.line.send(each.message);
  }

  private take(frames: readonly Frame[]): void {
    const now = new Date(this.world.now()).toISOString();
    for (const frame of frames) {
      if (frame.type === "accepted") this.accepted(frame.client_message_id, frame.task_id, frame.existed);
      else if (frame.type === "error") {
        if (frame.operation === "chat.send" && frame.about !== null)
          this.change(frame.about, { refused: frame.message });
        else if (frame.operation === "surface.invoke") this.complain?.(frame.message);
      } else if ("session_id" in frame) {
        this.views.set(frame.session_id, fold(this.view(frame.session_id), frame, now));
      }
    }
    const left = this.outgoing.filter(
      ({ message, taskId }) => !shows(this.view(message.session_id ?? ""), message.client_message_id, taskId),
    );
    if (left.length < this.outgoing.length) this.hold(left);
    this.tell();
  }

  private accepted(id: string, taskId: number, existed: boolean): void {
    if (existed)
      this.hold(this.outgoing.filter((each) => each.message.client_message_id !== id)); // told of long ago
    else this.change(id, { taskId });
  }

  private change(id: string, what: Partial<Outgoing>): void {
    if (!this.outgoing.some((each) => each.message.client_message_id === id)) return;
    this.hold(this.outgoing.map((each) => (each.message.client_message_id === id ? { ...each, ...what } : each)));
  }

  private hold(outgoing: readonly Outgoing[]): void {
    this.outgoing = outgoing;
    this.store.setItem(OUTGOING, JSON.stringify(outgoing));
    this.sort();
  }

  private sort(): void {
    this.bySession = new Map();
    for (const each of this.outgoing) {
      const session = each.message.session_id ?? "";
      this.bySession.set(session, [...(this.bySession.get(session) ?? []), each]);
    }
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}
