"""The OpenAPI document of one model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from ..golden import Golden
from ..media import CSV, JSON, media_type
from ..sagemaker import TARGET_MODEL
from ..schema import Field, Schema

#: Bytes of the longest body that is shown as an example.
SHORT = 4096

Json = dict[str, Any]


def document(name: str, schema: Schema | None, goldens: Iterable[Golden], *, multi_model: bool, version: str) -> Json:
    """Return the document.

    :param name: the TargetModel.
    :param goldens: what is shown as examples.
    :param multi_model: whether requests name their model.
    :param version: of the server.
    """
    schema = schema or Schema()
    goldens = list(goldens)
    bare: Json = {"$ref": "#/components/schemas/Rows"}
    # Plugins take rows as they are, or wrapped, or both.
    body = bare if _tensors(schema.inputs) else {"anyOf": [bare, _wrapped("instances", bare)]}
    requests: Json = {JSON: {"schema": body}}
    answers: Json = {JSON: {}}
    if schema.named:
        requests[CSV] = {"schema": {"type": "string"}}
    for number, golden in enumerate(goldens, 1):
        _add(requests, number, golden.body, golden.content_type)
        _add(answers, number, golden.answer, golden.answer_content_type)
    error = {"description": "What went wrong.", "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    ok = {
        "description": "The predictions, in the form that Accept and the model's plugin give them.",
        "content": answers,
    }
    post: Json = {
        "operationId": "invoke",
        "summary": f"Ask {name}",
        "requestBody": {"required": True, "content": requests},
        "responses": {"200": ok, "4XX": error, "5XX": error},
    }
    if multi_model:
        header = {"name": TARGET_MODEL, "in": "header", "required": True, "schema": {"const": name}}
        post["parameters"] = [header]
    schemas: Json = {"Rows": rows(schema.inputs), "Error": _ERROR}
    if schema.outputs:
        schemas["Prediction"] = row(schema.outputs)
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "servers": [{"url": "/"}],
        "paths": {"/invocations": {"post": post}},
        "components": {"schemas": schemas},
    }


_ERROR = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {"code": {"type": "integer"}, "type": {"type": "string"}, "message": {"type": "string"}},
}


def _tensors(fields: Sequence[Field]) -> bool:
    return len(fields) > 1 and any(field.shape is not None for field in fields)


def _wrapped(key: str, content: Json) -> Json:
    return {"type": "object", "properties": {key: content}, "required": [key]}


def rows(fields: Sequence[Field]) -> Json:
    """Return the JSON Schema of a request's rows, or several tensors: anything, where fields say nothing of that."""
    if not fields:
        return {}
    if _tensors(fields):
        return _wrapped("inputs", row(fields))
    if fields[0].shape is not None:
        return row(fields)
    lists = {
        "type": "array",
        "prefixItems": [_value(field) for field in fields],
        "minItems": len(fields),
        "maxItems": len(fields),
    }
    forms = [{"type": "array", "items": lists}]
    if all(field.name for field in fields):
        forms.insert(0, {"type": "array", "items": row(fields)})
    return {"anyOf": forms}


def row(fields: Sequence[Field]) -> Json:
    """Return the JSON Schema of one row, or of tensors."""
    if len(fields) == 1 and (fields[0].shape is not None or not fields[0].name):
        return _value(fields[0])
    return {
        "type": "object",
        "properties": {field.name: _value(field) for field in fields},
        "required": [field.name for field in fields if not field.optional],
        "additionalProperties": False,
    }


def sample(fields: Sequence[Field]) -> Json | None:
    """Return a body of one row, of zeros and the like; None if fields say nothing of that, or it would be long."""
    if not fields or sum(math.prod(max(abs(length), 1) for length in field.shape or ()) for field in fields) > SHORT:
        return None
    if _tensors(fields):
        return {"inputs": {field.name: _zero(field) for field in fields}}
    if fields[0].shape is not None:
        return {"instances": _zero(fields[0])}
    if all(field.name for field in fields):
        return {"instances": [{field.name: _zero(field) for field in fields}]}
    return {"instances": [[_zero(field) for field in fields]]}


def _zero(field: Field) -> Any:
    value: Any = field.values[0] if field.values else {"string": "", "boolean": False}.get(field.type or "", 0)
    for length in reversed(field.shape or ()):
        value = [value] * abs(length)
    return value


def _value(field: Field) -> Json:
    described: Json = {} if field.type is None else {"type": field.type}
    if field.values:
        described["enum"] = list(field.values)
    for length in reversed(field.shape or ()):
        described = {"type": "array", "items": described}
        if length >= 0:
            described |= {"minItems": length, "maxItems": length}
    return described


def _add(contents: Json, number: int, body: bytes, content_type: str) -> None:
    """Add an example; what is long, or no text, is left out."""
    kind, _ = media_type(content_type)
    content = contents.setdefault(kind, {})
    if len(body) > SHORT:
        return
    try:
        value = orjson.loads(body) if kind == JSON else body.decode()
    except ValueError:
        return
    content.setdefault("examples", {})[f"golden-{number}"] = {"value": value}
