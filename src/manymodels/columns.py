"""Refuse bodies whose columns are not those that an artifact's manifest declares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .codecs import Table, decode, features
from .errors import BadInput, UnsupportedContentType
from .schema import Field, Schema

#: Columns, and characters of a name or value, that a message shows.
_SHOWN = 5
_LENGTH = 50


def checker(declared: Schema | None, own: Schema | None) -> Callable[[bytes, str | None], None] | None:
    """Return what refuses bodies that do not hold the columns that an artifact declares; None where it declares none.

    :param own: what the plugin says of the model: one that knows no names has to get columns in their order.
    """
    if declared is None or not declared.named:
        return None
    fields = declared.inputs
    names = tuple(field.name for field in fields)
    by_name = {field.name: field for field in fields}
    positional = own is not None and bool(own.inputs) and not own.named

    def check(body: bytes, content_type: str | None) -> None:
        try:
            data = features(decode(body, content_type, names=names))
        except UnsupportedContentType:
            return  # a type that the plugin knows
        if (table := _table(data)) is not None:
            _check_names(table.names, fields)
            if positional and table.names != names:
                raise BadInput(f"the model knows no names: send its columns in their order ({_quoted(names)})")
            _check_values([by_name[name] for name in table.names], table.rows)
        elif hasattr(data, "tocsr"):
            if data.shape[1] > len(fields):  # libsvm leaves out what is zero, the last columns included
                raise BadInput(f"the model takes rows of {len(fields)} columns, and the input has {data.shape[1]}")
        elif isinstance(data, np.ndarray):
            _check_values(fields, _in_rows(data, len(fields)))

    return check


def _table(data: Any) -> Table | None:
    """Return rows with names; an object of single values is one row, and any other is the model's own affair."""
    if isinstance(data, dict) and not any(isinstance(value, (list, dict)) for value in data.values()):
        return Table(tuple(data), np.array([list(data.values())], dtype=object))
    return data if isinstance(data, Table) else None


def _in_rows(data: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    rows = data
    if rows.ndim == 1:
        rows = rows.reshape(-1, 1) if width == 1 else rows.reshape(1, -1)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise BadInput(f"the model takes rows of {width} columns, and the input has shape {data.shape}")
    return rows


def _check_names(names: Sequence[str], fields: Sequence[Field]) -> None:
    given = set(names)
    missing = [field.name for field in fields if not field.optional and field.name not in given]
    unknown = sorted(given.difference(field.name for field in fields))
    faults = [("missing", missing), ("unknown", unknown)]
    listed = "; ".join(f"{fault}: {_quoted(found)}" for fault, found in faults if found)
    if listed:
        raise BadInput(f"the columns are not the model's ({listed})")


def _check_values(fields: Sequence[Field], rows: npt.NDArray[Any]) -> None:
    wrong = [fault for index, field in enumerate(fields) if (fault := _fault(field, rows[:, index])) is not None]
    if wrong:
        raise BadInput(f"the columns have values that are not the model's ({_listed(wrong, '; ')})")


def _fault(field: Field, column: npt.NDArray[Any]) -> str | None:
    """Say what is wrong with a column; a missing value is for the model to judge."""
    allowed = set(field.values)
    if field.type is None and not allowed:
        return None
    if column.dtype.kind in "fiu" and field.type == "number" and not allowed:
        return None  # nearly all there is
    for value in column.tolist():
        if value is None or value != value:
            continue
        if field.type is not None and not _is(value, field.type):
            return f"{field.name[:_LENGTH]!r} takes {field.type}, not {_short(value)}"
        if allowed and value not in allowed:
            return (
                f"{field.name[:_LENGTH]!r} takes {_listed([_short(one) for one in field.values])}, not {_short(value)}"
            )
    return None


def _is(value: Any, kind: str) -> bool:
    """Say whether a value is of a type; in rows of numbers all are floats, booleans too."""
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool) or value in (0.0, 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return kind == "number" or float(value).is_integer()


def _quoted(names: Sequence[str]) -> str:
    return _listed([repr(name[:_LENGTH]) for name in names])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."


def _listed(items: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more
