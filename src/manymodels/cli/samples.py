"""Requests that lie beside a model, and the content types of files."""

from __future__ import annotations

from pathlib import Path

from ..media import CSV, JSON, JSON_LINES, LIBSVM, NPY, NPZ

#: Content types by the endings of file names.
CONTENT_TYPES = {
    ".json": JSON,
    ".csv": CSV,
    ".jsonl": JSON_LINES[0],
    ".npy": NPY,
    ".npz": NPZ,
    ".libsvm": LIBSVM[0],
    ".txt": "text/plain",
}


def find_sample(folder: Path) -> Path | None:
    """Return the sample request of an unpacked artifact: ``sample.json``, ``sample.csv`` and so on."""
    paths = (folder / f"sample{ending}" for ending in CONTENT_TYPES)
    return next((path for path in paths if path.is_file()), None)


def guess_content_type(body: bytes, name: str = "") -> str:
    """Return the content type of a file by its name's ending, else by what it looks like."""
    known = CONTENT_TYPES.get(Path(name).suffix.lower())
    return known or (JSON if body.lstrip()[:1] in (b"[", b"{") else CSV)
