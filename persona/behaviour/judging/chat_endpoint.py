"""A chat model behind an OpenAI-compatible endpoint: address, key, and errors in one line."""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from persona.errors import JudgeError
from persona.extras import install_line

if TYPE_CHECKING:
    import openai

DEFAULT_ENDPOINT = "https://api.openai.com/v1"
CONNECT_SECONDS = 1.5
"""How long an address may take to be there, the first time that it is called; tried twice."""
MAX_SAID = 200
MIN_SECRET = 3
"""Shorter than this, cutting a secret out would cut words to pieces and tell nothing."""


class ChatEndpoint:
    """Asks one model at one endpoint; what goes wrong is a JudgeError without a secret in it."""

    def __init__(
        self,
        model: str,
        *,
        called: str = "the endpoint",
        base_url: str | None = None,
        api_key: str | None = None,
        max_retries: int = 6,
        timeout_seconds: float = 60.0,
    ) -> None:
        """Sets up the client; nothing is sent yet.

        Args:
            model: Name of the model at the endpoint.
            called: What errors call it, such as "the judge endpoint".
            base_url: The endpoint; from OPENAI_BASE_URL where None, else OpenAI's own.
            api_key: The key; from OPENAI_API_KEY where None. Local servers take any word.
            max_retries: Further tries after 408, 409, 429, a 5xx or a lost connection, with waits
                that double or that the server names.

        Raises:
            JudgeError: no key, or the openai package is not installed.
        """
        key = key_of(api_key)
        try:
            import openai
        except ImportError as error:
            raise JudgeError(
                f"an endpoint judge needs the openai package; {install_line('judge')}"
            ) from error
        self.model, self._called, self._timeout_seconds = model, called, timeout_seconds
        address = address_of(base_url)
        self.address = without_credentials(address)
        self._secrets = (key, *credentials_in(address))
        try:
            self._client: openai.OpenAI = openai.OpenAI(
                base_url=address, api_key=key, max_retries=max_retries, timeout=timeout_seconds
            )
        except Exception as error:  # whatever the HTTP library finds wrong with an address
            raise JudgeError(
                f"{self.address} is no address of an endpoint ({self.said(error)}); check "
                "OPENAI_BASE_URL"
            ) from None

    def ask(self, prompt: str, *, first_call: bool = False, **request: Any) -> Any:
        """The reply of the chat endpoint to one message of a user.

        first_call: whether somebody is there is to be known in seconds, after one further try; a
            server that loads its model first may still take its time.

        The errors of the library, which may hold address and headers, are not passed on.
        """
        import openai

        client = self._client
        if first_call:
            patience = openai.Timeout(self._timeout_seconds, connect=CONNECT_SECONDS)
            client = client.with_options(max_retries=1, timeout=patience)
        try:
            return client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": prompt}], **request
            )
        except openai.APIStatusError as error:
            raise JudgeError(self._refusal(error)) from None
        except openai.APIConnectionError as error:
            raise JudgeError(
                f"{self._called} {self.address} cannot be reached "
                f"({self.said(error.__cause__ or error)}); check OPENAI_BASE_URL and the network"
            ) from None
        except (openai.OpenAIError, ValueError, TypeError) as error:  # an answer that is no JSON
            raise self.other_form(error) from None

    def close(self) -> None:
        """Ends the requests under way, which the end of the program would wait for."""
        self._client.close()

    def other_form(self, error: Exception) -> JudgeError:
        return JudgeError(
            f"{self.address} does not answer as an OpenAI-compatible endpoint does "
            f"({self.said(error)}); check OPENAI_BASE_URL, which often ends in /v1"
        )

    def said(self, what: object) -> str:
        """What a library or a server said, in one short line, with every secret cut out."""
        return cut_out(" ".join(str(what).split()), self._secrets)[:MAX_SAID]

    def _refusal(self, error: openai.APIStatusError) -> str:
        status, at = error.status_code, f"{self._called} {self.address}"
        if status in {401, 403}:
            return f"{at} refused the key ({status}); check OPENAI_API_KEY"
        if status == 404:
            return f"{at} has no model {self.model} (404); check the name"
        if status in {408, 409, 429} or status >= 500:
            return (
                f"{at} still answered {status} after every retry; answers so far are kept, run "
                "again later"
            )
        return f"{at} refused the request ({status}): {self.said(error.message)}"


def key_of(api_key: str | None = None) -> str:
    """The key, from OPENAI_API_KEY where not given. Raises: JudgeError where there is none."""
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key:
        raise JudgeError(
            "an endpoint judge needs a key; set OPENAI_API_KEY (any word for a local server, "
            "with its address in OPENAI_BASE_URL), or choose local:MODEL or none"
        )
    return key


def address_of(base_url: str | None = None) -> str:
    """The endpoint's address, from OPENAI_BASE_URL where it is not given, else OpenAI's own."""
    return (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_ENDPOINT).rstrip("/")


def require_listening(called: str = "the endpoint") -> None:
    """Looks whether anybody takes a call at the address, before the client is imported.

    Behind a proxy nobody but the proxy can tell, and an address that is none is the client's to
    refuse. Raises: JudgeError where nobody does within `CONNECT_SECONDS`.
    """
    address = address_of()
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return
    if host is None or (getproxies() and not proxy_bypass(host)):
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        secrets = (os.environ.get("OPENAI_API_KEY", ""), *credentials_in(address))
        raise JudgeError(
            f"{called} {without_credentials(address)} cannot be reached "
            f"({cut_out(str(error), secrets)}); check OPENAI_BASE_URL and the network"
        ) from None


def without_credentials(address: str) -> str:
    """Returns an address without user, password, query and fragment, as an error may show it."""
    bare = re.split(r"[?#]", address)[0]
    scheme, found, rest = bare.partition("://")
    if not found:
        scheme, rest = "", bare
    host, slash, path = rest.partition("/")
    # A password may hold a slash; what stands before an @ is never shown.
    if "@" in rest:
        host, slash, path = rest.rpartition("@")[2].partition("/")
    return f"{scheme}{found}{host}{slash}{path}"


def credentials_in(address: str) -> tuple[str, ...]:
    """Returns what of an address must not be shown: user and password, as written, decoded and as
    a header holds them, and the values of its query."""
    bare, _, query = address.partition("?")
    userinfo = bare.partition("://")[2].rpartition("@")[0] or bare.rpartition("@")[0]
    user, _, password = userinfo.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}"
    header = base64.b64encode(plain.encode()).decode() if userinfo else ""
    values = [part.partition("=")[2] for part in re.split("[&#]", query)]
    return (userinfo, password, unquote(password), user, unquote(user), header, *values)


def cut_out(text: str, secrets: Iterable[str]) -> str:
    """Returns a text with every secret, and whatever stands before an @ in an address, as ***."""
    for secret in sorted({s for s in secrets if len(s) >= MIN_SECRET}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"(?<=://)[^\s/]*@", "***@", text)
