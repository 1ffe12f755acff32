/** Nobody sees a page before this browser is let in: by the code of the printed link, or by a token. */
import { Button, PasswordInput } from "@mantine/core";
import { type FormEvent, type ReactNode, useEffect, useState, useSyncExternalStore } from "react";
import { key, POST, told } from "../api/client";
import { queries } from "../api/queries";
import { Command } from "../ui/command";
import classes from "./login.module.css";

/** The code of the link that led here; it leaves the address at once, so that nobody copies it from there. */
function takeCode(): string | null {
  const code = new URLSearchParams(location.hash.slice(1)).get("login");
  if (code !== null) history.replaceState(history.state, "", location.pathname + location.search);
  return code;
}
const code = takeCode();

async function enter(how: { code: string } | { token: string }): Promise<void> {
  const login = await told(POST("/api/v1/login", { body: how }));
  queries.clear();
  key.set(login.key);
}

export async function leave(): Promise<void> {
  await told(POST("/api/v1/logout"));
  key.set(null);
  queries.clear();
}

export function Gate({ children }: { children: ReactNode }) {
  const known = useSyncExternalStore(key.listen, key.get);
  const [using, setUsing] = useState(code !== null);
  const [failed, setFailed] = useState<string | null>(null);
  useEffect(() => {
    if (code === null) return;
    enter({ code })
      .catch((error: Error) => setFailed(error.message))
      .finally(() => setUsing(false));
  }, []);
  if (using) return null;
  return known === null ? <Login failed={failed} /> : children;
}

function Login({ failed }: { failed: string | null }) {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState(failed);
  const [busy, setBusy] = useState(false);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    enter({ token })
      .catch((error: Error) => setWrong(error.message))
      .finally(() => setBusy(false));
  };
  return (
    <main className={classes.page}>
      <div className={classes.card}>
        <h1>coder</h1>
        <p>
          {key.wasLost()
            ? "This browser's login holds no longer: its token was revoked, or its time is over."
            : "This browser is not let in yet."}{" "}
          Open the link that this prints, on the machine where coder runs:
        </p>
        <Command text="bin/coder login" />
        <form onSubmit={submit}>
          <PasswordInput
            label="Or a token"
            description="The one printed at the first start, or CODER_ADMIN_TOKEN"
            value={token}
            onChange={(event) => setToken(event.currentTarget.value)}
            error={wrong}
            autoComplete="current-password"
          />
          <Button type="submit" mt={12} fullWidth loading={busy} disabled={token.trim() === ""}>
            Log in
          </Button>
        </form>
      </div>
    </main>
  );
}
