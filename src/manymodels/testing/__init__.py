"""The conformance kit: what every plugin has to do, as tests that any distribution can run of its own.

::

    from manymodels.testing import Check, conformance

    @conformance("lookup", known_failures={"unload-frees-memory": "the native library keeps its arenas"})
    def test_conformance(check: Check) -> None:
        check()

The plugin has to be installed, and to have the hook ``sample_artifact``.
"""

from .marks import Check, conformance

__all__ = ["Check", "conformance"]
