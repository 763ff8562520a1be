"""Background tables from the scored corpus itself, for languages and kinds of text without a packaged table.

`tally_documents` counts a unit of work, `fit_corpus_text` adds the counts up and measures on pairs of sampled
documents how much they share, as `control.fit_foreign` does on labelled works. A document is never in the counts
that it is compared with: its own windows are subtracted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from longlode.core.errors import InputError
from longlode.core.fingerprints import text_fingerprint
from longlode.corpus import Document
from longlode.corpus.words import shared_vocabulary
from longlode.mining.distance_profile.control import (
    CLASSES,
    SPANS,
    WINDOW,
    ForeignControl,
    ForeignText,
    compare,
    from_json,
)

NAME = "corpus"
"""Name in place of a table's language."""
SAMPLE_PER_UNIT = 8
SAMPLE = 48
"""Number of documents for measuring how much two of them share; those of the lowest hashes, per unit and in all."""
SAMPLE_WORDS = 60_000
"""Words kept of a sampled document."""
FEWEST_DOCUMENTS = 4
MOST_WORDS = 1_000_000
"""Words kept in all, the commonest."""
LEAST = 2
"""Windows that must hold a word for it to be kept; one alone is mostly that of the document that is judged."""
_OTHERS = 4


def tally_documents(documents: Iterable[Document]) -> dict[str, Any]:
    """Count the words of some documents.

    Returns: as JSON: num_windows, counts (windows that hold each word), sample [{hash, source, kinds, words,
      windows, num_windows}]: of a document, the first kinds `[n]`, the word of each type, and the windows of the whole
      document that hold it.
    """
    counts: Counter[str] = Counter()
    num_windows = 0
    sample: dict[str, dict[str, Any]] = {}
    for document in documents:
        kinds, words = shared_vocabulary().read(document.text)
        words = [word.encode("utf-8", "replace").decode("utf-8") for word in words]
        own, count = windows_of(kinds, len(words))
        num_windows += count
        counts.update({word: held for word, held in zip(words, own.tolist(), strict=True) if held})
        name = text_fingerprint(document.text)
        if name not in sample and (len(sample) < SAMPLE_PER_UNIT or name < max(sample)):
            sample[name] = _sampled(document.source, kinds[:SAMPLE_WORDS], words, own, count)
            if len(sample) > SAMPLE_PER_UNIT:
                del sample[max(sample)]
    return {
        "num_windows": num_windows,
        "counts": dict(counts),
        "sample": [{"hash": name, **sample[name]} for name in sorted(sample)],
    }


def _sampled(
    source: str, kinds: np.ndarray, words: Sequence[str], own: np.ndarray, num_windows: int
) -> dict[str, Any]:
    """Sample of a document, with its types numbered anew."""
    types, numbers = np.unique(kinds, return_inverse=True)
    return {
        "source": source.encode("utf-8", "replace").decode("utf-8"),
        "kinds": numbers.reshape(-1).tolist(),
        "words": [words[kind] for kind in types],
        "windows": own[types].tolist(),
        "num_windows": num_windows,
    }


def fit_corpus_text(tallies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put tallies together.

    Returns: `ForeignText.to_json` with the counts.
    Raises: InputError when there are too few documents to measure how much they share.
    """
    counts: Counter[str] = Counter()
    num_windows = 0
    sample: dict[str, dict[str, Any]] = {}
    for tally in tallies:
        counts.update(tally["counts"])
        num_windows += tally["num_windows"]
        sample |= {one["hash"]: one for one in tally["sample"]}
        sample = {name: sample[name] for name in sorted(sample)[:SAMPLE]}
    if len(sample) < FEWEST_DOCUMENTS:
        raise InputError(
            f"the corpus has {len(sample)} documents of different text; expected at least {FEWEST_DOCUMENTS} to "
            "measure what they share. Score it without a background of its own."
        )
    ordered = sorted(((-count, word) for word, count in counts.items() if count >= LEAST))[:MOST_WORDS]
    kept = {word: -count for count, word in ordered}
    words, pairs = _measure(list(sample.values()), counts, num_windows)
    text = ForeignText(NAME, kept, num_windows, words, pairs)
    return {**text.to_json(), "counts": kept}


def _measure(
    sample: Sequence[dict[str, Any]], counts: Counter[str], num_windows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of words and of pairs, `[classes, spans]` each, over pairs of documents: of one source where there are."""
    texts = [[one["words"][kind] for kind in one["kinds"]] for one in sample]
    own = [dict(zip(one["words"], one["windows"], strict=True)) for one in sample]
    hits, tried = (np.zeros((2, len(CLASSES), len(SPANS))) for _ in range(2))
    rng = np.random.default_rng(0)
    for i, one in enumerate(sample):
        rest = [j for j in range(len(sample)) if j != i]
        others = [j for j in rest if sample[j]["source"] == one["source"]] or rest
        for j in rng.permutation(others)[:_OTHERS]:
            # Neither of the two is in the counts by which its words are classed.
            left = Counter({word: counts[word] - held - own[j].get(word, 0) for word, held in own[i].items()})
            windows = num_windows - one["num_windows"] - sample[j]["num_windows"]
            compare(texts[i], texts[j], (left, max(1, windows)), hits, tried, rng)
    shares = np.maximum.accumulate((hits + 0.01) / (tried + 1), axis=2)
    return shares[0], shares[1]


class CorpusText:
    """Result of `fit_corpus_text`, from which controls are made."""

    def __init__(self, state: dict[str, Any]) -> None:
        """Args: state, of `fit_corpus_text`. Raises: InputError for tables of another shape."""
        self._text = from_json(state, state["counts"])

    def control(self, kinds: np.ndarray, words: Sequence[str]) -> ForeignControl:
        """The control of a document of the corpus, its own windows left out. Args: kinds int `[n]`; words, by type."""
        own, count = windows_of(kinds, len(words))
        counts = {
            word: max(0, self._text.counts.get(word, 0) - held)
            for word, held in zip(words, own.tolist(), strict=True)
        }
        others = max(1, self._text.num_windows - count)
        return ForeignText(NAME, counts, others, self._text.words, self._text.pairs).control(words)


def windows_of(kinds: np.ndarray, num_types: int) -> tuple[np.ndarray, int]:
    """Windows that hold each type, int64 `[num_types]`, and windows in all, as `control.count_windows` cuts them."""
    held = np.zeros(num_types, dtype=np.int64)
    starts = range(0, max(1, len(kinds) - WINDOW // 2), WINDOW)
    for start in starts:
        held[np.unique(kinds[start : start + WINDOW])] += 1
    return held, len(starts)
