"""Request bodies to the arrays that a model takes, by the names of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from manymodels import codecs
from manymodels.errors import BadInput

Feed = dict[str, npt.NDArray[Any]]

#: From here on a whole number beside fractions, and so decoded as float64, may stand for another one.
_EXACT = 2.0**53


class Input(NamedTuple):
    """One input of a model."""

    name: str
    dtype: np.dtype[Any]
    #: A number where the model says one, otherwise a name or None.
    shape: tuple[int | str | None, ...]

    @property
    def is_column(self) -> bool:
        """Whether it takes a value for each row: scikit-learn's pipelines have such an input for each column."""
        return self.shape[1:] == (1,) or len(self.shape) == 1


def decode(body: bytes, content_type: str | None, inputs: Sequence[Input]) -> Feed:
    """Decode a body into one array for each input, of its dtype.

    Takes ``{"inputs": {name: array, ...}}``; rows for a single input; records, or rows with a value for each
    input, where all inputs are columns.

    :raises BadInput: if they are not the model's, by name, shape or dtype.
    """
    names = [one.name for one in inputs]
    value = codecs.features(codecs.decode(body, content_type, names=names))
    if hasattr(value, "toarray"):
        value = value.toarray()
    if isinstance(value, dict):
        return _named(value, inputs)
    columns = all(one.is_column for one in inputs)
    if isinstance(value, codecs.Table):
        if not (columns and set(names) & set(value.names)) and len(inputs) == 1:
            value = value.rows
        else:
            value = value.in_order(names)
    if len(inputs) == 1:
        return {names[0]: _fit(value, inputs[0])}
    if not columns:
        raise BadInput(f'the model takes several arrays; send {{"inputs": {{...}}}} with {_listed(names)}')
    rows = np.atleast_2d(value)
    if rows.ndim != 2 or rows.shape[1] != len(inputs):
        raise BadInput(f"the model takes rows of {len(inputs)} values ({_listed(names)}), got shape {rows.shape}")
    return {one.name: _fit(rows[:, index], one) for index, one in enumerate(inputs)}


def _named(value: dict[str, Any], inputs: Sequence[Input]) -> Feed:
    named = value.get("inputs")
    if named is None or value.keys() != {"inputs"}:
        raise BadInput('send rows, or {"inputs": {...}} with an array for each input of the model')
    if not isinstance(named, dict):
        if len(inputs) > 1:
            raise BadInput(f'"inputs" must be an object of {_listed([one.name for one in inputs])}')
        named = {inputs[0].name: named}
    known = {one.name for one in inputs}
    missing, unknown = [name for name in known if name not in named], sorted(named.keys() - known)
    if missing or unknown:
        faults = [("the request lacks", sorted(missing)), ("the model does not know", unknown)]
        raise BadInput("; ".join(f"{fault} {_listed(found)}" for fault, found in faults if found))
    return {one.name: _fit(_array(named[one.name], one.name), one) for one in inputs}


def _array(value: Any, name: str) -> Any:
    if isinstance(value, dict) or (value and isinstance(value, list) and isinstance(value[0], dict)):
        raise BadInput(f"the input {name!r} must be an array: numbers or text in lists")
    return codecs.features({"features": value}) if isinstance(value, list) else np.asarray(value)


def _fit(value: Any, one: Input) -> npt.NDArray[Any]:
    """Return an array of the input's rank and dtype; one row, or a list of a column's values, may come flat."""
    array = np.asarray(value)
    rank = len(one.shape)
    if array.ndim == rank - 1:
        array = array.reshape(-1, 1) if one.is_column else array[np.newaxis]
    elif array.ndim == 2 and rank == 1 and array.shape[1] == 1:
        array = array.ravel()
    sizes = zip(one.shape, array.shape, strict=True)
    if array.ndim != rank or any(isinstance(want, int) and want != got for want, got in sizes):
        wanted = ", ".join("any" if not isinstance(size, int) else str(size) for size in one.shape)
        raise BadInput(f"the input {one.name!r} has the shape ({wanted}), got {array.shape}")
    return np.ascontiguousarray(_cast(array, one)).reshape(array.shape)


def _cast(array: npt.NDArray[Any], one: Input) -> npt.NDArray[Any]:
    if one.dtype == object:
        for cell in array.ravel().tolist():
            if not isinstance(cell, str):
                raise BadInput(f"the input {one.name!r} takes text, got {cell!r}")
        return array.astype(object)
    if array.dtype == object:
        for cell in array.ravel().tolist():
            if isinstance(cell, str):
                raise BadInput(f"the input {one.name!r} takes numbers, got {cell[:40]!r}")
        array = np.array(array.tolist()).reshape(array.shape)  # integers as such, to the last digit
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(one.dtype)
        if one.dtype.kind != "f" and not np.array_equal(cast, array):
            raise BadInput(f"the input {one.name!r} takes {one.dtype}, and a value sent is none")
    if array.dtype.kind == "f" and one.dtype.kind in "iu" and (np.abs(array) >= _EXACT).any():
        raise BadInput(
            f"the input {one.name!r} takes {one.dtype}, and a number beside fractions may have lost digits; "
            'send {"inputs": {...}} with an array for each input'
        )
    return cast


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name[:60]) for name in names[:5]) + more
