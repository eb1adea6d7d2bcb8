"""The README, the tutorial and the guide for plugin writers: their commands are run, their snippets executed."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from installed import besides
from serving import PATIENCE, serve

from manymodels import Artifact, ModelSettings, Plugins
from manymodels.invocation import Answer, Invocation
from manymodels.model import Model

ROOT = Path(__file__).resolve().parent.parent
#: The plugins that `make install` brings, which is what a reader has; others may be installed beside them.
PLUGINS = re.findall(r"^PLUGINS := .*,([\w ]+)\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
OTHERS = besides(*PLUGINS)
EXAMPLES = sorted(path.parent for path in ROOT.glob("plugins/examples/*/setup.cfg"))
#: Commands that other tests stand for: they need a network, or would run themselves.
ELSEWHERE = {"make install", "make test"}

pytestmark = pytest.mark.skipif(
    None in (shutil.which("curl"), shutil.which("bash"), shutil.which("make")),
    reason="the documents' commands need curl, bash and make",
)


@dataclass
class Block:
    """A fenced block of a document."""

    language: str
    code: str
    #: The file it is the content of, if the line above says so.
    file: str | None
    #: The block of text that follows it at once: what it prints.
    output: str | None = None


def read(document: Path) -> list[Block]:
    """Return a document's blocks."""
    blocks: list[Block] = []
    end = 0
    text = document.read_text()
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        between, end = text[end : match.start()], match.end()
        language, code = match.groups()
        if language == "text":
            if blocks and not between.strip():
                blocks[-1].output = code
            continue
        file = re.search(r"`([\w./-]+)`:\s*$", between)
        blocks.append(Block(language, code, file[1] if file else None))
    assert blocks
    return blocks


class Reader:
    """Does what a document says, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"NO_PROXY": "127.0.0.1", "MANYMODELS_BLOCK_PLUGINS": OTHERS}
        self.servers = ExitStack()
        self.port = 0
        (folder / ".venv").symlink_to(sys.prefix)

    def follow(self, blocks: list[Block]) -> None:
        for block in blocks:
            if block.file is not None:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.code)
            elif block.language == "bash":
                self._shell(block)
            elif block.language == "python":
                self._compare(block, [sys.executable, "-c", self._local(block.code)])

    def install(self, project: Path) -> None:
        """Do what pip makes of a distribution; that itself would need a network for its build tools."""
        config = configparser.ConfigParser()
        config.read(project / "setup.cfg")
        name = config["metadata"]["name"]
        installed = self.folder / "site" / f"{name.replace('-', '_')}-0.1.0.dist-info"
        installed.mkdir(parents=True)
        fields = [("Metadata-Version", "2.1"), ("Name", name), ("Version", "0.1.0")]
        fields += [("Summary", config["metadata"]["description"])]
        fields += [("Requires-Python", config["options"]["python_requires"])]
        fields += [("Requires-Dist", line) for line in config["options"]["install_requires"].split("\n") if line]
        lines = [f"{field}: {value}\n" for field, value in fields]
        (installed / "METADATA").write_text("".join(lines) + "\n" + (project / "README.md").read_text())
        (installed / "entry_points.txt").write_text(f"[manymodels]{config['options.entry_points']['manymodels']}\n")
        self.environment["PYTHONPATH"] = os.pathsep.join(map(str, (installed.parent, project / "src")))

    def _shell(self, block: Block) -> None:
        lines = []
        for line in block.code.splitlines():
            if line.startswith("export "):
                name, value = line.removeprefix("export ").split("=")
                self.environment[name] = value.replace("$PWD", str(self.folder))
            elif line not in ELSEWHERE:
                lines.append(line)
        serve = re.fullmatch(r"make serve|\.venv/bin/manymodels serve (\w+)", lines[-1]) if lines else None
        if serve is not None:
            self._serve(serve[1] or "model_store")
        elif lines:
            code = re.sub(r"manymodels (invoke|models)", rf"\g<0> --url http://127.0.0.1:{self.port}", "\n".join(lines))
            self._compare(block, ["bash", "-c", self._local(code)])

    def _serve(self, store: str) -> None:
        self.port = self.servers.enter_context(serve(self.folder, self.folder / store, env=self.environment)).port

    def _local(self, code: str) -> str:
        return code.replace(":8080", f":{self.port}")

    def _compare(self, block: Block, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=5 * PATIENCE,
        )
        expected = block.output or ""
        assert done.returncode == 0 or "Error" in expected, f"{block.code}\n{done.stdout}"
        if block.output is not None:
            printed, shown = lines_of(done.stdout), lines_of(block.output)
            assert len(printed) == len(shown), f"{block.code}\n{done.stdout}"
            for got, wanted in zip(printed, shown, strict=True):
                assert same(got, wanted), f"{block.code}\nprinted {got!r}, and the document shows {wanted!r}"


def lines_of(text: str) -> list[str]:
    """Return the lines of an output, without what differs from run to run."""
    text = re.sub(r"\b[\d.]+ [KMG]iB", "SIZE", text)
    text = re.sub(r"\b\d+ ms", "TIME", text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines()]


def same(got: Any, wanted: Any) -> bool:
    """Compare two lines, or what they hold as JSON, where other machines' last digits may differ."""
    if isinstance(got, str) and isinstance(wanted, str):
        try:
            return same(json.loads(got), json.loads(wanted))
        except ValueError:
            return got == wanted
    if isinstance(wanted, dict):
        return isinstance(got, dict) and list(got) == list(wanted) and all(same(got[key], wanted[key]) for key in got)
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(same, got, wanted))
    return bool(got == (pytest.approx(wanted, rel=1e-3, abs=1e-4) if isinstance(wanted, float) else wanted))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    with reader.servers:
        yield reader


def test_readme(reader: Reader) -> None:
    store = reader.folder / "model_store"
    subprocess.run([sys.executable, ROOT / "model_store" / "build.py", store], check=True, capture_output=True)
    blocks = read(ROOT / "README.md")
    last = next(block for block in blocks if "pip install" in block.code)
    assert any("make serve" in block.code for block in blocks)
    reader.follow([block for block in blocks if block is not last and "hookimpl" not in block.code])


def test_tutorial(reader: Reader) -> None:
    reader.follow(read(ROOT / "docs" / "tutorial.md"))


def test_guide_to_golden_requests(reader: Reader) -> None:
    reader.follow(read(ROOT / "docs" / "golden.md"))


def test_guide_to_schemas(reader: Reader) -> None:
    reader.follow(read(ROOT / "docs" / "schema.md"))


def test_installation_without_make_names_all_there_is() -> None:
    (block,) = [block for block in read(ROOT / "README.md") if "pip install" in block.code]
    install = next(line for line in block.code.splitlines() if "pip install" in line)
    named = {(ROOT / argument).resolve() for argument in install.split("pip install ")[1].split()}
    assert named == {ROOT, *(ROOT / "plugins" / f"manymodels-{name}" for name in PLUGINS)}
    assert ".venv/bin/python model_store/build.py" in block.code
    assert ".venv/bin/manymodels serve model_store" in block.code


def module(name: str, code: str) -> types.ModuleType:
    made = types.ModuleType(name)
    exec(code, vars(made))
    return made


def test_plugin_of_the_readme_and_wrapper_of_the_guide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (code,) = [block.code for block in read(ROOT / "README.md") if "hookimpl" in block.code]
    (metadata,) = [block.code for block in read(ROOT / "README.md") if block.language == "ini"]
    (wrapper,) = [block.code for block in read(ROOT / "docs" / "writing-a-plugin.md") if "wrapper=True" in block.code]
    config = configparser.ConfigParser()
    config.read_string(metadata)
    name, module_name = map(str.strip, config["options.entry_points"]["manymodels"].split("="))
    plugins = Plugins([(name, module(module_name, code)), ("timing", module("timing", wrapper))])

    (tmp_path / "lookup.json").write_text('{"a": 1, "b": "two"}')
    artifact = Artifact(tmp_path)
    model = Model(artifact, plugins.bind(artifact, ModelSettings()), plugins, ModelSettings())
    with caplog.at_level("INFO"):
        (answer,) = model.invoke([Invocation(b'["b", "c", "a"]')])

    assert isinstance(answer, Answer)
    assert answer.body == b'["two",null,1]'
    assert f"{tmp_path.name} predicted for" in caplog.text


@pytest.mark.timeout(600)  # verify-plugin starts a server of each kind, and loads models by the hundred
def test_guide_for_plugin_writers(reader: Reader) -> None:
    blocks = read(ROOT / "docs" / "writing-a-plugin.md")
    install = next(block for block in blocks if "pip install" in block.code)
    position = blocks.index(install)
    reader.follow(blocks[:position])

    reader.install(reader.folder / "manymodels-crfsuite")
    install.code = "\n".join(line for line in install.code.splitlines() if "pip install" not in line)

    reader.follow(blocks[position:])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_readme_of_an_example(reader: Reader, example: Path) -> None:
    first, *blocks = read(example / "README.md")
    assert first.code == f".venv/bin/pip install ./{example.relative_to(ROOT)}\n"
    reader.install(example)
    reader.follow(blocks)


def test_make_serve() -> None:
    # Told that the installation is up to date, since the tests run in it.
    command = ["make", "serve", "PORT=0", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"]
    # Inside of `make test`, make would take over its flags.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.decode())
            if line.startswith(b"try: "):
                break
        assert said[-1].startswith("try: curl http://127.0.0.1:"), "".join(said)
        arguments = shlex.split(said[-1])[1:]
        answer = subprocess.run(arguments, capture_output=True, check=True, timeout=PATIENCE).stdout
        assert json.loads(answer)["predictions"] == [0]
    finally:
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: all processes of the terminal get it
        rest, _ = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in rest
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_make_knows_what_the_documents_tell_to_make() -> None:
    text = "".join(path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
    told = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
    assert told >= {"install", "serve", "test"}
    assert told <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
