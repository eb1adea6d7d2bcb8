"""Which columns of an estimator hold text, as its encoders and vectorizers were fitted to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Attributes of estimators that hand on what they are given to others, fitted.
_INNER = ("best_estimator_", "estimator_", "regressor_", "_preprocessor", "estimators_", "calibrated_classifiers_")
#: Parts of an ensemble above which they are trees, and take no text.
_MOST = 100


@dataclass
class TextColumns:
    """Places of the columns that hold text, whatever it looks like."""

    #: Whose encoder knows categories of text alone.
    categories: set[int] = field(default_factory=set)
    #: That vectorizers tell the words of.
    documents: set[int] = field(default_factory=set)


def text_columns(estimator: Any, width: int | None) -> TextColumns:
    """Return the columns of text; what a function of the user's makes of its columns says nothing of these."""
    found = TextColumns()
    _look(estimator, range(width or 0), found)
    return found


def _look(estimator: Any, places: Sequence[int], found: TextColumns) -> None:
    """Look into an estimator that is given the columns at these places."""
    if hasattr(estimator, "steps"):
        steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
        for step in steps:
            if type(step).__name__ != "SimpleImputer":  # which changes no column
                _look(step, places, found)
                break
    elif hasattr(estimator, "_transformer_to_input_indices"):
        for name, inner, columns in estimator.transformers_:
            own = [places[place] for place in estimator._transformer_to_input_indices[name] if place < len(places)]  # noqa: SLF001
            if not np.isscalar(columns):
                _look(inner, own, found)
            elif _tells_words(inner):  # one-dimensional data
                found.documents.update(own)
    elif hasattr(estimator, "categories_"):
        if len(estimator.categories_) == len(places):
            pairs = zip(places, estimator.categories_, strict=True)
            found.categories.update(place for place, known in pairs if _are_texts(known))
    elif not hasattr(estimator, "estimators_features_"):  # of which each part has columns of its own
        for inner in _inside(estimator):
            _look(inner, places, found)


def _inside(estimator: Any) -> Iterator[Any]:
    yield from (inner for _, inner in getattr(estimator, "transformer_list", ()))
    for name in _INNER:
        inner = getattr(estimator, name, None)
        parts = inner if isinstance(inner, list) else [inner] if inner is not None else []
        if len(parts) <= _MOST:
            # A calibrated one is no estimator of scikit-learn's own kind.
            yield from (getattr(part, "estimator", part) if name.startswith("calib") else part for part in parts)


def _tells_words(transformer: Any) -> bool:
    """Say whether a transformer takes texts alone, by no function of the user's."""
    first = transformer.steps[0][1] if hasattr(transformer, "steps") else transformer
    own = (getattr(first, name, None) for name in ("analyzer", "preprocessor", "tokenizer"))
    return hasattr(first, "build_analyzer") and not any(map(callable, own))


def _are_texts(categories: Any) -> bool:
    known = [value for value in np.asarray(categories).tolist() if value is not None and value == value]
    return bool(known) and all(isinstance(value, str) for value in known)
