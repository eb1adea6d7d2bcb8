"""The command that lists what the pickles of artifacts would import."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from ..artifact import Artifact
from ..errors import ManyModelsError
from ..plugins import Plugins
from ..policy import Policy
from ..scanning import Scan, is_candidate, scan
from ..settings import Settings, load
from .options import options_of
from .output import as_json_option, print_json, print_table
from .parts import Location, open_cache, open_store, split

#: What a policy does with an import.
ALLOWED, CLASS, REFUSED = "allowed", "allowed if it is a class", "refused"


@click.command("scan")
@click.argument("artifacts", nargs=-1, required=True, type=Location(exists=True))
@options_of("policy", "max_members", "max_unpacked")
@as_json_option
def scan_command(artifacts: tuple[str | Path, ...], *, as_json: bool, **flags: Any) -> None:
    """List what pickles in ARTIFACTS would import.

    Nothing of them is imported or run; archives are unpacked within the limits of serve. The list of all names is a
    start for a policy's globals. The exit code is 1 if the policy's globals leave any of it out, or if it cannot be
    told what a file imports.
    """
    settings = load(**flags)
    found = [(_shown(artifact), list(_scanned(artifact, settings))) for artifact in artifacts]
    names = sorted({name for _, files in found for _, scanned in files for name in scanned.imports})
    if as_json:
        listed = [
            {"artifact": artifact, "files": [_as_json(file, scanned, settings.policy) for file, scanned in files]}
            for artifact, files in found
        ]
        print_json({"artifacts": listed, "globals": names})
    else:
        rows = [row for artifact, files in found for row in _rows(artifact, files, settings.policy)]
        columns = ("Artifact", "File", "Imports", "Policy")
        print_table(columns if settings.policy else columns[:3], rows if settings.policy else [row[:3] for row in rows])
        if names and settings.policy is None:
            click.echo(f'\nto allow all of it: "globals": {msgspec.json.encode(names).decode()}')
    verdicts = {_verdict(settings.policy, name) for name in names}
    if REFUSED in verdicts or any(scanned.problem for _, files in found for _, scanned in files):
        sys.exit(1)


def _shown(location: str | Path) -> str:
    """Return a location as people write it: a path from here on."""
    here = isinstance(location, Path) and location.is_relative_to(Path.cwd())
    return os.path.relpath(location) if here else str(location)


def _scanned(location: str | Path, settings: Settings) -> Iterator[tuple[str, Scan]]:
    """Yield each pickle of an artifact; what is wrong with all of it is a problem of the file "."."""
    parent, name = split(location)
    # Whatever is scanned need be neither signed nor from an allowed place, and no plugin is asked what it is.
    plain = settings.model_copy(update={"policy": None, "trusted_keys": None})
    try:
        with tempfile.TemporaryDirectory(prefix="manymodels-") as cache:
            store = open_store(parent, open_cache(Path(cache), plain), plain, Plugins())
            yield from _files(Artifact(store.open(store.find(name)), name), int(settings.max_unpacked))
    except ManyModelsError as error:
        yield ".", Scan(problem=str(error))


def _files(artifact: Artifact, limit: int) -> Iterator[tuple[str, Scan]]:
    for file in artifact.files:
        path = artifact.path / file
        try:
            if is_candidate(path):
                yield file, scan(path, limit)
            elif file.endswith(".py"):
                yield file, Scan(code=True)
        except OSError as error:
            yield file, Scan(problem=f"cannot be read: {error.strerror}")


def _verdict(policy: Policy | None, name: str) -> str:
    if policy is None or policy.names(name):
        return ALLOWED
    return CLASS if policy.covers(name) else REFUSED


def _rows(artifact: str, files: list[tuple[str, Scan]], policy: Policy | None) -> Iterator[tuple[str, str, str, str]]:
    if not files:
        yield artifact, "", "holds no pickles", ""
    for file, scanned in files:
        for name in scanned.imports:
            yield artifact, file, name, _verdict(policy, name)
        if scanned.problem is not None:
            yield artifact, file, f"cannot be told: {scanned.problem}", REFUSED
        elif scanned.code:
            yield artifact, file, "is code, which may import anything", "up to the plugin that runs it"
        elif not scanned.imports:
            yield artifact, file, "nothing", ALLOWED


def _as_json(file: str, scanned: Scan, policy: Policy | None) -> dict[str, Any]:
    imports = [{"name": name, "policy": _verdict(policy, name) if policy else None} for name in scanned.imports]
    return {"file": file, "imports": imports, "problem": scanned.problem, "code": scanned.code}
