"""The panel's pages, as its build left them; where it was not built, a page with the three commands that come next.

Pages hold nothing and are open: what they show comes over the API. Every address that is no file is the panel's, which knows what
is there. Scripts come from here alone; styles that a library writes into the page bear the answer's nonce.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from coder import __version__
from coder.web.gate import API

BUILT = Path(__file__).parent / "panel" / "dist"
NONCE = "{{nonce}}"
"""What the built page has in place of the answer's nonce."""
PANEL_POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "worker-src 'self'", "connect-src 'self'", "img-src 'self' data:", "font-src 'self'",
    f"style-src-elem 'self' 'nonce-{NONCE}'", "style-src-attr 'unsafe-inline'", "manifest-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip
WORKER_POLICY = "default-src 'none'; script-src 'self'"
"""A worker is held to the policy of its own file, not to its page's; it asks for nothing but further scripts."""
FOR_EVER = "public, max-age=31536000, immutable"
"""The names of built files tell their content."""

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 46rem; margin: 4rem auto; padding: 0 1rem; }
pre { padding: .8rem 1rem; border: 1px solid #8886; border-radius: .4rem; overflow-x: auto; }
li { margin: 1.5rem 0; }
"""
PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>coder</title>
<style>{STYLE}</style>
<h1>coder {__version__} is running</h1>
<p>The panel was not built on this machine (<code>bin/up</code> says why); the API and the command line do all it does.
Three commands come next.</p>
<ol>
<li>Name a git repository that has a commit:
<pre>coder project add demo /path/to/repository</pre></li>
<li>Queue a task, from the command line or with SQL:
<pre>coder task add demo "Add a test for the parser"</pre>
<pre>coder psql -c "insert into tasks (project_id, input)
               select id, 'Add a test for the parser' from projects where name = 'demo'"</pre></li>
<li>Read what the agent did, and take it over:
<pre>coder change list
coder change show CHANGE
coder change approve CHANGE</pre></li>
</ol>
<p>The HTTP API is below <code>/api/v1</code> and described by <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>;
<a href="/ready">/ready</a> says whether the database can be reached.</p>
</html>
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Assets(StaticFiles):
    """The files that the built page names."""

    def file_response(self, *given: Any, **named: Any) -> Response:
        answer = super().file_response(*given, **named)
        answer.headers["Cache-Control"] = FOR_EVER
        answer.headers["Content-Security-Policy"] = WORKER_POLICY
        return answer


class PanelRoute(Route):
    """Every address but those of the API."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope["path"].startswith(API) else super().matches(scope)


def routes(built: Path | None) -> list[BaseRoute]:
    """The routes of the pages, to come after all others.

    Args:
        built: the folder of the built panel; None for the page with the commands alone.
    """
    if built is None:
        return [Route("/", _commands)]
    index = built / "index.html"

    async def panel(request: Request) -> Response:
        try:
            text = index.read_text(encoding="utf-8")  # each time: it may be built anew while the service runs
        except FileNotFoundError:
            return await _commands(request)
        nonce = secrets.token_urlsafe(16)
        return HTMLResponse(text.replace(NONCE, nonce), headers={"Content-Security-Policy": PANEL_POLICY.replace(NONCE, nonce)})

    assets = Assets(directory=built / "assets", check_dir=False)
    return [Mount("/assets", GZipMiddleware(assets, minimum_size=1024)), PanelRoute("/{path:path}", panel)]


async def _commands(request: Request) -> Response:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})
