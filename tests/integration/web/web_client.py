"""How the tests of the API call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from standin import StandIn


@dataclass
class Api:
    """The application, a client that bears the token, and the node beside it."""

    app: FastAPI
    client: httpx.AsyncClient
    node: StandIn

    async def get(self, path: str, **given: Any) -> httpx.Response:
        return await self.client.get(f"/api/v1{path}", **given)

    async def post(self, path: str, **given: Any) -> httpx.Response:
        return await self.client.post(f"/api/v1{path}", **given)

    async def put(self, path: str, **given: Any) -> httpx.Response:
        return await self.client.put(f"/api/v1{path}", **given)

    async def delete(self, path: str, **given: Any) -> httpx.Response:
        return await self.client.delete(f"/api/v1{path}", **given)


def refused(answer: httpx.Response, status: int, code: str, *words: str) -> None:
    """An answer must be the problem with this code, whose sentence has all of the words in it."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    for word in words:
        assert word in answer.json()["detail"]
