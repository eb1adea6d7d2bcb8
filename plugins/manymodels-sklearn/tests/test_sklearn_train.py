"""The sklearn plugin's training, as the hook is called."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier

from manymodels import Artifact, Plugins
from manymodels.errors import TrainingFailed

FEW = {"n_estimators": "3"}
Train = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Write files of the channel ``train``, train, and return the model's folder."""
    channel, model_dir = tmp_path / "train", tmp_path / "model"
    channel.mkdir()
    model_dir.mkdir()
    hook = Plugins.installed().hook.train

    def run(files: dict[str, str | bytes], **hyperparameters: str) -> Path:
        for name, content in files.items():
            (channel / name).parent.mkdir(exist_ok=True)
            (channel / name).write_bytes(content.encode() if isinstance(content, str) else content)
        hook(channels={"train": channel}, hyperparameters={**FEW, **hyperparameters}, model_dir=model_dir)
        return model_dir

    return run


def model(folder: Path) -> Any:
    return joblib.load(folder / "model.joblib")


def refusal(train: Train, files: dict[str, str | bytes], **hyperparameters: str) -> str:
    with pytest.raises(TrainingFailed) as caught:
        train(files, **hyperparameters)
    return str(caught.value)


def iris() -> str:
    rows = zip(load_iris().target, load_iris().data, strict=True)
    return "".join(f"{label},{','.join(map(str, row))}\n" for label, row in rows)


def test_trains_what_scikit_learn_would(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        folder = train({"iris.csv": iris()}, n_estimators="15", max_depth="2", learning_rate="0.3")
    features, labels = load_iris(return_X_y=True)
    wanted = GradientBoostingClassifier(n_estimators=15, max_depth=2, learning_rate=0.3, random_state=42)
    wanted.fit(features, labels)
    trained = model(folder)
    assert trained.get_params() == wanted.get_params()
    np.testing.assert_array_equal(trained.predict_proba(features), wanted.predict_proba(features))
    metadata = json.loads((folder / "metadata.json").read_bytes())
    assert metadata == {"n_features": 4, "n_classes": 3, "train_accuracy": wanted.score(features, labels)}
    assert sorted(os.listdir(folder)) == ["metadata.json", "model.joblib"]
    assert Plugins.installed().hook.claim(artifact=Artifact(folder)) == ["sklearn"]
    told = re.findall(r"tree (\d+) of 15: train_loss=[\d.]+$", caplog.text, re.MULTILINE)
    assert told == ["2", "4", "6", "8", "10", "12", "14", "15"]
    assert re.search(r"train_accuracy=[\d.]+$", caplog.text, re.MULTILINE)


def test_files_are_read_in_order_and_blank_lines_left_out(train: Train) -> None:
    folder = train(
        {
            "b/part.csv": "1,3,4\r\n\r\n0,1,2\r\n",
            "a.csv": b"\xef\xbb\xbf0, 1, 2\n\n1, 3, 4",
            "empty.csv": "",
            "blank.csv": "\n\n",
            "._a.csv": b"\0\1",
            "readme.txt": "no rows",
        }
    )
    assert json.loads((folder / "metadata.json").read_bytes()) == {
        "n_features": 2,
        "n_classes": 2,
        "train_accuracy": 1.0,
    }
    assert model(folder).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("1", "2", "1"), [1, 2]),
        (("1.5", "2.5", "1.5"), None),
        (("1.0", "2", "1.0"), [1.0, 2.0]),
        (("yes", "no", "yes"), ["no", "yes"]),
        (("NA", "1", "NA"), ["1", "NA"]),
        (('"a,b"', "é", '"a,b"'), ["a,b", "é"]),
        (("True", "False", "True"), ["False", "True"]),
    ],
)
def test_labels_are_numbers_if_all_are(train: Train, labels: tuple[str, ...], classes: list[Any] | None) -> None:
    files: dict[str, str | bytes] = {f"{row}.csv": f"{label},{row}\n" for row, label in enumerate(labels)}
    if classes is None:
        assert refusal(train, files).startswith("scikit-learn refuses the data: Unknown label type")
    else:
        assert model(train(files)).classes_.tolist() == classes


def test_trains_again_over_an_old_model(train: Train) -> None:
    train({"a.csv": "0,1\n1,2\n"})
    assert model(train({"a.csv": "x,1\ny,2\n"})).classes_.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "the channel 'train' holds no CSV file (*.csv)"),
        ({"a.csv": "", "b.csv": "\n"}, "the CSV files of the channel 'train' hold no rows"),
        (
            {"a.csv": "0,1,2\n1,2\n"},
            "line 2 of 'a.csv' has nothing in column 3; a feature is a number, at most 3.4e+38",
        ),
        ({"a.csv": "0,1\n\n1,2,3\n"}, "line 3 of 'a.csv' has 3 columns, and the lines before it have 2"),
        ({"a.csv": "0,1\n1,2\n", "b.csv": "0,1,2\n"}, "'b.csv' has 2 features, and 'a.csv' has 1"),
        ({"a.csv": "0\n1\n"}, "'a.csv' has one column; a row is a label and its features, separated by commas"),
        ({"a.csv": "0;1\n1;2\n"}, "'a.csv' has one column; a row is a label and its features, separated by commas"),
        ({"a.csv": "0,1\n\n1,nan\n"}, "line 3 of 'a.csv' has 'nan' in column 2; a feature is a number"),
        ({"a.csv": "0,1\n1,inf\n"}, "line 2 of 'a.csv' has 'inf' in column 2; a feature is a number"),
        ({"a.csv": "0,2\n1,True\n0,False\n"}, "line 2 of 'a.csv' has 'True' in column 2; a feature is a number"),
        ({"a.csv": "0,True\n1,False\n"}, "line 1 of 'a.csv' has 'True' in column 2; a feature is a number"),
        ({"a.csv": "label,size\n0,1\n1,2\n"}, "line 1 of 'a.csv' has 'size' in column 2; a feature is a number"),
        ({"a.csv": "0,1\n,2\n"}, "line 2 of 'a.csv' has no label in column 1"),
        ({"a.csv": "0,1\nNaN,2\n"}, "line 2 of 'a.csv' has no label in column 1"),
        ({"a.csv": "7,1\n7,2\n"}, "all rows have the label '7'; a classifier needs two classes or more"),
        ({"a.csv": b"0,1\n\xff,2\n"}, "'a.csv' is not UTF-8 text"),
        ({"a.csv": '0,1\n"1,2\n'}, "'a.csv' is not CSV: "),
        ({"a.csv": "0,1\n1,1e39\n"}, "line 2 of 'a.csv' has '1e+39' in column 2; a feature is a number"),
    ],
)
def test_data_that_cannot_be_used(train: Train, files: dict[str, str | bytes], reason: str, tmp_path: Path) -> None:
    assert refusal(train, files).startswith(reason)
    assert not os.listdir(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            "n_estimators",
            "many",
            "the hyperparameter 'n_estimators' is 'many'; it has to be a whole number of at least 1",
        ),
        ("n_estimators", "0", "the hyperparameter 'n_estimators' is '0'; it has to be a whole number of at least 1"),
        ("max_depth", "2.5", "the hyperparameter 'max_depth' is '2.5'; it has to be a whole number of at least 1"),
        ("max_depth", "", "the hyperparameter 'max_depth' is ''; it has to be a whole number of at least 1"),
        ("learning_rate", "-1", "the hyperparameter 'learning_rate' is '-1'; it has to be a number above 0"),
        ("learning_rate", "nan", "the hyperparameter 'learning_rate' is 'nan'; it has to be a number above 0"),
        ("learning_rate", "inf", "the hyperparameter 'learning_rate' is 'inf'; it has to be a number above 0"),
        ("depth", "3", "the hyperparameter 'depth' is not known; there are n_estimators, max_depth, learning_rate"),
    ],
)
def test_hyperparameters_that_are_wrong(train: Train, name: str, value: str, reason: str) -> None:
    assert refusal(train, {"a.csv": "0,1\n1,2\n"}, **{name: value}) == reason


def test_line_of_column_names_is_recognised(train: Train) -> None:
    assert refusal(train, {"a.csv": "label,size\n0,1\n1,2\n"}).endswith("; the files have no line of column names")


def test_channel_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"no channel 'train' \(channels: test\)"):
        Plugins.installed().hook.train(channels={"test": tmp_path}, hyperparameters={}, model_dir=tmp_path)
