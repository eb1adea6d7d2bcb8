"""The command line, as the installed script in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from installed import MORE
from s3 import packed
from serving import BACKENDS, FLOWER, IRIS, TARGET_MODEL, Server, iris, script, serve, until

from manymodels import Plugins, __version__
from manymodels.cli import cli, command
from manymodels.cli.parts import open_store
from manymodels.cli.serve import _example
from manymodels.errors import SettingsError
from manymodels.settings import Settings, load, variables
from manymodels.store import DiskCache

MANYMODELS = Path(sys.executable).with_name("manymodels")
COMMANDS = [
    "check",
    "environments",
    "evictions",
    "invoke",
    "models",
    "names",
    "new-plugin",
    "package",
    "plugins",
    "replay",
    "scan",
    "serve",
    "settings",
    "train",
    "verify-plugin",
]
#: The class that the model of `serving` gives the flower.
ANSWER = [0]


def run(
    *arguments: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [MANYMODELS, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={"MANYMODELS_BLOCK_PLUGINS": MORE, **os.environ, **(env or {})},
        cwd=cwd,
        timeout=60,
    )


def succeed(*arguments: str | Path, **options: Any) -> str:
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def fail(*arguments: str | Path, code: int, **options: Any) -> str:
    """Return the error, which is one line without a traceback."""
    done = run(*arguments, **options)
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("Error: "), error
    return error.splitlines()[-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its sample and what does not belong into an archive."""
    folder = tmp_path_factory.mktemp("flowers")
    joblib.dump(iris(), folder / "model.joblib")
    (folder / "sample.json").write_text(json.dumps([FLOWER]))
    (folder / ".DS_Store").write_text("of no use")
    return folder


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return f"--url={server.url}"


# -- Help --


def test_help_lists_every_command_and_examples() -> None:
    text = succeed("--help")
    assert re.findall(r"^  ([\w-]+)  +\S", text.partition("Commands:")[2], re.MULTILINE) == COMMANDS
    assert "manymodels serve model_store" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"], prog_name="manymodels")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: manymodels {name} ")
    # The list of commands shows the first sentence, which has to fit.
    assert not command(name).get_short_help_str(limit=60).endswith("...")


def test_version_and_module() -> None:
    assert succeed("--version") == f"manymodels, version {__version__}\n"
    module = subprocess.run([sys.executable, "-m", "manymodels", "--version"], capture_output=True, check=True)
    assert module.stdout.decode().split() == ["manymodels,", "version", __version__]


def test_every_setting_is_a_flag_with_its_help_and_variable() -> None:
    text = " ".join(succeed("serve", "--help").split())
    for name, field in Settings.model_fields.items():
        assert re.search(rf" --{name.replace('_', '-')} ", text)
        assert str(field.description) in text
        assert f"env: {variables(name)[0]}]" in text


def test_unknown_command() -> None:
    assert "No such command 'sevre'" in fail("sevre", code=2)


# -- serve --


def test_serve_says_what_where_and_how_to_ask(tmp_path: Path, model: Path) -> None:
    store, temp = tmp_path / "models", tmp_path / "temp"
    store.mkdir()
    temp.mkdir()
    for name in ("a.tar.gz", "it's.tar.gz", IRIS):
        succeed("package", model, "-o", store / name)
    command = [str(MANYMODELS), "serve", "models", "--port", "0", "--workers", "1"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temp)},
    )
    assert process.stdout is not None
    what, where, example = (process.stdout.readline() for _ in range(3))
    assert what == f"serving 3 artifacts in models with the plugins {', '.join(Plugins.installed().names)}\n"
    address = where.removeprefix("listening on ").strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", address)
    assert [path.name[:11] for path in temp.iterdir()] == ["manymodels-"]
    words = shlex.split(example)
    assert words[:3] == ["try:", "curl", f"{address}/invocations"]
    headers = [words[index + 1] for index, word in enumerate(words) if word == "-H"]
    assert headers == [f"{TARGET_MODEL}: {IRIS}", "Content-Type: application/json"]
    assert json.loads(succeed("invoke", IRIS, words[words.index("-d") + 1], "--url", address)) == ANSWER
    process.terminate()
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [line.split("info", 1)[1].strip() for line in log.splitlines() if "worker" in line or "stop" in line] == [
        "starting the model server 'workers' ...",
        "stopped",
    ]
    assert list(temp.iterdir()) == []  # the cache is gone


def test_the_example_is_of_an_artifact_that_can_be_served(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    (tmp_path / "b.tar.gz").write_bytes(packed({"readme.txt": b"no model"}))
    shutil.copytree(model, tmp_path / "c")
    settings, plugins = load(), Plugins.installed()
    store = open_store(tmp_path, DiskCache(tmp_path / ".cache"), settings, plugins)
    assert "Target-Model: c'" in _example(store, ["a.tar.gz", "b.tar.gz", "c"], plugins, settings.model_settings())
    assert _example(store, ["a.tar.gz", "b.tar.gz"], plugins, settings.model_settings()) == ""


def test_a_cache_among_the_models_is_refused(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "elsewhere")
    for inside in (tmp_path, tmp_path / "cache"):
        with pytest.raises(SettingsError, match=f"cache_dir '{inside}' lies in the model store '{tmp_path}'"):
            open_store(tmp_path, cache, load(cache_dir=str(inside)), Plugins())
    for outside in (tmp_path / ".cache", tmp_path.parent):
        open_store(tmp_path, cache, load(cache_dir=str(outside)), Plugins())
    store = tmp_path / "store"
    store.mkdir()
    assert "lies in the model store" in fail("serve", store, "--cache-dir", store, code=2)
    assert not list(store.iterdir())


def test_serve_an_empty_store_with_flags_that_win_over_the_environment(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    store.mkdir()
    env = {"MANYMODELS_WORKERS": "x", "MANYMODELS_BLOCK_PLUGINS": "", **install(tmp_path, "import no_such_module")}
    assert "--block-plugins extra" in fail("serve", store, "--workers", "1", env=env, code=1)
    flags = ("--workers", "1", "--block-plugins", f"extra,sklaern,{MORE}", "--cache-dir", cache)
    with serve(tmp_path, store, *flags, env={**env, "MANYMODELS_WROKERS": "9"}) as running:
        assert running.client.get("/artifacts").json() == {"artifacts": []}
        assert "MANYMODELS_WROKERS is no setting and is not read: did you mean MANYMODELS_WORKERS?" in running.log()
        assert "there is no plugin 'sklaern' to leave out; installed are " in running.log()
        assert "no plugin 'extra'" not in running.log()
    assert cache.is_dir()


@pytest.mark.backends(*BACKENDS)
def test_serve_as_a_multi_model_container(backend: str, tmp_path: Path, model: Path) -> None:
    """With all plugins that are installed: any framework may be asked for, and so each is imported."""
    env = {"SAGEMAKER_MULTI_MODEL": "true", "MANYMODELS_BLOCK_PLUGINS": ""}
    with serve(tmp_path, "--workers", "1", env=env, backend=backend) as running:
        reply = running.client.post("/models", json={"model_name": "m", "url": str(model)})
        assert reply.status_code == 200, reply.text
        assert running.client.post("/models/m/invoke", json=[FLOWER]).json() == ANSWER


def test_serve_as_a_single_model_container(tmp_path: Path, model: Path) -> None:
    (tmp_path / "model").symlink_to(model)
    with serve(tmp_path, "--base-dir", tmp_path, "--workers", "1") as running:
        until(lambda: running.client.get("/ping").status_code == 200, "the model is loaded")
        assert running.client.post("/invocations", json=[FLOWER]).json() == ANSWER


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield str(sock.getsockname()[1])


def test_port_taken(tmp_path: Path, taken: str) -> None:
    error = fail("serve", tmp_path, "--port", taken, code=2)
    assert f"127.0.0.1:{taken}" in error
    assert "--port" in error


def test_store_missing() -> None:
    assert "'nowhere' is not a folder" in fail("serve", "nowhere", code=2)


def test_names_want_a_store(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text("{}")
    assert "leave --names out" in fail("serve", "--names", file, code=2, env={"SAGEMAKER_MULTI_MODEL": "true"})


def test_unknown_backend_names_those_there(tmp_path: Path) -> None:
    assert fail("serve", tmp_path, "--backend", "mss", code=2) == (
        "Error: backend is 'mss' (from --backend), which is not installed; choose one of mms, workers"
    )
    assert "from MANYMODELS_BACKEND" in fail("serve", tmp_path, code=2, env={"MANYMODELS_BACKEND": "mss"})


@pytest.mark.parametrize(("flag", "value"), [("--max-body", "6 apples"), ("--workers", "0"), ("--port", "http")])
def test_bad_flags_are_named(tmp_path: Path, flag: str, value: str) -> None:
    error = fail("serve", tmp_path, flag, value, code=2)
    assert repr(value) in error
    assert f"from {flag}" in error


def test_bad_variables_are_named(tmp_path: Path) -> None:
    env = {"SAGEMAKER_MODEL_JOB_QUEUE_SIZE": "many"}
    assert "'many' (from SAGEMAKER_MODEL_JOB_QUEUE_SIZE)" in fail("serve", tmp_path, code=2, env=env)


# -- invoke --


def test_invoke_takes_text(url: str) -> None:
    assert succeed("invoke", url, IRIS, json.dumps([FLOWER])) == "[0]"
    assert succeed("invoke", url, IRIS, "5.1,3.5,1.4,0.2\n5.1,3.5,1.4,0.2") == "[0,0]"


def test_invoke_takes_files_by_their_ending(url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([FLOWER]))
    (tmp_path / "rows.csv").write_text("5.1,3.5,1.4,0.2\n")
    (tmp_path / "rows.JSON").write_text(json.dumps([FLOWER]))
    for name in ("rows.npy", "rows.csv", "rows.JSON"):
        assert succeed("invoke", url, IRIS, f"@{tmp_path / name}") == "[0]"
    assert "cannot be read" in fail("invoke", url, IRIS, f"@{tmp_path}/none.csv", code=1)


@pytest.mark.parametrize("data", [["-"], []])
def test_invoke_takes_standard_input(url: str, data: list[str]) -> None:
    assert succeed("invoke", url, IRIS, *data, stdin=b"5.1,3.5,1.4,0.2") == "[0]"


def test_invoke_sends_both_types(url: str) -> None:
    request = f" {json.dumps([FLOWER])}"
    assert succeed("invoke", url, IRIS, request, "--content-type", "application/json", "--accept", "text/csv") == "0\n"
    assert "400 BadInput" in fail("invoke", url, IRIS, request, "--content-type", "text/csv", code=1)


def test_invoke_names_of_any_script(url: str) -> None:
    assert succeed("invoke", url, "modèle.tar.gz", json.dumps([FLOWER])) == "[0]"


def test_invoke_is_pretty_on_a_terminal(url: str) -> None:
    ours, theirs = pty.openpty()
    request = json.dumps({"features": [FLOWER]})
    env = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}
    subprocess.run([MANYMODELS, "invoke", url, IRIS, request], stdin=theirs, stdout=theirs, check=True, env=env)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # ends with EIO
        while chunk := terminal.read(1000):
            shown += chunk.decode()
    assert len(shown.splitlines()) > 5
    assert json.loads(shown)["predictions"] == ANSWER


def test_invoke_tells_errors(url: str) -> None:
    assert "404 ModelNotFound: there is no artifact 'none'" in fail("invoke", url, "none", "[]", code=1)
    assert "415 UnsupportedContentType" in fail("invoke", url, IRIS, "x", "--content-type=image/png", code=1)
    assert "400 BadTargetModel" in fail("invoke", url, "../etc/passwd", "[]", code=1)


def test_no_server() -> None:
    for arguments in (["invoke", IRIS, "[]"], ["models"]):
        error = fail(*arguments, "--url", "http://127.0.0.1:1", code=1)
        assert "no server answers at http://127.0.0.1:1" in error
        assert "manymodels serve" in error


def test_bad_address() -> None:
    assert "asking ftp://127.0.0.1 failed" in fail("models", "--url", "ftp://127.0.0.1", code=1)
    assert "no server answers at 127.0.0.1:1 " in fail("models", "--url", "127.0.0.1:1", code=1)


# -- models --


def test_models_shows_what_is_loaded(tmp_path: Path, model: Path) -> None:
    for number in range(101):  # more than a page
        (tmp_path / f"{number:03}.tar.gz").touch()
    succeed("package", model, "-o", tmp_path / "z.tar.gz")
    (tmp_path / "log").mkdir()
    with serve(tmp_path / "log", tmp_path, "--workers", "1") as running:
        running.predict("z.tar.gz")
        table = succeed("models", "--url", running.url)
        content = json.loads(succeed("models", "--url", running.url, "--json"))
        (name,) = [entry["artifact"] for entry in content if entry["loaded"]]
        one = succeed("models", name, "--url", running.url)
        assert re.search(r"^plugin +sklearn *$", one, re.MULTILINE)
        assert re.search(r"^inputs +number shape \[-1,4\] *$", one, re.MULTILINE)
        assert re.search(r"^outputs +integer values \[0,1,2\] *$", one, re.MULTILINE)
        assert json.loads(succeed("models", name, "--url", running.url, "--json"))["modelName"] == name
        assert "404" in fail("models", "none/of that.name", "--url", running.url, code=1)
        assert "/models/.. does not answer as manymodels does" in fail("models", "..", "--url", running.url, code=1)
    lines = table.splitlines()
    assert lines[0].split() == ["Artifact", "Plugin", "Memory", "Load", "Notes"]
    assert lines[1].split() == ["000.tar.gz"]
    assert re.fullmatch(r"z.tar.gz +sklearn +[\d.]+ [KM]iB +\d+ ms *", lines[-3])
    assert lines[-2] == "102 artifacts, 1 loaded"
    assert re.fullmatch(r"disk cache: [\d.]+ KiB of [\d.]+ [KMG]iB", lines[-1])
    assert [entry["artifact"] for entry in content if entry["loaded"]] == ["z.tar.gz"]
    assert content[-1]["loaded"]["plugin"] == "sklearn"
    assert len(content) == 102


# -- plugins --


def test_plugins() -> None:
    content = json.loads(succeed("plugins", "--json", env={"MANYMODELS_BLOCK_PLUGINS": ""}))
    names = [plugin["name"] for plugin in content]
    assert names == sorted(names)
    assert set(names) >= {"custom", "sklearn", "xgboost"}
    assert [plugin["distribution"] for plugin in content] == [f"manymodels-{name}" for name in names]
    assert all("load" in plugin["hooks"] for plugin in content)
    table = succeed("plugins")
    row = rf"^sklearn +{re.escape(__version__)} +manymodels-sklearn +accelerate, batch, "
    assert re.search(row, table, re.MULTILINE)
    env = {"MANYMODELS_BLOCK_PLUGINS": ",".join(names)}
    assert succeed("plugins", env=env).startswith("no plugin is installed")


def install(folder: Path, source: str) -> dict[str, str]:
    """Install a distribution with a plugin called ``extra``; return the environment in which it is there."""
    (folder / "extra_plugin.py").write_text(source)
    info = folder / "extra_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[manymodels]\nextra = extra_plugin\n")
    return {"PYTHONPATH": str(folder)}


HELLO = """
import click
from manymodels import hookimpl

@hookimpl
def register_commands(cli):
    @cli.command()
    def hello():
        "Say hello."
        click.echo("hello")

    @cli.command()
    def plugins():
        "Hide the platform's own command."
"""


def test_plugins_add_commands_and_cannot_replace_any(tmp_path: Path) -> None:
    env = install(tmp_path, HELLO)
    assert succeed("hello", env=env) == "hello\n"
    text = succeed("--help", env=env)
    assert re.search(r"^  hello +Say hello\.$", text, re.MULTILINE)
    assert re.search(r"^  plugins +Show the installed", text, re.MULTILINE)
    assert re.search(r"^extra +1\.0 ", succeed("plugins", env=env), re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "'extra' of distribution 'extra-plugin' cannot be imported"),
        (HELLO.replace("(cli)", "(cli, depth)"), "'extra' breaks the hook contract"),
        (HELLO.replace("cli.command", "cli.comand"), "register_commands failed (AttributeError"),
    ],
)
def test_a_broken_plugin_is_named(tmp_path: Path, source: str, reason: str) -> None:
    env = install(tmp_path, source)
    assert reason in fail("hello", env=env, code=1)
    helped = run("--help", env=env)
    assert helped.returncode == 0
    assert reason in helped.stderr.decode()
    assert b"  serve " in helped.stdout


# -- settings --


def test_settings_say_where_they_come_from() -> None:
    env = {"MAX_CONTENT_LENGTH": "1048576", "MANYMODELS_WORKERS": "3"}
    content = {item["name"]: item for item in json.loads(succeed("settings", "--json", env=env))}
    assert list(content) == list(Settings.model_fields)
    assert (content["max_body"]["value"], content["max_body"]["source"]) == (1 << 20, "from MAX_CONTENT_LENGTH")
    assert content["max_body"]["variables"] == ["MANYMODELS_MAX_BODY", "MAX_CONTENT_LENGTH"]
    assert (content["port"]["value"], content["port"]["source"]) == (8080, "default")
    table = succeed("settings", env=env)
    assert re.search(r"^max_body +1\.0MiB +from MAX_CONTENT_LENGTH +MANYMODELS_MAX_BODY +Largest", table, re.MULTILINE)
    assert re.search(r"^workers +3 +from MANYMODELS_WORKERS ", table, re.MULTILINE)


def test_settings_with_a_bad_variable() -> None:
    assert "'no' (from MANYMODELS_PORT)" in fail("settings", code=2, env={"MANYMODELS_PORT": "no"})


# -- package --


def test_package_a_folder(model: Path, tmp_path: Path) -> None:
    lines = succeed("package", model, cwd=tmp_path).splitlines()
    assert re.fullmatch(rf"{model.name}.tar.gz \([\d.]+ KiB\) holds model.joblib, sample.json", lines[0])
    assert lines[1] == "it is served by the plugin sklearn"


def test_package_what_no_plugin_claims(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    done = run("package", tmp_path / "notes.txt", "-o", "notes.tgz", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.decode().startswith("Warning: it cannot be served here: no plugin claims 'notes.tgz'")
    assert (tmp_path / "notes.tgz").exists()


def test_package_refuses(model: Path, tmp_path: Path) -> None:
    assert "must end with .tar.gz or .tgz" in fail("package", model, "-o", tmp_path / "a.zip", code=2)
    assert "cannot be packed" in fail("package", model, "-o", tmp_path / "none" / "a.tgz", code=1)
    assert "does not exist" in fail("package", tmp_path / "none", code=2)
    (tmp_path / "empty").mkdir()
    assert "holds no files" in fail("package", tmp_path / "empty", cwd=tmp_path, code=1)
    assert list(tmp_path.glob("*.t*")) == []


def test_package_records_golden_requests(model: Path, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    csv = {"body": "5.1,3.5,1.4,0.2\n", "content_type": "text/csv", "accept": "text/csv", "tolerance": 0.5}
    requests.write_text("\n".join(map(json.dumps, [{"body": [FLOWER], "answer": ["old"]}, csv])))
    lines = succeed("package", model, "--golden", requests, "-o", "golden.tgz", cwd=tmp_path).splitlines()
    assert lines[0].endswith("holds model.joblib, sample.json, golden.jsonl")
    with tarfile.open(tmp_path / "golden.tgz") as archive:
        member = archive.extractfile("golden.jsonl")
        assert member is not None
        recorded = [json.loads(line) for line in member]
    csv |= {"answer": "0\n", "answer_content_type": "text/csv"}
    assert recorded == [{"body": [FLOWER], "answer": ANSWER}, csv]
    assert not (model / "golden.jsonl").exists()

    content = json.loads(succeed("check", tmp_path / "golden.tgz", "--json"))
    assert content["golden"] == {"requests": 2, "failed": 0}
    assert re.search(r"golden.jsonl +2 of 2 answered as they must be", succeed("check", tmp_path / "golden.tgz"))


def test_package_records_no_errors(model: Path, tmp_path: Path) -> None:
    (tmp_path / "wide.jsonl").write_text('\n{"body": [[1, 2]]}')
    error = fail("package", model, "--golden", tmp_path / "wide.jsonl", cwd=tmp_path, code=1)
    assert "wide.jsonl, line 2, is not answered: the model expects 4 features" in error
    (tmp_path / "bad.jsonl").write_text('{"bod": 1}')
    assert "bad.jsonl, line 1, is not valid" in fail("package", model, "--golden", tmp_path / "bad.jsonl", code=1)
    assert list(tmp_path.glob("*.gz")) == []


# -- check --


def test_check_fails_with_golden_requests(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "model.joblib", tmp_path)
    lines = [{"body": [FLOWER], "answer": answer} for answer in ([1], ANSWER, [2])]
    (tmp_path / "golden.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = run("check", tmp_path)
    assert done.returncode == 1
    text = done.stdout.decode()
    assert re.search(r"fails golden requests", text.splitlines()[0])
    assert re.findall(r"golden.jsonl, line (\d): the model answers \[0\] instead of \[(\d)\]", text) == [
        ("1", "1"),
        ("3", "2"),
    ]
    assert re.search(r"golden.jsonl +1 of 3 answered as they must be", text)
    done = run("check", tmp_path, "--json")
    assert (done.returncode, json.loads(done.stdout)["golden"]) == (1, {"requests": 3, "failed": 2})


def test_check_shows_plugin_load_and_answer(model: Path) -> None:
    lines = [line.strip().split(maxsplit=1) for line in succeed("check", model).splitlines()]
    assert lines[:2] == [[model.name, "can be served"], ["plugin", "sklearn"]]
    assert [line[0] for line in lines[2:4]] == ["loaded", "memory"]
    assert lines[4:] == [["sample.json", "[0]"]]


def test_check_a_bare_file(model: Path) -> None:
    content = json.loads(succeed("check", model / "model.joblib", "--json"))
    assert content["plugin"] == "sklearn"
    assert content["bytes"] > 0
    assert content["sample"] is None


BROKEN = "def model_fn(model_dir):\n    raise KeyError('weights')\n"
REFUSING = (
    "def model_fn(model_dir):\n    return 1\n\ndef transform_fn(model, data, content_type, accept):\n    return 1 / 0\n"
)


def test_check_what_cannot_be_served(tmp_path: Path) -> None:
    script(tmp_path, "broken", BROKEN)
    done = run("check", tmp_path / "broken")
    assert done.returncode == 1
    assert done.stdout == b""
    assert "KeyError: 'weights'" in done.stderr.decode().splitlines()[-1]
    assert "inference.py" in done.stderr.decode()  # the traceback is for the script's author

    script(tmp_path, "refusing", REFUSING)
    (tmp_path / "refusing" / "sample.csv").write_text("1\n")
    done = run("check", tmp_path / "refusing")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr.decode().splitlines()[-1]

    (tmp_path / "damaged.tar.gz").write_bytes(b"no archive")
    assert "'damaged.tar.gz' is not a gzip archive" in fail("check", tmp_path / "damaged.tar.gz", code=1)
    (tmp_path / "readme.md").write_text("no model")
    assert "'readme.md'" in fail("check", tmp_path / "readme.md", code=1)
