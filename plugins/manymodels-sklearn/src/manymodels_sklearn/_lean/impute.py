"""What stands in for missing values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Source, Transform, Values, transformer
from .cells import Array, finite, floats, numbers


@transformer("SimpleImputer")
def _simple(imputer: Any, source: Source) -> Transform:
    missing = imputer.missing_values
    if not isinstance(missing, (int, float)):
        raise NotLean("SimpleImputer has no lean form unless it replaces NaN or a number")
    objects = imputer._fit_dtype.kind == "O"
    statistics = np.asarray(imputer.statistics_)
    kept = np.arange(source.width)
    if not imputer.keep_empty_features:
        kept = kept[[value == value for value in statistics.tolist()]]
    fill = _fill(statistics[kept], objects)
    everything = len(kept) == source.width
    nan = math.isnan(missing)
    as_they_are = imputer.strategy in ("most_frequent", "constant")
    if objects and not (nan and everything):
        raise NotLean("SimpleImputer of text has no lean form unless it replaces NaN in every column")
    flagged = np.asarray(imputer.indicator_.features_) if imputer.add_indicator else None
    if objects and flagged is not None:
        raise NotLean("SimpleImputer of text has no lean form with an indicator")

    def apply(table: Array) -> Array:
        if not objects:
            # What it counts among floats anyway is made float64; else objects stay objects.
            table = floats(table) if as_they_are else numbers(table)
            if not nan:
                table = finite(table)
        gaps = table != table if nan else table == missing
        flags = None if flagged is None else gaps[:, flagged].astype(np.float64)
        if not everything:
            table, gaps = table[:, kept], gaps[:, kept]
        if gaps.any():
            table = np.where(gaps, fill, table)
        return table if flags is None else np.concatenate([table, flags], axis=1)

    def texts(table: Array) -> Array:
        return apply(table.astype(object, copy=False))

    def values(wanted: Values) -> Values:
        columns: Values = [[] for _ in range(source.width)]
        for column, found in zip(kept, wanted, strict=False):  # the indicator's columns come last
            columns[column].extend(found)
        for column, value in zip(kept, fill.tolist(), strict=True):
            columns[column].append(value)
        return [[*column, float(missing)] for column in columns]

    width = len(kept) + (0 if flagged is None else len(flagged))
    return Transform(texts if objects else apply, width, values)


def _fill(statistics: Array, objects: bool) -> Array:
    if objects:
        return statistics.astype(object)
    if any(isinstance(value, str) for value in statistics.tolist()):
        raise NotLean("SimpleImputer fills numbers with text")
    return statistics.astype(np.float64)


@transformer("MissingIndicator")
def _indicator(indicator: Any, source: Source) -> Transform:
    flagged = np.asarray(indicator.features_)
    if not (isinstance(indicator.missing_values, float) and math.isnan(indicator.missing_values)):
        raise NotLean("MissingIndicator has no lean form unless it looks for NaN")
    others = np.setdiff1d(np.arange(source.width), flagged) if indicator.error_on_new else None

    def apply(table: Array) -> Array:
        gaps = np.isnan(numbers(table))
        if others is not None and gaps[:, others].any():
            raise LeftToOriginal("a value is missing where none was before")
        flags: Array = gaps[:, flagged]
        return flags

    return Transform(apply, len(flagged), lambda _: [[0.0, math.nan] for _ in range(source.width)])
