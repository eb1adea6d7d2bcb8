"""How much memory there is, and what is learned of models."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from manymodels.errors import OutOfMemory
from manymodels.server import memory
from manymodels.server.memory import Estimator, check_room, default_budget, total


def test_the_budget_is_a_part_of_what_there_is() -> None:
    assert 0 < default_budget() < total() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1073741824\n", 1 << 30), ("max\n", None), (f"{(1 << 63) - 4096}\n", None), ("", None), ("0\n", 0)],
)
def test_limits_are_read(tmp_path: Path, text: str, limit: int | None) -> None:
    file = tmp_path / "memory.max"
    file.write_text(text)
    assert memory._limit(file) == limit


def test_a_limit_file_that_is_not_there_is_no_limit(tmp_path: Path) -> None:
    assert memory._limit(tmp_path / "memory.max") is None


def test_the_tightest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("own", "parent", "root", "missing")]
    for file, text in zip(files, (f"{64 << 20}", f"{32 << 20}", "max"), strict=False):
        file.write_text(text)
    monkeypatch.setattr(memory, "_limit_files", lambda: files)
    assert total() == 32 << 20
    assert default_budget() == 8 << 20  # too little for the reserve: a quarter


def test_limit_files_are_below_the_root_of_cgroups() -> None:
    roots = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    files = memory._limit_files()
    assert all(file.name in {root.name for root in roots} for file in files)
    assert all(str(file).startswith("/sys/fs/cgroup/") and ".." not in file.parts for file in files)
    assert not files or any(root in files for root in roots)


def test_estimates_follow_what_was_measured() -> None:
    estimator = Estimator()
    size = 1 << 20
    first = estimator.estimate("toy", size)
    assert first > size
    for _ in range(50):
        estimator.learn("toy", size, 4 * size)
    assert 3.9 * size < estimator.estimate("toy", size) <= 4 * size
    assert estimator.estimate("toy", 2 * size) == pytest.approx(2 * estimator.estimate("toy", size), rel=1e-6)
    assert estimator.estimate("other", size) == first


def test_small_artifacts_teach_nothing() -> None:
    estimator = Estimator()
    estimator.learn("toy", 100, 1 << 20)
    assert estimator.estimate("toy", 1000) == 1500
    estimator.learn("toy", 0, 1 << 20)  # nor do empty ones divide by zero
    assert estimator.estimate("toy", 0) == 0


def test_a_model_that_fits_is_let_in() -> None:
    check_room("m", estimate=10, used=90, budget=100)


@pytest.mark.parametrize(("estimate", "helps"), [(11, True), (100, True), (101, False)])
def test_a_model_that_does_not_fit_is_refused(estimate: int, helps: bool) -> None:
    with pytest.raises(OutOfMemory, match="there is no room for 'm'") as caught:
        check_room("m", estimate, used=90, budget=100)
    assert caught.value.eviction_helps is helps
