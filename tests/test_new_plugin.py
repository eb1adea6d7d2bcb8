"""What `new-plugin` writes works as it is: from an empty folder to an answer over HTTP."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from installed import besides

from manymodels.cli import cli
from manymodels.sagemaker import TARGET_MODEL
from manymodels.testing.suite import CHECKS


def new_plugin(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["new-plugin", *arguments])
    return done.exit_code, done.output


def run(*command: str | Path, cwd: Path) -> str:
    # One other plugin is enough: to write the samples of all imports every framework.
    environment = {**os.environ, "MANYMODELS_BLOCK_PLUGINS": besides("custom")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(400)
def test_from_an_empty_folder_to_an_answer(tmp_path: Path) -> None:
    code, text = new_plugin(
        "my-ledger", "--pattern", "*.ledger.json", "--framework", "decimal", "--into", str(tmp_path)
    )
    assert code == 0, text
    project = tmp_path / "manymodels-my-ledger"
    # An environment of its own, in which this one's packages are there, too: nothing is fetched.
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    sites = [path for path in site.getsitepackages() if path.startswith(sys.prefix)]
    (packages / "beside.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in sites))
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, project, cwd=tmp_path)

    assert "my-ledger  0.1.0    manymodels-my-ledger" in run(python, "-m", "manymodels", "plugins", cwd=tmp_path)
    text = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert f"{len(CHECKS)} passed, 2 skipped" in text, text
    report = run(python, "-m", "manymodels", "verify-plugin", "my-ledger", cwd=tmp_path)
    assert report.endswith(f"{len(CHECKS) - 2} passed, 2 skipped\n")

    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "shop.ledger.json").write_text('{"weights": [10, 1]}')
    command = [python, "-m", "manymodels", "serve", tmp_path / "store", "--port", "0", "--workers", "1"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = next(line.split()[-1] for line in process.stdout if line.startswith("listening on "))
            headers = {TARGET_MODEL: "shop.ledger.json", "Content-Type": "text/csv"}
            reply = httpx.post(f"{address}/invocations", content=b"4,2\n", headers=headers, timeout=60, trust_env=False)
        finally:
            process.terminate()
    assert (reply.status_code, reply.json()) == (200, [42.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'NAME'"),
        (["Ledger"], "is no name"),
        (["a--b"], "is no name"),
        (["../up"], "is no name"),
        (["sklearn"], "installed already"),
        (["ledger", "--pattern", "*"], "is no pattern"),
        (["ledger", "--pattern", "models/*.x"], "is no pattern"),
        (["ledger", "--pattern", '*."""'], "is no pattern"),
        (["ledger", "--framework", "os; evil()"], "is no name of a module"),
        (["ledger", "--framework", "import"], "is no name of a module"),
        (["ledger", "--into", "missing"], "does not exist"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = new_plugin(*arguments)
    assert code == 2
    assert message in text
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manymodels-ledger").mkdir()
    code, text = new_plugin("ledger", "--into", str(tmp_path))
    assert code == 1
    assert "exists; remove it, or choose another name" in text
    assert not list((tmp_path / "manymodels-ledger").iterdir())


def test_on_a_terminal_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "manymodels", "new-plugin", "--into", str(tmp_path)]
    with subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, text=True) as process:
        os.close(slave)
        os.write(master, b"ledger\n*.led\n\n")
        text, _ = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0, text
    assert "Names of its model files [*.ledger]" in text
    source = (tmp_path / "manymodels-ledger" / "src" / "manymodels_ledger" / "__init__.py").read_text()
    assert 'artifact.match("*.led")' in source
    assert "warm_up_imports" not in source
