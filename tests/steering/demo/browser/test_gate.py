"""Requests that name another machine are not answered; large ones are refused unread."""

from __future__ import annotations

import asyncio
import socket

import pytest

from steering.demo.browser.gate import MAX_BODY_BYTES, MAX_UPLOAD_BYTES, gate

pytest.importorskip("starlette")
HERE = socket.gethostname().lower()


def asked(headers, host="127.0.0.1", path="/config", body=(b"",)):
    """The status of a request, and how many bytes of its body were read."""
    read, sent = [], []

    async def app(scope, receive, send):
        while (message := await receive())["more_body"]:
            read.append(len(message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        chunk = body.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(body)}

    async def send(message):
        sent.append(message)

    body = [*body, b""]
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw}
    asyncio.run(gate(app, host)(scope, receive, send))
    text = b"".join(message.get("body", b"") for message in sent).decode()
    return sent[0]["status"], text, sum(read)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:7860", "127.0.0.1"),
        ("LocalHost:80", "127.0.0.1"),
        ("[::1]:7860", "127.0.0.1"),
        ("demo.lab:7860", "demo.lab"),
        ("127.0.0.1:7860", "demo.lab"),
        ("[fe80::1]:7860", "fe80::1"),
        ("192.168.1.7:7860", "0.0.0.0"),
        ("[fe80::1]", "::"),
        (f"{HERE}:7860", "0.0.0.0"),
    ],
)
def test_a_name_of_this_machine_is_answered(name, host):
    assert asked([("Host", name), ("Origin", f"http://{name}")], host)[0] == 200


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("evil.example", "127.0.0.1"),
        ("evil.example:7860", "0.0.0.0"),
        ("127.0.0.1.evil.example", "127.0.0.1"),
        ("127.0.0.1@evil.example", "127.0.0.1"),
        ("evil.example/127.0.0.1", "127.0.0.1"),
        ("localhost:80:80", "127.0.0.1"),
        ("localhost evil.example", "127.0.0.1"),
        ("192.168.1.7:7860", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("demo.lab", "0.0.0.0"),
    ],
)
def test_any_other_name_is_not(name, host):
    status, line, _ = asked([("Host", name)], host)
    assert (status, line.count("\n")) == (403, 0)
    assert line.startswith("this app answers to ") and "got Host" in line
    if name:
        assert asked([("Host", "localhost"), ("Origin", f"http://{name}")], host)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "localhost"), ("Host", "evil.example")],
        [("Host", "localhost"), ("Origin", "null")],
        [("Host", "localhost"), ("Origin", "file://localhost")],
        [("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://evil.example")],
    ],
)
def test_headers_that_no_page_of_ours_sends_are_not_answered(headers):
    assert asked(headers)[0] == 403


LOCAL = ("Host", "localhost")


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload"])
def test_a_body_that_says_it_is_too_large_is_refused_unread(path):
    limit = MAX_UPLOAD_BYTES if path.endswith("upload") else MAX_BODY_BYTES
    status, line, n_read = asked(
        [LOCAL, ("Content-Length", str(limit + 1))], path=path, body=(b"x" * 10,)
    )
    assert (status, n_read) == (413, 0)
    assert line == f"a request here has at most {limit:,} bytes"
    assert asked([LOCAL, ("Content-Length", str(limit))], path=path)[0] == 200


@pytest.mark.parametrize("length", ["-1", "many", "9" * 400, ""])
def test_a_length_that_is_no_number_is_refused(length):
    assert asked([LOCAL, ("Content-Length", length)])[0] == 413


def test_a_body_that_does_not_say_its_length_is_read_up_to_the_limit_only():
    from starlette.exceptions import HTTPException

    with pytest.raises(HTTPException) as caught:
        asked([LOCAL], body=(b"x" * MAX_BODY_BYTES, b"x", b"x"))
    assert caught.value.status_code == 413
