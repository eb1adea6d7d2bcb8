"""A model's signature in the platform's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.types import DataType

from manymodels import Field, Schema

if TYPE_CHECKING:
    from ._model import MlflowModel

#: Of columns; bytes come as base64, times as text.
_TYPES: dict[Any, Any] = {
    DataType.boolean: "boolean",
    DataType.integer: "integer",
    DataType.long: "integer",
    DataType.float: "number",
    DataType.double: "number",
    DataType.string: "string",
    DataType.binary: "string",
    DataType.datetime: "string",
}
#: Of tensors, by the kind of their dtype.
_KINDS: dict[str, Any] = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "U": "string", "S": "string"}


def tell(model: MlflowModel) -> Schema:
    """Return the fields of the signature; none without one."""
    return Schema(inputs=_fields(model.schema), outputs=_fields(model.pyfunc.metadata.get_output_schema()))


def _fields(schema: Any) -> tuple[Field, ...]:
    if schema is None:
        return ()
    if schema.is_tensor_spec():
        return tuple(
            Field(name=_name(one), type=_KINDS.get(one.type.kind), shape=tuple(int(size) for size in one.shape))
            for one in schema.inputs
        )
    # Arrays and objects are of any type.
    types = [_TYPES.get(one.type) if isinstance(one.type, DataType) else None for one in schema.inputs]
    if len(types) > 1 and not schema.has_input_names():
        return (Field(type=types[0] if len(set(types)) == 1 else None, shape=(-1, len(types))),)
    return tuple(
        Field(name=_name(one), type=kind, optional=not one.required)
        for one, kind in zip(schema.inputs, types, strict=True)
    )


def _name(one: Any) -> str:
    return "" if one.name is None else str(one.name)  # pandas' own names are numbers
