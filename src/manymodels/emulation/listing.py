"""Lists of models, configurations and endpoints: what is asked for, in order, a page at a time."""

from __future__ import annotations

from typing import Any

from .failure import Failure

#: Items of a page where the request does not say.
PAGE = 10
_SORT_KEYS = {"CreationTime": "CreationTime", "Status": "EndpointStatus"}


def listed(member: str, name: str, found: list[dict[str, Any]], content: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a List operation.

    :param member: of the answer, which has the items.
    :param name: the member of an item that has its name.
    :param content: the request.
    :raises Failure: if its NextToken is none of this list.
    """
    wanted = content.get("NameContains", "").lower()
    items = [item for item in found if wanted in item[name].lower() and _in_time(item, content)]
    key = _SORT_KEYS.get(content.get("SortBy", "CreationTime"), name)
    # Names break ties, so that pages fit together.
    items.sort(key=lambda item: (item[key], item[name]), reverse=content.get("SortOrder", "Descending") == "Descending")
    token = content.get("NextToken", "0")
    if not (token.isdecimal() and len(token) < 10):
        raise Failure("Invalid NextToken.")
    start = int(token)
    end = start + content.get("MaxResults", PAGE)
    page: dict[str, Any] = {member: items[start:end]}
    if end < len(items):
        page["NextToken"] = str(end)
    return page


def _in_time(item: dict[str, Any], content: dict[str, Any]) -> bool:
    for member in ("CreationTime", "LastModifiedTime"):
        if member in item:
            after, before = content.get(f"{member}After"), content.get(f"{member}Before")
            # As AWS documents it, what was created just then is among what was created after it.
            if after is not None and not (item[member] > after or (item[member] == after and member == "CreationTime")):
                return False
            if before is not None and item[member] >= before:
                return False
    return True
