"""The disk cache by itself: what it keeps, for whom, and what it throws away."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manymodels.errors import SettingsError
from manymodels.store import DiskCache, Found
from manymodels.store.contents import digest

Fill = Callable[[Path], None]


def found(version: str = "1", size: int = 1) -> Found:
    return Found("m", version, size, "archive")


def filled(content: bytes = b"model") -> Fill:
    def fill(into: Path) -> None:
        (into / "code").mkdir()
        (into / "code" / "model").write_bytes(content)

    return fill


def never(into: Path) -> None:
    pytest.fail("it was fetched again")


def contents(root: Path) -> list[str]:
    return os.listdir(root / "contents")


def temporary(root: Path) -> list[Path]:
    return list(root.glob("users/*/tmp/*"))


def test_what_fill_leaves_half_done_is_not_found(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)

    def fail(into: Path) -> None:
        (into / "half").write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cache.get("key", found(), fail)
    assert temporary(tmp_path) == []
    assert contents(tmp_path) == []
    assert cache.find("key", "m") is None
    assert os.listdir(cache.get("key", found(), lambda into: None)) == []


def test_a_version_is_filled_once_and_another_beside_it(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    one = cache.get("key", found(), filled())
    assert cache.get("key", found(), never) == one
    two = cache.get("key", found("2"), filled(b"other"))
    assert [(path / "code" / "model").read_bytes() for path in (one, two)] == [b"model", b"other"]
    assert cache.find("key", "m") == found("2")
    state = cache.state()
    assert (state.hits, state.misses, state.evictions, state.damaged) == (1, 2, 0, 0)
    assert state.bytes == 2 * 3 * 4096
    cache.forget("key")
    assert cache.find("key", "m") is None


def test_the_same_content_is_there_once(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    paths = {cache.get(key, found(version), filled()) for key, version in (("a", "1"), ("b", "1"), ("a", "2"))}
    assert [path.name for path in paths] == contents(tmp_path)
    assert cache.state().bytes == 3 * 4096


def test_a_restart_finds_what_was_fetched(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.release(cache.get("key", found(), filled()))
    del cache
    again = DiskCache(tmp_path)
    assert len(os.listdir(tmp_path / "users")) == 1
    assert again.find("key", "m") == found()
    again.get("key", found(), never)
    assert again.state().bytes == 3 * 4096


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "code" / "model").write_bytes(b"modem"),
        lambda path: (path / "code" / "model").write_bytes(b"model and more"),
        lambda path: (path / "code" / "model").unlink(),
        lambda path: (path / "code" / "model").rename(path / "model"),
        lambda path: (path / "code" / "other").mkdir(),
        lambda path: (path / "code" / ".hidden").write_bytes(b""),
        lambda path: (path / "code" / "link").symlink_to(__file__),
        lambda path: os.mkfifo(path / "code" / "pipe"),
    ],
)
def test_what_is_damaged_or_changed_is_thrown_away(
    tmp_path: Path, change: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    cache = DiskCache(tmp_path)
    path = cache.get("key", found(), filled())
    change(path)
    assert cache.get("key", found(), filled()) == path
    assert digest(path)[0] == path.name.partition("-")[0]
    assert "is damaged in the disk cache" in caplog.text
    assert (cache.state().damaged, cache.state().hits, cache.state().bytes) == (1, 0, 3 * 4096)
    assert temporary(tmp_path) == []


def test_contents_of_which_one_could_be_taken_for_the_other(tmp_path: Path) -> None:
    folders: list[dict[str, bytes]] = [
        {"a": b"b\x000\x00"},
        {"a": b"", "b": b""},
        {"a/b": b""},
        {"ab": b""},
        {"a": b"b"},
    ]
    digests = set()
    for number, files in enumerate(folders):
        for name, content in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        digests.add(digest(tmp_path / str(number))[0])
    assert len(digests) == len(folders)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff", json.dumps({"content": "../../x"}).encode()])
def test_a_damaged_name_is_as_none(tmp_path: Path, content: bytes) -> None:
    cache = DiskCache(tmp_path)
    path = cache.get("key", found(), filled())
    [name] = (tmp_path / "names").iterdir()
    name.write_bytes(content)
    assert cache.find("key", "m") is None
    assert cache.get("key", found(), filled()) == path
    name.write_bytes(name.read_bytes().replace(path.name.encode(), b"../names"))
    assert cache.find("key", "m") is None


def test_what_was_not_used_for_longest_leaves_and_nothing_that_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = 100 * 4096
    cache = DiskCache(tmp_path, 5 * (size + 8192))
    paths = {}
    for number in range(5):
        paths[number] = cache.get(str(number), found(), filled(bytes([number]) * size))
        os.utime(paths[number], (number, number))
    for number in (1, 2, 3, 4):
        cache.release(paths[number])
    cache.release(cache.get("1", found(), never))
    assert cache.state().evictions == 0
    paths[5] = cache.get("5", found(), filled(b"5" * size))
    assert set(contents(tmp_path)) == {paths[number].name for number in (0, 1, 4, 5)}
    assert cache.state().evictions == 2
    assert cache.state().bytes == 4 * (size + 8192)
    assert len(os.listdir(tmp_path / "names")) == 4
    assert cache.find("2", "m") is None
    used = [cache.get(key, found(), filled(key.encode() * size)) for key in "abcde"]
    assert "loaded models use them; raise cache_size" in caplog.text
    assert cache.state().bytes > cache.state().budget
    for path in used:
        cache.release(path)
        cache.release(tmp_path)  # what lies elsewhere is left alone
    cache.get("f", found(), filled(b"f" * size))
    assert cache.state().bytes <= cache.state().budget
    assert paths[0].exists()
    assert temporary(tmp_path) == []


def test_what_was_cleaned_up_is_made_again(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    path = cache.get("key", found(), filled())
    for folder in ("contents", "names", "users"):
        shutil.rmtree(tmp_path / folder)
    assert cache.find("key", "m") is None
    cache.release(path)
    assert cache.get("key", found(), filled()) == path
    cache.release(path)


def test_two_that_fill_the_same_get_the_same_folder(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    both = threading.Barrier(2, timeout=30)
    got: list[Path] = []

    def fill(into: Path) -> None:
        (into / "model").write_bytes(b"model")
        both.wait()

    threads = [threading.Thread(target=lambda: got.append(cache.get("key", found(), fill))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] == got[1]
    assert os.listdir(got[0]) == ["model"]
    assert cache.state().bytes == 2 * 4096
    assert temporary(tmp_path) == []


OTHER = """
import sys, time
from pathlib import Path
from manymodels.store import DiskCache, Found

cache = DiskCache(Path(sys.argv[1]))

def fill(into):
    (into / "model").write_bytes(sys.argv[2].encode() * 100_000)
    if "hang" in sys.argv:
        print("filling", flush=True)
        time.sleep(600)

print(cache.get(sys.argv[2], Found("m", "1", 1, "archive"), fill), flush=True)
time.sleep(600)
"""


@contextmanager
def other(root: Path, *arguments: str) -> Iterator[str]:
    """Another process that uses the cache until it is killed; yields what it says first."""
    process = subprocess.Popen([sys.executable, "-c", OTHER, root, *arguments], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGKILL)


def test_one_process_does_not_delete_what_another_uses(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 200_000)
    cache.release(cache.get("a", found(), filled(b"a" * 100_000)))
    with other(tmp_path, "b") as said:
        path = Path(said)
        for key in "cde":
            cache.release(cache.get(key, found(), filled(key.encode() * 100_000)))
            assert path.exists()
            # What the other has fetched is found here.
            cache.release(cache.get("b", found(), never))
            os.utime(path, (0, 0))
    cache.get("f", found(), filled(b"f" * 100_000))
    assert not path.exists()


def test_what_a_dead_process_left_is_swept_and_a_live_ones_is_not(tmp_path: Path) -> None:
    with other(tmp_path, "a", "hang") as said:
        assert said == "filling"
        assert len(temporary(tmp_path)) == 1
        kept = DiskCache(tmp_path).get("other", found(), filled())
        assert len(temporary(tmp_path)) == 1
    assert len(temporary(tmp_path)) == 1
    cache = DiskCache(tmp_path)
    assert temporary(tmp_path) == []
    assert cache.get("other", found(), never) == kept


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be used"):
        DiskCache(tmp_path / "file" / "cache")


def test_the_budget_is_half_of_what_the_disk_has_unless_it_is_set(tmp_path: Path) -> None:
    assert DiskCache(tmp_path, 1 << 20).state().budget == 1 << 20
    status = os.statvfs(tmp_path)
    assert 0 < DiskCache(tmp_path).state().budget < status.f_blocks * status.f_frsize
