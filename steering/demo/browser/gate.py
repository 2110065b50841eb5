"""Which requests the page's server answers: those of its own pages, and no larger than they send.

A page of another machine can point its own name at 127.0.0.1 (DNS rebinding) and would then read
and write here as if it were ours; its requests still carry that name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from steering.demo.session.vector import MAX_FILE_BYTES

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]"})
MAX_BODY_BYTES = 2**20
"""The longest question, every character escaped, takes a quarter of it."""
MAX_UPLOAD_BYTES = MAX_FILE_BYTES + 2**16
"""A direction and the lines of the form around it."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def gate(app: App, host: str) -> App:
    """An ASGI app that hands on what it may and answers the rest itself in one line.

    403: a Host, or an Origin where there is one, that is no name of this machine's loopback, nor
    the `host` it was told to serve at. Told to serve at every address (0.0.0.0), it also answers
    to addresses written as numbers, which cannot be rebound, and to the machine's own name.
    413: a body larger than any that the page sends, before it is read.
    """
    names = _names(host)
    numbers = bracketed(host) in EVERY_ADDRESS

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        from starlette.datastructures import Headers

        headers = Headers(scope=scope)
        if (stranger := _stranger(headers, names, numbers)) is not None:
            line = f"this app answers to {', '.join(sorted(names))} alone; got {stranger}"
            await _refuse(403, line, scope, receive, send)
            return
        limit = MAX_UPLOAD_BYTES if scope["path"].endswith("/upload") else MAX_BODY_BYTES
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit() or int(declared[:20]) > limit:
            await _refuse(413, _too_large(limit), scope, receive, send)
            return
        await app(scope, _bounded(receive, limit), send)

    return answer


def bracketed(host: str) -> str:
    """A host as a URL names it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _names(host: str) -> frozenset[str]:
    if (host := bracketed(host).lower()) not in EVERY_ADDRESS:
        return LOOPBACK_NAMES | {host}
    here = socket.gethostname().lower()
    return LOOPBACK_NAMES | {here, f"{here.partition('.')[0]}.local"}


def _stranger(headers: Any, names: frozenset[str], numbers: bool) -> str | None:
    """The header that names another machine, as it may be shown; None where none does."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or len(origins) > 1:
        return f"{len(hosts)} Host and {len(origins)} Origin headers"
    for header, text in [("Host", hosts[0]), *(("Origin", origin) for origin in origins)]:
        name = _name_in(text, header)
        if name not in names and not (numbers and _is_number(name)):
            return f"{header} {text[:60]!r}"
    return None


def _name_in(text: str, header: str) -> str:
    """The host name in `name:port` or `http://name:port`; "" for anything else."""
    scheme = "https?://" if header == "Origin" else ""
    match = re.fullmatch(rf"{scheme}(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(:\d{{1,5}})?", text.lower())
    return "" if match is None else match[1]


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _bounded(receive: Receive, limit: int) -> Receive:
    """For bodies that do not say their length, or say less than they send."""
    n_bytes = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > limit:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, _too_large(limit))
        return message

    return bounded


def _too_large(limit: int) -> str:
    return f"a request here has at most {limit:,} bytes"


async def _refuse(status: int, line: str, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await PlainTextResponse(line, status_code=status)(scope, receive, send)
