"""A virtual environment for each peer, made when it is first needed and kept in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

#: What every peer predicts with, in the versions of this environment, so that all run the same code.
FRAMEWORKS = (
    "scikit-learn",
    "joblib",
    "numpy",
    "scipy",
    "pandas",
    "xgboost-cpu" if sys.platform == "linux" else "xgboost",
)


class NotInstalled(Exception):
    """A peer cannot be installed here."""


@dataclass(frozen=True)
class Environment:
    """What a peer needs from the package index."""

    name: str
    requirements: tuple[str, ...]

    def folder(self, cache: Path) -> Path:
        """Return where it is; other requirements are another folder."""
        wanted = (sys.version.split()[0], *self.requirements, *_frameworks())
        digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:8]
        return cache / "environments" / f"{self.name}-{digest}"

    def is_installed(self, cache: Path) -> bool:
        """Say whether it was installed whole."""
        return (self.folder(cache) / ".installed").exists()

    def python(self, cache: Path) -> Path:
        """Return its interpreter; install it first if it is missing.

        :raises NotInstalled: with the reason that the installer gave.
        """
        folder = self.folder(cache)
        if not self.is_installed(cache):
            print(f"installing {self.name} into {folder} ...", file=sys.stderr, flush=True)
            start = time.monotonic()
            _install(folder, (*self.requirements, *_frameworks()))
            (folder / ".installed").touch()
            print(f"installed {self.name} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        return folder / "bin" / "python"

    def versions(self, cache: Path) -> str:
        """Return what is installed of the requirements, as ``name version``."""
        names = [requirement.partition("[")[0].partition("<")[0].partition("=")[0] for requirement in self.requirements]
        site = next((self.folder(cache) / "lib").glob("python*/site-packages"))
        found = {(one.metadata["Name"] or "").lower(): one.version for one in metadata.distributions(path=[str(site)])}
        return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def _frameworks() -> tuple[str, ...]:
    return tuple(f"{name}=={metadata.version(name)}" for name in FRAMEWORKS)


def _install(folder: Path, requirements: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv is None:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *requirements],
        ]
    else:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *requirements],
        ]
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise NotInstalled(" ".join(done.stderr.split())[-400:])
