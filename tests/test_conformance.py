"""The conformance kit: a plugin that does all it asks passes, and for each check there are plugins that do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import abacus
import pytest
from installed import besides

from manymodels.errors import PluginError
from manymodels.testing import conformance, forks
from manymodels.testing.lab import Lab
from manymodels.testing.outcome import Failed, NotApplicable
from manymodels.testing.suite import CHECKS

MANYMODELS = Path(sys.executable).with_name("manymodels")
#: What is left out of a check, for speed: one other plugin is enough.
OTHERS = besides("custom")
SUITE = """
from manymodels.testing import Check, conformance

@conformance("abacus", known_failures={known!r})
def test_conformance(check: Check) -> None:
    check()
"""

#: Breaks the check batch-equals-single, and no other.
THREE_ROWS = "@hookimpl\ndef predict_fn(data, model):\n    return data @ model + (len(data) > 2)"
#: Breaks the check refuses-other-widths, and no other.
NARROWED = """
refuse = fit

def fit(rows, width):
    if rows.ndim == 2 and rows.shape[1] > width > 1:
        print("too wide")
        rows = rows[:, :width]
    return refuse(rows, width)
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install the plugin, with what breaks it, on the path of this process and of those it starts."""

    def install(more: str = "", metadata: str = abacus.METADATA) -> Path:
        folder = tmp_path / "installed"
        abacus.write(folder, more, metadata)
        monkeypatch.syspath_prepend(folder)
        # The toy's name is that of this folder's helper, too.
        monkeypatch.delitem(sys.modules, "abacus", raising=False)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        monkeypatch.setenv("MANYMODELS_BLOCK_PLUGINS", OTHERS)
        return folder

    return install


@contextmanager
def opened(plugin: str = "abacus") -> Iterator[Lab]:
    """Open a lab, and close it."""
    lab = Lab(plugin)
    try:
        yield lab
    finally:
        lab.close()


def test_a_good_plugin_passes_every_check(install: Install) -> None:
    install()
    with opened() as lab:
        outcomes = {check: lab.run(check) for check in CHECKS}
    assert {check: outcome.why for check, outcome in outcomes.items() if outcome.status != "passed"} == {}


def test_every_check_has_a_plugin_that_fails_it() -> None:
    assert {check for check, _, _ in abacus.BROKEN} | {"is-packaged"} == CHECKS.keys()


@pytest.mark.parametrize(
    ("check", "why", "more"),
    [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(abacus.BROKEN)],
)
def test_a_broken_plugin_fails(install: Install, check: str, why: str, more: str) -> None:
    install(more)
    with opened() as lab:
        outcome = lab.run(check)
    assert outcome.status == "failed", outcome
    assert re.search(why, outcome.why, re.DOTALL), outcome


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Name: manymodels-abacus", "Name: abacus", "not 'manymodels-abacus'"),
        ("Summary: Linear models of whole numbers\n", "", "no summary"),
        ("\n# manymodels-abacus\n", "", "no description"),
        ("Requires-Dist: manymodels\n", "", "does not require manymodels"),
    ],
)
def test_a_badly_packaged_plugin_fails(install: Install, old: str, new: str, why: str) -> None:
    assert old in abacus.METADATA
    install(metadata=abacus.METADATA.replace(old, new))
    with opened() as lab:
        outcome = lab.run("is-packaged")
    assert outcome.status == "failed"
    assert why in outcome.why


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("del sample_artifact", "has no hook sample_artifact"),
        ("@hookimpl\ndef sample_artifact(path):\n    return [Golden(body=b'', answer=b'')]", "wrote nothing"),
        ("@hookimpl\ndef sample_artifact(path):\n    (path / 'x').touch()\n    return []", "returned no requests"),
        ("@hookimpl\ndef sample_artifact(path):\n    1 / 0", r"ZeroDivisionError: division by zero \(abacus.py, line"),
    ],
)
def test_a_plugin_without_a_sample_cannot_be_checked(install: Install, more: str, why: str) -> None:
    install(more)
    with pytest.raises(PluginError, match=why):
        Lab("abacus")


def test_what_does_not_apply_is_skipped(install: Install) -> None:
    install("del accelerate, batch")
    with opened() as lab:
        assert {lab.run(check).status for check in ("batch-equals-single", "accelerate-agrees")} == {"skipped"}


# -- Under pytest --


def run_pytest(folder: Path, known: dict[str, str], *arguments: str) -> str:
    (folder / "test_abacus.py").write_text(SUITE.format(known=known))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-ra", "-c", os.devnull, *arguments]
    done = subprocess.run([*command, "test_abacus.py"], cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_each_check_is_a_test(install: Install, tmp_path: Path) -> None:
    install(THREE_ROWS)
    known = {"refuses-other-widths": "not known yet"}
    text = run_pytest(tmp_path, known, "-k", "batch or widths or loads or input")
    assert "test_conformance[loads] PASSED" in text
    assert "test_conformance[batch-equals-single] FAILED" in text
    assert re.search(r"^batch-equals-single: a request .* joined with", text, re.MULTILINE)
    assert "[XPASS(strict)] not known yet" in text, "a known failure that does not fail is an error"
    assert "2 failed, 2 passed" in text


def test_a_known_failure_is_expected(install: Install, tmp_path: Path) -> None:
    install(THREE_ROWS)
    text = run_pytest(tmp_path, {"batch-equals-single": "three rows are too many"}, "-k", "batch")
    assert re.search(r"XFAIL .*batch-equals-single.* - three rows are too many", text)
    assert "1 xfailed" in text


def test_a_known_failure_of_no_check_is_an_error() -> None:
    with pytest.raises(ValueError, match="known_failures names batching; the checks are is-packaged, "):
        conformance("abacus", known_failures={"batching": "?"})


def test_without_pytest_the_kit_says_what_to_install() -> None:
    code = "import sys; sys.modules['pytest'] = None; from manymodels.testing import conformance; conformance('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("needs pytest: pip install 'manymodels[testing]'\n")


# -- On the command line --


def verify(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MANYMODELS, "verify-plugin", name], capture_output=True, text=True, cwd="/")


def test_verify_plugin_reports_what_fails(install: Install) -> None:
    install(NARROWED)
    done = verify("abacus")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("plugin abacus (manymodels-abacus 0.1), manymodels ")
    assert ", Python " in lines[0]
    assert [line.split()[0] for line in lines[2:-1]] == list(CHECKS)
    assert re.search(r"^refuses-other-widths +failed +\d+\.\d +rows with a number too many", done.stdout, re.MULTILINE)
    assert lines[-1] == f"{len(CHECKS) - 1} passed, 1 failed"
    assert done.stderr.endswith("--- refuses-other-widths\ntoo wide\n\n"), "what it printed is for whoever mends it"


def test_verify_plugin_of_a_plugin_that_is_not_there() -> None:
    done = verify("abacus")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the plugin 'abacus' is not installed; installed: ")


# -- Forks --


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_fork_that_hangs_is_ended_with_what_it_started(log: Path, tmp_path: Path) -> None:
    def hang() -> None:
        process = subprocess.Popen(["sleep", "600"])
        (tmp_path / "pid").write_text(str(process.pid))
        time.sleep(600)

    outcome = forks.run(hang, 2.0, log)
    assert (outcome.status, outcome.why) == ("failed", "it took longer than 2 s")
    assert (
        not Path("/proc", (tmp_path / "pid").read_text()).exists()
        or "Z" in (Path("/proc", (tmp_path / "pid").read_text(), "stat").read_text().split()[2])
    )


def test_a_fork_tells_how_it_ended(log: Path) -> None:
    def fail() -> None:
        raise Failed("too slow")

    def skip() -> None:
        raise NotApplicable("nothing to do")

    def end() -> None:
        os.write(2, b"the end\n")
        os._exit(3)

    assert forks.run(lambda: "did it", 10, log).why == "did it"
    assert forks.run(fail, 10, log).why == "too slow"
    assert forks.run(skip, 10, log).status == "skipped"
    assert forks.run(end, 10, log).why == "the process ended with 3; the last it said: the end"
