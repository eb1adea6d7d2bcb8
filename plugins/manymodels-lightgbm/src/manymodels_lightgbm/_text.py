"""Check a model in LightGBM's text format before LightGBM reads it.

LightGBM ends the process over a file that was cut off, and follows indices that lead out of a tree. The check
takes twice the time that LightGBM's own reading does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

_TREES = b"\n\nTree=0\n"
#: What LightGBM takes for the end of a header or of a line, and this module does not.
_OTHER_ENDS = re.compile(rb"\nTree=|[\r\0]")
_END = b"end of trees\n"
#: LightGBM reads no more lines of a tree, its number aside.
_MOST_LINES = 22
_NUMBER = rb"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|inf|nan)"
_NUMBERS = re.compile(rb" *(?:%b(?: +%b)*)? *" % (_NUMBER, _NUMBER))

#: Arrays of a tree with a value for each of its splits: those it cannot do without, and others.
_OF_SPLITS = (b"split_feature", b"threshold", b"decision_type", b"left_child", b"right_child")
_MAYBE_OF_SPLITS = (b"split_gain", b"internal_value", b"internal_weight", b"internal_count")
#: The same for each of its leaves.
_OF_LEAVES = (b"leaf_value",)
_MAYBE_OF_LEAVES = (b"leaf_weight", b"leaf_count")

Fields = Mapping[bytes, bytes]


def check(model: bytes) -> None:
    """Check that a model is whole, and that what LightGBM will follow leads nowhere else.

    :raises ValueError: with a few words on what is wrong.
    """
    if not model.startswith(b"tree\nversion="):
        raise ValueError("it does not start as a model in text does")
    head, found, _ = model.partition(_TREES)
    if not found or _OTHER_ENDS.search(head):
        raise ValueError("it holds no tree, or lines that do not end as those of a model do")
    header = _fields(head.split(b"\n"))
    sizes = _integers(header, b"tree_sizes")
    width = _header(header, len(sizes))
    start = len(head) + 2
    for number, size in enumerate(sizes):
        text = model[start : start + size] if size > 0 else b""
        lines = text.split(b"\n")
        try:
            if len(text) != size or lines[-1] or not lines[0].startswith(b"Tree="):
                raise ValueError("it is cut off or changed")
            _tree(_fields(lines[1:]), width)
        except ValueError as error:
            raise ValueError(f"tree {number} is not valid: {error}") from error
        start += size
    rest = model[start:]
    if not rest.startswith(_END):
        raise ValueError("it is cut off or changed behind the last tree")
    if (b"\nparameters:" in rest) != (b"\nend of parameters" in rest):
        raise ValueError("it is cut off in its parameters")


def _fields(lines: Iterable[bytes]) -> Fields:
    found: dict[bytes, bytes] = {}
    for line in lines:
        if line:
            key, _, value = line.partition(b"=")
            if key in found:
                raise ValueError(f"it has two lines of {key.decode(errors='replace')[:40]!r}")
            found[key] = value
    return found


def _header(header: Fields, trees: int) -> int:
    """Check the header; return the number of features."""
    width = _integer(header, b"max_feature_idx") + 1
    names, infos = header.get(b"feature_names", b"").split(b" "), header.get(b"feature_infos", b"").split(b" ")
    if not (len(names) == len(infos) == width):
        raise ValueError(f"it has {width} features, {len(names)} names and {len(infos)} ranges of them")
    classes, each = _integer(header, b"num_class"), _integer(header, b"num_tree_per_iteration")
    told = re.search(rb"\bnum_class:(\d+)", header.get(b"objective", b""))
    if not (0 < classes == each) or trees % each or (told is not None and int(told[1]) != classes):
        raise ValueError(f"it has {classes} classes, and {trees} trees, {each} for each iteration")
    return width


def _tree(tree: Fields, width: int) -> None:
    if len(tree) > _MOST_LINES:
        raise ValueError("it has too many lines")
    _numbers(b" ".join(filter(None, tree.values())))
    leaves, sets = _integer(tree, b"num_leaves"), _integer(tree, b"num_cat")
    if leaves < 1:
        raise ValueError("it has no leaf")
    _lengths(tree, _OF_LEAVES, _MAYBE_OF_LEAVES, leaves)
    if leaves > 1:
        _lengths(tree, _OF_SPLITS, _MAYBE_OF_SPLITS, leaves - 1)
        _splits(tree, leaves, width)
        _categories(tree, sets)
    if tree.get(b"is_linear", b"0") != b"0":
        _linear(tree, leaves, width)


def _lengths(tree: Fields, needed: Iterable[bytes], optional: Iterable[bytes], length: int) -> None:
    for names, absent in ((needed, False), (optional, True)):
        for name in names:
            value = tree.get(name, b"")
            count = value.count(b" ") + 1 if value else 0
            if count != length and (count or not absent):
                raise ValueError(f"{name.decode()} has {count} values, not {length}")


def _splits(tree: Fields, leaves: int, width: int) -> None:
    features = _integers(tree, b"split_feature")
    if min(features) < 0 or max(features) >= width:
        raise ValueError("it splits by a feature that the model does not have")
    for name in (b"left_child", b"right_child"):
        children = _integers(tree, name)
        if max(children) >= leaves - 1 or min(children) < -leaves:
            raise ValueError("a branch leads out of it")
        # Splits are numbered as they are made, so a path that leads back to itself shows here.
        if any(0 <= to <= at for at, to in enumerate(children)):
            raise ValueError("a branch leads back")


def _categories(tree: Fields, sets: int) -> None:
    """Check the sets of categories that splits look into, as bits of 32-bit words."""
    bounds, words = _integers(tree, b"cat_boundaries"), _integers(tree, b"cat_threshold")
    if sets < 0 or (sets and (len(bounds) != sets + 1 or bounds[0] != 0 or bounds[-1] != len(words))):
        raise ValueError("its sets of categories do not fit together")
    if bounds != sorted(bounds):
        raise ValueError("its sets of categories overlap")
    kinds = _integers(tree, b"decision_type")
    if not any(kind & 1 for kind in kinds):
        return
    for kind, threshold in zip(kinds, tree[b"threshold"].split(), strict=True):
        if kind & 1 and not 0 <= float(threshold) < sets:
            raise ValueError("it splits by a set of categories that it does not have")


def _linear(tree: Fields, leaves: int, width: int) -> None:
    """Check the linear models of leaves."""
    counts, features = _integers(tree, b"num_features"), _integers(tree, b"leaf_features")
    if len(tree.get(b"leaf_const", b"").split()) != leaves or len(counts) != leaves or min(counts) < 0:
        raise ValueError("its leaves' models are not whole")
    if not sum(counts) == len(features) == len(tree.get(b"leaf_coeff", b"").split()):
        raise ValueError("its leaves' models have more or fewer features than coefficients")
    if any(not 0 <= feature < width for feature in features):
        raise ValueError("a leaf uses a feature that the model does not have")


def _integer(fields: Fields, name: bytes) -> int:
    values = _integers(fields, name)
    if len(values) != 1:
        raise ValueError(f"{name.decode()} is missing")
    return values[0]


def _integers(fields: Fields, name: bytes) -> list[int]:
    values = _numbers(fields.get(name, b""))
    if not set(map(type, values)) <= {int}:
        raise ValueError(f"{name.decode()} holds what is no whole number")
    return values


def _numbers(text: bytes) -> list[Any]:
    """Read numbers with spaces between them, whole ones as int; as JSON, since that takes a third of the time."""
    try:
        values: list[Any] = orjson.loads(b"[%b]" % text.replace(b" ", b","))
    except orjson.JSONDecodeError:  # inf and nan, and the wider spaces of leaves' models
        if not _NUMBERS.fullmatch(text):
            raise ValueError("it holds what is no number") from None
        return [int(value) if value.lstrip(b"-").isdigit() else float(value) for value in text.split()]
    if not set(map(type, values)) <= {int, float}:
        raise ValueError("it holds what is no number")
    return values
