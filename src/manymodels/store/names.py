"""Which names are allowed: TargetModels, and the members of archives."""

from __future__ import annotations

import re

from ..errors import BadTargetModel
from ..sagemaker import TARGET_MODEL_LENGTH


def check_target_model(name: str) -> str:
    """Return the TargetModel unchanged; it is not percent-decoded, so ``%2e`` is three characters.

    :raises BadTargetModel: if it is empty, too long, not printable, or a path that could leave the store.
    """
    fault = _fault(name)
    if fault is not None:
        shown = name if len(name) <= 80 else name[:80] + "..."
        raise BadTargetModel(
            f"TargetModel {shown!r} {fault}; send the artifact's path in the model store, such as 'team/model.tar.gz'"
        )
    return name


def path_fault(name: str) -> str | None:
    """Say why a name is not a plain relative path with ``/`` between its segments; None if it is one."""
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "is not valid UTF-8"
    if "\0" in name:
        return "holds a NUL character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    segments = name.split("/")
    if ".." in segments or "." in segments:
        return "has a '.' or '..' segment"
    if "" in segments:
        return "has an empty segment"
    return None


def _fault(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name) > TARGET_MODEL_LENGTH:
        return f"is {len(name)} characters long, more than {TARGET_MODEL_LENGTH}"
    fault = path_fault(name)
    if fault is not None:
        return fault
    # The pattern of the API: a first character that is no space, then printable ones.
    if name[0].isspace():
        return "starts with a space"
    return None if name.isprintable() else "holds a character that cannot be printed"
