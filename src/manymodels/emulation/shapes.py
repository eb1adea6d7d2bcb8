"""Requests are held to the rules of boto3's own model of the service: what is required, and how long it may be."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import SettingsError
from .failure import BadJson, Failure

#: Violations that one answer lists.
MOST = 10
#: What a pattern of the service model means in Python's regular expressions, as near as they come.
_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{Print}": r"\S ", r"\p{ASCII}": r"\x00-\x7f"}


class Shapes:
    """The service model of ``sagemaker``, as botocore ships it."""

    def __init__(self) -> None:
        """Read it.

        :raises SettingsError: if botocore is not installed.
        """
        try:
            from botocore.session import Session
        except ImportError as error:
            raise SettingsError(
                f"--emulate-sagemaker needs the package botocore ({error}); pip install 'manymodels[s3]'"
            ) from error
        self._service = Session().get_service_model("sagemaker")

    def checked(self, operation: str, content: Any) -> Any:
        """Return a request without members that are null, or refuse it as the service would.

        :param operation: one that the service has.
        :raises BadJson: if a value is of another type than its member, or out of its range.
        :raises Failure: that lists what is missing, too long or not in the pattern.
        """
        shape = self._service.operation_model(operation).input_shape
        try:
            content = _without_nulls(content)
            found = list(_violations(shape, content, ""))
        except RecursionError as error:
            raise BadJson("the body is nested too deep") from error
        if found:
            plural = "" if len(found) == 1 else "s"
            raise Failure(f"{len(found)} validation error{plural} detected: {'; '.join(found[:MOST])}")
        return content


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _violations(shape: Any, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    accepted, name = _TYPES.get(kind, ((str,), "a string"))
    if type(value) not in accepted:
        raise BadJson(f"{path or 'the body'} is {type(value).__name__}, and has to be {name}")
    if kind == "structure":
        yield from _of_structure(shape, value, path)
    elif kind == "list":
        yield from _out_of_range(shape, len(value), value, path, "length")
        for number, item in enumerate(value, start=1):
            yield from _violations(shape.member, item, f"{path}.{number}.member")
    elif kind == "map":
        yield from _out_of_range(shape, len(value), value, path, "length")
        for key, item in value.items():
            yield from _violations(shape.key, key, f"{path}.key")
            yield from _violations(shape.value, item, f"{path}.{key[:100]}.member")
    elif kind == "string":
        yield from _of_string(shape, value, path)
    elif kind in _LARGEST:
        if abs(value) > _LARGEST[kind]:
            raise BadJson(f"{path} is out of the range of {name}")
        yield from _out_of_range(shape, value, value, path, "value")


def _of_structure(shape: Any, value: dict[str, Any], path: str) -> Iterator[str]:
    for name, member in shape.members.items():
        inner = f"{path}.{_lower(name)}" if path else _lower(name)
        if name in value:
            yield from _violations(member, value[name], inner)
        elif name in shape.required_members:
            yield f"Value null at '{inner}' failed to satisfy constraint: Member must not be null"


def _of_string(shape: Any, value: str, path: str) -> Iterator[str]:
    wrong = False
    for text in _out_of_range(shape, len(value), value, path, "length"):
        wrong = True
        yield text
    if shape.enum:
        if value not in shape.enum:
            yield _violated(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    elif not wrong and (pattern := shape.metadata.get("pattern")) and not _matcher(pattern)(value):
        yield _violated(value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _out_of_range(shape: Any, number: float, value: Any, path: str, what: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and number < least:
        yield _violated(value, path, f"Member must have {what} greater than or equal to {least}")
    if most is not None and number > most:
        yield _violated(value, path, f"Member must have {what} less than or equal to {most}")


def _violated(value: Any, path: str, rule: str) -> str:
    return f"Value '{str(value)[:100]}' at '{path}' failed to satisfy constraint: {rule}"


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


@functools.cache
def _matcher(pattern: str) -> Callable[[str], Any]:
    for theirs, ours in _CLASSES.items():
        pattern = pattern.replace(theirs, ours)
    return re.compile(pattern).fullmatch


#: A float has 32 bits in the services that this is the model of, as in Java.
_LARGEST = {"integer": 2**31 - 1, "long": 2**63 - 1, "float": 3.4028234663852886e38, "double": sys.float_info.max}
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "structure": ((dict,), "an object"),
    "map": ((dict,), "an object"),
    "list": ((list,), "a list"),
    "boolean": ((bool,), "true or false"),
    "integer": ((int,), "a whole number"),
    "long": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "double": ((int, float), "a number"),
    "timestamp": ((int, float), "a number of seconds"),
}
