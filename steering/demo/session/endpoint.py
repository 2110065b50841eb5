"""What `persona serve` answers, as a client reads it: its models, and an answer piece by piece.

Everything that goes wrong on the way is one line that holds no key.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from persona.behaviour.judging.chat_endpoint import cut_out, without_credentials
from persona.errors import PersonaError, shown
from persona.extras import install_line
from steering.demo.session.background import until_stopped
from steering.demo.session.generation import NO_ID, Token
from steering.demo.session.vector import Mode

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "PERSONASCOPE_API_KEY"
CONNECT_SECONDS = 5.0
LISTED_WITHIN_SECONDS = 10.0
COUNTED_WITHIN_SECONDS = 60.0
"""For one token behind a prompt, on a server that may be busy with others."""
SILENT_SECONDS = 300.0
"""So long an answer may be silent: an engine sends it whole, and others may be before it."""
MAX_SAID = 200
ENDED = {"stop": "turn", "length": "length"}
"""Why an answer ended, by the name that the protocol has for it."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class EndpointError(PersonaError):
    """A served model cannot be reached, refuses, or breaks off."""


class ServedSteering(BaseModel):
    """What `steered` stands for. coefficient: of a request that names none; the other one is the
    largest in size that is taken."""

    direction: str
    mode: Mode
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    coefficient: Finite
    coefficient_at_most: Annotated[Finite, Field(ge=0)]


class ServedModel(BaseModel):
    """What one name stands for. steering: None for a model as it is."""

    model: str
    steering: ServedSteering | None = None


class _Listed(BaseModel):
    id: str
    persona: ServedModel | None = None


class _List(BaseModel):
    data: list[_Listed]


class Endpoint:
    """An address that answers as `persona serve` does. Nothing is sent before it is asked."""

    def __init__(self, address: str, key: str | None = None) -> None:
        """Raises: EndpointError for an address or a key that none can be; PersonaError without
        httpx."""
        try:
            import httpx
        except ImportError as error:
            raise PersonaError(f"an endpoint needs httpx; {install_line('app')}") from error
        self.address, self._key = _checked(address), key or ""
        if not (self._key.isascii() and self._key.isprintable()):
            raise EndpointError(f"{KEY_VARIABLE} holds characters that no key has")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
            trust_env=not _is_loopback(self.address),  # no proxy leads to this machine
        )

    def models(self) -> dict[str, ServedModel]:
        """What each name stands for; those alone of which the endpoint says it.

        Raises: EndpointError.
        """
        with self._plainly():
            reply = self._client.get(f"{self.address}/models", timeout=LISTED_WITHIN_SECONDS)
        self._require_success(reply)
        try:
            listed = _List.model_validate_json(reply.content)
        except ValidationError as error:
            raise self._other_form() from error
        return {one.id: one.persona for one in listed.data if one.persona is not None}

    def n_prompt_tokens(self, request: Mapping[str, Any]) -> int:
        """Tokens that the model reads of a request. Raises: EndpointError."""
        with self._plainly():
            reply = self._client.post(
                f"{self.address}/chat/completions",
                json={**request, "max_tokens": 1},
                timeout=COUNTED_WITHIN_SECONDS,
            )
        self._require_success(reply)
        try:
            return int(reply.json()["usage"]["prompt_tokens"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._other_form() from error

    def pieces(
        self, request: Mapping[str, Any], served: Mapping[str, ServedModel]
    ) -> Generator[tuple[str, str], None, None]:
        """The answer to a request as it comes: text, and behind the last one why it ended.

        served: what the names stood for when the page was made; a server that was started anew
        with another direction answers under the same names.
        Raises: EndpointError, also where the answer breaks off.
        """
        if self.models() != served:
            raise EndpointError(
                f"the endpoint {self.address} serves something else than when this began; start "
                "anew with --endpoint"
            )
        with (
            self._plainly(),
            self._client.stream(
                "POST", f"{self.address}/chat/completions", json={**request, "stream": True}
            ) as reply,
        ):
            if not reply.is_success:
                reply.read()
            self._require_success(reply)
            with self._plainly(begun=True):
                for line in _lines(reply.iter_bytes()):
                    if not line.startswith("data:"):
                        continue
                    if (event := line.removeprefix("data:").strip()) == "[DONE]":
                        return
                    yield self._piece_in(event)
        raise self._broken_off()

    def _piece_in(self, event: str) -> tuple[str, str]:
        try:
            body = json.loads(event)
            if "error" in body:
                raise EndpointError(f"{self.address} broke off: {self._said(event)}")
            choice = body["choices"][0]
            text, ended = choice["delta"].get("content") or "", choice["finish_reason"]
            return str(text), "" if ended is None else ENDED[ended]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as err:
            raise self._other_form() from err

    @contextlib.contextmanager
    def _plainly(self, begun: bool = False) -> Iterator[None]:
        """What the HTTP library raises, which may hold headers, as one line."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EndpointError(
                f"the endpoint {self.address} cannot be reached ({self._one_line(error)}); is "
                "`persona serve` running there?"
            ) from None
        except httpx.TimeoutException:
            raise EndpointError(f"the endpoint {self.address} did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if begun:
                raise self._broken_off() from None
            raise EndpointError(
                f"the endpoint {self.address} went away ({self._one_line(error)})"
            ) from None

    def _require_success(self, reply: httpx.Response) -> None:
        if reply.is_success:
            return
        if reply.status_code == 401:
            asks = "refused the key" if self._key else "asks for a key"
            raise EndpointError(
                f"the endpoint {self.address} {asks}; set {KEY_VARIABLE} to that of the server"
            )
        said = self._said(reply.text)
        raise EndpointError(
            f"the endpoint {self.address} answered {reply.status_code}{f': {said}' if said else ''}"
            f"{self._hint if reply.status_code == 404 else ''}"
        )

    @property
    def _hint(self) -> str:
        return "" if self.address.endswith("/v1") else "; an address often ends in /v1"

    def _said(self, body: str) -> str:
        """The message in the body of an error, else the body."""
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            body = json.loads(body)["error"]["message"]
        return self._one_line(body)

    def _one_line(self, what: object) -> str:
        return cut_out(" ".join(str(what).split()), (self._key,))[:MAX_SAID]

    def _broken_off(self) -> EndpointError:
        return EndpointError(f"the endpoint {self.address} broke off in the middle of an answer")

    def _other_form(self) -> EndpointError:
        return EndpointError(f"{self.address} does not answer as `persona serve` does")


@dataclass
class StreamedAnswer:
    """One answer of an endpoint in the making. stop: what leaves it, whatever is under way.

    served: what the endpoint's names have to stand for, still.
    """

    endpoint: Endpoint
    request: Mapping[str, Any]
    stop: threading.Event
    served: Mapping[str, ServedModel]
    ended: str = ""

    def tokens(self) -> Generator[Token, None, None]:
        """Its pieces, which need not be tokens. Raises: EndpointError."""
        pieces = until_stopped(self.endpoint.pieces(self.request, self.served), self.stop)
        with contextlib.closing(pieces):
            for text, ended in pieces:
                self.ended = ended
                if text:
                    yield Token(NO_ID, text)
        self.ended = self.ended or "stopped"


def _checked(address: str) -> str:
    """Raises: EndpointError for what is no address, or holds more than one."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not address.isprintable() or " " in address:
        raise EndpointError(
            "an endpoint is an http or https address such as http://127.0.0.1:8000/v1; got "
            f"{shown(without_credentials(address))}"
        )
    if set(address) & set("@?#"):
        raise EndpointError(
            "an endpoint's address has no user, password, query or fragment; the key goes into "
            f"{KEY_VARIABLE}"
        )
    return address.rstrip("/")


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""Lines that end in \n alone: a text may hold others that Python takes for ends of lines."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
