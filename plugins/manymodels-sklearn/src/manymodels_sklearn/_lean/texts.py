"""Texts to the weights of their words.

The original's own analyzer tells the words of a text. What comes then, look-ups and a few products, is done here
without the sparse matrices, the copies and the checks between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.utils import murmurhash3_32

from manymodels import LeftToOriginal

from .base import NotLean, Source, Transform, transformer
from .cells import Array
from .sparse import SparseRows

#: Texts that are probed, and words in each; words of the vocabulary they are made of.
_PROBED, _WORDS, _MOST_WORDS = 48, 12, 512
#: Texts unlike those that a model was trained on.
_ODD = ("", " \t\n", "a", "!?", "Zürich ÉCOLE naïve ﬁn", "3.14 1,000 x_1 42", "<b>bold</b>&amp;", "日本語 🙂 \u00a0end")

#: Tells the words of a text, as numbers; and of such numbers the columns, and what each counts, None for one.
Words = Callable[[str], list[int]]
Place = Callable[[Array], tuple[Array, Array | None]]
Weigh = Callable[[SparseRows], SparseRows]


@transformer("CountVectorizer", "TfidfVectorizer", forms=("texts",))
def _counts(vectorizer: Any, _: Source) -> Transform:
    vocabulary = vectorizer.vocabulary_
    analyze, column = _analyzer(vectorizer), vocabulary.get

    def words(text: str) -> list[int]:
        return [number for number in map(column, analyze(text)) if number is not None]

    weigh = _weighing(vectorizer._tfidf) if type(vectorizer).__name__ == "TfidfVectorizer" else _unchanged
    known = list(islice(vocabulary, 0, None, len(vocabulary) // _MOST_WORDS + 1))
    return _vectorizer(vectorizer, words, lambda numbers: (numbers, None), weigh, len(vocabulary), known)


@transformer("HashingVectorizer", forms=("texts",))
def _hashes(vectorizer: Any, _: Source) -> Transform:
    width, signed = vectorizer.n_features, vectorizer.alternate_sign
    analyze = _analyzer(vectorizer)

    def words(text: str) -> list[int]:
        try:
            return list(map(murmurhash3_32, analyze(text)))
        except ValueError as error:  # half a surrogate pair is no text
            raise LeftToOriginal(str(error)) from error

    def place(codes: Array) -> tuple[Array, Array | None]:
        return np.abs(codes) % width, np.where(codes < 0, -1.0, 1.0) if signed else None

    # There is no vocabulary to try words of: those that texts have most.
    known = sorted(ENGLISH_STOP_WORDS)
    return _vectorizer(vectorizer, words, place, _normalizing(vectorizer.norm), width, known)


@transformer("TfidfTransformer", forms=("sparse",))
def _tfidf(weights: Any, source: Source) -> Transform:
    weigh: Any = _weighing(weights)
    return Transform(weigh, source.width, lambda _: [], sparse=True)


def _analyzer(vectorizer: Any) -> Callable[[str], Sequence[str]]:
    if vectorizer.input != "content":
        raise NotLean(f"texts are read from a {vectorizer.input}")
    parts = (vectorizer.analyzer, vectorizer.preprocessor, vectorizer.tokenizer, vectorizer.strip_accents)
    if any(map(callable, parts)):
        raise NotLean("a function of one's own tells the words of a text")
    analyzer: Callable[[str], Sequence[str]] = vectorizer.build_analyzer()
    return analyzer


def _vectorizer(
    vectorizer: Any, words: Words, place: Place, weigh: Weigh, width: int, known: Sequence[str]
) -> Transform:
    if np.dtype(vectorizer.dtype) not in (np.int64, np.float64):
        raise NotLean(f"words are counted in {np.dtype(vectorizer.dtype)}")
    binary = vectorizer.binary

    def apply(table: Array) -> Any:
        numbers: list[int] = []
        lengths: list[int] = []
        for text in table.ravel().tolist():
            if type(text) is not str:
                raise LeftToOriginal("a cell is no text")
            found = words(text)
            numbers += found
            lengths.append(len(found))
        columns, counts = place(np.array(numbers, np.int64))
        cells = np.arange(len(lengths)).repeat(lengths) * width + columns
        if counts is None:
            cells, repeats = np.unique(cells, return_counts=True)
            values: Array = repeats.astype(np.float64)
        else:
            cells, where = np.unique(cells, return_inverse=True)
            values = np.bincount(where, counts, len(cells))
        rows = cells // width
        values = np.ones(len(cells)) if binary else values
        return weigh(SparseRows(rows, cells - rows * width, values, len(lengths)))

    return Transform(apply, width, lambda _: [_probes(known)], sparse=True)


def _weighing(weights: Any) -> Weigh:
    """Return what a fitted TfidfTransformer does."""
    sublinear, inverse = weights.sublinear_tf, getattr(weights, "idf_", None)
    normalize = _normalizing(weights.norm)

    def weigh(table: SparseRows) -> SparseRows:
        values = table.values
        if sublinear:
            values = np.log(values) + 1.0
        if inverse is not None:
            values = values * inverse.take(table.columns)
        return normalize(table.having(values))

    return weigh


def _normalizing(norm: str | None) -> Weigh:
    """Return what divides rows by their length, but for those that are all zeros."""
    if norm is None:
        return _unchanged
    if norm not in ("l1", "l2"):
        raise NotLean(f"norm={norm!r}")

    def normalize(table: SparseRows) -> SparseRows:
        values = table.values
        lengths = np.sqrt(table.sums(values * values)) if norm == "l2" else table.sums(np.abs(values))
        lengths[lengths == 0] = 1.0
        return table.having(values / lengths.take(table.rows))

    return normalize


def _unchanged(table: SparseRows) -> SparseRows:
    return table


def _probes(known: Sequence[str]) -> list[str]:
    """Return texts of words the model knows, the first an ordinary one, and of others."""
    chance = np.random.default_rng(0)
    words = [*known, "unheard", "Of"]
    drawn = [" ".join(words[at] for at in chance.integers(len(words), size=_WORDS)) for _ in range(_PROBED)]
    longer = [" ".join(drawn[:8]), " ".join([words[0]] * 9), drawn[0].upper(), drawn[1].title()]
    return [*drawn, *longer, *_ODD]
