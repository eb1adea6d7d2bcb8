"""What a lean form is, and the registries of those there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from .cells import Array, as_in_frame, finite

#: For each column, values worth trying: thresholds and their neighbours, range ends, categories.
Values = list[list[Any]]

#: What an estimator is given: a table of numbers or objects; a column of texts, which it takes as one-dimensional
#: data; or `SparseRows`.
Form = Literal["table", "texts", "sparse"]
ANY: tuple[Form, ...] = ("table", "texts", "sparse")

Lean = TypeVar("Lean")
Part = TypeVar("Part")

#: Parts of an ensemble whose values are probed.
_PROBED = 16


class NotLean(Exception):
    """An estimator has no lean form; the text says why."""


@dataclass(frozen=True)
class Source:
    """What an estimator is given."""

    #: Number of columns.
    width: int
    #: Whether they are columns of a request's DataFrame.
    frame: bool = False
    form: Form = "table"


@dataclass(frozen=True)
class Predictor:
    """The lean form of a fitted predictor; all its functions take 2-D tables, and none changes what it takes."""

    #: What computes, for the model's description.
    name: str
    #: Takes a request's table, float64 or object, and returns what the other functions take; raises
    #: ``LeftToOriginal`` for what the estimator refuses, or treats in a way of its own.
    prepare: Callable[[Array], Array]
    #: Takes a prepared table, returns what the estimator's `predict` does.
    predict: Callable[[Array], Array]
    #: The same for its `predict_proba`; None if the estimator has none.
    predict_proba: Callable[[Array], Any] | None
    #: Returns values worth trying; of the many parts of an ensemble most are not asked.
    values: Callable[[], Values]
    #: The same for its `decision_function`; None if the estimator has none, or the form leaves it out.
    decision: Callable[[Array], Array] | None = None


@dataclass(frozen=True)
class Transform:
    """The lean form of a fitted transformer."""

    #: Takes a 2-D table, float64 or object, never changes it, and returns another; raises ``LeftToOriginal``
    #: as `Predictor.prepare` does.
    apply: Callable[[Array], Array]
    #: Number of columns that it returns.
    width: int
    #: From values worth trying in its outputs to those worth trying in its inputs; of sparse ones, whose columns are
    #: far too many, none are.
    values: Callable[[Values], Values]
    #: Whether it returns `SparseRows`.
    sparse: bool = False

    @property
    def made(self) -> Source:
        """What the estimator behind it is given."""
        return Source(self.width, form="sparse" if self.sparse else "table")


Compile = Callable[[Any, Source], Lean]

#: Transformers that hand a DataFrame on, so that it is what each of their own transformers sees.
_COMPOSITIONS = frozenset({"ColumnTransformer", "FeatureUnion", "Pipeline"})

_PREDICTORS: dict[tuple[str, Form], Compile[Predictor]] = {}
_TRANSFORMERS: dict[tuple[str, Form], Compile[Transform]] = {}


def predictor(*names: str, forms: Sequence[Form] = ("table",)) -> Callable[[Compile[Predictor]], Compile[Predictor]]:
    """Register the lean form of scikit-learn's predictors of these class names, given data of these forms."""
    return lambda compile_: _registered(_PREDICTORS, names, forms, compile_)


def transformer(*names: str, forms: Sequence[Form] = ("table",)) -> Callable[[Compile[Transform]], Compile[Transform]]:
    """Register the lean form of scikit-learn's transformers of these class names, given data of these forms."""
    return lambda compile_: _registered(_TRANSFORMERS, names, forms, compile_)


def predictor_of(estimator: Any, source: Source) -> Predictor:
    """Return the lean form of a fitted predictor.

    :raises NotLean: if it has none.
    """
    return _compiled(_PREDICTORS, estimator, source)


def transform_of(estimator: Any, source: Source) -> Transform:
    """Return the lean form of a fitted transformer, or of ``"passthrough"``.

    :raises NotLean: if it has none.
    """
    if estimator is None or isinstance(estimator, str):
        if source.form == "texts":
            raise NotLean("texts are handed on as they are")
        through = Transform(lambda table: table, source.width, lambda wanted: wanted, source.form == "sparse")
        return _in_frame(through, source)
    if getattr(estimator, "_sklearn_output_config", {}).get("transform", "default") not in (None, "default"):
        raise NotLean(f"{type(estimator).__name__} is set to return DataFrames")
    transform = _compiled(_TRANSFORMERS, estimator, source)
    return transform if type(estimator).__name__ in _COMPOSITIONS else _in_frame(transform, source)


def _in_frame(transform: Transform, source: Source) -> Transform:
    if not source.frame:
        return transform
    return replace(transform, apply=lambda table: transform.apply(as_in_frame(table)))


def checked(source: Source) -> Callable[[Array], Array]:
    """Return the `Predictor.prepare` of arithmetic that takes numbers; sparse ones are of our own making."""
    return (lambda table: table) if source.form == "sparse" else finite


def some(parts: Sequence[Part]) -> Sequence[Part]:
    """Return those of an ensemble's parts of which the values are probed, here and there in it."""
    return parts[:: len(parts) // _PROBED + 1]


def merged(columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the values of several lists, each once."""
    return list(dict.fromkeys(value for values in columns for value in values))


def _registered(
    registry: dict[tuple[str, Form], Compile[Lean]],
    names: Sequence[str],
    forms: Sequence[Form],
    compile_: Compile[Lean],
) -> Compile[Lean]:
    registry.update(((name, form), compile_) for name in names for form in forms)
    return compile_


def _compiled(registry: dict[tuple[str, Form], Compile[Lean]], estimator: Any, source: Source) -> Lean:
    kind = type(estimator)
    # A subclass may override anything, so it is not what its base is.
    compile_ = registry.get((kind.__name__, source.form)) if kind.__module__.startswith("sklearn.") else None
    if compile_ is None:
        raise NotLean(f"{kind.__name__} has no lean form for a {source.form}")
    try:
        return compile_(estimator, source)
    except AttributeError as error:  # fitted by another version of scikit-learn, or not at all
        raise NotLean(f"{kind.__name__} is not as this version fits it: {error}") from error
