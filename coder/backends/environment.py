"""The environment that agents and commands get.

An agent reads and prints its environment, so it gets only what programs need to find their way; the dispatcher's own
settings, its database and everybody's secrets stay behind. What an agent does need (its provider's key) its backend adds.

Invariant: a variable that is not on the list does not pass, and one whose name speaks of a secret or of us never does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import PurePath

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TMP", "TEMP"),
    *("LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "COLORTERM", "NO_COLOR"),
    *("XDG_*", "*_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
    # Where tool chains were installed, which commands like `cargo` and `go` do not find out by themselves.
    *("JAVA_HOME", "GOPATH", "GOROOT", "CARGO_HOME", "RUSTUP_HOME", "NVM_DIR", "PYENV_ROOT", "VOLTA_HOME", "PNPM_HOME", "BUN_INSTALL"),
    *("DOTNET_ROOT", "ANDROID_HOME", "GEM_HOME", "LD_LIBRARY_PATH"),
)
"""Names that pass, in capitals; `*` stands for anything. Proxies are asked for in small letters as well."""

WITHHELD = re.compile(r"^CODER_|^PG|^DATABASE_URL$|TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL")
"""Names that do not pass even where a pattern of `PASSED` fits."""


def agent_environment(base: Mapping[str, str], extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Filter an environment for agents.

    A virtual environment is left: VIRTUAL_ENV does not pass and its programs leave the PATH, since it is the dispatcher's
    own, into which an agent's `pip install` must not go.

    Args:
        base: the dispatcher's environment.
        extra: what the agent gets besides, as it is.
    """
    passed = {name: value for name, value in base.items() if _passes(name.upper())}
    if (own := base.get("VIRTUAL_ENV")) and "PATH" in passed:
        directories = passed["PATH"].split(os.pathsep)
        passed["PATH"] = os.pathsep.join(path for path in directories if PurePath(path) != PurePath(own) / "bin")
    return {**passed, **(extra or {})}


def _passes(name: str) -> bool:
    return WITHHELD.search(name) is None and any(fnmatchcase(name, pattern) for pattern in PASSED)
