"""What an artifact may ask for, and which of our packages an environment is given."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pools import TOY

from manymodels import Plugins, hookimpl
from manymodels.artifact import Artifact
from manymodels.environments import Environments, own, read
from manymodels.environments.build import Lock, find_uv
from manymodels.environments.requirements import LIMIT, MOST, met
from manymodels.errors import BadArtifact, LoadFailed, SettingsError
from manymodels.plugins import Binding
from manymodels.settings import load

HASH = "sha256:" + "0a" * 32


def artifact(folder: Path, text: str | bytes, file: str = "requirements.txt") -> Artifact:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Artifact(folder, "shop")


def lines(folder: Path, text: str) -> tuple[str, ...]:
    found = read(artifact(folder, text), parse=True)
    return () if found is None else found.lines


# -- requirements.txt --


def test_equal_requirements_are_equal_however_they_are_written(tmp_path: Path) -> None:
    text = f"Scikit_Learn == 1.5.2  # as trained\nnumpy>=1.26,<3\n\nscipy==1.14.1 \\\n    --hash={HASH}\n"
    one = lines(tmp_path, text)
    other = lines(tmp_path, f"\ufeff# a lock\r\nscipy==1.14.1 --hash={HASH}\r\nnumpy<3,>=1.26\r\nscikit-learn==1.5.2")
    assert one == other == ("numpy<3,>=1.26", "scikit-learn==1.5.2", f"scipy==1.14.1 --hash={HASH}")


def test_extras_and_markers_stay(tmp_path: Path) -> None:
    assert lines(tmp_path, 'a[b]>=1; python_version > "3.8"') == ('a[b]>=1; python_version > "3.8"',)


@pytest.mark.parametrize("text", ["", "\n# nothing\n  \n", "\\\n"])
def test_nothing_is_needed(text: str, tmp_path: Path) -> None:
    assert read(artifact(tmp_path, text), parse=True) is None


def test_the_file_is_at_the_top_or_beside_a_script(tmp_path: Path) -> None:
    assert read(Artifact(tmp_path), parse=True) is None
    beside = read(artifact(tmp_path, "a==1", "code/requirements.txt"), parse=True)
    assert beside is not None
    assert (beside.file, beside.lines) == ("code/requirements.txt", ("a==1",))
    top = read(artifact(tmp_path, "a==2"), parse=True)
    assert top is not None
    assert (top.file, top.lines) == ("requirements.txt", ("a==2",))


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-e .",
        "--editable ./here",
        "-c limits.txt",
        "--find-links /tmp",
        "--no-binary :all:",
        "a==1 --config-settings=x=y",
        "a==1 --hash=md5:0a",
        "-",
    ],
)
def test_options_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"requirements.txt of 'shop', line 2: .* is an option, which the operator"):
        lines(tmp_path, f"numpy\n{line}\n")


@pytest.mark.parametrize(
    "line", ["a @ https://example.org/a.whl", "a@file:///etc/passwd", "a @ git+https://example.org/a"]
)
def test_places_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"line 1: .* names a place"):
        lines(tmp_path, line)


@pytest.mark.parametrize(
    "line",
    [
        *("./a.whl", "/a", "https://example.org/a.whl", "a==", "a b", "=1", "${HOME}", "a\0b"),
        *('a; python_version ~= "x"', "a; 'x' in extras", "a; 'x' < 'y'", f"a=={'9' * 5000}", f"a; {'(' * 5000}"),
    ],
)
def test_what_is_no_requirement_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"line 1: .* is no name of a package with versions") as refused:
        lines(tmp_path, line)
    assert len(str(refused.value)) < 1000


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"requirements\.txt of 'shop' cannot be read"):
        read(artifact(tmp_path, b"\xff\xfe"), parse=True)
    with pytest.raises(BadArtifact, match=f"has more than {LIMIT} bytes"):
        read(artifact(tmp_path, b"#" * (LIMIT + 1)), parse=True)


def test_more_requirements_than_may_be_are_refused(tmp_path: Path) -> None:
    many = [f"pluggy>=0.{number}" for number in range(MOST + 1)]
    assert len(lines(tmp_path, "\n".join(many[:-1]))) == MOST
    with pytest.raises(BadArtifact, match=f"line {MOST + 1}: there are more than {MOST} requirements"):
        lines(tmp_path, "\n".join(many))


def test_what_is_installed_here_needs_no_environment() -> None:
    assert met(["numpy>=1", "pluggy", 'nothing-of-this-name; python_version < "3"'])
    for line in ("numpy<1", "nothing-of-this-name", "uvicorn[standard]", f"numpy --hash={HASH}"):
        assert not met([line])


# -- Our own packages --


def test_what_our_packages_need_of_others() -> None:
    core = own.requirements(own.distributions([]))
    assert "msgspec>=0.19" in core
    assert not [line for line in core if line.startswith(("manymodels", "scikit-learn", "pytest"))]
    assert "scikit-learn>=1.3" in own.requirements(own.distributions(["sklearn"]))


def test_only_our_packages_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOY)
    own.link(own.distributions(["custom", "toy"]), tmp_path)
    names = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
    assert names == {"manymodels", "manymodels_custom", "toy", "toy.py"}
    code = (
        "import sys; from importlib.metadata import entry_points, version;"
        f"sys.path[:] = [{str(tmp_path)!r}];"
        "print(*sorted(entry.name for entry in entry_points(group='manymodels')), version('manymodels-custom'))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["custom", "toy", "0.1.0"]


def test_plugins_that_watch_come_along() -> None:
    class Watcher:
        @hookimpl(wrapper=True)
        def load(self) -> Generator[None, object, object]:
            return (yield)

        @hookimpl(wrapper=True)
        def predict_fn(self, data: object) -> Generator[None, object, object]:
            return (yield)

    class Framework:
        @hookimpl
        def load(self) -> object:
            return None

        @hookimpl(wrapper=True)
        def predict_fn(self, data: object) -> Generator[None, object, object]:
            return (yield)

    plugins = Plugins([("watcher", Watcher()), ("framework", Framework())])
    assert plugins.watching == ["watcher"]


# -- Without a build --


@contextmanager
def environments(folder: Path, **flags: object) -> Iterator[Environments]:
    found = Environments(load(cache_dir=folder, **flags), Plugins.installed())
    yield found
    asyncio.run(found.close())


def test_built_means_that_the_operator_builds(tmp_path: Path) -> None:
    needs = read(artifact(tmp_path, "nothing-of-this-name==1"), parse=True)
    with environments(tmp_path, environments="built") as built:
        with pytest.raises(LoadFailed, match="run manymodels environments build on its store"):
            built.get("shop", needs, Binding("custom"))
        assert built.remarks(needs) == ()


def test_off_means_that_nothing_is_looked_at(tmp_path: Path) -> None:
    needs = read(artifact(tmp_path, "-r /etc/passwd"), parse=False)
    with environments(tmp_path) as off:
        assert off.get("shop", needs, Binding("custom")) is None
        assert off.remarks(needs) == ("requirements.txt is not installed: environments is off",)
    assert list(tmp_path.iterdir()) == [tmp_path / "requirements.txt"]


def test_uv_has_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Path(find_uv()).is_file()
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with (
        pytest.raises(SettingsError, match="built by uv, which is not found"),
        environments(tmp_path, environments="build"),
    ):
        pass
    with environments(tmp_path, environments="built"):
        pass


def test_the_folder_has_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "environments").write_text("")
    with (
        pytest.raises(SettingsError, match="choose another with --cache-dir"),
        environments(tmp_path, environments="built"),
    ):
        pass


def test_a_lock_is_for_one_who_builds_or_several_who_use(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.take(alone=True)
    assert not second.take(alone=False)
    assert first.take(alone=False)
    assert second.take(alone=False)
    assert not second.take(alone=True)
    first.close()
    assert second.take(alone=True)
    second.close()


def test_a_lock_that_can_only_be_read_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lock(tmp_path / "lock").close()
    opened = os.open

    def read_only(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)  # root, as whom tests run too, may write to what others may not
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.take(alone=False)
    assert not second.take(alone=True)
    first.close()
    second.close()
