"""The suite as tests of pytest, which is imported only here and only when it is used."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .lab import Lab
from .suite import CHECKS

if TYPE_CHECKING:
    import pytest


class Check:
    """One check of one plugin, to be called."""

    def __init__(self, plugin: str, name: str) -> None:
        self.plugin = plugin
        self.name = name

    def __repr__(self) -> str:
        return f"Check({self.plugin!r}, {self.name!r})"

    def __call__(self) -> None:
        """Run the check in a process of its own; end the test as failed or skipped if it is."""
        import pytest

        __tracebackhide__ = True
        outcome = _lab(self.plugin).run(self.name)
        if outcome.status == "skipped":
            pytest.skip(outcome.why)
        if outcome.status == "failed":
            pytest.fail(f"{self.name}: {outcome.why}\n\n{outcome.output}".strip(), pytrace=False)


def conformance(plugin: str, known_failures: Mapping[str, str] = {}) -> pytest.MarkDecorator:
    """Return a decorator that runs a test once for each check, given to it as ``check``.

    :param plugin: name of the installed plugin.
    :param known_failures: reasons by the names of checks that are expected to fail. One that does not fail, or that
        is not known, is an error.
    :raises ValueError: for a name that is no check's.
    :raises ModuleNotFoundError: if pytest is not installed.
    """
    try:
        import pytest
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise ModuleNotFoundError(
            "manymodels.testing.conformance needs pytest: pip install 'manymodels[testing]'", name="pytest"
        ) from error
    unknown = sorted(set(known_failures) - set(CHECKS))
    if unknown:
        raise ValueError(f"known_failures names {', '.join(unknown)}; the checks are {', '.join(CHECKS)}")
    parameters = []
    for name in CHECKS:
        reason = known_failures.get(name)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason is not None else []
        parameters.append(pytest.param(Check(plugin, name), id=name, marks=marks))
    return pytest.mark.parametrize("check", parameters)


@functools.cache
def _lab(plugin: str) -> Lab:
    return Lab(plugin)
