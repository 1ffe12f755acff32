"""What of the dispatcher's environment reaches an agent."""

from __future__ import annotations

import pytest

from coder.backends.environment import agent_environment


def test_what_programs_need_passes() -> None:
    base = {
        "PATH": "/bin",
        "HOME": "/home/a",
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        "USER": "a",
        "SHELL": "/bin/sh",
        "TZ": "UTC",
        "XDG_CONFIG_HOME": "/home/a/.config",
        "SSL_CERT_FILE": "/etc/cert.pem",
        "https_proxy": "http://127.0.0.1:1",
        "NO_PROXY": "localhost",
        "CARGO_HOME": "/home/a/.cargo",
    }
    assert agent_environment(base) == base


@pytest.mark.parametrize(
    "name",
    [
        *("CODER_DATABASE_URL", "CODER_HOME", "PGPASSWORD", "PGHOST", "PG_PROXY", "DATABASE_URL", "OPENAI_API_KEY", "GITHUB_TOKEN"),
        *("AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "XDG_TOKEN", "LC_SECRET", "xdg_password", "XDG_CREDENTIALS", "PYTHONPATH", "GIT_DIR"),
        *("VIRTUAL_ENV", "LD_PRELOAD", "ANYTHING"),
    ],
)
def test_nothing_else_does(name: str) -> None:
    assert agent_environment({name: "x", "HOME": "/home/a"}) == {"HOME": "/home/a"}


def test_the_dispatchers_virtual_environment_is_left() -> None:
    base = {"VIRTUAL_ENV": "/opt/coder/.venv", "PATH": "/opt/coder/.venv/bin:/opt/coder/.venv/bin/:/usr/bin:/bin"}
    assert agent_environment(base) == {"PATH": "/usr/bin:/bin"}


def test_what_a_backend_adds_is_taken_as_it_is() -> None:
    added = {"ANTHROPIC_API_KEY": "k", "HOME": "/elsewhere"}
    base = {"HOME": "/home/a", "PATH": "/bin"}
    assert agent_environment(base, added) == {"HOME": "/elsewhere", "PATH": "/bin", "ANTHROPIC_API_KEY": "k"}
    assert base == {"HOME": "/home/a", "PATH": "/bin"}
