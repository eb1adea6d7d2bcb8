"""The plugin does what every plugin has to do, as far as MLflow lets it."""

from __future__ import annotations

from manymodels.testing import Check, conformance

_KEEPS = "MLflow keeps the class that a model's code defines, 5 KiB a load"


@conformance(
    "mlflow",
    known_failures={
        "refuses-other-widths": "MLflow drops columns that the signature does not name, and warns",
        "leaks-nothing": _KEEPS,
        "unload-frees-memory": _KEEPS,
    },
)
def test_conformance(check: Check) -> None:
    check()
