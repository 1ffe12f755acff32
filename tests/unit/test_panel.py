"""The unit tests of the panel's TypeScript, by its own runner."""

from __future__ import annotations

import panel


def test_the_panels_own_tests_pass() -> None:
    panel.make("install")
    panel.node("vitest/vitest.mjs", "run", "--passWithNoTests=false")
