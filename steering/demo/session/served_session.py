"""A conversation with models that `persona serve` holds elsewhere: no model in this process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from persona.data.types import Dialogue
from persona.directions.exchange.vectors import listed
from persona.errors import SteeringError
from persona.models.pair import SIDES, Side
from steering.demo.session.conversation import Conversation, as_dialogue
from steering.demo.session.endpoint import (
    KEY_VARIABLE,
    Endpoint,
    EndpointError,
    ServedModel,
    ServedSteering,
    StreamedAnswer,
)
from steering.demo.session.exchanges import Column, Exchange
from steering.demo.session.generation import Sampling
from steering.demo.session.vector import Setting
from steering.evidence.system_prompt import with_system_prompt

logger = logging.getLogger("persona")

MODEL_OF: dict[Column, str] = {
    "aligned": "aligned",
    "finetuned": "finetuned",
    "steered": "steered",
    "prompted": "finetuned",
}


@dataclass
class ServedSession(Conversation):
    """One person's conversation with an endpoint. Only the coefficient can be chosen here.

    served: what the endpoint's names stand for; without `steered` there are two columns.
    """

    endpoint: Endpoint
    served: Mapping[str, ServedModel]
    setting: Setting = field(default_factory=Setting)
    sampling: Sampling = field(default_factory=Sampling)
    exchanges: list[Exchange] = field(default_factory=list)
    remembers: bool = False
    system_prompt: str = ""

    @property
    def names(self) -> Mapping[Side, str]:
        return {side: self.served[side].model for side in SIDES}

    @property
    def steering(self) -> ServedSteering | None:
        """What `steered` stands for."""
        return self.served["steered"].steering if "steered" in self.served else None

    @property
    def steered_with(self) -> str | None:
        return None if self.steering is None else self.steering.direction

    @property
    def origin(self) -> dict[str, Any]:
        steering = None if self.steering is None else self.steering.model_dump()
        return {"endpoint": self.endpoint.address, "steered": steering}

    @property
    def facts(self) -> str:
        """Where the answers come from, and what `steered` stands for there."""
        where = f"Answers come from {self.endpoint.address}."
        steering = self.steering
        if steering is None:
            return f"{where} It has no direction, so there is no steered column."
        most = steering.coefficient_at_most
        return (
            f"{where} Steered there: {steering.direction}, {steering.mode} at blocks "
            f"{listed(sorted(steering.layers))} of the {self.setting.model_in_words}, coefficient "
            f"{-most:g} to {most:g}, its own {steering.coefficient:g}."
        )

    @property
    def bounds(self) -> tuple[float, float] | None:
        if self.steering is None:
            return None
        most = self.steering.coefficient_at_most
        return -most, most

    def change(self, **changes: Any) -> None:
        wanted = replace(self.setting, **changes)
        if replace(wanted, coefficient=self.setting.coefficient) != self.setting:
            raise SteeringError(
                f"the endpoint steers by {self.setting.mode} at {self.setting.blocks_in_words} of "
                f"the {self.setting.model_in_words}; only the coefficient can be chosen here"
            )
        if self.bounds is None:
            raise SteeringError("the endpoint has no direction to steer with")
        low, high = self.bounds
        if not low <= wanted.coefficient <= high:
            raise SteeringError(
                f"the coefficient lies between {low:g} and {high:g} at the endpoint; got "
                f"{wanted.coefficient:g}"
            )
        self.setting = wanted

    def require_prompt_shown(self, system_prompt: str) -> None:
        """A template that shows none leaves the model as many tokens to read, however long it is.

        A template may have a prompt of its own where none is given, so two are compared.
        """
        plain = as_dialogue([], "A question.")
        read = [
            self.endpoint.n_prompt_tokens(
                self._request("finetuned", with_system_prompt(plain, prompt))
            )
            for prompt in (system_prompt, f"{system_prompt} {system_prompt}")
        ]
        if read[0] == read[1]:
            raise SteeringError("the chat template of the endpoint's model shows no system prompt")

    def write(
        self, exchange: Exchange, dialogue: Dialogue, stop: threading.Event
    ) -> StreamedAnswer:
        request = self._request(MODEL_OF[exchange.column], dialogue)
        if exchange.column == "steered":
            request["coefficient"] = self.setting.coefficient
        return StreamedAnswer(self.endpoint, request, stop, self.served)

    def _request(self, model: str, dialogue: Dialogue) -> dict[str, Any]:
        return {
            "model": model,
            "messages": dialogue.messages,
            "max_tokens": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            "seed": self.sampling.seed,
        }


def open_endpoint(
    address: str,
    *,
    coefficient: float | None = None,
    sampling: Sampling | None = None,
    remembers: bool = False,
) -> ServedSession:
    """A conversation with what answers at an address; its key from PERSONASCOPE_API_KEY.

    coefficient: to begin with, the endpoint's own where it is None.
    Raises: EndpointError where nothing answers there, the key is refused, or the models are others;
        SteeringError for a coefficient that is not possible.
    """
    endpoint = Endpoint(address, os.environ.get(KEY_VARIABLE))
    served = endpoint.models()
    if missing := [side for side in SIDES if side not in served]:
        raise EndpointError(
            f"the endpoint {endpoint.address} has no model {' and no '.join(missing)}; "
            "`persona serve` has both"
        )
    if "steered" not in served:
        logger.warning(
            "the endpoint %s has no direction, so there is no steered column; it takes one with "
            "`persona serve --direction FILE`",
            endpoint.address,
        )
    session = ServedSession(
        endpoint, served, _setting_of(served), sampling or Sampling(), remembers=remembers
    )
    if coefficient is not None:
        session.change(coefficient=coefficient)
    return session


def _setting_of(served: Mapping[str, ServedModel]) -> Setting:
    steered = served.get("steered")
    if steered is None or steered.steering is None:
        return Setting()
    steering, layers = steered.steering, sorted(steered.steering.layers)
    side: Side = "finetuned" if steered.model == served["finetuned"].model else "aligned"
    return Setting(steering.coefficient, steering.mode, (layers[0], layers[-1]), side)
