"""Scalers and other maps of each number by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from manymodels import LeftToOriginal

from .base import NotLean, Source, Transform, Values, transformer
from .cells import Array, finite, floats, numbers

#: In units of what a scaler makes of its columns: where a value is probed.
_UNITS = (0.0, 1.0, -1.0, 0.5, -2.5)

_INVERSES: dict[np.ufunc, np.ufunc] = {
    np.add: np.subtract,
    np.subtract: np.add,
    np.multiply: np.divide,
    np.divide: np.multiply,
}


def _steps(steps: Sequence[tuple[np.ufunc, Any]], source: Source, clip: tuple[float, float] | None = None) -> Transform:
    """Do arithmetic steps one after the other, each with an operand for each column, as the original does."""
    operands = [(step, np.asarray(operand, np.float64)) for step, operand in steps if operand is not None]

    def apply(table: Array) -> Array:
        table = numbers(table)
        for step, operand in operands:
            table = step(table, operand)
        return table if clip is None else np.clip(table, *clip)

    def values(wanted: Values) -> Values:
        return [_back(operands, column, [*_UNITS, *wanted[column]]) for column in range(source.width)]

    return Transform(apply, source.width, values)


def _back(operands: Sequence[tuple[np.ufunc, Array]], column: int, wanted: Sequence[float]) -> list[float]:
    values = np.array(wanted, np.float64)
    for step, operand in reversed(operands):
        values = _INVERSES[step](values, operand if operand.ndim == 0 else operand[column])
    return [value for value in values.tolist() if np.isfinite(value)]


@transformer("StandardScaler")
def _standard(scaler: Any, source: Source) -> Transform:
    mean = scaler.mean_ if scaler.with_mean else None
    return _steps([(np.subtract, mean), (np.divide, scaler.scale_ if scaler.with_std else None)], source)


@transformer("MinMaxScaler")
def _min_max(scaler: Any, source: Source) -> Transform:
    clip = (float(scaler.feature_range[0]), float(scaler.feature_range[1])) if scaler.clip else None
    return _steps([(np.multiply, scaler.scale_), (np.add, scaler.min_)], source, clip)


@transformer("MaxAbsScaler")
def _max_abs(scaler: Any, source: Source) -> Transform:
    return _steps([(np.divide, scaler.scale_)], source, (-1.0, 1.0) if getattr(scaler, "clip", False) else None)


@transformer("RobustScaler")
def _robust(scaler: Any, source: Source) -> Transform:
    center = scaler.center_ if scaler.with_centering else None
    return _steps([(np.subtract, center), (np.divide, scaler.scale_ if scaler.with_scaling else None)], source)


@transformer("Normalizer")
def _normalizer(normalizer: Any, source: Source) -> Transform:
    norm: Callable[[Array], Array] = {
        "l1": lambda table: np.sum(np.abs(table), axis=1),
        "l2": lambda table: np.sqrt(np.einsum("ij,ij->i", table, table)),
        "max": lambda table: np.max(np.abs(table), axis=1),
    }[normalizer.norm]
    tiny = 10 * np.finfo(np.float64).eps

    def apply(table: Array) -> Array:
        table = finite(table)
        norms = norm(table)
        norms[norms < tiny] = 1.0  # rows of zeros stay as they are
        return table / norms[:, None]

    return Transform(apply, source.width, lambda wanted: [[*_UNITS, *column] for column in wanted])


@transformer("Binarizer")
def _binarizer(binarizer: Any, source: Source) -> Transform:
    threshold = float(binarizer.threshold)

    def apply(table: Array) -> Array:
        return (finite(table) > threshold).astype(np.float64)

    near = [threshold, float(np.nextafter(threshold, np.inf)), threshold - 1.0]
    return Transform(apply, source.width, lambda _: [near] * source.width)


@transformer("PowerTransformer")
def _power(transformer: Any, source: Source) -> Transform:
    lambdas = np.asarray(transformer.lambdas_, np.float64)
    power = {"yeo-johnson": _yeo_johnson, "box-cox": _box_cox}[transformer.method](lambdas)
    scaler = _standard(transformer._scaler, source).apply if transformer.standardize else None
    own = _UNITS if transformer.method == "yeo-johnson" else (1.0, 0.5, 2.0, 1e-3, 40.0)

    def apply(table: Array) -> Array:
        table = power(numbers(table))
        return table if scaler is None else scaler(table)

    return Transform(apply, source.width, lambda _: [list(own)] * source.width)


def _yeo_johnson(lambdas: Array) -> Callable[[Array], Array]:
    # Each column's own expression, as scipy.stats.yeojohnson has it, for all columns at once.
    eps = np.finfo(np.float64).eps
    if (np.abs(lambdas) < eps).any() or (np.abs(lambdas - 2) <= eps).any():
        raise NotLean("PowerTransformer has a logarithmic column")

    def apply(table: Array) -> Array:
        positive = table >= 0
        exponents = np.where(positive, lambdas, 2 - lambdas)
        result = np.expm1(exponents * np.log1p(np.abs(table))) / exponents
        signed: Array = np.where(positive, result, -result)
        return signed

    return apply


def _box_cox(lambdas: Array) -> Callable[[Array], Array]:
    from scipy.special import boxcox

    def apply(table: Array) -> Array:
        if not (table > 0).all():
            raise LeftToOriginal("Box-Cox takes positive numbers only")
        transformed: Array = boxcox(table, lambdas)
        return transformed

    return apply


@transformer("FunctionTransformer")
def _function(transformer: Any, source: Source) -> Transform:
    function = transformer.func
    if transformer.kw_args:
        raise NotLean("FunctionTransformer with arguments has no lean form")
    if function is None and not transformer.validate:
        return Transform(lambda table: table, source.width, lambda wanted: wanted)
    if function is not None and not (isinstance(function, np.ufunc) and (function.nin, function.nout) == (1, 1)):
        raise NotLean("FunctionTransformer of a function has no lean form, unless it is one of numpy's")

    def apply(table: Array) -> Array:
        table = floats(table)
        if transformer.validate:
            table = finite(table)
        if function is None:
            return table
        result: Array = function(table)
        if result.dtype != np.float64:
            raise LeftToOriginal("the result is not of float64")
        return result

    own = [1.0, 0.5, 2.0, 10.0]
    return Transform(apply, source.width, lambda _: [own] * source.width)


@transformer("QuantileTransformer")
def _quantiles(quantiles: Any, source: Source) -> Transform:
    from scipy.special import ndtri

    normal = quantiles.output_distribution == "normal"
    references = np.asarray(quantiles.references_, np.float64)
    columns = [np.ascontiguousarray(column, np.float64) for column in np.asarray(quantiles.quantiles_).T]
    # From both ends, and the mean of both: where quantiles repeat, each end sees another one of them.
    mirrored = [(-column[::-1], -references[::-1]) for column in columns]
    tiny = 1e-7  # scikit-learn's BOUNDS_THRESHOLD
    low, high = ndtri(tiny - np.spacing(1)), ndtri(1 - (tiny - np.spacing(1)))

    def apply(table: Array) -> Array:
        table = numbers(table)
        made = np.empty(table.shape)
        for index, (column, mirror) in enumerate(zip(columns, mirrored, strict=True)):
            cells = table[:, index]
            mapped = 0.5 * (np.interp(cells, column, references) - np.interp(-cells, *mirror))
            mapped[cells + tiny > column[-1] if normal else cells == column[-1]] = 1.0
            mapped[cells - tiny < column[0] if normal else cells == column[0]] = 0.0
            made[:, index] = mapped
        return np.clip(ndtri(made), low, high) if normal else made

    def values(_: Values) -> Values:
        chosen = [column[:: max(1, len(column) // 20)].tolist() for column in columns]
        return [[*some, float(column[-1]), some[0] - 1.0] for some, column in zip(chosen, columns, strict=True)]

    return Transform(apply, source.width, values)
