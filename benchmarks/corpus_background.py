"""Is the corpus itself a fair background of the distance profile? `python -m benchmarks.corpus_background INPUTS...`

Documents of a corpus are cut to one length. From them texts are glued of pieces of 3,000 characters, each of a random
document, in which no far passage can be worth anything: a fair background gives them 0 in every octave, and the
documents themselves more. Three backgrounds: the packaged tables (or, without one, the document's own rate), the
corpus, and the document's own rate. Single documents differ, so the means are told with their standard errors.
"""

import argparse
import random
from collections.abc import Callable, Sequence

import numpy as np

from longlode.corpus import Document, read
from longlode.mining.distance_profile import OCTAVES, Control, OwnControl, distance_profile
from longlode.mining.distance_profile.corpus_text import CorpusText, fit_corpus_text, tally_documents
from longlode.mining.distance_profile.profile import tokens_per_word
from longlode.mining.distance_profile.tables import choose_control, packaged_tables
from longlode.mining.gate import ParsedText

PIECE_CHARACTERS = 3000
UNIT = 8
MakeControl = Callable[[ParsedText], Control]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table per background."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", help="files or folders; a corpus of one language")
    parser.add_argument("--characters", type=int, default=200_000, help="of every document, from its middle")
    parser.add_argument("--documents", type=int, default=40, help="at most")
    parser.add_argument("--glued", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    documents = [item for item in read(options.inputs) if isinstance(item, Document)]
    cut = [
        Document(one.id, middle, one.source, one.file, one.row)
        for one in rng.sample(documents, len(documents))
        if (middle := _middle(one.text, options.characters))
    ][: options.documents]
    texts = [one.text for one in cut]
    glued = [_glued(texts, options.characters, rng) for _ in range(options.glued)]
    units = [cut[start : start + UNIT] for start in range(0, len(cut), UNIT)]
    corpus = CorpusText(fit_corpus_text(tally_documents(unit) for unit in units))
    backgrounds: dict[str, MakeControl] = {
        "packaged": lambda parsed: choose_control(parsed.kinds, parsed.words, packaged_tables()),
        "corpus": lambda parsed: corpus.control(parsed.kinds, parsed.words),
        "own": lambda parsed: OwnControl(parsed.kinds, parsed.words),
    }
    print(f"{len(texts)} documents, {len(glued)} glued, {options.characters:,} characters each")
    for name, make in backgrounds.items():
        print(f"{name}: gain per octave from {OCTAVES[0]} tokens on, nats per token, and its standard error")
        for what, group in (("documents", texts), ("glued", glued)):
            gains = np.array([_gains(text, make) for text in group])
            mean, error = gains.mean(axis=0), gains.std(axis=0, ddof=1) / np.sqrt(len(group))
            reached = zip(mean[np.isfinite(mean)], error[np.isfinite(mean)], strict=True)
            row = "  ".join(f"{m:+.4f} ({e:.4f})" for m, e in reached)
            print(f"  {what:10} {row}")


def _middle(text: str, length: int) -> str | None:
    start = (len(text) - length) // 2
    return text[start : start + length] if start >= 0 else None


def _glued(texts: Sequence[str], length: int, rng: random.Random) -> str:
    pieces = []
    for _ in range(length // PIECE_CHARACTERS):
        text = rng.choice(texts)
        start = rng.randrange(len(text) - PIECE_CHARACTERS + 1)
        pieces.append(text[start : start + PIECE_CHARACTERS])
    return " ".join(pieces)


def _gains(text: str, make: MakeControl) -> list[float]:
    parsed = ParsedText.of(text)
    per_word = tokens_per_word(text, parsed.num_words)
    profile = distance_profile(parsed.kinds, make(parsed), per_word=per_word)
    found = [octave.gain_nats for octave in profile.octaves]
    return found + [np.nan] * (len(OCTAVES) - len(found))


if __name__ == "__main__":
    main()
