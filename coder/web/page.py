"""The page at `/`: the three commands that come next. It asks nothing of anybody, not even of this service."""

from __future__ import annotations

import base64
import hashlib

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from coder import __version__

router = APIRouter()

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
<p>Three commands come next.</p>
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


@router.get("/", include_in_schema=False)
async def index() -> HTMLResponse:
    """The page."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})
