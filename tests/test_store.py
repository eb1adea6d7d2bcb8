"""The local model store and its cache."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from manymodels import Artifact
from manymodels.errors import BadArtifact, BadTargetModel, LoadFailed, ModelNotFound, Overloaded, SettingsError
from manymodels.store import DiskCache, Found, Limits, LocalStore, Store, pack


def is_artifact(path: Path) -> bool:
    artifact = Artifact(path) if path.is_dir() else Artifact(path.parent, only=path.name)
    return bool(artifact.match("*.joblib")) and len(artifact.match("*")) < 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Store:
    return LocalStore(root, DiskCache(tmp_path / "cache"), is_artifact, Limits(members=5, bytes=1 << 20))


def put(path: Path, content: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_archive(path: Path, content: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temp:
        pack(put(Path(temp, "model.joblib"), content), path)
    return path


def cached(tmp_path: Path) -> list[str]:
    """Return what the cache holds, whole or half done."""
    return [path.name for pattern in ("contents/*", "users/*/tmp/*") for path in (tmp_path / "cache").glob(pattern)]


def test_an_archive_is_unpacked_once(store: Store, root: Path, tmp_path: Path) -> None:
    archive = put_archive(root / "team" / "a b.tar.gz")
    found = store.find("team/a b.tar.gz")
    assert (found.kind, found.size) == ("archive", archive.stat().st_size)
    opened = store.open(found)
    assert (opened / "model.joblib").read_bytes() == b"model"
    archive.unlink()
    assert store.open(found) == opened
    assert cached(tmp_path) == [opened.name]


def test_a_bare_file_is_copied(store: Store, root: Path) -> None:
    put(root / "model.joblib")
    put(root / "other.joblib")
    found = store.find("model.joblib")
    assert found.kind == "file"
    assert [path.name for path in store.open(found).iterdir()] == ["model.joblib"]


def test_a_folder_is_served_where_it_lies(store: Store, root: Path) -> None:
    put(root / "team" / "m" / "model.joblib")
    put(root / "team" / "m" / "code" / "inference.py", b"12")
    found = store.find("team/m")
    assert (found.kind, found.size) == ("folder", 7)
    assert store.open(found) == root / "team" / "m"


@pytest.mark.parametrize("name", ["a.tar.gz", "model.joblib"])
def test_a_replaced_artifact_is_another_version(store: Store, root: Path, name: str) -> None:
    write = put_archive if name.endswith("gz") else put
    write(root / name, b"old")
    old = store.find(name)
    assert store.find(name) == old
    opened = store.open(old)
    os.replace(write(root / ".new", b"new"), root / name)
    new = store.find(name)
    assert new.version != old.version
    assert [path.read_bytes() for path in store.open(new).iterdir()] == [b"new"]
    assert [path.read_bytes() for path in opened.iterdir()] == [b"old"]
    assert store.kept(name) == new
    store.forget(new)
    assert store.kept(name) is None
    assert store.open(new).exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: put(folder / "model.joblib", b"other"),
        lambda folder: put(folder / "code" / "new.py"),
        lambda folder: (folder / "code" / "inference.py").unlink(),
        lambda folder: (folder / "code").rename(folder / "edoc"),
        lambda folder: os.utime(folder / "model.joblib", (1, 1)),
    ],
)
def test_a_changed_folder_is_another_version(store: Store, root: Path, change: Callable[[Path], object]) -> None:
    put(root / "m" / "model.joblib", b"mode")
    put(root / "m" / "code" / "inference.py")
    old = store.find("m")
    assert store.find("m") == old
    change(root / "m")
    assert store.find("m").version != old.version


def test_running_its_code_makes_no_other_version(store: Store, root: Path) -> None:
    put(root / "m" / "model.joblib")
    old = store.find("m")
    put(root / "m" / "code" / "__pycache__" / "inference.pyc")
    put(root / "m" / ".lock")
    assert store.find("m") == old


def test_forgetting_a_folder_leaves_the_store_alone(store: Store, root: Path) -> None:
    put(root / "m" / "model.joblib")
    found = store.find("m")
    store.forget(found)
    assert store.open(found).exists()


@pytest.mark.parametrize(
    "name", ["missing.tar.gz", "a/b/c.tar.gz", "a.tar.gz/x", "%2e%2e/x", "x" * 300, "team", "x" * 1024]
)
def test_what_is_not_there(store: Store, root: Path, name: str) -> None:
    put_archive(root / "a.tar.gz")
    put_archive(root / "team" / "a.tar.gz")
    with pytest.raises(ModelNotFound) as caught:
        store.find(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["", "../outside.tar.gz", "/etc/passwd", "team/../a.tar.gz", "a\n.tar.gz", "x" * 2000])
def test_what_is_not_allowed(store: Store, root: Path, name: str) -> None:
    put_archive(root.parent / "outside.tar.gz")
    with pytest.raises(BadTargetModel):
        store.find(name)


def test_hidden_names_are_not_there(store: Store, root: Path) -> None:
    put_archive(root / ".new.tar.gz")
    put_archive(root / ".git" / "a.tar.gz")
    for name in (".new.tar.gz", ".git/a.tar.gz"):
        with pytest.raises(ModelNotFound):
            store.find(name)
    assert list(store.list()) == []


def test_links_inside_are_followed_and_links_out_are_not(store: Store, root: Path) -> None:
    put_archive(root / "blobs" / "a.tar.gz")
    put_archive(root.parent / "outside" / "a.tar.gz")
    put(root.parent / "store-2" / "model.joblib")
    links: dict[str, str | Path] = {
        "in.tar.gz": "blobs/a.tar.gz",
        "in": "blobs",
        "out.tar.gz": "../outside/a.tar.gz",
        "out": root.parent / "outside",
        "sibling": "../store-2",
        "loop": "loop",
        "broken": "gone",
        "cycle": ".",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    assert store.open(store.find("in.tar.gz")).exists()
    assert store.find("in/a.tar.gz").kind == "archive"
    for name in ("out.tar.gz", "out/a.tar.gz", "sibling", "sibling/model.joblib"):
        with pytest.raises(BadTargetModel, match="is a link out of the model store"):
            store.find(name)
    for name in ("loop", "broken"):
        with pytest.raises(ModelNotFound):
            store.find(name)
    assert list(store.list()) == ["blobs/a.tar.gz", "in.tar.gz"]


def test_a_swapped_link_is_another_version(store: Store, root: Path) -> None:
    put_archive(root / "v1.tar.gz", b"1")
    put_archive(root / "v2.tar.gz", b"2")
    (root / "now.tar.gz").symlink_to("v1.tar.gz")
    old = store.find("now.tar.gz")
    (root / "now.tar.gz").unlink()
    (root / "now.tar.gz").symlink_to("v2.tar.gz")
    assert store.find("now.tar.gz") != old


def test_the_root_may_be_a_link_that_is_swapped(tmp_path: Path) -> None:
    put_archive(tmp_path / "release-1" / "a.tar.gz", b"1")
    put_archive(tmp_path / "release-2" / "a.tar.gz", b"2")
    (tmp_path / "store").symlink_to("release-1")
    store = LocalStore(tmp_path / "store", DiskCache(tmp_path / "cache"), is_artifact)
    old = store.find("a.tar.gz")
    (tmp_path / "store").unlink()
    (tmp_path / "store").symlink_to("release-2")
    assert (store.open(store.find("a.tar.gz")) / "model.joblib").read_bytes() == b"2"
    assert store.find("a.tar.gz") != old


def test_deleted_between_find_and_open(store: Store, root: Path) -> None:
    for name, path in {
        "a.tar.gz": put_archive(root / "a.tar.gz"),
        "b.joblib": put(root / "b.joblib"),
        "m": put(root / "m" / "model.joblib").parent,
    }.items():
        found = store.find(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(ModelNotFound, match=f"no artifact '{name}'"):
            store.open(found)
        with pytest.raises(ModelNotFound):
            store.find(name)


@pytest.mark.parametrize("name", ["a.tar.gz", "b.joblib"])
def test_replaced_between_find_and_open(store: Store, root: Path, tmp_path: Path, name: str) -> None:
    write = put_archive if name.endswith("gz") else put
    write(root / name, b"1")
    found = store.find(name)
    os.replace(write(root / ".new", b"2"), root / name)
    with pytest.raises(LoadFailed, match="was replaced while it was read"):
        store.open(found)
    assert cached(tmp_path) == []


def test_a_corrupt_archive_leaves_nothing_in_the_cache(store: Store, root: Path, tmp_path: Path) -> None:
    path = put_archive(root / "team" / "a.tar.gz", os.urandom(10_000))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BadArtifact, match=r"'team/a\.tar\.gz' is truncated"):
        store.open(store.find("team/a.tar.gz"))
    assert cached(tmp_path) == []


def test_what_nobody_claims_is_opened_so_that_binding_can_say_why_not(store: Store, root: Path) -> None:
    put(root / "README.md")
    put(root / "unknown" / "model.xyz")
    assert list(store.list()) == []
    assert [path.name for path in store.open(store.find("README.md")).iterdir()] == ["README.md"]
    assert store.open(store.find("unknown")) == root / "unknown"


def test_a_bare_file_over_the_limit(store: Store, root: Path) -> None:
    put(root / "model.joblib", bytes((1 << 20) + 1))
    with pytest.raises(BadArtifact, match="more than 1048576 bytes"):
        store.open(store.find("model.joblib"))


def test_special_files_are_refused(store: Store, root: Path) -> None:
    os.mkfifo(root / "pipe.tar.gz")
    os.mkfifo(put(root / "m" / "model.joblib").parent / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket.joblib"))
    for name in ("pipe.tar.gz", "socket.joblib", "m"):
        with pytest.raises(BadArtifact, match="neither a file nor a folder"):
            store.find(name)
    assert list(store.list()) == ["m"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/passwd", "'link', a link that is broken or leads out of it"),
        ("../other.joblib", "'link', a link that is broken or leads out of it"),
        ("gone", "'link', a link that is broken or leads out of it"),
        ("code", "'link', a link to a folder"),
    ],
)
def test_links_in_a_folder(store: Store, root: Path, target: str, reason: str) -> None:
    put(root / "other.joblib")
    put(root / "m" / "..data" / "model.joblib")
    put(root / "m" / "code" / "x.py")
    (root / "m" / "model.joblib").symlink_to("..data/model.joblib")
    assert store.find("m").kind == "folder"
    (root / "m" / "link").symlink_to(target)
    with pytest.raises(BadArtifact, match=reason):
        store.find("m")


def test_a_folder_with_too_many_files_or_too_deep(store: Store, root: Path) -> None:
    put(root / "m" / "model.joblib")
    for n in range(5):
        put(root / "m" / "code" / str(n))
    with pytest.raises(BadArtifact, match="more than 5 files"):
        store.find("m")
    put(root / "n" / "model.joblib")
    put(root / "n" / ("x/" * 70) / "y")
    with pytest.raises(BadArtifact, match="more than 64 deep"):
        store.find("n")


def test_listing_is_lazy_sorted_and_complete(store: Store, root: Path) -> None:
    for name in ("b.tar.gz", "a/z.tgz", "a/b/c.tar.gz", "a-b.tar.gz", "modèle.tar.gz"):
        put_archive(root / name)
    for name in ("a/m.joblib", "folder/model.joblib", "folder/inner/x.joblib", "README.md", "a/notes.txt"):
        put(root / name)
    expected = ["a/b/c.tar.gz", "a/m.joblib", "a/z.tgz", "a-b.tar.gz", "b.tar.gz", "folder", "modèle.tar.gz"]
    listed = list(store.list())
    assert listed == expected == sorted(listed, key=lambda name: name.split("/"))
    assert all(store.open(store.find(name)).is_dir() for name in listed)
    names = store.list()
    next(names)
    put_archive(root / "a" / "late.tar.gz")
    shutil.rmtree(root / "folder")
    assert "folder" not in list(names)
    assert "a/late.tar.gz" in list(store.list())


def test_names_that_cannot_be_asked_for_are_not_listed(
    store: Store, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_archive(root / "ok.tar.gz")
    put_archive(root / "line\nbreak.tar.gz")
    put_archive(Path(os.fsdecode(os.fsencode(root) + b"/\xff.tar.gz")))
    deep = root
    for _ in range(6):
        deep = deep / ("x" * 200)
    put_archive(deep / "a.tar.gz")
    with caplog.at_level(logging.WARNING):
        assert list(store.list()) == ["ok.tar.gz"]
    assert len(caplog.records) == 3


def test_a_very_deep_store_is_listed(store: Store, root: Path) -> None:
    put_archive(root / ("x/" * 400) / "a.tar.gz")
    assert list(store.list()) == ["x/" * 400 + "a.tar.gz"]


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        LocalStore(tmp_path / "gone", DiskCache(tmp_path / "cache"), is_artifact)


def test_permission_denied(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as temp:
        # For root there are no permissions, so root becomes nobody, who must reach the folders.
        base = Path(temp)
        root = base / "store"
        put_archive(root / "a.tar.gz").chmod(0)
        put_archive(root / "closed" / "a.tar.gz")
        store = LocalStore(root, DiskCache(base / "cache"), is_artifact)
        found = store.find("a.tar.gz")
        (root / "closed").chmod(0)
        base.chmod(0o755)
        (base / "cache").chmod(0o777)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(LoadFailed, match=r"'a\.tar\.gz' cannot be read: permission denied"):
                store.open(found)
            with pytest.raises(LoadFailed, match=r"'closed/a\.tar\.gz' cannot be read: permission denied"):
                store.find("closed/a.tar.gz")
            assert list(store.list()) == ["a.tar.gz"]
        finally:
            os.seteuid(os.getuid())
            (root / "closed").chmod(0o755)
    assert "'closed' is not listed" in caplog.text


@pytest.mark.parametrize(("name", "verb"), [("a.tar.gz", "unpacked"), ("b.joblib", "fetched")])
def test_a_disk_that_takes_no_more(store: Store, root: Path, tmp_path: Path, name: str, verb: str) -> None:
    put_archive(root / "a.tar.gz", bytes(100_000))
    put(root / "b.joblib", bytes(100_000))
    found = store.find(name)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(LoadFailed, match=f"'{name}' cannot be {verb}: File too large"):
            store.open(found)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cached(tmp_path) == []
    assert store.open(found).exists()


def test_found_crosses_processes() -> None:
    import msgspec

    found = Found("a", "1", 2, "file")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Found) == found


def test_no_open_files_left_is_not_the_artifacts_fault(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "model.joblib")
    found = store.find("model.joblib")

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(Overloaded, match="raise ulimit -n"):
        store.open(found)
