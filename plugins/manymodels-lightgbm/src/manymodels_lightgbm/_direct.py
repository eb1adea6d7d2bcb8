"""LightGBM's own prediction without the Python around it."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from lightgbm import basic

from manymodels import Accelerated, LeftToOriginal

from ._model import LightGBMModel

# LightGBM's C API: predictions as they are, of float64, by rows.
_NORMAL, _FLOAT64, _BY_ROWS, _FROM_START = 0, 1, 1, 0

#: Rows of the probe that stands for joined requests.
_JOINED = 8
_VALUES = (0.0, -0.0, 1.0, 2.0, -1.0, 0.5, 1e-40, 1e300, -1e300, np.inf, -np.inf, np.nan)


def accelerate(model: LightGBMModel) -> Accelerated | None:
    """Return the model's predictions by LightGBM's C functions."""
    try:
        raw = _raw(model)
    except AttributeError:  # the library is reached by names that are not promised
        return None
    width = model.num_features

    def predict(rows: Any) -> Any:
        if type(rows) is not np.ndarray or rows.dtype != np.float64 or rows.shape[1:] != (width,) or not len(rows):
            raise LeftToOriginal("no dense float64 rows")
        return model.answer(raw(np.ascontiguousarray(rows)))

    chance = np.random.default_rng(0)
    rows = chance.normal(size=(_JOINED, width))
    odd = chance.choice(np.array(_VALUES), size=(64, width))
    return Accelerated("lightgbm, called directly", predict, [rows[:1], odd, np.rint(rows * 3), rows * 100, rows])


def _raw(model: LightGBMModel) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """Return what calls the functions below ``Booster.predict``, with what it makes anew each time made once.

    For one row LightGBM has a function that keeps its predictor too, and its buffers.
    """
    library, handle = basic._LIB, model.booster._handle  # type: ignore[attr-defined]  # noqa: SLF001
    many, one = library.LGBM_BoosterPredictForMat, library.LGBM_BoosterPredictForMatSingleRowFast
    parameters = basic._param_dict_to_str(model.parameters).encode()  # noqa: SLF001
    width, classes = model.num_features, model.booster.num_model_per_iteration()
    kept = ctypes.c_void_p()
    _done(
        library.LGBM_BoosterPredictForMatSingleRowFastInit(
            handle, _NORMAL, _FROM_START, model.rounds, _FLOAT64, width, parameters, ctypes.byref(kept)
        )
    )
    length = ctypes.byref(ctypes.c_int64())

    def raw(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        count = len(rows)
        out: npt.NDArray[np.float64] = np.empty((count, classes) if classes > 1 else count)
        content, to = ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(out.ctypes.data)
        if count == 1:
            _done(one(kept, content, length, to))
        else:
            shape = count, width, _BY_ROWS, _NORMAL, _FROM_START, model.rounds
            _done(many(handle, content, _FLOAT64, *shape, parameters, length, to))
        return out

    weakref.finalize(raw, library.LGBM_FastConfigFree, kept)
    return raw


def _done(status: int) -> None:
    if status:
        raise LeftToOriginal("LightGBM refuses; the original says why")
