"""What an operator allows to be loaded; never read from an artifact."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from .errors import NotTrusted, SettingsError

_GLOBAL = re.compile(r"[^\W\d]\w*(\.\w+)*\.(\w+|\*)")


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a policy file; what is left out is not restricted."""

    #: The plugins that may serve models.
    plugins: tuple[str, ...] | None = None
    #: What pickles may import: ``module.name``, or ``module.*`` for the classes of a module and of those below it.
    globals: tuple[str, ...] | None = None
    #: Patterns of TargetModels, or of whole addresses such as ``s3://bucket/team/*``.
    sources: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()

    def check_plugins(self, artifact: str, plugins: Iterable[str]) -> None:
        """Check who is to serve an artifact.

        :param artifact: its name, for messages.
        :raises NotTrusted: if one of the plugins may not.
        """
        for name in plugins:
            if self.plugins is not None and name not in self.plugins:
                raise NotTrusted(
                    f"{artifact!r} would be served by the plugin {name!r}, which the operator's policy does not allow "
                    f"(it allows {', '.join(self.plugins) or 'none'}); add it to 'plugins' there"
                )

    def check_source(self, target_model: str, address: str) -> None:
        """Check where an artifact comes from.

        :param address: of the artifact, or the path of its folder.
        :raises NotTrusted: if no pattern matches.
        """
        if not self.allows_source(target_model, address):
            raise NotTrusted(
                f"{target_model!r} is in no source that the operator's policy allows; put it into one, "
                "or add a pattern to 'sources' there"
            )

    def allows_source(self, target_model: str, address: str) -> bool:
        """Say whether a pattern matches."""
        return self.sources is None or any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.sources for name in (target_model, address)
        )

    def names(self, path: str) -> bool:
        """Say whether a global stands in the list as it is, without a pattern."""
        return self.globals is None or path in self.globals

    def covers(self, path: str) -> bool:
        """Say whether a global falls under a pattern, which allows it if it is a class."""
        return self.globals is None or any(
            path.startswith(pattern[:-1]) for pattern in self.globals if pattern.endswith(".*")
        )

    def allows(self, path: str, value: Any) -> bool:
        """Say whether a pickle may have what it imports by that path.

        Below a pattern that is only a class which was made there: modules import functions of others, such as
        ``os.system``, and have functions that run what they are given.
        """
        if self.names(path):
            return True
        if not (self.covers(path) and isinstance(value, type)):
            return False
        home = f"{value.__module__}.{value.__qualname__}"
        return self.names(home) or self.covers(home)


def read(path: Path) -> Policy:
    """Return the policy in a JSON file.

    :raises SettingsError: if it cannot be read, or is not valid.
    """
    what = f"the policy {str(path)!r}"
    try:
        policy = msgspec.json.decode(path.read_bytes(), type=Policy)
    except OSError as error:
        raise SettingsError(f"{what} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{what} is not valid: {error}") from error
    for name in policy.globals or ():
        if not _GLOBAL.fullmatch(name):
            raise SettingsError(f"{what} has {name!r} in 'globals'; write module.name, or module.*")
    if policy.globals is not None and policy.plugins is None:
        raise SettingsError(
            f"{what} has 'globals' and no 'plugins'; list the plugins that may serve, too: "
            "those that run the code of artifacts, as custom and mlflow do, import what they like"
        )
    return policy
