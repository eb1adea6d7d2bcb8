"""Training a classifier from CSV files."""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
import numpy as np

from manymodels.errors import TrainingFailed

from ._model import METADATA

logger = logging.getLogger(__name__)

CHANNEL = "train"
MODEL = "model.joblib"
#: The same data make the same model.
SEED = 42
#: scikit-learn's trees take features as float32.
LARGEST = float(np.finfo(np.float32).max)
#: Times that progress is told of.
_REPORTS = 10


class _Parameter(NamedTuple):
    kind: Callable[[str], float]
    default: float
    allowed: str


_WHOLE = "a whole number of at least 1"
PARAMETERS: dict[str, _Parameter] = {
    "n_estimators": _Parameter(int, 100, _WHOLE),
    "max_depth": _Parameter(int, 5, _WHOLE),
    "learning_rate": _Parameter(float, 0.1, "a number above 0"),
}


def train(channels: Mapping[str, Path], hyperparameters: Mapping[str, str], model_dir: Path) -> None:
    """Train a GradientBoostingClassifier and write it with its metadata.

    :raises TrainingFailed: naming the hyperparameter, or the file and line, that is wrong.
    """
    parameters = parse(hyperparameters)
    if CHANNEL not in channels:
        there = ", ".join(sorted(channels)) or "none"
        raise TrainingFailed(f"there is no channel {CHANNEL!r} (channels: {there}); give the CSV files to it")
    features, labels = read(channels[CHANNEL])

    from sklearn.ensemble import GradientBoostingClassifier

    logger.info("training on %d rows of %d features: %s", *features.shape, parameters)
    model = GradientBoostingClassifier(**parameters, random_state=SEED)
    try:
        model.fit(features, labels, monitor=_progress(parameters["n_estimators"]))
    except ValueError as error:
        raise TrainingFailed(f"scikit-learn refuses the data: {error}") from error
    accuracy = float(model.score(features, labels))
    logger.info("train_accuracy=%.4f", accuracy)
    write(
        model,
        {"n_features": features.shape[1], "n_classes": len(model.classes_), "train_accuracy": accuracy},
        model_dir,
    )


def parse(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the estimator's parameters.

    :raises TrainingFailed: naming the one that is unknown or has a wrong value.
    """
    if unknown := sorted(set(hyperparameters) - set(PARAMETERS)):
        raise TrainingFailed(f"the hyperparameter {unknown[0]!r} is not known; there are {', '.join(PARAMETERS)}")
    values: dict[str, Any] = {}
    for name, (kind, default, allowed) in PARAMETERS.items():
        text = hyperparameters.get(name)
        try:
            value = default if text is None else kind(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise TrainingFailed(f"the hyperparameter {name!r} is {text!r}; it has to be {allowed}")
        values[name] = value
    return values


def _progress(trees: int) -> Callable[[int, Any, Any], bool]:
    step = math.ceil(trees / _REPORTS)

    def tell(tree: int, model: Any, _state: Any) -> bool:
        if (tree + 1) % step == 0 or tree + 1 == trees:
            logger.info("tree %d of %d: train_loss=%.6f", tree + 1, trees, model.train_score_[tree])
        return False

    return tell


def write(model: Any, metadata: Mapping[str, Any], folder: Path) -> None:
    """Write the model and its metadata; each file appears at once and whole, the model last."""
    import joblib

    with tempfile.TemporaryDirectory(dir=folder, prefix=".train-") as temp:
        joblib.dump(model, Path(temp, MODEL))
        Path(temp, METADATA).write_bytes(msgspec.json.encode(metadata))
        for name in (METADATA, MODEL):
            Path(temp, name).replace(folder / name)


# -- CSV files --


def read(folder: Path) -> tuple[Any, Any]:
    """Return the features (float64) and labels of all CSV files below a folder, in the order of their names.

    Labels are numbers if all of them are, otherwise text.

    :raises TrainingFailed: naming the file and line that is wrong.
    """
    import pandas as pd

    paths = sorted(path for path in folder.rglob("*.csv") if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise TrainingFailed(f"the channel {CHANNEL!r} holds no CSV file (*.csv)")
    tables = {}
    for path in paths:
        name = str(path.relative_to(folder))
        if (table := _read_file(path, name)) is not None:
            tables[name] = table
    if not tables:
        raise TrainingFailed(f"the CSV files of the channel {CHANNEL!r} hold no rows")
    first = next(iter(tables))
    for name, (features, _) in tables.items():
        if features.shape[1] != tables[first][0].shape[1]:
            raise TrainingFailed(
                f"{name!r} has {features.shape[1]} features, and {first!r} has {tables[first][0].shape[1]}"
            )
    text = pd.concat([labels for _, labels in tables.values()])
    numbers = pd.to_numeric(text, errors="coerce")
    labels = text.to_numpy(dtype=object) if numbers.isna().any() else numbers.to_numpy()
    if len(np.unique(labels)) < 2:
        raise TrainingFailed(f"all rows have the label {text.iloc[0]!r}; a classifier needs two classes or more")
    return np.concatenate([features for features, _ in tables.values()]), labels


def _read_file(path: Path, name: str) -> tuple[Any, Any] | None:
    """Return the features and the text of the labels; None if there are no rows."""
    import pandas as pd

    try:
        table = pd.read_csv(
            path,
            header=None,
            dtype={0: str},
            keep_default_na=False,  # NA is a label like any other
            na_values=[""],
            skipinitialspace=True,
            skip_blank_lines=False,  # so that rows count lines
            low_memory=False,
            encoding="utf-8-sig",
        )
    except pd.errors.EmptyDataError:
        return None
    except pd.errors.ParserError as error:
        if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
            wanted, line, found = match.groups()
            _refuse(name, line, f"has {found} columns, and the lines before it have {wanted}")
        raise TrainingFailed(f"{name!r} is not CSV: {str(error).strip()}") from error
    except UnicodeDecodeError as error:
        raise TrainingFailed(f"{name!r} is not UTF-8 text: {error}") from error
    table = table.dropna(how="all")
    if table.empty:
        return None
    if table.shape[1] < 2:
        raise TrainingFailed(f"{name!r} has one column; a row is a label and its features, separated by commas")
    labels = table[0]
    wrong = (labels.isna() | labels.str.lower().isin(["nan", "inf", "-inf"])).to_numpy()
    if wrong.any():
        _refuse(name, table.index[wrong.argmax()] + 1, "has no label in column 1")
    return np.column_stack([_numbers(table[column], column + 1, name) for column in range(1, table.shape[1])]), labels


def _numbers(column: Any, position: int, name: str) -> Any:
    import pandas as pd

    # Truth values are numbers to pandas, but not in the requests the model will get.
    text = column.astype(str) if column.dtype.kind not in "iuf" else column
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~(np.abs(values) <= LARGEST)
    if wrong.any():
        row = wrong.argmax()
        cell = column.iloc[row]
        what = "nothing" if pd.isna(cell) else repr(str(cell))
        _refuse(
            name,
            column.index[row] + 1,
            f"has {what} in column {position}; a feature is a number, at most {LARGEST:.2g}",
        )
    return values


def _refuse(name: str, line: int | str, what: str) -> NoReturn:
    hint = "; the files have no line of column names" if int(line) == 1 else ""
    raise TrainingFailed(f"line {line} of {name!r} {what}{hint}")
