"""A model as every model server keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..environments import Interpreter
from ..golden import GoldenResult
from ..plugins import Binding
from ..schema import SchemaJson
from ..trial import Predictor

if TYPE_CHECKING:
    from .awaited import Asked


@dataclass(eq=False, slots=True)
class Held:
    """A model that is loaded, or being loaded for the first time."""

    name: str
    path: str
    binding: Binding
    #: Differs for another content under the same name.
    version: str
    #: Memory it takes, in bytes, as last measured.
    bytes: int = 0
    #: Whether that was measured, and not taken from the size of its files.
    measured: bool = False
    load_seconds: float = 0.0
    notes: Sequence[str] = ()
    #: How it did on its golden requests.
    golden: GoldenResult | None = None
    #: What is to be said of it beside that, whichever process holds it.
    remarks: Sequence[str] = ()
    #: What it takes and gives.
    schema: SchemaJson = b""
    #: Which predictor serves it, where that was found out.
    predictor: Predictor | None = None
    #: Whether it is to have a process for itself, as its artifact asks; multi-model-server gives that to any.
    isolated: bool = False
    #: What runs it, where its artifact needs another environment than the server's.
    interpreter: Interpreter | None = None
    #: Invocations that wait for it to be loaded.
    asked: Sequence[Asked] = ()
    #: Invocations that wait or run.
    waiting: int = 0
    loaded: bool = False
    #: When another version took its place, by the monotonic clock; it leaves once it has answered what it was asked.
    replaced: float | None = None
    removed: bool = False
