"""Lean pipelines answer requests as the originals do, or leave them to them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import joblib
import manymodels_sklearn as plugin
import numpy as np
import pandas as pd
import pytest
from manymodels_sklearn._input import Detailed
from sklearn import __version__ as sklearn_version
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.utils.fixes import parse_version

from manymodels import Accelerated, Artifact, Context, LeftToOriginal, ModelSettings
from manymodels.errors import BadInput

RNG = np.random.default_rng(11)
ROWS = 150
PEOPLE = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, ROWS),
        "city": RNG.choice(["Bonn", "Kiel", "Ulm"], ROWS),
        "income": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.normal(3000, 900, ROWS)),
        "floor": RNG.integers(0, 4, ROWS),
        "member": RNG.random(ROWS) < 0.5,
        "job": RNG.choice(np.array(["baker", "judge", "nurse", None], object), ROWS),
    }
)
RICH = ((PEOPLE["age"] > 40) & (PEOPLE["city"] != "Ulm")).map({True: "yes", False: "no"})
WEALTH = PEOPLE["age"] * 10.0 + PEOPLE["floor"]
TABLE = RNG.normal(size=(ROWS, 4))

NUMERIC, TEXT = ["age", "income"], ["city", "job"]


def known(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", **options)


def usual(last: Any, *, numeric: Any = None, text: Any = None, **options: Any) -> Any:
    return make_pipeline(
        ColumnTransformer(
            [
                ("numeric", numeric or make_pipeline(SimpleImputer(), StandardScaler()), NUMERIC),
                ("text", text or make_pipeline(SimpleImputer(strategy="most_frequent"), known()), TEXT),
            ],
            **options,
        ),
        last,
    )


#: Each is fitted on the people, to say who is rich.
ON_PEOPLE = {
    "usual": usual(LogisticRegression()),
    "remainder": usual(LogisticRegression(max_iter=2000), remainder="passthrough"),
    "remainder scaled": usual(LogisticRegression(), remainder=MinMaxScaler()),
    "dense": usual(LogisticRegression(), sparse_threshold=0, text=known(sparse_output=False)),
    "strict categories": usual(LogisticRegression(), text=OneHotEncoder()),
    "ordinal": usual(
        LogisticRegression(),
        text=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    ),
    "categories of trees": usual(
        HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5, categorical_features=[2, 3]),
        numeric="passthrough",
        text=OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    ),
    "infrequent": usual(
        LogisticRegression(), text=OneHotEncoder(min_frequency=40, handle_unknown="infrequent_if_exist")
    ),
    "most frequent": usual(LogisticRegression(), numeric=SimpleImputer(strategy="most_frequent", add_indicator=True)),
    "bins": usual(LogisticRegression(), numeric=make_pipeline(SimpleImputer(), KBinsDiscretizer(strategy="uniform"))),
    "logarithm": usual(
        LogisticRegression(), numeric=make_pipeline(FunctionTransformer(np.log1p), SimpleImputer(), StandardScaler())
    ),
    "weights": usual(LogisticRegression(), transformer_weights={"numeric": 0.5}),
    "selectors": make_pipeline(
        ColumnTransformer(
            [
                (
                    "n",
                    make_pipeline(SimpleImputer(strategy="median"), PolynomialFeatures(2)),
                    make_column_selector(dtype_include=np.number),
                ),
                ("t", known(), ["city"]),
            ]
        ),
        StandardScaler(with_mean=False),
        LogisticRegression(),
    ),
    "positions": make_pipeline(
        ColumnTransformer(
            [("n", StandardScaler(), [0, 3]), ("t", known(drop="if_binary"), slice(1, 2)), ("b", "passthrough", [4])]
        ),
        LogisticRegression(),
    ),
    "numbers as categories": make_pipeline(
        ColumnTransformer([("c", known(), ["floor", "member", "city"]), ("n", StandardScaler(), ["age"])]),
        LogisticRegression(),
    ),
    "objects in the middle": make_pipeline(
        ColumnTransformer(
            [("i", SimpleImputer(strategy="most_frequent"), ["city", "floor"]), ("n", "passthrough", ["age"])]
        ),
        ColumnTransformer([("c", known(), [0, 1]), ("n", StandardScaler(), [2])]),
        LogisticRegression(),
    ),
    "union": usual(
        LogisticRegression(),
        numeric=make_pipeline(
            SimpleImputer(), FeatureUnion([("s", StandardScaler()), ("p", PolynomialFeatures(2))]), StandardScaler()
        ),
    ),
    "encoder alone": make_pipeline(known(), LogisticRegression()),
    "search": GridSearchCV(usual(LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=2),
    "forest": usual(RandomForestClassifier(5, random_state=0)),
    "boosting": usual(GradientBoostingClassifier(n_estimators=5, random_state=0)),
    "missing numbers": make_pipeline(
        ColumnTransformer(
            [("t", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), TEXT)],
            remainder="passthrough",
        ),
        HistGradientBoostingClassifier(max_iter=5),
    ),
    "stack": StackingClassifier(
        [("a", usual(LogisticRegression())), ("b", usual(RandomForestClassifier(5, random_state=0)))],
        LogisticRegression(),
        cv=2,
    ),
    "soft vote": VotingClassifier(
        [("a", usual(LogisticRegression())), ("b", usual(LogisticRegression(C=0.01)))], voting="soft"
    ),
    "hard vote": VotingClassifier([("a", usual(LogisticRegression())), ("b", usual(LogisticRegression(C=0.01)))]),
}

PERSON = {"age": 44, "city": "Bonn", "income": 3100.5, "floor": 2, "member": True, "job": "nurse"}
#: What a client may say instead.
ODD: dict[str, list[Any]] = {
    "age": [None, 0, -1, 1e300, "44", "old", True, 2**60],
    "city": ["Rome", None, "", 3, 4.5, False, "bonn"],
    "income": [None, -5.5, "none", 0],
    "floor": [None, 7, 1.5, "2", True, 2**53 + 1],
    "member": [None, 1, 0, "True", 0.5, False],
    "job": [None, "judge", "thief", 1.0],
}


def loaded(estimator: Any, folder: Path) -> tuple[Any, Accelerated | None]:
    joblib.dump(estimator, folder / "model.joblib")
    (folder / "metadata.json").write_text('{"version": 3}')
    context = Context("m", str(folder), settings=ModelSettings(), options={})
    model = plugin.load(Artifact(folder), context)
    return model, plugin.accelerate(model)


def agree(model: Any, accelerated: Accelerated, data: Any) -> bool:
    """Return whether the lean form answered, and make sure that it answered as the original does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = accelerated.predict(data)
        except LeftToOriginal:
            return False
        wanted = plugin.predict_fn(data, model)
    if not isinstance(data, Detailed):
        made, wanted = {"predictions": made}, {"predictions": wanted}
    assert list(made) == list(wanted)
    for key in ("predictions", "probabilities"):
        if key in wanted:
            assert made[key].dtype == wanted[key].dtype
            assert made[key].shape == wanted[key].shape
            if wanted[key].dtype.kind == "f":
                np.testing.assert_allclose(made[key], wanted[key], rtol=1e-12, atol=1e-12)
            else:
                assert made[key].tolist() == wanted[key].tolist()
    assert made.get("model_metadata") == wanted.get("model_metadata")
    return True


def bodies(people: list[dict[str, Any]]) -> list[tuple[bytes, str]]:
    """Return rows in each form they come over the wire."""
    names, rows = list(PERSON), [list(person.values()) for person in people]
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    return [
        (json.dumps(rows).encode(), "application/json"),
        (json.dumps({"features": rows}).encode(), "application/json"),
        (json.dumps([dict(reversed(person.items())) for person in people]).encode(), "application/json"),
        ("\n".join(map(",".join, [names, *cells])).encode(), "text/csv"),
    ]


def people(count: int) -> list[dict[str, Any]]:
    return json.loads(PEOPLE.head(count).to_json(orient="records"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ON_PEOPLE)
def test_requests_are_answered_as_by_the_original(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, accelerated = loaded(ON_PEOPLE[name].fit(PEOPLE, RICH), tmp_path)
    answered = answers_to_people(model, accelerated)
    assert sum(answered) >= 4 or name == "strict categories"  # some have no job, which it does not know


def answers_to_people(model: Any, accelerated: Accelerated | None) -> list[bool]:
    """Ask for people as they are and for odd ones; return of the former which requests the lean form answered."""
    assert accelerated is not None
    assert all(agree(model, accelerated, probe) for probe in accelerated.probes)
    assert len(accelerated.probes[0]) == 1
    answered = [
        agree(model, accelerated, plugin.input_fn(body, content_type, model))
        for rows in ([PERSON], people(40))
        for body, content_type in bodies(rows)
    ]
    assert answered[0]
    odd = [{**PERSON, key: value} for key, values in ODD.items() for value in values]
    for turn, person in enumerate(odd):
        body, content_type = bodies([person])[turn % 4]
        agree(model, accelerated, plugin.input_fn(body, content_type, model))
    for start in range(0, len(odd), 5):
        body, content_type = bodies(odd[start : start + 2])[0]
        agree(model, accelerated, plugin.input_fn(body, content_type, model))
    return answered


@pytest.mark.skipif(parse_version(sklearn_version) < parse_version("1.4"), reason="categories are numbers before 1.4")
@pytest.mark.parametrize(
    ("categories", "piped"), [(["city", "job"], False), (["job", "floor"], True), (["member"], False)]
)
def test_requests_of_categories_of_a_model_of_trees(categories: list[str], piped: bool, tmp_path: Path) -> None:
    frame = PEOPLE[["age", *categories, "income"]].astype(dict.fromkeys(categories, "category"))
    trees = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5, categorical_features="from_dtype")
    model, accelerated = loaded((make_pipeline(trees) if piped else trees).fit(frame, RICH), tmp_path)
    assert accelerated is not None
    assert all(agree(model, accelerated, probe) for probe in accelerated.probes)
    usual = [PERSON, *people(6)]
    odd = [{**PERSON, key: value} for key in ("age", *categories) for value in ODD[key]]
    for turn, person in enumerate([*usual, *odd]):
        rows = [[person[name] for name in frame.columns]]
        body = json.dumps({"features": rows} if turn % 2 else rows).encode()
        assert agree(model, accelerated, plugin.input_fn(body, "application/json", model)) or person not in usual
    rows = [[person[name] for name in frame.columns] for person in people(40)]
    assert agree(model, accelerated, plugin.input_fn(json.dumps(rows).encode(), "application/json", model))


ON_NUMBERS = {
    "scaled": make_pipeline(StandardScaler(), Ridge()),
    "imputed": make_pipeline(SimpleImputer(), MinMaxScaler(clip=True), LinearRegression()),
    "polynomial": make_pipeline(PolynomialFeatures(3), StandardScaler(), Ridge()),
    "stack": StackingRegressor(
        [("a", LinearRegression()), ("b", RandomForestRegressor(5, random_state=0))], Ridge(), cv=2
    ),
    "target": TransformedTargetRegressor(
        make_pipeline(StandardScaler(), Ridge()), func=np.arcsinh, inverse_func=np.sinh, check_inverse=False
    ),
    "scaled target": TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
    "vote": VotingRegressor(
        [("a", make_pipeline(StandardScaler(), Ridge())), ("b", LinearRegression())], weights=[1, 2]
    ),
}


@pytest.mark.parametrize("name", ON_NUMBERS)
@pytest.mark.parametrize("frame", [False, True], ids=["array", "frame"])
def test_rows_of_numbers_are_answered_as_by_the_original(name: str, frame: bool, tmp_path: Path) -> None:
    table = pd.DataFrame(TABLE, columns=list("abcd")) if frame else TABLE
    model, accelerated = loaded(ON_NUMBERS[name].fit(table, TABLE @ [1, -2, 0.5, 3]), tmp_path)
    assert accelerated is not None
    assert all(agree(model, accelerated, probe) for probe in accelerated.probes)
    for edge in (0.0, -0.0, 5e-324, 1e15, 1e308, -1e160, np.nan, np.inf):
        row = np.array([[0.3, edge, -1.0, 2.0]])
        answered = agree(model, accelerated, row)
        assert answered or abs(edge) > 1e15 or edge != edge


def test_a_probe_has_few_rows_since_a_request_may_wait_for_it(tmp_path: Path) -> None:
    wide = RNG.normal(size=(40, 90))
    _, accelerated = loaded(Ridge().fit(wide, wide[:, 0]), tmp_path)
    assert accelerated is not None
    counts = [len(getattr(probe, "table", probe)) for probe in accelerated.probes]
    assert (counts[0], max(counts)) == (1, 64)
    assert sum(counts) > 250  # all the same each column is tried


def test_what_is_left_to_the_original_is_refused_as_ever(tmp_path: Path) -> None:
    model, accelerated = loaded(usual(LogisticRegression(), text=OneHotEncoder()).fit(PEOPLE, RICH), tmp_path)
    assert accelerated is not None
    data = plugin.input_fn(bodies([{**PERSON, "city": "Rome"}])[0][0], "application/json", model)
    with pytest.raises(LeftToOriginal):
        accelerated.predict(data)
    with pytest.raises(BadInput, match="unknown categories"):
        plugin.predict_fn(data, model)


def test_a_pipeline_of_a_function_of_ones_own_has_no_lean_form(tmp_path: Path) -> None:
    own = make_pipeline(FunctionTransformer(pd.DataFrame.fillna, kw_args={"value": 0}), StandardScaler())
    assert loaded(usual(LogisticRegression(), numeric=own).fit(PEOPLE, RICH), tmp_path)[1] is None
