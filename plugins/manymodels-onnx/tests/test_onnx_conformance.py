"""The plugin does what every plugin has to do."""

from __future__ import annotations

from manymodels.testing import Check, conformance


@conformance("onnx")
def test_conformance(check: Check) -> None:
    check()
