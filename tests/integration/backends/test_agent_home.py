"""What coder writes into an agent's home stays in there, whatever the agent made of it; and whose login it keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pty_turns import chat, registered

from coder.agents import AgentSpec, Endpoint
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.opencode_probe import REMEMBERED, Probe
from coder.backends.opencode_settings import shell as make_shell
from coder.config import Settings
from coder.errors import AgentUnavailable

LOGIN = ".codex/auth.json"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with a login of codex in it."""
    home = tmp_path / "ada"
    (home / ".codex").mkdir(parents=True)
    (home / LOGIN).write_text("the user's")
    (home / ".profile").write_text("mine")
    monkeypatch.setenv("HOME", str(home))
    return home


def launcher(folder: Path, spec: AgentSpec) -> Launcher:
    return Launcher("codex", spec, Guardians(), folder / "homes" / "0", Endpoint("http://127.0.0.1:1/v1", "", "scripted", "m1"))


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "leads"), [(".codex", ""), (LOGIN, ".profile"), (".codex/config.toml", ".profile"), (".local", ""), (".config", "new")]
)
def test_a_home_is_not_written_where_its_links_lead(place: str, leads: str, user: Path, tmp_path: Path) -> None:
    made = launcher(tmp_path, registered("codex", use_endpoint=True))
    (made.home / place).parent.mkdir(parents=True)
    (made.home / place).symlink_to(user / leads)
    before = files(user)
    with pytest.raises(AgentUnavailable, match=r"its home .* leads out of"):
        made.prepare()
    assert files(user) == before
    assert sorted(path.name for path in user.iterdir()) == [".codex", ".profile"]


def test_a_login_is_replaced_by_a_newer_one_of_the_users_only(user: Path, tmp_path: Path) -> None:
    made = launcher(tmp_path, registered("codex"))
    own = made.home / LOGIN
    made.prepare()
    assert (own.read_text(), own.stat().st_mode & 0o777) == ("the user's", 0o600)
    own.write_text("renewed by the agent")
    made.prepare()
    assert own.read_text() == "renewed by the agent"
    (user / LOGIN).write_text("logged in again")
    os.utime(user / LOGIN, (own.stat().st_mtime + 1,) * 2)
    made.prepare()
    assert own.read_text() == "logged in again"


def test_settings_of_the_users_come_back_when_the_endpoint_is_no_longer_used(user: Path, tmp_path: Path) -> None:
    (user / ".codex/config.toml").write_text("the user's")
    launcher(tmp_path, registered("codex", use_endpoint=True)).prepare()
    made = launcher(tmp_path, registered("codex"))
    assert "http://127.0.0.1:1/v1" in (made.home / ".codex/config.toml").read_text()
    made.prepare()
    assert (made.home / ".codex/config.toml").read_text() == "the user's"


@pytest.mark.parametrize("places", [["turns"], [f"turns/{number}-1.txt" for number in range(1000)]], ids=["folder", "file"])
async def test_a_prompt_is_not_written_where_a_link_leads(places: list[str], user: Path, tmp_path: Path) -> None:
    for place in places:
        link = tmp_path / "homes/0/plain" / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(user if place == "turns" else user / ".profile")
    before = files(user)
    async with chat(tmp_path, AgentSpec(protocol="pty", command=("cat",))) as talk:
        played = await talk.play("a prompt")
    assert isinstance(played.error, AgentUnavailable)
    assert "leads out of" in played.error.message
    assert files(user) == before


def test_the_shell_of_opencode_is_not_written_where_a_link_leads(user: Path, tmp_path: Path) -> None:
    made = launcher(tmp_path, registered("opencode"))
    (made.home / "shell").mkdir(parents=True)
    (made.home / "shell/bash").symlink_to(user / ".profile")
    with pytest.raises(AgentUnavailable, match="leads out of"):
        make_shell(made)
    assert (user / ".profile").read_text() == "mine"


@pytest.mark.parametrize("kind", ["pipe", "endless", "long"])
async def test_what_is_remembered_of_opencode_is_never_waited_for(kind: str, tmp_path: Path) -> None:
    made = launcher(tmp_path, registered("opencode"))
    made.home.mkdir(parents=True)
    remembered = made.home / REMEMBERED
    if kind == "pipe":
        os.mkfifo(remembered)
    elif kind == "endless":
        remembered.symlink_to("/dev/zero")
    else:
        with remembered.open("wb") as file:
            file.truncate(1 << 40)
    probe = Probe(made, Settings(_env_file=None))
    assert probe.known("/no/such/opencode").version is None
    await probe.looked()
