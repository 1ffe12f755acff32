"""What a confined command can and cannot do, with the real bubblewrap and a real worktree."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
from guarded_processes import STUBBORN, Watched, line

from coder.backends import guard
from coder.backends.guardian import Guardians
from coder.backends.sandbox import Cell, Sandbox
from coder.errors import AgentUnavailable

AUTHOR = ("-c", "user.name=t", "-c", "user.email=t@example.org")
REASON = Sandbox("auto", Path("/nowhere")).why
confined = pytest.mark.skipif(bool(REASON), reason=f"agents cannot be confined on this machine: {REASON}")


@dataclass(frozen=True)
class House:
    """A user's home with a project in it, and coder's data directory with the project's worktree."""

    user: Path
    data: Path

    @property
    def repository(self) -> Path:
        return self.user / "src" / "app"

    @property
    def worktree(self) -> Path:
        return self.data / "worktrees" / "1" / "session"

    @property
    def home(self) -> Path:
        return self.data / "homes" / "0" / "agent"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(("git", *AUTHOR, *arguments), cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(tmp_path / "ada", tmp_path / "ada" / ".local/share/coder")
    made.repository.mkdir(parents=True)
    git(made.repository, "init", "-q", "-b", "main")
    (made.repository / "kept").write_text("kept\n")
    git(made.repository, "add", "kept")
    git(made.repository, "commit", "-qm", "start")
    for name in ("session", "other"):
        git(made.repository, "worktree", "add", "-q", "--detach", str(made.data / "worktrees" / "1" / name))
    for secret in (made.user / ".ssh/id", made.user / ".aws/credentials", made.user / ".cargo/credentials.toml", made.data / "database"):
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("sesame")
    (made.user / ".cargo/bin").mkdir()
    (made.user / ".cargo/bin/tool").write_text("#!/bin/sh\necho tool\n")
    (made.user / ".cargo/bin/tool").chmod(0o755)
    monkeypatch.setenv("HOME", str(made.user))
    return made


@pytest.fixture
async def guardians() -> AsyncIterator[Guardians]:
    guardians = Guardians()
    yield guardians
    await guardians.stop_all()


def cell(house: House, guardians: Guardians, *, network: bool = True, shared: bool = False) -> Cell:
    return Sandbox("required", house.data).cell(guardians, worktree=None if shared else house.worktree, home=house.home, network=network)


async def sh(cell: Cell, house: House, command: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    env = cell.environment({"PATH": f"{house.user}/.cargo/bin:{os.environ['PATH']}", "HOME": str(house.user)})
    guarded = await cell.spawn(["sh", "-c", command], cwd=house.worktree, env=env, stderr=STDOUT)
    assert guarded.stdout is not None
    said = (await guarded.stdout.read()).decode()
    return await guarded.wait(), said


@confined
async def test_the_worktree_the_home_and_tmp_are_written(house: House, guardians: Guardians) -> None:
    code, said = await sh(
        cell(house, guardians), house, 'echo a > a && echo b > "$HOME/b" && echo c > /tmp/c && echo d > "$TMPDIR/d" && pwd'
    )
    assert (code, said) == (0, f"{house.worktree}\n")
    assert (house.worktree / "a").read_text() == "a\n"
    assert (house.home / "b").read_text() == "b\n"
    assert not Path("/tmp/c").exists()


@confined
@pytest.mark.parametrize(
    "place",
    ["{user}/x", "{data}/x", "{data}/worktrees/1/other/x", "{repository}/.git/config", "{repository}/.git/refs/heads/x", "/etc/x",
     "{repository}/.git/hooks/pre-commit", "{repository}/.git/worktrees/session/commondir", "{worktree}/.git", "/usr/x", "/run/x"],
)  # fmt: skip
async def test_nothing_else_is_written(place: str, house: House, guardians: Guardians) -> None:
    path = Path(place.format(user=house.user, data=house.data, repository=house.repository, worktree=house.worktree))
    before = path.read_bytes() if path.exists() else None
    code, said = await sh(cell(house, guardians), house, f"echo x >> '{path}'")
    assert code != 0
    assert "Read-only file system" in said or "nonexistent" in said
    assert (path.read_bytes() if path.exists() else None) == before


@confined
async def test_keys_and_other_peoples_work_are_not_there(house: House, guardians: Guardians) -> None:
    _, said = await sh(
        cell(house, guardians),
        house,
        f"find '{house.user}' -type f ! -path '*/.git/*'; cat '{house.user}/.cargo/credentials.toml' 2>/dev/null",
    )
    shown = sorted(Path(line).relative_to(house.user) for line in said.splitlines())
    tools = [Path(".cargo/bin/tool"), Path(".cargo/credentials.toml")]  # the name of which is there, and no more
    assert shown == [*tools, *(Path(".local/share/coder/worktrees/1/session") / name for name in (".git", "kept"))]
    assert "sesame" not in said
    assert await sh(cell(house, guardians), house, "tool") == (0, "tool\n")


@confined
async def test_a_path_that_cannot_be_looked_at_is_passed_over(house: House, guardians: Guardians) -> None:
    """As those of another user's home are."""
    confined = cell(house, guardians)
    env = {"PATH": f"/root/{'x' * 300}:{house.user}/gone:{os.environ['PATH']}"}
    guarded = await confined.spawn(["sh", "-c", "echo ran"], cwd=house.worktree, env=env)
    assert await line(guarded) == "ran"


@confined
async def test_a_program_behind_a_symlink_of_the_path_is_there(house: House, guardians: Guardians) -> None:
    package = house.user / "apps" / "node_modules" / "thing"
    package.mkdir(parents=True)
    (package / "words").write_text("said\n")
    (package / "cli").write_text('#!/bin/sh\ncat "$(dirname "$(readlink -f "$0")")/words"\n')
    (package / "cli").chmod(0o755)
    (house.user / ".cargo/bin/thing").symlink_to(package / "cli")
    assert await sh(cell(house, guardians), house, "thing") == (0, "said\n")


@confined
async def test_sockets_of_this_machine_are_not_there(house: House, guardians: Guardians, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/tmp/coder-test-socket-{os.getpid()}")
        try:
            code, said = await sh(cell(house, guardians), house, f"ls -A /run /tmp; test -e {server.getsockname()}")
        finally:
            os.unlink(server.getsockname())
    assert code == 1
    assert "docker" not in said


@confined
async def test_git_sees_and_stages_and_commits_but_moves_no_ref(house: House, guardians: Guardians) -> None:
    confined = cell(house, guardians)
    code, said = await sh(confined, house, "echo new > new && echo more >> kept && git status --short && git diff --stat && git add -A")
    assert code == 0, said
    assert " M kept" in said
    identity = "git -c user.name=t -c user.email=t@example.org"
    assert (await sh(confined, house, f"{identity} commit -qm work && git log --format=%s"))[1] == "work\nstart\n"
    for forbidden in ("git checkout -b branch", "git tag v1", "git config a.b c", "git fetch . main:x", "git gc"):
        code, said = await sh(confined, house, f"echo {code} > kept; {forbidden}")
        assert code != 0
        assert "Read-only file system" in said, forbidden
    assert git(house.repository, "branch", "--format=%(refname)") == "refs/heads/main\n"
    assert git(house.repository, "fsck") == ""


@confined
async def test_a_worktree_whose_git_file_leads_elsewhere_opens_nothing(house: House, guardians: Guardians) -> None:
    """As an agent that ran unconfined may have left it."""
    fake = house.data / "worktrees/1/session/fake/worktrees/session"
    fake.mkdir(parents=True)
    (fake.parents[1] / "objects").symlink_to(house.user / ".ssh")
    (fake / "gitdir").write_text(f"{house.worktree}/.git\n")
    (house.worktree / ".git").write_text(f"gitdir: {fake}\n")
    code, said = await sh(cell(house, guardians), house, f"cat {fake.parents[1]}/objects/id; echo x > {house.user}/.ssh/id")
    assert code != 0
    assert "sesame" not in said


@confined
async def test_a_shared_program_writes_all_worktrees_and_nothing_else(house: House, guardians: Guardians) -> None:
    shared = cell(house, guardians, shared=True)
    code, said = await sh(shared, house, "touch ../other/x && cd ../other && git add x && git status --short")
    assert (code, said) == (0, "A  x\n")
    assert (await sh(shared, house, f"touch {house.repository}/.git/hooks/x || cat {house.data}/database"))[0] != 0


@confined
async def test_what_git_takes_settings_from_is_never_written(house: House, guardians: Guardians) -> None:
    """With a filter in it, coder's own git would run a program of the agent's."""
    git(house.repository, "config", "extensions.worktreeConfig", "true")
    own = house.repository / ".git/worktrees/session/config.worktree"
    for shared in (False, True):
        confined = cell(house, guardians, shared=shared)
        code, said = await sh(confined, house, f"echo '[filter]' >> {own} || mv {own.parent} {own.parent}.moved")
        assert code != 0, said
        assert not own.exists() or own.read_text() == ""
        assert await sh(confined, house, "touch x && git status --short") == (0, "?? x\n")


@confined
async def test_what_other_sessions_made_of_their_git_files_keeps_nobody_from_starting(house: House, guardians: Guardians) -> None:
    links = [house.worktree.parent / name / ".git" for name in ("bytes", "nul", "pipe", "folder")]
    for link in links:
        link.parent.mkdir()
    links[0].write_bytes(b"gitdir: \xff\xfe\n")
    links[1].write_bytes(b"gitdir: a\0b\n")
    os.mkfifo(links[2])
    links[3].mkdir()
    assert await sh(cell(house, guardians, shared=True), house, "touch x && git add x && git status --short") == (0, "A  x\n")


@confined
async def test_a_shared_program_starts_beside_any_number_of_worktrees(house: House, guardians: Guardians) -> None:
    """bubblewrap takes 9,000 words, and each thing it binds takes the longer the more are bound."""
    for number in range(600):
        worktree, record = (folder / f"old-{number}" for folder in (house.worktree.parent, house.repository / ".git/worktrees"))
        worktree.mkdir()
        record.mkdir()
        (worktree / ".git").write_text(f"gitdir: {record}\n")
        (record / "gitdir").write_text(f"{worktree}/.git\n")
        (record / "commondir").write_text("../..\n")
    code, said = await sh(cell(house, guardians, shared=True), house, "touch ../old-599/x && echo x > x && git add x && git status --short")
    assert (code, said) == (0, "A  x\n")


@confined
async def test_the_network_is_there_or_off(house: House, guardians: Guardians) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ask = f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\""
        assert (await sh(cell(house, guardians), house, ask))[0] == 0
        assert (await sh(cell(house, guardians, network=False), house, ask))[0] == 1


@confined
async def test_the_kernels_settings_are_out_of_reach(house: House, guardians: Guardians) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    code, _ = await sh(
        cell(house, guardians), house, "cat /proc/sys/kernel/core_pattern > /tmp/p && cat /tmp/p > /proc/sys/kernel/core_pattern"
    )
    assert code != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    assert (await sh(cell(house, guardians), house, "mount -o remount,rw / || umount /run"))[0] != 0


@confined
async def test_other_processes_are_out_of_sight_and_out_of_reach(house: House, guardians: Guardians) -> None:
    code, said = await sh(cell(house, guardians), house, f"ls -d /proc/[0-9]* | wc -l; kill -0 {os.getpid()}")
    assert code != 0
    assert int(said.split()[0]) < 10


@confined
async def test_nobody_outlives_the_end(house: House, guardians: Guardians) -> None:
    """Descendants that left their session and ignore TERM, in a process namespace of their own."""
    confined = cell(house, guardians)
    env = confined.environment({"PATH": os.environ["PATH"]})
    guarded = await confined.spawn([sys.executable, "-c", STUBBORN], cwd=house.worktree, env=env)
    for _ in range(3):
        await line(guarded)
    agents = Watched([guarded.pid, *everybody_below(guarded.pid)])
    assert len(agents.handles) >= 5
    asked = guard.now()
    guarded.end()
    assert await asyncio.to_thread(agents.gone_within, 2.0)
    assert guard.now() - asked < 2


@confined
async def test_nobody_outlives_the_guardian(house: House, guardians: Guardians) -> None:
    confined = cell(house, guardians)
    env = confined.environment({"PATH": os.environ["PATH"]})
    guarded = await confined.spawn([sys.executable, "-c", STUBBORN], cwd=house.worktree, env=env)
    for _ in range(3):
        await line(guarded)
    agents = Watched(list(everybody_below(guarded.pid)))
    os.kill(guarded.pid, 9)
    assert await asyncio.to_thread(agents.gone_within, 2.0)
    assert await guarded.wait() == -9


def everybody_below(pid: int) -> Iterator[int]:
    for child in guard.children(pid):
        yield child
        yield from everybody_below(child)


@confined
async def test_streams_and_the_exit_code_come_through(house: House, guardians: Guardians) -> None:
    confined = cell(house, guardians)
    guarded = await confined.spawn(["sh", "-c", "cat; exit 7"], cwd=house.worktree, env={"PATH": os.environ["PATH"]}, stdin=PIPE)
    assert guarded.stdin is not None
    guarded.stdin.write(b"through\n")
    guarded.stdin.close()
    assert await line(guarded) == "through"
    assert await guarded.wait() == 7


async def test_a_missing_program_is_told_by_its_name(house: House, guardians: Guardians) -> None:
    with pytest.raises(AgentUnavailable, match="no-such-agent"):
        await (
            Sandbox("auto", house.data)
            .cell(guardians, worktree=house.worktree, home=house.home, network=True)
            .spawn(["no-such-agent"], cwd=house.worktree, env={"PATH": os.environ["PATH"]})
        )


def test_what_does_not_work_says_why_and_is_never_pretended(house: House) -> None:
    broken = Sandbox("auto", house.data, bwrap="/bin/false")
    assert broken.why == "bubblewrap does not work here (exit code 1)"
    assert broken.notice is not None
    assert "not confined" in broken.notice
    broken.check(network=True)
    with pytest.raises(AgentUnavailable, match="off the network, which needs the sandbox"):
        broken.check(network=False)
    required = Sandbox("required", house.data, bwrap="/nowhere/bwrap")
    with pytest.raises(AgentUnavailable, match="required, but agents cannot be confined here: bubblewrap cannot be run"):
        required.check(network=True)
    off = Sandbox("off", house.data)
    assert off.notice is None
    off.check(network=True)
    with pytest.raises(AgentUnavailable, match="CODER_SANDBOX is off"):
        off.check(network=False)


@confined
async def test_a_tmp_that_an_agent_made_a_link_of_leads_nowhere(house: House, guardians: Guardians) -> None:
    """Bound as /tmp of its next program, the link would open what it leads to, for writing."""
    confined = cell(house, guardians)
    await sh(confined, house, f'mv "$HOME/tmp" "$HOME/moved"; ln -s {house.user} "$HOME/tmp"')
    _, said = await sh(confined, house, "echo x > /tmp/.profile; cat /tmp/.ssh/id; touch /tmp/own && ls -A /tmp")
    assert "sesame" not in said
    assert not (house.user / ".profile").exists()
    assert "own" in said.split()


@confined
@pytest.mark.parametrize("name", ["config.worktree", "commondir", "gitdir"])
async def test_a_link_in_gits_record_shows_nothing(name: str, house: House, guardians: Guardians) -> None:
    """Bound as it is, it would show what it leads to."""
    (house.user / ".netrc").write_text("sesame")
    record = house.repository / ".git/worktrees/session"
    leads = os.path.relpath(house.user / ".netrc", record)
    await sh(cell(house, guardians, shared=name != "config.worktree"), house, f"rm -f {record}/{name}; ln -s {leads} {record}/{name}")
    _, said = await sh(cell(house, guardians), house, f"cat {record}/{name}; cat {house.user}/.netrc; echo ran")
    assert "sesame" not in said
    assert "ran" in said
    assert (house.user / ".netrc").read_text() == "sesame"


@confined
async def test_objects_that_an_agent_borrows_from_elsewhere_are_not_shown(house: House, guardians: Guardians) -> None:
    private = house.user / "private"
    private.mkdir()
    git(private, "init", "-q")
    (private / "secret").write_text("sesame")
    git(private, "add", "secret")
    blob = git(private, "rev-parse", ":secret").strip()
    borrowed = house.repository / ".git/objects/info/alternates"
    await sh(cell(house, guardians), house, f"mkdir -p {borrowed.parent}; echo {private}/.git/objects > {borrowed}")
    _, said = await sh(cell(house, guardians), house, f"git cat-file -p {blob}; ls {private}")
    assert "sesame" not in said
    assert not borrowed.exists()


@confined
async def test_a_worktree_that_a_shared_program_made_a_link_of_is_refused(house: House, guardians: Guardians) -> None:
    await sh(cell(house, guardians, shared=True), house, f"cd ..; mv other moved; ln -s {house.user} other")
    other = Sandbox("required", house.data).cell(guardians, worktree=house.worktree.with_name("other"), home=house.home, network=True)
    with pytest.raises(AgentUnavailable, match="is a link"):
        await sh(other, house, "echo x > ../other/.profile")
    assert not (house.user / ".profile").exists()
