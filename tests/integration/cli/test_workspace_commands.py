"""Sessions and workspaces on the command line, over SQL and over HTTP alike."""

from __future__ import annotations

from cli_runner import Cli


def test_titles_and_directories(cli: Cli) -> None:
    session = cli.json("task", "add", "demo", "say hello", "--workspace", "lab")["session_id"]
    cli.json("task", "add", "demo", "another")
    assert cli.json("session", "title", session[:8], "The parser")["title"] == "The parser"
    assert "'Mine'" in cli("session", "title", session, "Mine").stdout
    assert "empty" in cli.refused("session", "title", session, " ", code=2)
    assert cli.json("session", "cwd", session) == {"explicit": None, "effective": "/srv/demo"}
    assert "/srv/demo/api" in cli("session", "cwd", session, "api").stdout
    assert [row["id"] for row in cli.json("session", "list", "--cwd", "/srv/demo/api/")] == [session]
    assert len(cli.json("session", "list", "--cwd", "/srv/demo")) == 1
    assert "not inside project demo" in cli.refused("session", "cwd", session, "/etc", code=2)
    assert cli.json("workspace", "cwd", "lab", "/srv/demo/web")["default_cwd"] == "/srv/demo/web"
    assert "as its workspace" in cli("session", "cwd", session, "--clear").stdout
    assert cli.json("session", "cwd", session)["effective"] == "/srv/demo/web"
    assert cli.json("workspace", "cwd", "lab", "--clear")["default_cwd"] is None
    assert "or --clear" in cli.refused("workspace", "cwd", "lab", code=2)
    assert "not both" in cli.refused("session", "cwd", session, "api", "--clear", code=2)


def test_workspaces(cli: Cli) -> None:
    cli.json("task", "add", "demo", "say hello", "--workspace", "lab")
    assert cli.json("workspace", "add", "shop")["session_count"] == 0
    assert cli.json("workspace", "add", "shop")["id"] == "shop"
    assert cli.json("workspace", "title", "shop", "The shop")["title"] == "The shop"
    assert {row["id"]: row["session_count"] for row in cli.json("workspace", "list")} == {"default": 0, "lab": 1, "shop": 0}
    assert "The shop" in cli("workspace", "list").stdout
    assert "The shop" in cli("workspace", "show", "shop").stdout
    assert "1 to 40" in cli.refused("workspace", "add", "Not this", code=2)
    assert "nope" in cli.refused("workspace", "show", "nope", code=2)
    assert "1 of its sessions were open" in cli("workspace", "delete", "lab").stdout
    assert cli.json("session", "list", "--status", "closed")[0]["workspace_id"] == "default"
    assert "default" in cli.refused("workspace", "delete", "default", code=1)


def test_tokens(cli: Cli) -> None:
    made = cli.json("token", "add", "ci")
    assert (made["name"], len(made["token"]), made["revoked_at"]) == ("ci", 64, None)
    assert "already a token ci" in cli.refused("token", "add", "ci", code=1)
    assert "ci" in cli("token", "list").stdout
    assert made["token"] not in cli("token", "list", "--json").stdout
    assert "is revoked" in cli("token", "revoke", "ci").stdout
    assert len(cli("token", "add", "ci").stdout.strip()) == 64
    assert "no token nobody" in cli.refused("token", "revoke", "nobody", code=2)
    assert "signed coder" in cli.refused("token", "add", "coder", code=2)


def test_the_queue_of_a_session(cli: Cli) -> None:
    cli.node.add("a long turn")
    claim = cli.node.claim()
    session = str(claim["session_id"])
    assert cli("session", "queue", session).stdout == ""
    one = cli.json("session", "send", session[:8], "one", "--model", "m", "--key", "k")["id"]
    assert "at the head" in cli("session", "send", session, "-", "--interrupt", stdin="now").stdout
    two = cli.json("session", "send", session, "two")["id"]
    assert [row["input"] for row in cli.json("session", "queue", session)] == ["now", "one", "two"]
    assert cli.node.row("select cancel_requested_at from tasks where id = %s", claim["id"])["cancel_requested_at"] is not None
    assert "something else" in cli("session", "edit", session, one, "-", stdin="1").stdout
    assert "is cancelled" in cli("session", "remove", session, two).stdout
    assert cli("session", "queue", session).stdout.splitlines()[2].split() == [str(one), "session", "native", "1"]
    assert "cancelled" in cli.refused("session", "edit", session, two, "x", code=1)


def test_compaction(cli: Cli) -> None:
    cli.node.add("say hello")
    claim = cli.node.claim()
    cli.node.end(claim, content=None)
    assert "no native conversation" in cli.refused("session", "compact", claim["session_id"], code=1)
    cli.node.run("update chats set model_history = '[]'")
    assert "will summarise" in cli("session", "compact", str(claim["session_id"])[:8]).stdout
    assert cli.json("session", "compact", claim["session_id"])["existed"] is True
