"""Answers of the kubelet's endpoint, and the one error its handlers raise.

My job: plain text and JSON as upstream's kubelet sends them. Pure. Neighbours: every handler; `endpoint` turns an
`HTTPError` into its text.
"""

from typing import Any

import orjson
from aiohttp import web

JSON = dict[str, Any]


class HTTPError(Exception):
    """A request that ends with this code and text (plain, as go-restful writes errors)."""

    def __init__(self, code: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text, self.headers = code, text, headers or {}


def text(body: str, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=body, status=code, headers=headers,
                        content_type="text/plain", charset="utf-8")


def json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def not_found() -> HTTPError:
    return HTTPError(404, "404: Page Not Found")


def method_not_allowed() -> HTTPError:
    return HTTPError(405, "405: Method Not Allowed")
