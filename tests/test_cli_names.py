"""`manymodels names`: a file is checked, alone and against a store, and a server's names are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from serving import constant

from manymodels.cli import cli
from manymodels.errors import SettingsError

NAMES = {
    "versions": "{name}/{version}.joblib",
    "names": {
        "churn@prod": "churn@3",
        "churn": {"serve": {"churn@3": 3, "churn@4": 1}, "shadow": {"model": "new.joblib"}},
    },
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["names", *map(str, arguments)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(NAMES))
    return path


def test_check_prints_what_names_lead_to(file: Path) -> None:
    done = run("check", file)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split() for line in done.output.splitlines()] == [
        ["Name", "Serves", "Sticky", "Shadow"],
        ["churn@prod", "churn/3.joblib"],
        ["churn", "75.0%", "churn/3.joblib", "new.joblib"],
        ["25.0%", "churn/4.joblib"],
    ]
    [prod, churn] = json.loads(run("check", file, "--json").stdout)
    assert prod == {"name": "churn@prod", "serve": {"churn/3.joblib": 1.0}}
    assert churn["shadow"] == {"model": "new.joblib", "share": 1.0, "tolerance": 1e-9}


def test_check_finds_what_the_store_lacks(file: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    constant(store / "churn" / "3.joblib", 3.0)
    constant(store / "new.joblib", 4.0)
    done = run("check", file, store)
    assert done.exit_code == 1
    assert "churn: there is no artifact 'churn/4.joblib' in the model store" in done.stderr
    assert "1 of the artifacts cannot be had from the store" in done.stderr
    constant(store / "churn" / "4.joblib", 4.0)
    assert run("check", file, store).exit_code == 0


def test_check_says_what_is_wrong(file: Path) -> None:
    file.write_text('{"names": {"churn": {"serve": {}}}}')
    done = run("check", file)
    assert isinstance(done.exception, SettingsError)
    assert "'churn': it serves nothing" in str(done.exception)
