"""Read what an artifact needs; its file is hostile until it is read, and no other program reads it before."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

import msgspec
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..artifact import Artifact
from ..errors import BadArtifact

#: Where an artifact says what it needs; and where SageMaker has it for scripts, which counts if the first is not there.
FILE = "requirements.txt"
SCRIPT_FILE = "code/requirements.txt"
#: Bytes of such a file, and requirements in it: whether they are met is looked at where others wait.
LIMIT = 1 << 20
MOST = 1000
#: Characters of a line that a message shows.
SHOWN = 200
_HASH = re.compile(r"--hash=(sha(?:256|384|512):[0-9a-f]+)")
_OPTION = re.compile(r"(?:^|\s)-")


class Requirements(msgspec.Struct, frozen=True):
    """What an artifact needs."""

    #: The file that says so.
    file: str
    #: Its requirements, in one spelling and order, so that equal ones are equal; empty if they were not to be read.
    lines: tuple[str, ...] = ()


def read(artifact: Artifact, *, parse: bool) -> Requirements | None:
    """Return what an artifact needs; None if it does not say, or needs nothing.

    :param parse: whether the file is to be read, or only to be found.
    :raises BadArtifact: if it has anything but names of packages with versions, markers and hashes.
    """
    file = FILE if artifact.match(FILE) else SCRIPT_FILE if (artifact.path / SCRIPT_FILE).is_file() else None
    if file is None:
        return None
    if not parse:
        return Requirements(file)
    try:
        text = (artifact.read(file, LIMIT) or b"").decode()
    except UnicodeDecodeError as error:
        raise BadArtifact(f"{file} of {artifact.name!r} cannot be read: {error}") from error
    try:
        lines = tuple(sorted(set(_parse(text))))
    except ValueError as error:
        raise BadArtifact(f"{file} of {artifact.name!r}, {error}") from error
    return Requirements(file, lines) if lines else None


def _parse(text: str) -> Iterator[str]:
    """Yield each requirement in one spelling.

    :raises ValueError: naming the line and what is wrong with it.
    """
    for count, (number, line) in enumerate(_logical_lines(text), 1):
        if count > MOST:
            raise ValueError(f"line {number}: there are more than {MOST} requirements")
        hashes = sorted(set(_HASH.findall(line)))
        rest = _HASH.sub("", line).strip()
        if _OPTION.search(rest):
            raise ValueError(
                f"line {number}: {rest[:SHOWN]!r} is an option, which the operator may set and an artifact may not; "
                "keep names of packages with versions, markers and hashes"
            )
        try:
            requirement = Requirement(rest)
            # What cannot be compared, such as python_version ~= "x", is found here, where there is a line to name.
            if requirement.marker is not None:
                requirement.marker.evaluate()
            requirement.specifier.contains("0")
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName, ValueError) as error:
            reason = str(error).partition("\n")[0][:SHOWN]
            raise ValueError(
                f"line {number}: {rest[:SHOWN]!r} is no name of a package with versions: {reason}"
            ) from error
        if requirement.url is not None:
            raise ValueError(
                f"line {number}: {rest[:SHOWN]!r} names a place; packages come from where the operator says"
            )
        requirement.name = canonicalize_name(requirement.name)
        yield " ".join([str(requirement), *(f"--hash={value}" for value in hashes)])


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, continued ones joined, with the number of the first of them."""
    joined, first = "", 0
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        first = first if joined else number
        part = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if part.endswith("\\"):
            joined += part[:-1] + " "
            continue
        joined = (joined + part).strip()
        if joined:
            yield first, joined
        joined = ""
    if joined.strip():
        yield first, joined.strip()


def parsed(line: str) -> Requirement:
    """Return a line of `Requirements` without its hashes."""
    return Requirement(line.partition(" --hash=")[0])


def met(lines: Iterable[str]) -> bool:
    """Say whether what is installed where this runs meets requirements; those with hashes or extras are not asked."""
    versions = functools.lru_cache(maxsize=None)(metadata.version)  # each is read from the disk
    return all(_is_met(line, versions) for line in lines)


def _is_met(line: str, version_of: Callable[[str], str]) -> bool:
    requirement = parsed(line)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    if requirement.extras or "--hash=" in line:
        return False
    try:
        version = Version(version_of(requirement.name))
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)
