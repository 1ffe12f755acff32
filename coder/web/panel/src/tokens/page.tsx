/** Who is let in: tokens, made and shown once, revoked, and links that let one more browser in. */
import { Button, Modal, TextInput } from "@mantine/core";
import { DeviceMobileIcon } from "@primer/octicons-react";
import { queryOptions, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { createLazyRoute, useNavigate } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { DELETE, GET, POST, type Schemas, told } from "../api/client";
import { complain, say } from "../app/said";
import { Command } from "../ui/command";
import form from "../ui/form.module.css";
import rows from "../ui/list.module.css";
import { Age, Hint, Key, plural, State } from "../ui/parts";
import { Adding, Rows } from "../ui/rows";

export const route = createLazyRoute("/tokens")({ component: TokensPage });

type Token = Schemas["Token"];

const tokens = queryOptions({
  queryKey: ["tokens"],
  queryFn: () => told(GET("/api/v1/tokens")),
  refetchInterval: 10_000,
});

function TokensPage() {
  const { make } = route.useSearch() as { make?: true };
  const navigate = useNavigate();
  const [revoking, setRevoking] = useState<Token | null>(null);
  const { data, error, refetch } = useQuery(tokens);
  const items = data?.items.map((each) => ({ ...each, id: each.name }));
  const making = (is: boolean) => void navigate({ to: "/tokens", search: is ? { make: true } : {} });
  const link = useMutation({ mutationFn: () => told(POST("/api/v1/login/links")), onError: complain });
  return (
    <>
      <Rows
        items={items}
        error={error}
        refetch={refetch}
        title="Tokens"
        head={
          <>
            <Button
              className={rows.push}
              size="xs"
              variant="default"
              leftSection={<DeviceMobileIcon size={14} />}
              rightSection={<Key of="l" />}
              loading={link.isPending}
              onClick={() => link.mutate()}
            >
              Let another browser in
            </Button>
            <Adding word="Make a token" run={() => making(true)} />
          </>
        }
        keys={(item) => [
          { key: "c", does: "Make a token", run: () => making(true) },
          { key: "l", does: "Let another browser in", run: () => link.mutate() },
          { key: "x", does: "Revoke it", run: () => item && item.revoked_at === null && setRevoking(item) },
        ]}
        row={(item) => (
          <>
            <State
              is={item.revoked_at === null ? "completed" : "cancelled"}
              word={item.revoked_at === null ? "lets in" : "revoked"}
            />
            <div className={rows.what}>
              <strong>{item.name}</strong>
              <span className={rows.about}>
                <span>
                  made <Age of={item.created_at} />
                </span>
                {item.revoked_at !== null && (
                  <span>
                    revoked <Age of={item.revoked_at} />
                  </span>
                )}
                {item.browsers > 0 && <span className="num">{plural(item.browsers, "browser")} let in by it</span>}
              </span>
            </div>
            <div className={rows.actions}>
              {item.revoked_at === null && (
                <Hint does="Let it in no more" keys="x">
                  <Button
                    size="xs"
                    variant="default"
                    aria-label={`Revoke ${item.name}…`}
                    onClick={() => setRevoking(item)}
                  >
                    Revoke…
                  </Button>
                </Hint>
              )}
            </div>
          </>
        )}
      />
      <Modal opened={make === true} onClose={() => making(false)} title="Make a token" size="lg">
        <Make />
      </Modal>
      <Modal opened={revoking !== null} onClose={() => setRevoking(null)} title={`Revoke ${revoking?.name}`} size="md">
        {revoking !== null && <Revoke of={revoking} done={() => setRevoking(null)} />}
      </Modal>
      <Modal opened={link.data !== undefined} onClose={link.reset} title="Let another browser in" size="lg">
        {link.data !== undefined && (
          <div className={form.section}>
            <p>
              Open this there. It works once, until {new Date(link.data.valid_until).toLocaleTimeString()}, and that
              browser then acts for <strong>{link.data.name}</strong>, as this one does.
            </p>
            <Command text={`${location.origin}/#login=${link.data.code}`} />
          </div>
        )}
      </Modal>
    </>
  );
}

function Make() {
  const cache = useQueryClient();
  const [name, setName] = useState("");
  const make = useMutation({
    mutationFn: () => told(POST("/api/v1/tokens", { body: { name: name.trim() } })),
    onSuccess: () => cache.invalidateQueries({ queryKey: tokens.queryKey }),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (name.trim() !== "" && !make.isPending) make.mutate();
  };
  if (make.data !== undefined)
    return (
      <div className={form.section}>
        <p>
          This is the token <strong>{make.data.name}</strong>. Copy it now: it is shown this once, and coder keeps only
          its hash.
        </p>
        <Command text={make.data.token} />
      </div>
    );
  return (
    <form className={form.section} onSubmit={submit}>
      <p className="dim">A program that sends it may do all that you may. What it decides is signed with its name.</p>
      <TextInput
        label="Name"
        description="1 to 100 of A–Z, a–z, 0–9, . _ and -"
        data-autofocus
        autoComplete="off"
        spellCheck={false}
        value={name}
        error={make.error?.message}
        onChange={(event) => {
          make.reset();
          setName(event.currentTarget.value);
        }}
      />
      <Button type="submit" loading={make.isPending} disabled={name.trim() === ""}>
        Make it
      </Button>
    </form>
  );
}

function Revoke({ of, done }: { of: Token; done(): void }) {
  const cache = useQueryClient();
  const revoke = useMutation({
    mutationFn: () => told(DELETE("/api/v1/tokens/{name}", { params: { path: { name: of.name } } })),
    onSuccess: () => {
      say(`Token ${of.name} is revoked; making it anew gives another.`);
      done();
    },
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: tokens.queryKey }),
  });
  return (
    <div className={form.section}>
      <p>
        Programs that send it are refused within 3 s
        {of.browsers > 0 && `, and ${plural(of.browsers, "browser")} let in by it must log in again`}. What it decided
        stays.
      </p>
      {of.name === "admin" && (
        <p>
          The links of <code>bin/coder login</code> act for admin: they work again once{" "}
          <code>bin/coder token add admin</code> made it anew.
        </p>
      )}
      <Button color="red.9" data-autofocus loading={revoke.isPending} onClick={() => revoke.mutate()}>
        Revoke {of.name}
      </Button>
    </div>
  );
}
