"""The script of the sample model ``house``: SageMaker's functions; what is left out, the framework does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from manymodels.errors import BadInput, UnsupportedContentType

COLUMNS = ("square_metres", "rooms", "age")


def input_fn(input_data: str, content_type: str) -> Any:
    """Turn a house, or a list of houses, into rows."""
    if content_type.partition(";")[0] != "application/json":
        raise UnsupportedContentType(f"send houses as application/json, not {content_type!r}")
    try:
        houses = json.loads(input_data)
        houses = houses if isinstance(houses, list) else [houses]
        return np.array([[float(house[column]) for column in COLUMNS] for house in houses])
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"a house is an object with the numbers {', '.join(COLUMNS)}") from error


def output_fn(prediction: Any, _accept: str) -> tuple[str, str]:
    """Answer with prices in whole euros."""
    return json.dumps(
        {"prices": [round(price) for price in prediction.tolist()], "currency": "EUR"}
    ), "application/json"
