"""The settings of coder: one model, read from `CODER_*` variables by `main.py`.

`.env.example` lists every field; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Role = Literal["all", "api", "dispatch"]


def _address(text: str) -> str:
    """Raises ValueError for what no request can be sent to."""
    address = urlsplit(text.strip())  # raises one itself, for a half-open bracket
    if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
        raise ValueError("it should be an address like http://127.0.0.1:11434/v1")
    return text


class Settings(BaseSettings):
    """Where coder lives, what it talks to and its limits; times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="CODER_", env_file=".env", extra="ignore", env_ignore_empty=True)

    database_url: SecretStr | None = Field(None, description="A PostgreSQL 15-18 to use instead of the embedded one")
    listen_url: SecretStr | None = Field(
        None, description="A direct connection for LISTEN where CODER_DATABASE_URL is a transaction pooler; `off` = poll only"
    )
    data_dir: Path = Field(Path("~/.local/share/coder"), description="Where coder keeps the embedded database, worktrees and logs")
    host: str = Field("127.0.0.1", description="Address the API listens on")
    port: int = Field(8390, ge=0, le=65535, description="Port the API listens on; 0 = any free one")
    admin_token: SecretStr | None = Field(
        None, description="Token with every right; without it one is made at the first start and printed once"
    )
    url: str | None = Field(None, description="Command line only: talk HTTP to this address instead of SQL to the database")
    token: SecretStr | None = Field(None, description="Command line only: the token for CODER_URL")

    max_turns: int = Field(16, ge=1, le=1000, description="Turns that run at once on this node")
    max_checks: int = Field(2, ge=1, le=100, description="Check commands of projects that run at once on this node")
    poll_seconds: float = Field(2.0, gt=0, description="How often the queue is read when no notification comes")
    lease_seconds: float = Field(15.0, ge=1, description="How long a silent node keeps its tasks")
    beat_seconds: float = Field(5.0, gt=0, description="How often a node renews its lease")
    drain_seconds: float = Field(30.0, ge=0, description="How long a stopping node lets its turns finish")
    inactivity_seconds: float = Field(180.0, gt=0, description="A turn whose agent says nothing for so long fails")
    tool_seconds: float = Field(3600.0, gt=0, description="How long one tool of an agent may run")

    model_base_url: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="Endpoint for native inference, e.g. http://127.0.0.1:11434/v1"
    )
    model_api_key: SecretStr | None = Field(None, description="Its key, if it wants one")
    model_protocol: Literal["auto", "openai", "anthropic"] = Field("auto", description="What the endpoint speaks; auto = by its address")
    default_model: str | None = Field(None, description="Model of tasks that name none")
    context_limit: int | None = Field(
        None, ge=1, description="Tokens that a model's context holds where neither its endpoint's list of models nor coder's table says"
    )
    max_requests: int = Field(100, ge=1, description="Model requests in one turn before it ends as tool_loop")
    retry_seconds: float = Field(
        28800.0, ge=0, description="How long one model request is tried again while its endpoint is overloaded or away; 0 = never"
    )
    warming_tokens: int = Field(
        2_000_000, ge=1, description="Tokens that keeping one session's prompt cache warm may take before it stops by itself"
    )
    warming_idle_seconds: float = Field(86400.0, gt=0, description="A session without a turn for so long is not kept warm any longer")
    command_seconds: float = Field(600.0, gt=0, description="Longest run of one command of the native agent")
    command_output_bytes: int = Field(262_144, ge=1024, description="Output of one command that the model gets to see")

    model_provider: str = Field("llama-swap", description="Name under which agents know the endpoint; put before bare model names")

    agents_file: Path | None = Field(
        None, description="A TOML file of further agents; without it agents.toml in the data directory, if there"
    )
    permission_seconds: float = Field(900.0, gt=0, description="How long a permission request waits for a person before it is denied")
    agent_idle_seconds: float = Field(600.0, gt=0, description="A warm agent without a turn for so long is stopped")
    warm_agents: int = Field(8, ge=1, description="Warm agent processes kept at once on this node; the least recently used goes first")
    warm_memory_bytes: int = Field(
        8_589_934_592, ge=0, description="Memory that idle warm agents may hold together before the least recently used goes"
    )
    agent_memory_bytes: int = Field(
        4_294_967_296, ge=0, description="Memory of one agent with all its processes before it is ended; 0 = no limit"
    )
    agent_processes: int = Field(512, ge=0, description="Processes of one agent before it is ended; 0 = no limit")
    sandbox: Literal["auto", "required", "off"] = Field(
        "auto", description="Confine agents with bubblewrap: where it works, always, or never"
    )
    sandbox_readable: str = Field("", description="Directories below your home that confined agents may read, separated by ':'")

    ping_seconds: float = Field(25.0, gt=0, description="How often a WebSocket is pinged; one that does not answer twice is closed")
    max_sockets: int = Field(2000, ge=1, description="WebSockets open at once in this process")

    retention_days: float = Field(
        14.0, ge=0, description="How long the worktree of a session stays once it is closed, or rests with nothing to decide"
    )
    log_format: Literal["console", "json"] = Field("console", description="How the service logs")


def shown(settings: Settings) -> list[dict[str, Any]]:
    """What a process runs with, for people to read: secrets only as far as they are set, and no password in an address.

    Returns:
        Of each setting: `name` of its variable, `value` (None: not set, or secret), `secret`, `is_default`, `description`.
    """
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        secret = isinstance(value, SecretStr)
        said = None if value is None or secret else f"{value:g}" if isinstance(value, float) else str(value)
        if said is not None and "://" in said and "@" in said:
            said = urlsplit(said)._replace(netloc=urlsplit(said).netloc.rpartition("@")[2]).geturl()
        rows.append(
            {"name": f"CODER_{name.upper()}", "value": said, "secret": secret, "is_default": value == field.default,
             "description": field.description or ""}
        )  # fmt: skip
    return rows
