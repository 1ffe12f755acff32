"""`bin/up --demo`: a small repository and three tasks to look at, with a scripted model where none is configured.

Everything goes through the front doors: the project and one task over HTTP, one task by psql. Said plainly in
the output, so that nobody takes the script for a model.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import git
import httpx

from coder.config import Settings
from coder.demo.model import MODEL, ScriptedModel
from coder.errors import Unavailable
from coder.ports import SyncDoor

PROJECT = "demo"
BY_SQL = (
    "Greet by name and test it.\n"
    "write greet.py: def greet(name: str = 'world') -> str:\\n    return f'Hello, {name}!'\\n\\n\\n"
    "if __name__ == '__main__':\\n    print(greet())\\n\n"
    "write test_greet.py: from greet import greet\\n\\nassert greet('Ada') == 'Hello, Ada!'\\nprint('ok')\\n\n"
    "run: python3 test_greet.py\n"
    "say: greet() takes a name now, and a test runs."
)
BY_API = (
    "Say in the README how to run it.\n"
    "edit README.md: A small program. => A small program. Run it with `python3 greet.py`.\n"
    "say: The README says how to run it."
)
NO_CHANGE = "What does this repository do?\nread README.md\nsay: It prints a greeting; nothing needed to change."


class Demo:
    """Args: psql: the command line that reaches the database. door: for a token of the demo's own."""

    def __init__(self, settings: Settings, door: Callable[[], SyncDoor], psql: Callable[[], list[str]]) -> None:
        self._door = door
        self._psql = psql
        self._repository = settings.data_dir.expanduser().resolve() / "demo-repository"
        self._model = ScriptedModel() if settings.model_base_url is None else None
        self._given = settings

    def __enter__(self) -> Settings:
        """The settings to run with: the given ones, and the scripted model where none is configured."""
        if self._model is None:
            return self._given
        self._model.start()
        return self._given.model_copy(
            update={"model_base_url": self._model.base_url, "default_model": MODEL, "model_protocol": "openai", "model_api_key": None}
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._model is not None:
            self._model.stop()

    async def show(self, url: str | None, ready: Callable[[], Awaitable[None]]) -> None:
        """Queue the tasks, then say that the service is ready.

        Raises:
            Unavailable: this process serves no API, or one of the doors refused.
        """
        if url is None:
            raise Unavailable("--demo needs the API in this process; use it with --role all.")
        made = await asyncio.to_thread(make_repository, self._repository)
        token = secrets.token_urlsafe(32)
        await asyncio.to_thread(self._add_token, token)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=f"{url}api/v1", headers=headers, timeout=30) as api:
            added = await api.post("/projects", json={"name": PROJECT, "path": str(self._repository)})
            if added.status_code not in (201, 409):
                raise Unavailable(f"The demo's project could not be added: {added.text}")
            if made:
                await asyncio.to_thread(self._insert, BY_SQL)
                for text in (BY_API, NO_CHANGE):
                    (await api.post("/tasks", json={"project": PROJECT, "input": text})).raise_for_status()
        await ready()
        print(f"demo:  project {PROJECT} in {self._repository}", flush=True)
        if made:
            print("demo:  3 tasks are queued: one by psql, one over HTTP, one that changes nothing", flush=True)
        if self._model is not None:
            print(
                "demo:  no model is configured (CODER_MODEL_BASE_URL), so a SCRIPTED model answers: it only follows directives", flush=True
            )
        print("demo:  see bin/coder task list, bin/coder change list, bin/coder change show ID, bin/coder change approve ID", flush=True)

    def _add_token(self, token: str) -> None:
        door = self._door()
        try:
            door.row("token_add", name="demo", hash=sha256(token.encode()).digest())
        finally:
            door.close()

    def _insert(self, text: str) -> None:
        statement = f"insert into tasks (project_id, input) select id, :'input' from projects where name = '{PROJECT}';\n"
        done = subprocess.run(
            [*self._psql(), "-qX", "-v", "ON_ERROR_STOP=1", "-v", f"input={text}"],
            input=statement,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"psql could not queue the demo's task: {done.stderr.strip()}")


def make_repository(path: Path) -> bool:
    """A repository with two files and a commit; False when it was there already."""
    if (path / ".git").exists():
        return False
    path.mkdir(parents=True, exist_ok=True)
    (path / "README.md").write_text("# greet\n\nA small program.\n")
    (path / "greet.py").write_text("print('Hello, world!')\n")
    (path / ".gitignore").write_text("__pycache__/\n")
    repository = git.Repo.init(path, initial_branch="main")
    repository.index.add([".gitignore", "README.md", "greet.py"])
    author = git.Actor("coder demo", "demo@localhost")
    repository.index.commit("A small program", author=author, committer=author)
    return True
