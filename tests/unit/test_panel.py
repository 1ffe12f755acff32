"""The unit tests of the panel's TypeScript, by its own runner, and how much a browser loads before it shows anything."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import panel

FIRST_LOAD_BYTES = 350_000
FONTS = ("inter-latin-wght-normal", "jetbrains-mono-latin-wght-normal")


def test_the_panels_own_tests_pass() -> None:
    panel.make("install")
    panel.node("vitest/vitest.mjs", "run", "--passWithNoTests=false")


def test_a_build_needs_no_tools_of_tests(tmp_path: Path) -> None:
    """As `bin/up` builds it the first time, in a checkout that nothing was installed into."""
    folder = tmp_path / panel.PANEL.relative_to(panel.TOP)
    shutil.copytree(panel.PANEL, folder, ignore=shutil.ignore_patterns("node_modules", "dist", ".building"))
    (tmp_path / "bin").mkdir()
    script = shutil.copy(panel.TOP / "bin" / "panel.py", tmp_path / "bin")
    subprocess.run([sys.executable, script, "build"], check=True, stdin=subprocess.DEVNULL)
    assert (folder / "dist" / "index.html").is_file()
    assert not (folder / "node_modules" / "vitest").exists()


def test_the_first_page_is_light() -> None:
    panel.make("build")
    built = panel.PANEL / "dist"
    manifest: dict[str, dict[str, Any]] = json.loads((built / "manifest.json").read_text())
    wanted, files = ["index.html", "src/inbox/page.tsx"], {"index.html"}
    chunks: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in chunks:
            continue
        chunks.add(name)
        chunk = manifest[name]
        files |= {chunk["file"], *chunk.get("css", ())}
        wanted += chunk.get("imports", ())
    fonts = [path for path in (built / "assets").iterdir() if path.name.startswith(FONTS)]
    assert len(fonts) == len(FONTS)
    sent = sum(len(gzip.compress((built / name).read_bytes())) for name in files) + sum(font.stat().st_size for font in fonts)
    assert sent <= FIRST_LOAD_BYTES, f"{sent:,} bytes"
    assert not any("review" in name for name in chunks), "the diff view is loaded when a change is"
