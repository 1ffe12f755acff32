"""Letting a browser in, and what it may do then: a cookie and a key together, from our own origin."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import pytest
from web_client import Api

from coder.config import Settings
from coder.web.app import build
from coder.web.page import NONCE
from coder.web.shapes import Page
from coder.web.system import Setting
from coder.web.tokens import MadeToken, Token

TOKEN = "a-token-of-the-tests"
CODE = "the-code-of-a-link"
HERE = {"Origin": "http://coder.test"}
BARE = {"Authorization": ""}


@pytest.fixture
def link(api: Api) -> str:
    api.node.run(
        "insert into logins (hash, kind, token_id, valid_until) select %s, 'link', id, now() + interval '1 hour' from api_tokens",
        hashlib.sha256(CODE.encode()).digest(),
    )
    return CODE


async def log_in(api: Api, **how: str) -> httpx.Response:
    return await api.post("/login", json=how, headers={**BARE, **HERE})


def key(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 201, answer.text
    return {**BARE, **HERE, "X-Coder-Key": answer.json()["key"]}


async def test_a_link_lets_one_browser_in_once(api: Api, link: str) -> None:
    answer = await log_in(api, code=link)
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/api/v1"} <= set(cookie.split("; "))
    assert answer.json()["key"] not in cookie
    assert (await api.get("/status", headers=key(answer))).status_code == 200
    again = await log_in(api, code=link)
    assert again.status_code == 401
    assert "coder login" in again.json()["detail"]


async def test_a_link_that_is_too_old_lets_nobody_in(api: Api, link: str) -> None:
    api.node.run("update logins set valid_until = now()")
    assert (await log_in(api, code=link)).status_code == 401


async def test_a_token_lets_a_browser_in_and_decisions_bear_its_name(api: Api) -> None:
    head = key(await log_in(api, token=TOKEN))
    change = api.node.change()
    refused = await api.post(f"/changes/{change['id']}/reject", json={"fingerprint": change["fingerprint"]}, headers=head)
    assert refused.json()["actor"] == "tester"
    assert (await log_in(api, token="another")).status_code == 401


async def test_neither_half_is_worth_anything(api: Api) -> None:
    head = key(await log_in(api, token=TOKEN))
    assert (await api.get("/status", headers={**BARE, **HERE})).status_code == 401
    assert (await api.get("/status", headers={**head, "X-Coder-Key": "another"})).status_code == 401
    api.client.cookies.clear()
    assert (await api.get("/status", headers=head)).status_code == 401


async def test_no_other_page_borrows_the_cookie(api: Api) -> None:
    head = key(await log_in(api, token=TOKEN))
    for origin in ("http://coder.test:3000", "https://elsewhere.test", "null"):
        answer = await api.get("/status", headers={**head, "Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        answer = await api.post("/login", json={"token": TOKEN}, headers={**BARE, "Origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


@pytest.mark.parametrize("body", [{}, {"code": ""}, {"code": 1}, {"password": "x"}, [], {"code": "é\u0000"}])
async def test_what_is_no_login_is_refused_with_a_sentence(api: Api, body: object) -> None:
    answer = await api.post("/login", json=body, headers=BARE)
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith(".")


async def test_logging_out_ends_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coder.web.gate.REMEMBER_SECONDS", 0)
    head = key(await log_in(api, token=TOKEN))
    assert (await api.post("/logout", headers=head)).json() == {"ended": True}
    assert api.node.count("logins") == 0
    assert (await api.get("/status", headers=head)).status_code == 401


async def test_a_revoked_token_ends_its_browsers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coder.web.gate.REMEMBER_SECONDS", 0)
    head = key(await log_in(api, token=TOKEN))
    api.node.run("update api_tokens set revoked_at = now()")
    assert (await api.get("/status", headers=head)).status_code == 401


async def test_a_token_is_shown_once_and_lets_in_until_it_is_revoked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coder.web.gate.REMEMBER_SECONDS", 0)
    made = await api.post("/tokens", json={"name": "ci"})
    assert made.status_code == 201
    token = MadeToken.model_validate_json(made.content, extra="forbid").token
    bearer = {"Authorization": f"Bearer {token}"}
    again = await api.post("/tokens", json={"name": "ci"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    browser = key(await log_in(api, token=token))
    listed = await api.get("/tokens", headers=bearer)
    Page[Token].model_validate_json(listed.content, extra="forbid")
    assert {row["name"]: row["browsers"] for row in listed.json()["items"]} == {"ci": 1, "tester": 0}
    assert token not in listed.text
    assert (await api.delete("/tokens/ci", headers=bearer)).json()["revoked_at"]
    for head in (bearer, browser):
        assert (await api.get("/status", headers=head)).status_code == 401
    anew = (await api.post("/tokens", json={"name": "ci"})).json()["token"]
    assert anew != token
    assert (await api.get("/status", headers=browser)).status_code == 401, "its browsers do not come back with its name"
    assert (await api.get("/status", headers=bearer)).status_code == 401
    assert (await api.get("/status", headers={"Authorization": f"Bearer {anew}"})).status_code == 200


@pytest.mark.parametrize(
    ("name", "word"), [("", "1 to 100"), ("two words", "1 to 100"), ("x" * 101, "1 to 100"), ("coder", "signed coder")]
)
async def test_names_that_no_token_has(api: Api, name: str, word: str) -> None:
    answer = await api.post("/tokens", json={"name": name})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert word in answer.json()["detail"]
    assert (await api.delete("/tokens/nobody")).status_code == 404
    assert api.node.count("api_tokens") == 1


async def test_whoever_is_in_lets_one_more_browser_in(api: Api) -> None:
    made = (await api.post("/login/links")).json()
    assert made["name"] == "tester"
    assert (await api.get("/status", headers=key(await log_in(api, code=made["code"])))).status_code == 200
    assert (await log_in(api, code=made["code"])).status_code == 401


async def test_settings_are_shown_without_secrets(api: Api) -> None:
    api.app.state.settings = Settings(  # type: ignore[call-arg]
        _env_file=None, admin_token="hidden", model_api_key="hidden", model_base_url="http://ada:hidden@llm.test:1/v1", max_turns=3
    )
    answer = await api.get("/settings")
    Page[Setting].model_validate_json(answer.content, extra="forbid")
    assert "hidden" not in answer.text
    found = {row["name"]: row for row in answer.json()["items"]}
    assert found["CODER_MODEL_BASE_URL"]["value"] == "http://llm.test:1/v1"
    assert (found["CODER_MAX_TURNS"]["value"], found["CODER_MAX_TURNS"]["is_default"]) == ("3", False)
    assert (found["CODER_ADMIN_TOKEN"]["value"], found["CODER_ADMIN_TOKEN"]["secret"]) == (None, True)
    assert found["CODER_POLL_SECONDS"]["is_default"]


async def test_the_built_panel_is_served_at_every_address_that_is_not_the_apis(api: Api, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text(f'<!doctype html><meta name="nonce" content="{NONCE}">')
    (tmp_path / "assets" / "index-1a2b.js").write_text("0;" * 2000)
    app = build(api.app.state.door, Settings(_env_file=None), api.node.host, pages=tmp_path)  # type: ignore[call-arg]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://coder.test") as client:
        nonces = set()
        for path in ("/", "/changes/9d0c7a34", "/sessions/5c1f0a52?at=3"):
            answer = await client.get(path)
            assert answer.headers["content-type"].startswith("text/html")
            assert answer.headers["cache-control"] == "no-store"
            (nonce,) = re.findall('content="(.+?)"', answer.text)
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["script-src"] == policy["connect-src"] == "'self'"
            assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
            assert f"'nonce-{nonce}'" in policy["style-src-elem"]
            nonces.add(nonce)
        assert len(nonces) == 3
        script = await client.get("/assets/index-1a2b.js")
        assert "immutable" in script.headers["cache-control"]
        assert script.headers["content-encoding"] == "gzip"
        assert (await client.get("/assets/../index.html")).headers["content-security-policy"]
        assert (await client.get("/assets/none.js")).status_code == 404
        assert (await client.get("/api/v1/nowhere", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 404
        assert (await client.get("/api/v1/login")).status_code == 405
        assert (await client.post("/", json={})).status_code == 405
        assert (await client.get("/ready")).json()["schema_version"] == 1
