"""A model store in S3: found, listed, fetched by version, and served."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
import s3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from s3 import S3, packed
from serving import FLOWER, Server, serve
from sklearn.dummy import DummyRegressor

from manymodels import Artifact
from manymodels.artifact import SIGNATURE
from manymodels.errors import BadArtifact, LoadFailed, ModelNotFound, NotTrusted, SettingsError
from manymodels.policy import Policy
from manymodels.store import DiskCache, Limits, Objects, RemoteStore, connect
from manymodels.store.calls import PART
from manymodels.store.mounts import Mounts
from manymodels.store.signatures import sign
from manymodels.store.trusted import TrustedStore


def is_artifact(path: Path) -> bool:
    """Claim by names, as plugins do: a model, or code."""
    artifact = Artifact(path) if path.is_dir() else Artifact(path.parent, only=path.name)
    return bool(artifact.match("*.joblib")) or "code/inference.py" in artifact.files


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3]:
    with s3.running() as running:
        yield running


@pytest.fixture(scope="module")
def objects(bucket: S3) -> Objects:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.env.items():
            patch.setenv(name, value)
        objects = connect(f"s3://{s3.BUCKET}/some/prefix/", 30)
        assert objects.head("none") is None  # which reads the environment
    return objects


@pytest.fixture
def store(objects: Objects, tmp_path: Path) -> RemoteStore:
    return RemoteStore(objects, DiskCache(tmp_path / "cache"), is_artifact, Limits(members=5, bytes=32 << 20))


class Put:
    """Puts objects below the prefix."""

    def __init__(self, bucket: S3) -> None:
        self.bucket = bucket

    def __call__(self, files: dict[str, bytes]) -> None:
        for name, body in files.items():
            self.bucket.put(f"some/prefix/{name}", body)

    def delete(self, name: str) -> None:
        self.bucket.delete(f"some/prefix/{name}")


@pytest.fixture
def put(bucket: S3) -> Iterator[Put]:
    yield Put(bucket)
    for page in bucket.client.get_paginator("list_objects_v2").paginate(Bucket=s3.BUCKET, Prefix="some/prefix/"):
        for content in page.get("Contents", ()):
            bucket.delete(content["Key"])


def test_an_archive_a_file_and_a_folder(store: RemoteStore, put: Put) -> None:
    put(
        {
            "a.tar.gz": packed({"model.joblib": b"1", "code/inference.py": b"2"}),
            "team/b.joblib": b"3",
            "wine/model.joblib": b"4",
            "wine/data/x.csv": b"5",
            "wine/.hidden": b"6",
            "wine/../up.csv": b"7",
            "wine/": b"",
        }
    )
    kinds = {}
    for name in ("a.tar.gz", "team/b.joblib", "wine"):
        found = store.find(name)
        folder = store.open(found)
        kinds[name] = found.kind
        assert store.find(name) == found
        assert store.open(found) == folder
        if name == "a.tar.gz":
            assert (folder / "code" / "inference.py").read_bytes() == b"2"
        elif name == "wine":
            assert Artifact(folder).files == ("data/x.csv", "model.joblib")
            assert found.size == 2
        else:
            assert (folder / "b.joblib").read_bytes() == b"3"
        assert store.kept(name) == found
        store.forget(found)
        assert store.kept(name) is None
    assert kinds == {"a.tar.gz": "archive", "team/b.joblib": "file", "wine": "folder"}


@pytest.mark.parametrize("name", ["gone.tar.gz", "gone", "team", "team/.secret.joblib", "empty"])
def test_what_is_not_there(store: RemoteStore, put: Put, name: str) -> None:
    put({"team/a.tar.gz": b"", "team/.secret.joblib": b"1", "empty/": b""})
    with pytest.raises(ModelNotFound):
        store.find(name)


def test_a_large_object_comes_in_parts(store: RemoteStore, put: Put) -> None:
    content = os.urandom(3 * PART + 17)
    put({"large.joblib": content, "none.joblib": b""})
    assert (store.open(store.find("large.joblib")) / "large.joblib").read_bytes() == content
    assert (store.open(store.find("none.joblib")) / "none.joblib").read_bytes() == b""


def test_what_is_new_here_is_found_and_fetched_at_once(store: RemoteStore, put: Put) -> None:
    large = os.urandom(2 * PART + 17)
    put({"a.tar.gz": packed({"m.joblib": b"1"}), "team/b.joblib": b"2", "large.joblib": large})
    for name, content in (("a.tar.gz", b"1"), ("team/b.joblib", b"2"), ("large.joblib", large)):
        fetched = store.fetch(name)
        assert fetched is not None
        found, folder = fetched
        assert found == store.find(name) == store.kept(name)
        assert next(folder.glob("*.joblib")).read_bytes() == content
        assert store.open(found) == folder
        assert store.fetch(name) is None  # the disk cache has it, and only the store can say whether it has changed


@pytest.mark.parametrize(
    "name", ["gone.joblib", "none.joblib", "wine", "v1.0", "bad.tar.gz", "much.joblib", ".m.joblib"]
)
def test_what_is_not_found_and_fetched_at_once(store: RemoteStore, put: Put, name: str) -> None:
    put({"none.joblib": b"", "wine/m.joblib": b"1", "v1.0/m.joblib": b"1", "bad.tar.gz": b"bad", ".m.joblib": b"1"})
    put({"much.joblib": bytes(33 << 20)} if name == "much.joblib" else {})
    assert store.fetch(name) is None
    assert store.kept(name) is None


def test_what_is_fetched_at_once_is_verified(store: RemoteStore, put: Put) -> None:
    key = Ed25519PrivateKey.generate()
    signature = sign({"m.joblib": hashlib.sha256(b"1").hexdigest()}, key)
    for name, content in (("a/m.tar.gz", b"1"), ("a/changed.tar.gz", b"2"), ("b/m.tar.gz", b"1")):
        put({name: packed({"m.joblib": content, SIGNATURE: signature})})
    trusted = TrustedStore(store, store._objects.url, Policy(sources=("a/*",)), [key.public_key()])
    mounts = Mounts(store.cache)
    mounts.mount("churn/blue", trusted)
    fetched = mounts.fetch("churn/blue/a/m.tar.gz")
    assert fetched == (mounts.find("churn/blue/a/m.tar.gz"), store.open(store.find("a/m.tar.gz")))
    assert mounts.fetch("churn/blue/a/changed.tar.gz") is None
    with pytest.raises(NotTrusted, match="not the file that was signed"):
        mounts.open(mounts.find("churn/blue/a/changed.tar.gz"))
    assert mounts.fetch("churn/blue/b/m.tar.gz") is None
    assert store.kept("b/m.tar.gz") is None


def test_an_object_uploaded_in_parts_has_no_md5_and_is_fetched_all_the_same(store: RemoteStore, put: Put) -> None:
    key = "some/prefix/m.joblib"
    content = os.urandom(11 << 20)
    put.bucket.client.upload_fileobj(io.BytesIO(content), s3.BUCKET, key)
    found = store.find("m.joblib")
    assert found.version.endswith("-2")
    assert (store.open(found) / "m.joblib").read_bytes() == content


@pytest.mark.parametrize("name", ["a.tar.gz", "b.joblib", "folder"])
def test_another_version_is_never_taken_for_the_one_that_was_found(store: RemoteStore, put: Put, name: str) -> None:
    put({"a.tar.gz": packed({"m.joblib": b"1"}), "b.joblib": b"1", "folder/m.joblib": b"1"})
    found = store.find(name)
    put({"a.tar.gz": packed({"m.joblib": b"2"}), "b.joblib": b"2", "folder/m.joblib": b"2"})
    with pytest.raises(LoadFailed, match="was replaced while it was read"):
        store.open(found)
    newer = store.find(name)
    assert newer.version != found.version
    assert next(store.open(newer).glob("*.joblib")).read_bytes() == b"2"


def test_one_that_goes_meanwhile(store: RemoteStore, put: Put) -> None:
    put({"b.joblib": b"1"})
    found = store.find("b.joblib")
    put.delete("b.joblib")
    with pytest.raises(LoadFailed, match="has gone"):
        store.open(found)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({f"f/{i}.joblib": b"" for i in range(6)}, "more than 5 files"),
        ({"f/a\\..\\b.joblib": b"1", "f/m.joblib": b"1"}, "holds a backslash"),
        ({"f/a//m.joblib": b"1", "f/m.joblib": b"1"}, "empty segment"),
        ({"f/m.joblib": b"1", "f/m.joblib/x": b"1"}, "a file and a folder of the same name"),
    ],
)
def test_a_folder_that_is_refused(store: RemoteStore, put: Put, files: dict[str, bytes], message: str) -> None:
    put(files)
    with pytest.raises(BadArtifact, match=message):
        store.open(store.find("f"))


def test_an_object_too_large_is_not_fetched(store: RemoteStore, put: Put) -> None:
    put({"a.tar.gz": bytes(33 << 20)})
    with pytest.raises(BadArtifact, match="more than 33554432 bytes"):
        store.open(store.find("a.tar.gz"))


NAMES = [
    "a-b.tar.gz",
    "a.tar.gz",
    "a/x.tar.gz",
    "a/y",
    "b",
    "code-only",
    "m.joblib",
    "model.tgz",
    "ü.tar.gz",
]


@pytest.fixture
def many(store: RemoteStore, put: Put) -> RemoteStore:
    put(
        {
            **{name: b"" for name in NAMES if "." in name},
            "a/y/z.joblib": b"",
            "b/model.joblib": b"",
            "b/other.tar.gz": b"",
            "code-only/code/inference.py": b"",
            "notes.txt": b"",
            ".hidden.tar.gz": b"",
            "docs/readme.md": b"",
            "back\\slash.tar.gz": b"",
            "x/../y.tar.gz": b"",
        }
    )
    return store


def test_what_is_claimed_by_name_is_listed(many: RemoteStore, caplog: pytest.LogCaptureFixture) -> None:
    assert list(many.list()) == NAMES
    assert "back\\\\slash.tar.gz' is not listed" in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_a_listing_goes_on_after_a_name(many: RemoteStore, name: str) -> None:
    assert list(many.list(name)) == NAMES[NAMES.index(name) + 1 :]


def test_a_listing_of_very_many_reads_no_further_than_it_is_asked(
    store: RemoteStore, objects: Objects, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = objects._run  # type: ignore[attr-defined]

    def counted(call: object) -> object:
        asked.append("")
        return real(call)

    monkeypatch.setattr(objects, "_run", counted)
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # a page; 1,000 in S3 itself
    put({f"{i:02}.tar.gz": b"" for i in range(25)})
    names = store.list()
    assert next(names) == "00.tar.gz"
    assert len(asked) == 1
    assert sum(1 for _ in names) == 24
    assert len(asked) == 3


def test_an_address_that_is_none() -> None:
    with pytest.raises(SettingsError, match="of no kind that is known"):
        connect("ftp://host/models", 1)
    with pytest.raises(SettingsError, match="names no bucket"):
        connect("s3://", 1)


# -- A server of it --


def model(value: float) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(DummyRegressor(strategy="constant", constant=value).fit([FLOWER], [value]), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def served(bucket: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bucket.put("served/a.tar.gz", packed({"model.joblib": model(1.0)}))
    folder = tmp_path_factory.mktemp("served")
    address = f"s3://{s3.BUCKET}/served"
    with serve(folder, address, "--workers", "1", "--store-refresh", "0", env=bucket.env) as server:
        yield server


@pytest.mark.parametrize("kind", ["file", "folder", "archive"])
def test_an_artifact_comes_changes_and_goes(served: Server, bucket: S3, kind: str) -> None:
    name, key = {
        "file": ("b.joblib", "served/b.joblib"),
        "folder": ("wine", "served/wine/model.joblib"),
        "archive": ("c.tar.gz", "served/c.tar.gz"),
    }[kind]
    for value in (2.0, 3.0):
        bucket.put(key, packed({"model.joblib": model(value)}) if kind == "archive" else model(value))
        assert served.predict(name) == [value]
        assert name in served.client.get("/artifacts").json()["artifacts"]
    bucket.delete(key)
    reply = served.invoke(name, [FLOWER])
    assert reply.status_code == 404
    assert name not in served.loaded()
    assert name not in served.client.get("/artifacts").json()["artifacts"]


def test_the_listing_is_served_a_page_at_a_time(served: Server) -> None:
    reply = served.client.get("/artifacts", params={"limit": "1"}).json()
    assert reply["artifacts"] == ["a.tar.gz"]


def test_check_takes_addresses(bucket: S3, tmp_path: Path) -> None:
    bucket.put("checked/m.joblib", model(1.0))
    (tmp_path / "m.joblib").write_bytes(model(1.0))
    for address in (f"s3://{s3.BUCKET}/checked/m.joblib", (tmp_path / "m.joblib").as_uri()):
        command = [sys.executable, "-m", "manymodels", "check", "--json", address]
        result = subprocess.run(command, env={**os.environ, **bucket.env}, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["plugin"] == "sklearn"
