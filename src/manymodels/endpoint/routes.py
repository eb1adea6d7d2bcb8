"""Which models an EndpointName stands for."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ..errors import BadTargetModel, EndpointNotFound

#: Names of endpoints and variants (shapes EndpointName and VariantName).
NAME: Final = re.compile("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One of the stores among which an endpoint's invocations are spread."""

    name: str
    #: Its share of them is this one among the sum of all variants' weights.
    weight: float
    #: What the names of its models begin with in this server.
    mount: str
    #: The only artifact, of an endpoint with a single model.
    artifact: str | None = None


class Topics(msgspec.Struct, frozen=True):
    """Who in SNS is told what an asynchronous invocation came to: ARNs of topics, None where nobody is."""

    success: str | None
    error: str | None
    #: Whether the answer, or the error, is told.
    success_included: bool
    error_included: bool


class Outputs(msgspec.Struct, frozen=True):
    """Where an asynchronous endpoint's answers and errors are written: addresses in S3, keys begin with them."""

    answers: str
    errors: str
    topics: Topics | None = None


class Routes:
    """The endpoints of a server, each with its variants."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Sequence[Variant]] = {}
        self._outputs: dict[str, Outputs] = {}

    def add(self, endpoint: str, variants: Sequence[Variant], outputs: Outputs | None = None) -> None:
        """Add an endpoint, or replace its variants.

        :param outputs: of an asynchronous endpoint.
        """
        self._endpoints[endpoint] = variants
        self._outputs.pop(endpoint, None)
        if outputs is not None:
            self._outputs[endpoint] = outputs

    def remove(self, endpoint: str) -> None:
        """Take an endpoint out."""
        del self._endpoints[endpoint]
        self._outputs.pop(endpoint, None)

    def outputs(self, endpoint: str) -> Outputs | None:
        """Return where the answers of an asynchronous endpoint go; None: it is none."""
        return self._outputs.get(endpoint)

    def find(self, endpoint: str, target_model: str | None, variant: str | None) -> tuple[str | None, str]:
        """Return the name that a model has in this server, and the variant that serves it.

        :param target_model: its name in the endpoint; None: the client named none.
        :param variant: the one that the client wants; None: one at random, by their weights.
        :raises EndpointNotFound: if there is no such endpoint, or none of its variants is that or takes requests.
        :raises BadTargetModel: if a model is named of an endpoint that has only one.
        """
        variants = self._endpoints.get(endpoint)
        if variants is None:
            raise EndpointNotFound(f"Endpoint {endpoint} of account 000000000000 not found.")
        chosen = _choose(endpoint, variants, variant)
        if chosen.artifact is not None:
            if target_model is not None:
                raise BadTargetModel(
                    f"Endpoint {endpoint} is not a multi-model endpoint and does not support target model header."
                )
            target_model = chosen.artifact
        return (None if target_model is None else f"{chosen.mount}/{target_model}"), chosen.name


def _choose(endpoint: str, variants: Sequence[Variant], wanted: str | None) -> Variant:
    if wanted is not None:
        for variant in variants:
            if variant.name == wanted:
                return variant
        names = ", ".join(variant.name for variant in variants)
        raise EndpointNotFound(f"Variant {wanted} of endpoint {endpoint} not found; it has {names}.")
    if len(variants) == 1:
        return variants[0]
    weights = [variant.weight for variant in variants]
    if not any(weights):
        raise EndpointNotFound(f"All variants of endpoint {endpoint} have weight 0; name one by TargetVariant.")
    return random.choices(variants, weights)[0]  # noqa: S311
