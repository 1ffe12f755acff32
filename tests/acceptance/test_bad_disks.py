"""Disks that are full: what can be stored is stored, the work is kept until there is room, and a retry is all it takes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bad_git import commit, git, repository, seen
from bad_house import House, open_house
from bad_model import DONE, HEADERS, bad_model, call

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of its own for a directory, with what lay there."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    aside = place.with_name(f"{place.name}-aside")
    if place.exists():
        place.rename(aside)
    place.mkdir(parents=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)), check=True)
    try:
        if aside.exists():
            shutil.copytree(aside, place, dirs_exist_ok=True, symlinks=True)
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(place)), check=True)


def remount(place: Path, how: str = "size=64m") -> None:
    subprocess.run(("mount", "-o", f"remount,{how}", str(place)), check=True)


def fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - any other is a fault


BIG = "run: head -c 3000000 /dev/urandom > big\nsay: all done"


async def test_no_room_for_the_objects_of_a_change(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    objects = checkout / ".git/objects"
    before = seen(checkout)
    with small_disk(objects, "2m"):
        failed = await house.failed("disk", ["not recorded", "No space is left", str(checkout), "retry the task"], project, BIG)
        session = failed["session_id"]
        assert (await house.answer(failed))["text"] == "all done"
        assert await house.change(session) is None
        work = (await house.worktree(session) / "big").read_bytes()
        assert len(work) == 3_000_000
        remount(objects)

        async def found() -> bool:
            return await house.change(session) is not None

        # Nobody needs to do anything: the change comes as soon as there is room for it.
        await house.until(found, "the change")
        change = await house.open_change(failed, "big")
        assert change["turn_outcome"] == "failed"
        assert seen(checkout) == before
        await house.approved(change)
        assert (checkout / "big").read_bytes() == work
        second = await house.completed(project, "write b.txt: b", session)
        await house.open_change(second, "b.txt")
        await house.at_rest()


async def test_no_room_for_the_objects_of_an_approval(house: House) -> None:
    project = await house.project(files={"README": "r\n", "mine": "m\n"})
    checkout = house.checkout(project)
    objects = checkout / ".git/objects"
    change = await house.open_change(await house.completed(project, "write a.txt: a"), "a.txt")
    with small_disk(objects, "1m"):
        fill(objects / "filler")
        before = seen(checkout)
        refused = await house.approve(change)
        assert (refused.status_code, refused.json()["code"]) == (409, "disk"), refused.text
        assert "No space is left" in refused.json()["detail"]
        assert await house.state_of(change) == "pending"
        assert seen(checkout) == before
        (objects / "filler").unlink()
        await house.approved(change)
        await house.at_rest()


async def test_a_checkout_that_cannot_be_written_to(house: House) -> None:
    project = await house.project(files={"README": "r\n", "sub/f": "f\n"})
    place = house.checkout(project) / "sub"
    change = await house.open_change(await house.completed(project, "write sub/new: n"), "sub/new")
    with small_disk(place, "1m"):
        remount(place, "ro")
        answer = await house.approve(change)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal"), answer.text
        assert "Read-only file system" in answer.json()["detail"]
        assert await house.state_of(change) == "pending"
        await house.at_rest()
    shutil.rmtree(place)
    git(house.checkout(project), "checkout", "--", "sub")
    await house.approved(change)
    assert (place / "new").read_text() == "n"
    await house.at_rest()


async def test_no_room_in_the_data_directory(tmp_path: Path, postgres_server: str, template_database: str) -> None:
    data = tmp_path / "data"
    with small_disk(data, "1m"):
        async with bad_model() as model, open_house(tmp_path, postgres_server, template_database, model_base_url=model.url) as house:
            project = await house.project(repository(tmp_path / "projects" / "large", {"README": "r\n"}))
            checkout = house.checkout(project)
            (checkout / "big").write_bytes(os.urandom(3_000_000))
            commit(checkout)
            failed = await house.failed("disk", ["No space is left", "retry the task"], project, "hello")
            (place,) = (each for each in (data / "worktrees").iterdir() if each.is_dir())
            assert os.listdir(place) == []
            assert git(checkout, "worktree", "list", "--porcelain").count("worktree ") == 1
            await house.at_rest()
            remount(data)
            again = (await house.client.post(f"/tasks/{failed['id']}/retry")).json()
            done = await house.ended(again["id"])
            assert (done["state"], done["session_id"]) == ("completed", failed["session_id"])
            # Nor is there room for what a turn says at length.
            shutil.rmtree(await house.worktree(done["session_id"]))
            remount(data, "size=900k")
            model.script("long", HEADERS + call("write", json.dumps({"path": "long.txt", "content": "x" * 1_000_000})) + DONE)
            failed = await house.failed("disk", ["No space is left", str(data / "logs"), "retry the task"], await house.project(), "long")
            assert (await house.answer(failed))["tool_calls"][0]["status"] == "failed"
            remount(data)
            await house.at_rest()
            assert (await house.completed(failed["project"], "hello", failed["session_id"]))["output_summary"] == "Done."


FULL = """
create function full_disk() returns trigger language plpgsql as $$
begin raise exception using errcode = '53100', message = 'could not extend file "base/1/2": No space left on device'; end $$;
create trigger full_disk before insert or update on {table} for each row when ({when}) execute function full_disk()
"""


async def test_no_room_in_the_database_for_the_end_of_an_approval(house: House) -> None:
    """The files are in the checkout already, so the approval is not refused: it is finished once there is room."""
    project = await house.project()
    checkout = house.checkout(project)
    change = await house.open_change(await house.completed(project, "write a.txt: a"), "a.txt")
    await house.sql.execute("create sequence hits")
    await house.sql.execute(
        FULL.format(table="decisions", when="new.state = 'done'").replace("raise exception", "perform nextval('hits'); raise exception")
    )
    try:
        deciding = asyncio.create_task(house.approve(change, commit=True))

        async def hit() -> bool:
            return bool(await house.sql.fetchval("select is_called and last_value > 1 from hits")) or deciding.done()

        await house.until(hit, "the second try")
    finally:
        await house.sql.execute("drop trigger full_disk on decisions; drop function full_disk; drop sequence hits")
    answer = await deciding
    assert (answer.status_code, answer.json()["change_state"]) == (200, "approved"), answer.text
    assert git(checkout, "rev-list", "--count", "HEAD") == "2"
    assert git(checkout, "status", "--porcelain") == ""
    await house.at_rest()


@pytest.mark.parametrize(
    ("table", "when", "text"),
    [("pending_changes", "true", "all done"), ("tasks", "octet_length(new.answer) > 0", "")],
    ids=["the diff", "the answer"],
)
async def test_no_room_in_the_database(house: House, table: str, when: str, text: str) -> None:
    """What can be stored is stored; the rest stays in the worktree and becomes a change once there is room."""
    project = await house.project()
    first = await house.completed(project, "write a.txt: a")
    session = first["session_id"]
    old = await house.open_change(first, "a.txt")
    await house.sql.execute(FULL.format(table=table, when=when))
    try:
        failed = await house.failed("disk", ["No space is left", "database", "still in the session's worktree"], project, BIG, session)
        assert (await house.answer(failed))["text"] == text
        if table == "pending_changes":
            assert await house.change(session) == old
        assert (await house.worktree(session) / "big").stat().st_size == 3_000_000
    finally:
        await house.sql.execute(f"drop trigger full_disk on {table}; drop function full_disk")

    async def found() -> bool:
        change = await house.change(session)
        return change is not None and change["task_id"] == failed["id"]

    await house.until(found, "the change")
    await house.approved(await house.open_change(failed, "a.txt", "big"))
    assert await house.state_of(old) == "superseded"
    await house.open_change(await house.completed(project, "write c.txt: c", session), "c.txt")
    await house.at_rest()
