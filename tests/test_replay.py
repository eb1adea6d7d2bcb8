"""Traces, and what policies do with them."""

from __future__ import annotations

import asyncio
import gzip
import json
from array import array
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from manymodels.cli import cli
from manymodels.endpoint.eviction import POLICIES
from manymodels.endpoint.replay import Replayed, replay
from manymodels.endpoint.trace import LOAD, SIZE, Recorder, Trace, hottest
from manymodels.errors import SettingsError

LINES = "0.5\ta b\t100\t2.5\n1\tc\n1.25\ta b\n2\tc\t300\t0.5\n3\td\n"


def trace(models: list[int], sizes: list[int], loads: list[float], gap: float = 1.0) -> Trace:
    made = Trace()
    made.times = array("d", [gap * number for number in range(len(models))])
    made.models = array("I", models)
    made.names = [str(number) for number in range(len(sizes))]
    made.sizes = array("q", sizes)
    made.loads = array("d", loads)
    return made


def run(made: Trace, policy: str, memory: int, loaders: int = 2) -> Replayed:
    return replay(made, POLICIES[policy](), memory, loaders)


@pytest.mark.parametrize("name", ["trace", "trace.gz"])
def test_traces_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES.encode()) if name.endswith(".gz") else LINES.encode())
    read = Trace.read(path)
    assert read.names == ["a b", "c", "d"]
    assert read.times.tolist() == [0.5, 1, 1.25, 2, 3]
    assert read.models.tolist() == [0, 1, 0, 1, 2]
    assert read.sizes.tolist() == [100, 300, 200]  # d takes the median of the others
    assert read.loads.tolist() == [2.5, 0.5, 1.5]
    assert hottest(path) == ["a b", "c", "d"]


def test_a_trace_need_not_have_sizes(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("1\ta\n2\tb\n")
    read = Trace.read(tmp_path / "trace")
    assert read.sizes.tolist() == [SIZE] * 2
    assert read.loads.tolist() == [LOAD] * 2


@pytest.mark.parametrize("line", ["", "1", "x\ta", "1\ta\tmany\t1", "1\ta\t5", f"1\ta\t{1 << 70}\t1"])
def test_what_is_no_trace_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "trace").write_text(f"1\ta\n{line}\n")
    with pytest.raises(SettingsError, match="line 2 of"):
        Trace.read(tmp_path / "trace")


def test_a_trace_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{n}\ta\n" for n in range(2000)).encode())
    (tmp_path / "trace.gz").write_bytes(whole[:-9])
    (tmp_path / "damaged.gz").write_bytes(whole[:99] + bytes(99) + whole[99:])
    for path in (tmp_path / "none", tmp_path / "trace.gz", tmp_path / "damaged.gz"):
        with pytest.raises(SettingsError, match="cannot be read"):
            Trace.read(path)
        with pytest.raises(SettingsError, match="cannot be read"):
            hottest(path)


def test_the_end_of_a_long_trace_says_what_is_hot(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("1\told\n" * 100_000 + "2\tnew\n" * 2_000_000 + "3\tother\n")
    assert hottest(path) == ["new", "other"]


def test_a_recorded_trace_is_read_again(tmp_path: Path) -> None:
    async def record(count: int) -> None:
        recorder = Recorder(tmp_path / "trace")
        recorder.loaded("ä/b", 1234, 0.25)
        for number in range(count):
            recorder.invoked(f"model-{number % 7}")
        await recorder.close()

    for count in (0, 2500):  # a second run goes on
        asyncio.run(record(count))
    read = Trace.read(tmp_path / "trace")
    assert len(read.times) == 2502
    assert read.names[0] == "ä/b"
    assert read.models[2:].tolist() == [1 + number % 7 for number in range(2500)]
    assert (read.sizes[0], read.loads[0]) == (1234, 0.25)
    assert np.all(np.diff(np.array(read.times)) >= 0)


def test_a_trace_is_written_while_the_server_runs(tmp_path: Path) -> None:
    async def record() -> None:
        recorder = Recorder(tmp_path / "trace")
        recorder.invoked("m")
        while not (tmp_path / "trace").read_text():  # noqa: ASYNC110 - written in a thread
            await asyncio.sleep(0.01)
        await recorder.close()

    asyncio.run(record())
    assert (tmp_path / "trace").read_text().endswith("\tm\n")


@pytest.mark.parametrize("name", ["none/trace", "trace.gz"])
def test_a_trace_that_cannot_be_recorded_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="trace"):
        Recorder(tmp_path / name)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_fits_is_loaded_once(policy: str) -> None:
    made = run(trace([0, 1, 0, 1, 0], [10, 20], [1.0, 2.0], gap=10), policy, 30)
    assert (made.requests, made.hits, made.loads, made.evictions) == (5, 3, 2, 0)
    assert (made.hit_bytes, made.bytes) == (40, 70)
    assert (made.load_seconds, made.reload_seconds) == (3.0, 0.0)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_does_not_fit_is_loaded_again(policy: str) -> None:
    made = run(trace([0, 1, 0, 1], [10, 10], [1.0, 2.0], gap=10), policy, 10)
    assert (made.hits, made.loads, made.evictions) == (0, 4, 3)
    assert (made.load_seconds, made.reload_seconds) == (6.0, 3.0)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_never_fits_is_refused(policy: str) -> None:
    made = run(trace([0, 1, 1, 0], [10, 11], [1.0, 1.0]), policy, 10)
    assert (made.hits, made.loads, made.refused) == (1, 1, 2)


def test_loads_wait_for_each_other() -> None:
    def wait(loaders: int) -> float:
        return run(trace([0, 1, 2], [1] * 3, [10.0] * 3), "lru", 10, loaders).wait_p99

    assert wait(1) == 28.0  # the third waits for two others
    assert wait(3) == 10.0
    assert run(trace([0, 0], [1], [10.0]), "lru", 10).wait_p99 == 10.0
    assert run(trace([0] * 1000, [1], [0.5]), "lru", 10).wait_p99 == 0.0


def zipf(models: int = 5000, requests: int = 60_000) -> list[int]:
    """Return requests that follow Zipf's law."""
    rng = np.random.default_rng(0)
    shares = np.cumsum(1 / np.arange(1, models + 1) ** 0.9)
    drawn: list[int] = rng.permutation(models)[np.searchsorted(shares, rng.random(requests) * shares[-1])].tolist()
    return drawn


def test_the_default_is_better_than_least_recently_used_for_equal_models() -> None:
    made = trace(zipf(), [8 << 10] * 5000, [0.01] * 5000, gap=1 / 400)
    ours, theirs = (run(made, policy, (8 << 10) * 1250) for policy in (next(iter(POLICIES)), "lru"))
    assert ours.hits > 1.05 * theirs.hits
    assert ours.reload_seconds < 0.85 * theirs.reload_seconds
    assert ours.wait_p99 <= theirs.wait_p99


def test_the_default_is_better_than_least_recently_used_for_different_models() -> None:
    kinds = np.random.default_rng(1).choice(3, 5000, p=[0.7, 0.25, 0.05])
    sizes = np.array([2 << 10, 160 << 10, 2800 << 10])[kinds].tolist()
    made = trace(zipf(), sizes, np.array([0.002, 0.014, 0.042])[kinds].tolist(), gap=1 / 50)
    ours, theirs = (run(made, policy, sum(sizes) // 4) for policy in (next(iter(POLICIES)), "lru"))
    assert ours.hits > 1.2 * theirs.hits
    assert ours.reload_seconds < 0.5 * theirs.reload_seconds


# -- The command --


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def test_the_command_compares(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("1\ta\t1000\t1\n2\tb\t1000\t2\n3\ta\n4\tb\n5\ta\n")
    done = command(tmp_path / "trace", "--memory", "50%", "--memory", "2KiB")
    assert done.exit_code == 0, done.output
    assert "5 requests for 2 models" in done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith(("50%", "2KiB"))]
    assert [row[:2] for row in rows] == [[memory, policy] for memory in ("50%", "2KiB") for policy in POLICIES]
    assert [row[2] for row in rows] == ["0.00%", "0.00%", "60.00%", "60.00%"]


def test_the_command_answers_in_json(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("1\ta\t1000\t1\n2\ta\n3\tbig\t5000\t1\n")
    done = command(tmp_path / "trace", "--memory", "1000", "--policy", "lru", "--workers", "1", "--json")
    [result] = json.loads(done.output)
    assert (result["memory"], result["policy"]) == ("1000", "lru")
    assert (result["hits"], result["loads"], result["refused"]) == (1, 1, 1)
    assert "larger than the memory" in command(tmp_path / "trace", "--memory", "1000").output


@pytest.mark.parametrize("memory", ["0", "0%", "101%", "-1", "much", "%"])
def test_memory_that_is_none(tmp_path: Path, memory: str) -> None:
    (tmp_path / "trace").write_text(LINES)
    done = command(tmp_path / "trace", f"--memory={memory}")
    assert done.exit_code == 2
    assert "is neither a size, such as 2GiB, nor a share, such as 25%" in done.output
