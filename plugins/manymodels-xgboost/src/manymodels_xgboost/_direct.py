"""XGBoost's own prediction without the Python around it."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from xgboost import core

from manymodels import Accelerated, LeftToOriginal

from ._model import XGBoostModel

_ROWS = b'{"data": [%d, true], "shape": [%d, %d], "typestr": "<f4", "version": 3}'

#: Rows of the probe that stands for joined requests.
_JOINED = 64
_VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, 1e30, -1e30, np.nan)


def accelerate(model: XGBoostModel) -> Accelerated | None:
    """Return the model's predictions by XGBoost's C function, None where it predicts from a DMatrix only."""
    if not model.inplace:
        return None
    try:
        raw = _raw(model)
    except AttributeError:  # the library is reached by names that are not promised
        return None

    def predict(rows: Any) -> Any:
        if type(rows) is not np.ndarray or rows.dtype != np.float32 or not len(rows):
            raise LeftToOriginal("no dense float32 rows")
        return model.answer(raw(np.ascontiguousarray(rows)))

    chance = np.random.default_rng(0)
    rows = chance.normal(size=(_JOINED, model.num_features)).astype(np.float32)
    odd = chance.choice(np.array(_VALUES, np.float32), size=rows.shape)
    return Accelerated("xgboost, called directly", predict, [rows[:1], odd, rows * np.float32(100), rows])


def _raw(model: XGBoostModel) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Return what calls the function that ``inplace_predict`` calls, with what it makes anew each time made once.

    That is the configuration and, most of all, the library's own stand-in for a DMatrix.
    """
    first, end = model.rounds
    # The keys are those of XGBoosterPredictFromDense in XGBoost's C API.
    config = json.dumps(
        {
            "type": 0,
            "training": False,
            "iteration_begin": first,
            "iteration_end": end,
            "missing": model.missing,
            "strict_shape": False,
            "cache_id": 0,
        }
    ).encode()
    call, handle = core._LIB.XGBoosterPredictFromDense, model.booster.handle  # noqa: SLF001
    stand_in = core._ProxyDMatrix()  # noqa: SLF001
    shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
    content = ctypes.POINTER(ctypes.c_float)()
    to = ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(content)

    def raw(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        described = _ROWS % (rows.__array_interface__["data"][0], *rows.shape)
        if call(handle, described, config, stand_in.handle, *to):
            raise LeftToOriginal("XGBoost refuses; the original says why")
        sizes = shape[: dimensions.value]
        out: npt.NDArray[np.float32] = np.empty(sizes, np.float32)
        # The library's answer is its own, and overwritten by the next.
        ctypes.memmove(out.ctypes.data, content, out.nbytes)
        return out

    return raw
