"""A page of the app without a browser: what it sends to its server, and what it would show."""

from __future__ import annotations

import json
import secrets

PAIR = (1.0, "restore", 1, 2, "finetuned", 0.0, 6, 0, True, "", *[0.0, "add"] * 3)
"""The widgets' values in the order of `Widgets.values`, on the page of a pair."""


class Browser:
    """A page that was opened before: it has its session, and its load event does not run again."""

    def __init__(self, address, values=PAIR):
        import httpx

        self.session, self.root = secrets.token_hex(5), f"{address}gradio_api"
        self.http = httpx.Client(trust_env=False, timeout=60)
        self.values = list(values)

    def frames(self, question, name="asked"):
        """What is streamed to the page, in order; the last is what it ends with, or what is wrong.

        A frame but the first says what has changed since.
        """
        config = self.http.get(self.root.replace("gradio_api", "config")).json()
        [event] = [one["id"] for one in config["dependencies"] if one["api_name"] == name]
        data = [None, question, *self.values] if name == "asked" else [None, *self.values]
        body = {"fn_index": event, "session_hash": self.session, "data": data}
        self.http.post(f"{self.root}/queue/join", json=body).raise_for_status()
        where = {"params": {"session_hash": self.session}}
        with self.http.stream("GET", f"{self.root}/queue/data", **where) as stream:
            for line in stream.iter_lines():
                told = json.loads(line.removeprefix("data: ")) if line else {}
                if told.get("msg") == "process_generating":
                    yield str(told["output"].get("data"))
                if told.get("msg") == "process_completed":
                    output = told["output"]
                    yield str(output["data"] if told["success"] else output["error"])
                    return

    def asks(self, question, name="asked"):
        """The columns as the page shows them at the end, or what went wrong."""
        *_, last = self.frames(question, name)
        return last
