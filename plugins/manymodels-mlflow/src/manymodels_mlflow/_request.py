"""Bodies that MLflow's scoring server takes, and how they are joined."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import infer_and_parse_data, parse_csv_input

from manymodels import RowBatch
from manymodels.codecs import media_type, text
from manymodels.errors import BadInput, UnsupportedContentType

from ._model import reason

if TYPE_CHECKING:
    from ._model import MlflowModel

JSON = "application/json"
CSV = "text/csv"
#: Keys of a JSON body, of which it has one.
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Request(NamedTuple):
    """What ``input_fn`` returns."""

    #: A DataFrame, an array, a dict of arrays, or whatever a typed ``predict`` takes.
    data: Any
    #: ``params`` of the request, None without.
    params: dict[str, Any] | None = None


def read(body: bytes, content_type: str | None, model: MlflowModel) -> Request:
    """Decode a body, with the types of the model's signature.

    :raises BadInput: if it is not what its type says; names the column that is not of its type.
    :raises UnsupportedContentType: if it is neither JSON nor CSV.
    """
    kind, _ = media_type(content_type)
    if kind not in (JSON, CSV):
        raise UnsupportedContentType(f"content type {kind!r} is not supported by MLflow models; send {JSON} or {CSV}")
    content = text(body, content_type)
    try:
        if kind == CSV:
            return Request(parse_csv_input(io.StringIO(content), model.schema))
        return _read_json(content, model)
    except MlflowException as error:
        raise BadInput(reason(error)) from error


def _read_json(content: str, model: MlflowModel) -> Request:
    try:
        value = json.loads(content)  # which takes NaN, as MLflow's clients write it
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not valid JSON: {error}") from error
    forms = f'send an object with one of {", ".join(FORMS)}, and "params" if you like'
    if not isinstance(value, dict):
        raise BadInput(f"the body is no object; {forms}")
    params = value.pop("params", None)
    if len(value) != 1 or next(iter(value)) not in FORMS:
        raise BadInput(f"the body has the keys {', '.join(repr(key[:50]) for key in list(value)[:5])}; {forms}")
    if params is not None and not isinstance(params, dict):
        raise BadInput('"params" is no object of names and values')
    if not model.typed:
        return Request(infer_and_parse_data(value, model.schema), params)
    if "inputs" not in value:
        raise BadInput('the model says by type hints what it takes: send {"inputs": ...}')
    return Request(value["inputs"], params)


class RequestBatch(RowBatch):
    """Joins tables and arrays that came without parameters."""

    def join(self, data: Sequence[Request]) -> tuple[Any, list[int]] | None:
        """Stack the rows; None if the requests differ in columns or dtype, or any has parameters."""
        if any(request.params is not None for request in data):
            return None
        joined = super().join([request.data for request in data])
        return joined and (Request(joined[0]), joined[1])
