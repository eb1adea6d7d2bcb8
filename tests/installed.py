"""Which plugins are installed, and which of them tests leave out."""

from __future__ import annotations

from importlib.metadata import entry_points


def besides(*names: str) -> str:
    """Return the installed plugins without those named, as the setting `block_plugins` takes them."""
    return ",".join(sorted({entry.name for entry in entry_points(group="manymodels")} - {*names}))


#: Plugins that `make install` does not bring. A server whose models may need any framework imports all that there
#: are, which takes four times as long with these.
MORE = besides("sklearn", "xgboost", "custom")
