"""Which artifacts the plugin takes for its own, and at what cost."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..artifact import Artifact
from ..context import ModelSettings
from ..errors import LoadFailed, NoPlugin
from .outcome import Failed
from .pickle_bomb import pickles
from .subject import Subject, alone


def claims_its_own(subject: Subject) -> None:
    """The sample artifact is claimed by this plugin, among all that are installed.

    An artifact without `manymodels.json` is served by the one plugin that claims it. Two that claim it are an error,
    and so is none.
    """
    try:
        binding = subject.binding
    except NoPlugin as error:
        raise Failed(f"the sample is not claimed: {error}") from error
    if subject.name not in (binding.plugin, binding.framework):
        raise Failed(f"the sample is claimed by {binding.plugin!r}")


def claims_no_others(subject: Subject) -> str:
    """Nothing else is claimed: an empty folder, texts, unknown bytes, other plugins' samples.

    Every file of a model store is shown to every plugin. What a plugin claims too much it takes from another.
    """
    plugin = alone(subject.name)
    strange = {
        "an empty folder": {},
        "a text file": {"notes.txt": b"remember the milk\n"},
        "a README and a table": {"README.md": b"# Data\n", "data.csv": b"a,b\n1,2\n"},
        "a file of unknown bytes": {"model.unknown": bytes(range(256)) * 4},
        "an empty JSON file": {"data.json": b"{}"},
    }
    for what, files in strange.items():
        folder = subject.scratch()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if plugin.claims(Artifact(folder), subject.settings):
            raise Failed(f"{what} is claimed")
    asked = []
    for other in subject.others:
        if "sample_artifact" not in other.hooks:
            continue
        asked.append(other.name)
        if plugin.claims(Artifact(subject.sample_of(other.name)), subject.settings):
            raise Failed(f"the sample of the plugin {other.name!r} is claimed")
    return f"nor the samples of {', '.join(asked)}" if asked else ""


def claims_by_looking(subject: Subject) -> None:
    """Claiming imports no framework and executes nothing, even of hostile files.

    Artifacts are claimed in the front process, which speaks to all clients: what `warm_up_imports` names must not be
    imported there, neither by the plugin's module nor by `claim`, and no pickle be loaded.
    """
    marker = subject.scratch() / "executed"
    folders = [subject.path]
    names = {"model.pkl", "model.joblib", *subject.artifact().files}
    for number, content in enumerate(pickles(marker)):
        folder = subject.scratch() / str(number)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            alone_here = subject.scratch() / name.replace("/", "-")
            alone_here.mkdir()
            (alone_here / Path(name).name).write_bytes(content)
            folders.append(alone_here)
        folders.append(folder)
    code = "import manymodels.cli; from manymodels.testing import claiming; import sys; claiming.look(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, subject.name, json.dumps([str(folder) for folder in folders])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise Failed(f"claiming hostile files fails: {last[0] if last else f'exit code {done.returncode}'}")
    if marker.exists():
        raise Failed("claiming a pickle executed what is in it")
    heavy = {module.partition(".")[0] for module in alone(subject.name).warm_up_imports()}
    found = sorted(heavy & set(json.loads(done.stdout.splitlines()[-1])))
    if found:
        raise Failed(f"claiming imports {', '.join(found)}; import it inside the hooks that need it")


def look(name: str, folders: str) -> None:
    """Ask the plugin whether it claims each folder; print the packages that were imported for that."""
    before = set(sys.modules)
    hook = alone(name).hook
    paths: Sequence[str] = json.loads(folders)
    for path in paths:
        artifact = Artifact(Path(path))
        with contextlib.suppress(LoadFailed):  # refused with a sentence
            hook.claim(artifact=artifact)
            hook.claim_code(artifact=artifact, settings=ModelSettings())
    print(json.dumps(sorted({module.partition(".")[0] for module in set(sys.modules) - before})))  # noqa: T201
