"""Which resource a path names."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from .replies import Reply
from .request import Request

Resource = Callable[[Request], Awaitable[Reply]]


class Route:
    """A path and what answers it; ``{name}`` in it stands for any text, slashes included."""

    def __init__(self, path: str, resource: Resource) -> None:
        self.path = path
        self.resource = resource
        parts = re.split(r"\{(\w+)\}", path)
        self.fixed = len(parts) == 1
        parts[::2] = map(re.escape, parts[::2])
        parts[1::2] = [f"(?P<{name}>.*)" for name in parts[1::2]]
        self.match = re.compile("".join(parts), re.DOTALL).fullmatch


class Router:
    """Finds the route of a path: a fixed one, or else the first that fits."""

    def __init__(self, routes: Sequence[Route], otherwise: Resource) -> None:
        self._fixed = {route.path: route.resource for route in routes if route.fixed}
        self._routes = [route for route in routes if not route.fixed]
        self._otherwise = otherwise

    def __call__(self, request: Request) -> Awaitable[Reply]:
        """Answer a request."""
        return (self._fixed.get(request.path) or self._find(request))(request)

    def _find(self, request: Request) -> Resource:
        for route in self._routes:
            if (match := route.match(request.path)) is not None:
                request.parameters = match.groupdict()
                return route.resource
        return self._otherwise
