"""What `coder doctor` looks at, and the collection that `coder gc` runs: both need several worlds at once."""

from __future__ import annotations

import asyncio
import shutil
from uuid import uuid4

import asyncpg
import httpx

from coder.backends.native_model import Endpoint
from coder.backends.registry import find_agent, make_sandbox, read_registry
from coder.backends.sandbox import CURE
from coder.change import Gone
from coder.config import Settings
from coder.errors import CoderError, InvalidInput, Unavailable
from coder.git.process import git_version
from coder.git.worktrees import GitWorktrees
from coder.host.identity import host_id
from coder.ports import Finding
from coder.postgres.binaries import find_binaries
from coder.postgres.changes import PostgresChanges
from coder.postgres.pool import open_pool, our_words
from coder.postgres.schema import STATEMENTS, VERSION
from coder.runtime.clock import SystemClock
from coder.runtime.janitor import Janitor
from coder.where import data_dir, database_url

LEAST_FREE_BYTES = 2 * 1024**3
LEAST_GIT = (2, 38)
ECHO_SECONDS = 5.0
OLD_TRANSACTION_SECONDS = 300


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything coder stands on; each finding that is not well names its cure."""
    findings = [git(), disk(settings), *await model(settings), *sandbox(settings), *agents(settings)]
    try:
        dsn = database_url(settings)
    except CoderError as error:
        return [Finding("PostgreSQL", False, error.message, "run bin/up, or set CODER_DATABASE_URL"), *findings]
    return [*await postgres(settings, dsn), *findings]


async def postgres(settings: Settings, dsn: str) -> list[Finding]:
    """The server, the schema, the LISTEN round trip, and transactions that hold the queue back."""
    try:
        with our_words():
            connection = await asyncpg.connect(dsn, timeout=5)
    except Unavailable as error:
        return [Finding("PostgreSQL", False, error.message, "start it, or correct CODER_DATABASE_URL")]
    try:
        version = connection.get_server_version()
        origin = "the configured server" if settings.database_url else f"embedded, {find_binaries().origin}"
        found = [Finding("PostgreSQL", version.major >= 15, f"{version.major}.{version.micro} ({origin})", "use PostgreSQL 15 or newer")]
        found.append(await schema(connection))
        listen = settings.listen_url.get_secret_value() if settings.listen_url else dsn
        found.append(await echo(listen))
        oldest = await connection.fetchval(STATEMENTS["oldest_transaction"].sql)
        found.append(
            Finding(
                "oldest transaction",
                (oldest or 0) < OLD_TRANSACTION_SECONDS,
                f"{oldest or 0} s",
                "end it (pg_stat_activity names it): while it is open the queue's tables cannot be vacuumed and claims get slow",
            )
        )
        return found
    finally:
        await connection.close()


async def schema(connection: asyncpg.Connection) -> Finding:
    if not await connection.fetchval(STATEMENTS["has_schema"].sql):
        return Finding("schema", False, "not applied", "run `coder migrate`")
    version = await connection.fetchval(STATEMENTS["schema_version"].sql)
    return Finding(
        "schema", version == VERSION, f"version {version}, this coder has {VERSION}", "run `coder migrate` with the newest coder"
    )


async def echo(dsn: str) -> Finding:
    """A notification to ourselves and back."""
    if dsn == "off":
        return Finding("LISTEN", True, "switched off; the queue is polled")
    heard = asyncio.Event()
    try:
        with our_words():
            connection = await asyncpg.connect(dsn, timeout=5)
    except Unavailable as error:
        return Finding("LISTEN", False, error.message, "correct CODER_LISTEN_URL")
    try:
        channel = f"coder_doctor_{uuid4().hex}"
        await connection.add_listener(channel, lambda *_: heard.set())
        sent = asyncio.get_running_loop().time()
        await connection.execute(STATEMENTS["ring"].sql, channel)
        await asyncio.wait_for(heard.wait(), ECHO_SECONDS)
        return Finding("LISTEN", True, f"round trip {(asyncio.get_running_loop().time() - sent) * 1000:.1f} ms")
    except TimeoutError:
        return Finding("LISTEN", False, "no echo", "is this a transaction pooler? set CODER_LISTEN_URL to a direct connection, or to off")
    finally:
        await connection.close()


def git() -> Finding:
    try:
        version = git_version()
    except CoderError as error:
        return Finding("git", False, error.message, "install git 2.38 or newer")
    return Finding("git", version >= LEAST_GIT, ".".join(map(str, version)), "install git 2.38 or newer")


def disk(settings: Settings) -> Finding:
    folder = data_dir(settings)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding(
        "disk", free >= LEAST_FREE_BYTES, f"{free / 1024**3:.1f} GiB free at {folder}", "free some space, or move CODER_DATA_DIR"
    )


async def model(settings: Settings) -> list[Finding]:
    """Whether native inference has an endpoint, and whether that answers."""
    endpoint, cure = Endpoint.of(settings), "set CODER_MODEL_BASE_URL (and CODER_MODEL_API_KEY, CODER_DEFAULT_MODEL)"
    if endpoint is None:
        return [Finding("model endpoint", False, "none is configured, so native tasks fail", cure)]
    base, (url, headers) = endpoint.shown, endpoint.models_request()
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(url, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        return [Finding("model endpoint", False, f"{base} cannot be reached ({why})", "start it, or correct CODER_MODEL_BASE_URL")]
    well = answer.status_code < 500 and answer.status_code not in (401, 403)
    found = [Finding("model endpoint", well, f"{base} answers {answer.status_code}", "correct the address or CODER_MODEL_API_KEY")]
    named = settings.default_model or ""
    found.append(Finding("default model", bool(named.strip()), named or "none", "set CODER_DEFAULT_MODEL, or name a model in each task"))
    return found


def sandbox(settings: Settings) -> list[Finding]:
    """Whether agents can be confined, and kept off the network with a way to their model, by trying both."""
    tried = make_sandbox(settings)
    if not tried.works:
        cure = "set CODER_SANDBOX to auto" if tried.mode == "off" else f"{CURE}, or set CODER_SANDBOX to off"
        off = Finding("network off", tried.mode == "off", "tasks of projects without network fail, since agents are not confined", cure)
        return [Finding("sandbox", tried.mode == "off", f"agents are not confined: {tried.why}", cure), off]
    well = Finding("sandbox", True, f"agents are confined with {tried.program}")
    if why := tried.why_no_relay(443):
        where = "their model" if tried.why_no_relay(8443) else "models at ports below 1024"
        cure = "let what bubblewrap runs make networks (AppArmor or seccomp forbids it), or keep such projects to the native agent"
        return [well, Finding("network off", False, f"agents without network have no way to {where}: {why}", cure)]
    return [well, Finding("network off", True, "agents of projects without network reach their model and nothing else")]


def agents(settings: Settings) -> list[Finding]:
    """The registry, and which of its programs are on the PATH."""
    try:
        registry = read_registry(settings).agents
    except InvalidInput as error:
        return [Finding("agents", False, error.message, "correct the file; the service does not start with it")]
    found = [name for name, spec in registry.items() if find_agent(spec) is not None]
    missing = [name for name in registry if name not in found]
    return [
        Finding("agents", True, ", ".join(found) or "none is installed but the native one"),
        Finding("agents missing", True, ", ".join(missing) or "none"),
    ]


async def collect(settings: Settings, dsn: str, dry_run: bool) -> list[Gone]:
    """What `coder gc` removes, or would remove."""
    where = data_dir(settings)
    pool = await open_pool(dsn, size=1, name="coder-gc")
    try:
        retention = settings.retention_days * 86400
        janitor = Janitor(PostgresChanges(pool), GitWorktrees(where), SystemClock(), host=host_id(where), retention=retention)
        return await janitor.collect(dry_run)
    finally:
        await pool.close()
