"""Transformers side by side: ColumnTransformer and FeatureUnion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Source, Transform, Values, merged, transform_of, transformer
from .cells import Array
from .sparse import SparseRows, as_sparse
from .sparse import side_by_side as beside

#: Cells of the widest table that is made of blocks which the original joins as sparse ones.
_MOST_CELLS = 4_000_000


@transformer("ColumnTransformer")
def _column_transformer(estimator: Any, source: Source) -> Transform:
    weights = estimator.transformer_weights or {}
    parts: list[Part] = []
    for name, inner, columns in estimator.transformers_:
        positions = list(estimator._transformer_to_input_indices[name])
        if (isinstance(inner, str) and inner == "drop") or not positions:
            continue
        if np.isscalar(columns):  # which hands it on as one-dimensional data
            lean_inner = transform_of(inner, Source(1, form="texts"))
        else:
            lean_inner = transform_of(inner, Source(len(positions), source.frame))
        parts.append(Part(positions, lean_inner, weights.get(name)))
    return side_by_side(parts, source, bool(estimator.sparse_output_))


@transformer("FeatureUnion", forms=("table", "texts"))
def _union(union: Any, source: Source) -> Transform:
    weights = union.transformer_weights or {}
    everything = list(range(source.width))
    parts = [
        Part(everything, transform_of(inner, source), weights.get(name))
        for name, inner in union.transformer_list
        if not (isinstance(inner, str) and inner == "drop")
    ]
    return side_by_side(parts, source, sparse=True)


class Part:
    """A transformer and the columns it takes."""

    def __init__(self, positions: Sequence[int], transform: Transform, weight: float | None) -> None:
        self.positions = positions
        self.transform = transform
        self.weight = weight

    def compiled(self, source: Source) -> Callable[[Array], Any]:
        """Return what cuts the columns out of a table and transforms them."""
        positions = self.positions
        apply, weight = self.transform.apply, self.weight
        whole = list(positions) == list(range(source.width))
        straight = list(positions) == list(range(positions[0], positions[0] + len(positions)))
        where = slice(positions[0], positions[0] + len(positions)) if straight else np.array(positions)

        def block(table: Array) -> Any:
            cut = table if whole else table[:, where]
            made: Any = apply(cut)
            if weight is None:
                return made
            return made.having(made.values * weight) if isinstance(made, SparseRows) else made * weight

        return block


def side_by_side(parts: Sequence[Part], source: Source, sparse: bool) -> Transform:
    if not parts:
        raise NotLean("all columns are dropped")
    blocks = [part.compiled(source) for part in parts]
    widths = [part.transform.width for part in parts]
    width = sum(widths)
    dense = [0 if part.transform.sparse else part.transform.width for part in parts]

    def apply(table: Array) -> Array:
        if len(table) * width > _MOST_CELLS:
            raise LeftToOriginal("too many cells to be made dense")
        made = np.concatenate([block(table) for block in blocks], axis=1)
        if sparse and made.dtype == object:
            raise LeftToOriginal("text among numbers")
        return made

    def apply_sparse(table: Array) -> Any:
        return beside([as_sparse(block(table)) for block in blocks], widths)

    def values(wanted: Values) -> Values:
        columns: Values = [[] for _ in range(source.width)]
        start = 0
        for part, count in zip(parts, dense, strict=True):
            found = part.transform.values(wanted[start : start + count])
            start += count
            for position, more in zip(part.positions, found, strict=True):
                columns[position] = merged([columns[position], more])
        return columns

    if any(part.transform.sparse for part in parts):
        return Transform(apply_sparse, width, lambda _: values([[]] * sum(dense)), sparse=True)
    return Transform(apply, width, values)
