"""The plugin does what every plugin has to do."""

from __future__ import annotations

from manymodels.testing import Check, conformance


@conformance(
    "onnx",
    known_failures={"uses-one-thread": "importing ONNX Runtime starts one of its own; its sessions start none"},
)
def test_conformance(check: Check) -> None:
    check()
