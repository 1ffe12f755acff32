/** The page's one client of the live view. */
import { useEffect, useSyncExternalStore } from "react";
import { key } from "../api/client";
import type { LineState, Socket } from "../live/line";
import { Live, type Outgoing } from "../live/live";
import type { View } from "../live/transcript";
import { complain } from "./said";

function open(): Socket {
  const address = new URL("/api/v1/ws", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(address, ["coder.v1", `key.${key.get() ?? ""}`]) as Socket;
}

export const live = new Live({ open, store: sessionStorage, complain });
live.listen(() => {
  if (live.state.is === "gone") key.lose();
});
const listen = (listener: () => void) => live.listen(listener);

/** Be connected as long as somebody is logged in. */
export function useLine(): LineState {
  useEffect(() => {
    live.open();
    const hurry = () => live.hurry();
    const cut = () => live.cut();
    window.addEventListener("online", hurry);
    window.addEventListener("offline", cut);
    return () => {
      window.removeEventListener("online", hurry);
      window.removeEventListener("offline", cut);
      live.close();
    };
  }, []);
  return useSyncExternalStore(listen, () => live.state);
}

/** The state of a surface of a session; undefined until the server told it. */
export function useSurface(session: string, surface: string): Readonly<Record<string, unknown>> | undefined {
  useEffect(() => live.see(session, surface), [session, surface]);
  return useSyncExternalStore(listen, () => live.view(session).surfaces[surface]);
}

/** A session as it happens. */
export function useSession(session: string): { view: View; sending: readonly Outgoing[] } {
  useEffect(() => live.watch(session), [session]);
  const view = useSyncExternalStore(listen, () => live.view(session));
  const sending = useSyncExternalStore(listen, () => live.sending(session));
  return { view, sending };
}
