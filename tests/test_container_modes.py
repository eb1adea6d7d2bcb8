"""What a container finds below SageMaker's folder and in its environment decides what it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import xgboost
from serving import FLOWER, constant, serve, until
from sklearn.datasets import load_iris
from test_residents import Shelf

from manymodels import Plugins
from manymodels.endpoint.container import SingleModel
from manymodels.errors import ManyModelsError, ModelNotReady
from manymodels.invocation import Invocation
from manymodels.settings import load


def booster(path: Path) -> None:
    flowers, kinds = load_iris(return_X_y=True)
    path.parent.mkdir(parents=True)
    xgboost.train({"nthread": 1}, xgboost.DMatrix(flowers, kinds), num_boost_round=2).save_model(path)


def test_a_mounted_store_is_served_by_target_model(tmp_path: Path) -> None:
    booster(tmp_path / "ml" / "models" / "kinds" / "model.ubj")
    constant(tmp_path / "ml" / "models" / "five.joblib", 5.0)
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}) as server:
        assert server.client.get("/artifacts").json() == {"artifacts": ["five.joblib", "kinds"]}
        assert server.predict("five.joblib") == [5.0]
        # One of many: AWS's XGBoost container answers a bare list then.
        [score] = server.predict("kinds")
        assert isinstance(score, float)


def test_the_one_model_goes_before_a_mounted_store(tmp_path: Path) -> None:
    booster(tmp_path / "ml" / "model" / "model.ubj")
    constant(tmp_path / "ml" / "models" / "five.joblib", 5.0)
    with serve(tmp_path, "--workers", "1", env={"SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}) as server:
        until(lambda: server.client.get("/ping").status_code == 200, "the model is loaded")
        reply = server.invoke(None, [FLOWER])
        assert set(reply.json()["predictions"][0]) == {"score"}


def test_batch_transform_is_told_how_to_ask(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with serve(tmp_path, tmp_path / "store", "--workers", "2", "--max-body", "20MiB") as server:
        assert server.client.get("/execution-parameters").json() == {
            "MaxConcurrentTransforms": 2,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": 20,
        }


def test_variables_of_other_containers_are_named_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "ml" / "models").mkdir(parents=True)
    env = {"SAGEMAKER_BASE_DIR": str(tmp_path / "ml"), "SAGEMAKER_NUM_MODEL_WORKERS": "4", "SAGEMAKER_REGION": "here"}
    with serve(tmp_path, "--workers", "1", env=env) as server:
        assert "SAGEMAKER_NUM_MODEL_WORKERS is not supported: set SAGEMAKER_MODEL_SERVER_WORKERS" in server.log()
        assert "SAGEMAKER_REGION" not in server.log()


def test_what_keeps_a_model_from_loading_is_raised_anew_each_time() -> None:
    async def refusals() -> list[ManyModelsError]:
        role = SingleModel(Shelf(0), Plugins([]), load())
        found: list[ManyModelsError] = []
        for _ in range(2):
            with pytest.raises(ModelNotReady) as refused:
                await role.invoke(None, Invocation(b""))
            found.append(refused.value)
        return found

    first, second = asyncio.run(refusals())
    assert first is not second, "its traceback would keep every request"
