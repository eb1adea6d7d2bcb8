"""Lists that are answered a page at a time."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

from ..errors import RequestError

#: Items in one page of a list, as in multi-model-server.
PAGE = 100


def paged(names: Callable[[str], Iterator[str]], query: bytes) -> tuple[list[str], str | None]:
    """Return one page of names and the token of the next.

    A token is the last name before its page, so that models which come and go meanwhile shift nothing.

    :param names: yields those after a name, or all after ``""``.
    :raises RequestError: as `asked`.
    """
    limit, last = asked(query)
    page = list(itertools.islice(names(last), limit + 1))
    if len(page) <= limit:
        return page, None
    page.pop()
    return page, token_of(page[-1])


def asked(query: bytes) -> tuple[int, str]:
    """Return how long a page is to be, and the last item of the page before, from its token.

    :raises RequestError: if either is none.
    """
    values = parse_qs(query.decode("latin-1"))
    limit = values.get("limit", [str(PAGE)])[-1]
    if not limit.isdecimal() or len(limit) > len(str(PAGE)) or not 1 <= int(limit) <= PAGE:
        raise RequestError(f"limit is a number from 1 to {PAGE}, not {limit!r}")
    token = values.get("next_page_token", [""])[-1]
    try:
        return int(limit), base64.b64decode(token, altchars="-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"next_page_token {token!r} is none that this server gave out") from error


def token_of(last: str) -> str:
    """Return the token of the page behind an item."""
    return base64.urlsafe_b64encode(last.encode()).decode()
