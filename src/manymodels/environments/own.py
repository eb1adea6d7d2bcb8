"""The server's own packages, the core and the plugins, for interpreters of other environments.

Their versions are the server's whatever an environment holds, and nothing that is installed beside them comes along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..errors import PluginError
from ..plugins import GROUP

_CORE = "manymodels"


def distributions(plugins: Collection[str]) -> list[metadata.Distribution]:
    """Return the distributions of the core and of the plugins of these names, and those of ours that they need."""
    every = _installed()
    found: dict[str, metadata.Distribution] = {}

    def add(name: str) -> None:
        if name not in found:
            found[name] = every[name]
            for requirement in _required(every[name]):
                if (needed := canonicalize_name(requirement.name)) in every:
                    add(needed)

    add(_CORE)
    for entry in metadata.entry_points(group=GROUP):
        if entry.name in plugins and entry.dist is not None:
            add(canonicalize_name(entry.dist.name))
    return [found[name] for name in sorted(found)]


def names() -> set[str]:
    """Return the canonical names of the core and of all distributions with plugins."""
    return set(_installed())


def requirements(own: Collection[metadata.Distribution]) -> list[str]:
    """Return what distributions of ours need of others."""
    ours = names()
    needed = (requirement for one in own for requirement in _required(one))
    return sorted({str(requirement) for requirement in needed if canonicalize_name(requirement.name) not in ours})


def link(own: Collection[metadata.Distribution], folder: Path) -> None:
    """Fill a folder that makes distributions importable and their entry points known, and nothing else.

    :raises PluginError: if one consists of parts that cannot be told from others'.
    """
    for distribution in own:
        for name in sorted(_modules(distribution)):
            place = _place(name)
            if place is None:
                raise PluginError(f"module {name!r} of {distribution.name!r} cannot be found; reinstall the package")
            (folder / (name if place.is_dir() else place.name)).symlink_to(place)
        info = folder / f"{canonicalize_name(distribution.name).replace('-', '_')}-{distribution.version}.dist-info"
        info.mkdir()
        # Written anew: where the metadata are differs by the way of installing.
        for file in ("METADATA", "entry_points.txt"):
            if (text := distribution.read_text(file)) is not None:
                (info / file).write_text(text, encoding="utf-8")


def _installed() -> dict[str, metadata.Distribution]:
    found = {_CORE: metadata.distribution(_CORE)}
    for entry in metadata.entry_points(group=GROUP):
        if entry.dist is not None:
            found[canonicalize_name(entry.dist.name)] = entry.dist
    return found


def _required(distribution: metadata.Distribution) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            requirement.marker = None
            yield requirement


def _modules(distribution: metadata.Distribution) -> set[str]:
    """Return the names of the top-level modules and packages of a distribution, however it is installed."""
    found = {entry.module.partition(".")[0] for entry in distribution.entry_points}
    found.update((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        first = file.parts[0]
        if len(file.parts) == 1:
            found.update({file.stem} if file.suffix == ".py" and file.stem.isidentifier() else ())
        elif first.isidentifier() and first != "__pycache__":
            found.add(first)
    return {name for name in found if not name.startswith("__editable__")}


def _place(module: str) -> Path | None:
    spec = util.find_spec(module)
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        return next((Path(place) for place in spec.submodule_search_locations), None)
    return Path(spec.origin) if spec.has_location and spec.origin else None
