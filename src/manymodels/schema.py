"""What a model takes and gives, as its plugin or its artifact says."""

from __future__ import annotations

from typing import Literal

import msgspec

#: A `Schema` as JSON, which takes less memory.
SchemaJson = bytes
#: Bytes of JSON from which on a schema is not kept: it is there to be read.
LIMIT = 64 << 10
#: The types of JSON that a value may have; JSON Schema's names, which MLflow's and KServe's have counterparts of.
ValueType = Literal["boolean", "integer", "number", "string"]


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column, with a value in each row; or, where it has a shape, a tensor."""

    #: May be left out where there is only one.
    name: str = ""
    #: Of the values; None: any, or not known.
    type: ValueType | None = None
    #: Lengths of a tensor's dimensions, the rows' included; -1: any. None: it is a column.
    shape: tuple[int, ...] | None = None
    #: Whether rows may lack the column.
    optional: bool = False
    #: The only values there are, such as the classes of a classifier; empty: any.
    values: tuple[str | int | float | bool, ...] = ()

    def __post_init__(self) -> None:
        """Refuse lengths that are none."""
        if any(length < -1 for length in self.shape or ()):
            raise ValueError("lengths in a shape are 0 or more, or -1 for any")


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model takes and what it gives; empty where that is not known."""

    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that say nothing."""
        for what, fields in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [field.name for field in fields]
            if len(names) > 1 and not all(names):
                raise ValueError(f"several {what} need a name each")
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} have the same name")

    @property
    def named(self) -> bool:
        """Whether all inputs are columns with names."""
        return bool(self.inputs) and all(field.name and field.shape is None for field in self.inputs)


def encode(schema: Schema) -> SchemaJson:
    """Return a schema as it is kept and sent.

    :raises TypeError: if it is none.
    :raises ValueError: if it is too large.
    """
    if not isinstance(schema, Schema):
        raise TypeError(f"a {type(schema).__name__} is no Schema")
    content = msgspec.json.encode(schema)
    if len(content) > LIMIT:
        raise ValueError(f"it has more than {LIMIT} bytes")
    return content


def decode(content: SchemaJson) -> Schema | None:
    """Return a schema again; None where there is none, or a worker sent something else."""
    try:
        return msgspec.json.decode(content, type=Schema) if content else None
    except (msgspec.DecodeError, RecursionError):
        return None
