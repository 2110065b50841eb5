"""The endpoint as an ASGI app: its paths, who may ask, and errors as clients of it read them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Generator, Sequence
from concurrent.futures import Future
from typing import Any

from persona.errors import DataError, PersonaError, SteeringError
from steering.serving.replies import (
    Reply,
    error_body,
    list_of_models,
    one_model,
    written_choice,
)
from steering.serving.request_bodies import ChatBody, CompletionBody, read_body
from steering.serving.served_answers import Answer
from steering.serving.served_models import ServedModels, UnknownModelError
from steering.serving.served_requests import Asked, FullError, ServedRequests

logger = logging.getLogger("persona")

LOOKS_SECONDS = 0.5
"""How often it is looked whether a client that waits is still there."""


def http_app(models: ServedModels, key: str | None = None) -> Any:
    """A Starlette app. key: what a client must show as its bearer token; None asks for none."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    requests, since = ServedRequests(models), int(time.time())

    def refusal(status: int, message: str) -> Response:
        more = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return JSONResponse(error_body(status, message), status, headers=more)

    def allowed(request: Request) -> bool:
        if key is None:
            return True
        shown = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        return hmac.compare_digest(shown.encode(), key.encode())

    def guarded(handle: Any) -> Any:
        async def answer(request: Request) -> Response:
            if not allowed(request):
                return refusal(401, "this server asks for its key: Authorization: Bearer KEY")
            try:
                reply: Response = await handle(request)
            except UnknownModelError as error:
                return refusal(404, str(error))
            except FullError as error:
                return refusal(503, str(error))
            except (DataError, SteeringError) as error:
                return refusal(400, str(error))
            except PersonaError as error:
                logger.warning("%s", error)
                return refusal(500, str(error))
            return reply

        return answer

    async def models_list(request: Request) -> Response:
        return JSONResponse(list_of_models(models, since))

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        models.steering(name)  # raises for a name that is not there
        return JSONResponse(one_model(models, name, since))

    async def chat(request: Request) -> Response:
        body = read_body(ChatBody, await _json(request))
        return await replied(request, requests.chat(body), body, Reply(body.model, chat=True))

    async def completions(request: Request) -> Response:
        body = read_body(CompletionBody, await _json(request))
        reply = Reply(body.model, chat=False)
        if body.is_scored:
            with requests.line.place():
                scored = requests.threads.submit(requests.scored, body, reply)
                return JSONResponse(await asyncio.wrap_future(scored))
        return await replied(request, requests.completions(body), body, reply)

    async def replied(
        request: Request, asked: Sequence[Asked], body: Any, reply: Reply
    ) -> Response:
        if body.stream:
            place = requests.line.place()
            place.__enter__()
            return StreamingResponse(
                _events(requests, asked, reply, place, _counts(body)),
                media_type="text/event-stream",
            )
        with requests.line.place():
            gone = threading.Event()
            watch = asyncio.create_task(_watch(request, gone))
            try:
                answered = requests.threads.submit(requests.answered, asked, gone)
                found = await asyncio.wrap_future(answered)
            finally:
                watch.cancel()
        choices = [
            written_choice(reply, i, answer, one.before)
            for i, (one, answer) in enumerate(zip(asked, found, strict=True))
        ]
        n_new = sum(answer.n_tokens for answer in found)
        return JSONResponse(reply.whole(choices, _n_prompt(asked), n_new))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def unknown(request: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 500))
        said = {404: f"there is nothing at {request.url.path[:100]}"}
        return refusal(status, said.get(status, str(getattr(error, "detail", "the server failed"))))

    return Starlette(
        routes=[
            Route("/v1/models", guarded(models_list)),
            Route("/v1/models/{name}", guarded(model)),
            Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
            Route("/v1/completions", guarded(completions), methods=["POST"]),
            Route("/health", health),
        ],
        exception_handlers={404: unknown, 405: unknown, 413: unknown, 500: unknown},
    )


async def _events(
    requests: ServedRequests,
    asked: Sequence[Asked],
    reply: Reply,
    place: contextlib.AbstractContextManager[None],
    counts: bool,
) -> AsyncIterator[str]:
    """A streamed reply, answer after answer; a client that leaves stops the model."""
    n_new = 0
    try:
        for index, one in enumerate(asked):
            yield _event(reply.chunk(index, one.before, first=True))
            answer = Answer()
            pieces = requests.answers.pieces(one.wanted, answer)
            pulled = requests.threads.submit(next, pieces, None)
            try:
                while (piece := await asyncio.wrap_future(pulled)) is not None:
                    yield _event(reply.chunk(index, piece))
                    pulled = requests.threads.submit(next, pieces, None)
            finally:
                requests.threads.submit(_closed_after, pulled, pieces)
            n_new += answer.n_tokens
            yield _event(reply.chunk(index, None, answer.ended))
        if counts:
            yield _event(reply.last_chunk(_n_prompt(asked), n_new))
        yield "data: [DONE]\n\n"
    except PersonaError as error:  # the head of the reply is gone by now
        yield _event(error_body(500, str(error)))
    finally:
        place.__exit__(None, None, None)


def _closed_after(pulled: Future[str | None], pieces: Generator[str, None, None]) -> None:
    """Ends an answer whose next piece may still be in the making: nothing here waits for it."""
    if not pulled.cancel():
        pulled.exception()
    pieces.close()


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _counts(body: Any) -> bool:
    told = (body.model_extra or {}).get("stream_options") or {}
    return bool(told.get("include_usage"))


def _n_prompt(asked: Sequence[Asked]) -> int:
    return sum(one.n_prompt for one in asked if one.first)


async def _json(request: Any) -> Any:
    """Raises: DataError where the body is no JSON."""
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise DataError("the body is no JSON") from error


async def _watch(request: Any, gone: threading.Event) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(LOOKS_SECONDS)
    gone.set()
