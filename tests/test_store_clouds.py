"""Model stores in Azure and Google Cloud: against Azurite and an emulator, where these are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clouds import Cloud, environment, running
from test_store_faults import Fake, answer, fake  # noqa: F401
from test_store_s3 import is_artifact

from manymodels.errors import LoadFailed, ModelNotFound, StoreDenied, StoreUnavailable
from manymodels.store import DiskCache, RemoteStore, calls, connect


@pytest.fixture(scope="module", params=["az", "gs"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running(request.param, tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture
def store(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, value)
    return RemoteStore(connect(f"{cloud.scheme}://models/prefix", 60), DiskCache(tmp_path), is_artifact)


@pytest.mark.filterwarnings("ignore")  # of the emulators, and of the clouds' own libraries
def test_found_listed_and_fetched(store: RemoteStore, cloud: Cloud) -> None:
    large = os.urandom(calls.PART + 17)
    files = {"a.joblib": b"1", "none.joblib": b"", "team/x.tar.gz": b"2", "wine/model.joblib": b"3"}
    for name, body in {**files, "wine/data/x.csv": b"4", "ü.joblib": large, "notes.txt": b"5"}.items():
        cloud.put(f"prefix/{name}", body)
    names = ["a.joblib", "none.joblib", "team/x.tar.gz", "wine", "ü.joblib"]
    assert list(store.list()) == names
    for at, name in enumerate(names):
        assert list(store.list(name)) == names[at + 1 :]
    assert (store.open(store.find("ü.joblib")) / "ü.joblib").read_bytes() == large
    assert (store.open(store.find("none.joblib")) / "none.joblib").read_bytes() == b""
    found = store.find("wine")
    assert (found.kind, found.size) == ("folder", 2)
    assert (store.open(found) / "data" / "x.csv").read_bytes() == b"4"
    for name in ("gone", "team", "gone/gone.tar.gz"):
        with pytest.raises(ModelNotFound):
            store.find(name)


@pytest.mark.filterwarnings("ignore")
def test_another_version_is_never_taken_for_the_one_that_was_found(store: RemoteStore, cloud: Cloud) -> None:
    cloud.put("prefix/b.joblib", b"1")
    found = store.find("b.joblib")
    cloud.put("prefix/b.joblib", b"2")
    with pytest.raises(LoadFailed):  # Google's emulator answers another generation than it is asked for
        store.open(found)
    newer = store.find("b.joblib")
    assert newer.version != found.version
    assert (store.open(newer) / "b.joblib").read_bytes() == b"2"
    store.forget(newer)
    cloud.delete("prefix/b.joblib")
    with pytest.raises(LoadFailed, match="ask again"):
        store.open(newer)
    with pytest.raises(ModelNotFound):
        store.find("b.joblib")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheme", ["az", "gs"])
def test_errors(
    fake: Fake,  # noqa: F811
    scheme: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip({"az": "adlfs", "gs": "gcsfs"}[scheme])
    monkeypatch.setattr(calls, "ANSWER", 3)
    for name, value in environment(scheme, fake.server.server_port).items():
        monkeypatch.setenv(name, value)
    store = RemoteStore(connect(f"{scheme}://models", 5), DiskCache(tmp_path), is_artifact)
    fake.answer = answer(403, x_ms_error_code="AuthorizationPermissionMismatch")
    with pytest.raises(StoreDenied, match=r"access is denied; allow .*the model store answers 403"):
        store.find("a.joblib")
    with pytest.raises(StoreDenied, match="access is denied"):
        list(store.list())
    fake.answer = answer(500)
    with pytest.raises(StoreUnavailable):
        store.find("a.joblib")
    fake.close()
    with pytest.raises(StoreUnavailable):
        store.find("a.joblib")


def test_an_extra_that_is_missing() -> None:
    code = "import sys; sys.modules['adlfs'] = None; from manymodels.store import connect; connect('az://models', 1)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs the package adlfs" in result.stderr
    assert "pip install 'manymodels[az]'" in result.stderr
