"""Wheels for tests: of what is installed here, and small ones made up; so that environments are built offline."""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from manymodels.environments import own

TAG = "py3-none-any"


def make(folder: Path, name: str, version: str, source: str = "", requires: tuple[str, ...] = ()) -> Path:
    """Write a wheel with one module of the distribution's name, which has its version as ``__version__``."""
    info = f"{name}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        f"{name}.py": f"__version__ = {version!r}\n{source}",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {TAG}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    path = folder / f"{name}-{version}-{TAG}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return path


def of_the_core(folder: Path) -> None:
    """Write wheels of all that the core and the custom plugin need, as they are installed here."""
    done: set[str] = set()
    names = [Requirement(line).name for line in own.requirements(own.distributions(["custom"]))]
    while names:
        name = canonicalize_name(names.pop())
        if name not in done:
            done.add(name)
            distribution = metadata.distribution(name)
            _pack(distribution, folder)
            for line in distribution.requires or ():
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    names.append(requirement.name)


def _pack(distribution: metadata.Distribution, folder: Path) -> None:
    """Write the wheel that a distribution was installed from."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    tags = [line.partition(": ")[2].split("-") for line in lines if line.startswith("Tag: ")]
    joined = "-".join(".".join(dict.fromkeys(tag[part] for tag in tags)) for part in range(3))
    name = canonicalize_name(distribution.name).replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-{distribution.version}-{joined}.whl", "w") as wheel:
        for file in distribution.files or ():
            place = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and file.suffix != ".pyc" and file.name not in ("INSTALLER", "REQUESTED"):
                wheel.write(place, str(file))
