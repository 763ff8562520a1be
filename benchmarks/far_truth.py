"""Does the distance profile see far dependencies that are known, and nothing where there are none?

    python -m benchmarks.far_truth [--side dev] [--tests planted,cut,references] [--save]

Every test is made of works of one side (`benchmarks/works.py`); the table of foreign text is fitted on the works of the
sides before it. No model, no tokenizer; tokens are 4 bytes.

planted     64 facts in real text, name and use in two sentences at a distance in [1.25 d, 1.75 d); of 0, 8, 16, 32,
            64 the name matches, the others have another. Rank correlation of each octave with the number that match, in
            one document (mean over documents) and over all; and how often 32 that match give more than none.
cut         documents of 64k tokens, glued from pieces of D tokens of different works: no dependency beyond D but
            what works of a kind share. Gain by octave; rank correlation of dependency length and D.
references  a textbook in LaTeX, parts in order: places of 8k tokens; rank correlation over places of the gain of an
            octave with the number of \\ref whose \\label lies in that octave, as the text is and with all keys blanked.
            Code: places of packages, names used whose only definition lies in the octave.
"""

import argparse
import random
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.quality_measures import spearman
from benchmarks.saved import about, save
from benchmarks.works import SIDES, Work, works_of
from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.corpus.words import shared_vocabulary
from longlode.mining.distance_profile import OCTAVES, ForeignText, Profile, distance_profile
from longlode.mining.distance_profile.control import fit_foreign
from longlode.mining.distance_profile.profile import octave_gains, tokens_per_word
from longlode.synthetic.families import stretch

LENGTH = 65_536
AMOUNTS = (0, 8, 16, 32, 64)
DISTANCES = (1024, 2048, 4096, 8192, 16_384)
CUTS = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
PLACE = 8192
_CODE = ("code", "module", "package")
_ONSETS = (
    "Mar",
    "Ed",
    "Tho",
    "Wil",
    "Hel",
    "Bar",
    "Con",
    "Ros",
    "Fen",
    "Gar",
    "Hal",
    "Jo",
    "Ken",
    "Lor",
    "Mil",
    "Nor",
    "Os",
    "Pen",
    "Quin",
    "Ral",
    "Sel",
    "Tan",
    "Ul",
    "Ver",
    "Win",
)
_ENDINGS = (
    "den",
    "lin",
    "ton",
    "ric",
    "bert",
    "wyn",
    "ma",
    "sa",
    "nor",
    "vey",
    "dale",
    "ford",
    "wick",
    "cott",
    "ley",
    "ham",
    "mond",
    "son",
    "las",
    "trude",
    "ina",
    "ette",
)
_SENTENCE = re.compile(r"[.!?][\"”']?\s")
_LABEL = re.compile(r"\\(?:ol)?label\{([^}]*)\}")
_REFERENCE = re.compile(r"\\(?:[oO]l|auto|c|C|eq|page)?ref(?:\[[^\]]*\])*\{([^}]*)\}")
_DEFINITION = re.compile(r"\b(?:def|class)\s+(\w{6,})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit the table, run the tests, print, save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", choices=SIDES[1:], default="dev")
    parser.add_argument("--heldout", action="store_true", help="read the heldout side; recorded")
    parser.add_argument("--tests", default="planted,cut,references")
    parser.add_argument("--documents", type=int, default=12, help="documents of the planted test")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    table = english_table(options.side)
    works = [
        w
        for w in works_of(options.side, heldout=options.heldout)
        if w.language == "en" and w.domain != "list"
    ]
    result = {}
    for name in options.tests.split(","):
        result[name] = {"planted": planted, "cut": cut, "references": references}[name](works, table, options)
    if options.save:
        save(f"far-truth-{options.side}", about("far_truth") | result)


def english_table(side: str) -> ForeignText:
    """Foreign text in English and code, of the sides before `side`."""
    works = [w for name in SIDES[: SIDES.index(side)] for w in works_of(name)]
    kept = [w for w in works if w.language == "en" and w.domain != "list"]
    return fit_foreign([(w.group, "code" if w.domain in _CODE else w.domain, w.text) for w in kept], "en")


def profile_of(text: str, table: ForeignText) -> Profile:
    """The profile of a text against a table."""
    kinds, words = shared_vocabulary().read(text)
    return distance_profile(kinds, table.control(words), per_word=tokens_per_word(text, len(kinds)))


def planted(works: Sequence[Work], table: ForeignText, options: argparse.Namespace) -> list[dict]:
    """See the module's docstring."""
    long = [work for work in works if len(work.text.encode()) > 1.1 * LENGTH * BYTES_PER_TOKEN]
    long = random.Random(1).sample(long, min(options.documents, len(long)))
    shown = [first for first in OCTAVES if first * 1.25 < LENGTH]
    print(f"planted facts, {len(long)} documents; octaves {shown}")
    rows = []
    for distance in DISTANCES:
        gains = np.array(
            [_planted_gains(work, distance, table) for work in long]
        )  # [documents, amounts, octaves]
        amounts = np.array(AMOUNTS, dtype=float)
        inside = [np.mean([spearman(one[:, k], amounts) or 0.0 for one in gains]) for k in range(len(shown))]
        flat = gains.reshape(-1, gains.shape[2])
        over = [spearman(flat[:, k], np.tile(amounts, len(long))) for k in range(len(shown))]
        wins = (gains[:, AMOUNTS.index(32)] > gains[:, 0]).mean(0)
        rows.append({"distance": distance, "within": inside, "over_all": over, "32_above_0": wins.tolist()})
        print(
            f"{distance:6}  within {_row(inside)}   over all {_row(over)}   32 above 0 {_row(wins)}",
            flush=True,
        )
    return rows


def _planted_gains(work: Work, distance: int, table: ForeignText) -> np.ndarray:
    base = stretch(work.text, LENGTH, random.Random(work.id))
    assert base is not None, "chosen for its length"
    found = []
    for amount in AMOUNTS:
        rng = random.Random(f"{work.id}:{distance}:{amount}")
        profile = profile_of(with_facts(base, distance, amount, rng), table)
        found.append([octave.gain_nats for octave in profile.octaves])
    return np.array(found)


def with_facts(text: str, distance: int, matching: int, rng: random.Random, total: int = 64) -> str:
    """The text with `total` names mentioned twice, 1.25 to 1.75 `distance` tokens apart, `matching` of them alike."""
    ends = [found.end() for found in _SENTENCE.finditer(text)]
    per_token = BYTES_PER_TOKEN * len(text) / len(text.encode())
    inserted: list[tuple[int, str]] = []
    for start in rng.sample(ends, len(ends)):
        later = start + distance * per_token * rng.uniform(1.25, 1.75)
        if later > len(text) - 500:
            continue
        name = _name(rng)
        again = name if len(inserted) < 2 * matching else _name(rng)
        inserted.append((start, f"They spoke of {name} again. "))
        inserted.append((ends[min(bisect_left(ends, later), len(ends) - 1)], f"And {again} was there. "))
        if len(inserted) == 2 * total:
            break
    for at, sentence in sorted(inserted, reverse=True):
        text = text[:at] + sentence + text[at:]
    return text


def _name(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_ENDINGS) + rng.choice(_ENDINGS)


def cut(works: Sequence[Work], table: ForeignText, options: argparse.Namespace) -> list[dict]:
    """See the module's docstring."""
    rows, lengths, cuts = [], [], []
    for size in CUTS:
        profiles = [profile_of(glued(works, size, random.Random(f"{size}:{n}")), table) for n in range(6)]
        lengths += [profile.dependency_tokens for profile in profiles]
        cuts += [size] * len(profiles)
        means = {}
        for first in OCTAVES:
            gains = [o.gain_nats for p in profiles for o in p.octaves if o.first_tokens == first]
            means[first] = float(np.mean(gains)) if gains else None
        rows.append({"cut": size, "gains": means, "lengths": [p.dependency_tokens for p in profiles]})
        print(
            f"cut {size:6}  {_row([m for m in means.values() if m is not None])}  {rows[-1]['lengths']}",
            flush=True,
        )
    rho = spearman(np.array(lengths, float), np.array(cuts, float))
    print(f"dependency length with D: {rho:.3f}")
    return [*rows, {"rank_correlation": rho}]


def glued(works: Sequence[Work], size: int, rng: random.Random) -> str:
    """Stretches of `size` tokens of different groups of works, LENGTH together if there are so many."""
    groups: dict[str, list[Work]] = {}
    for work in works:
        if len(work.text.encode()) > 1.05 * size * BYTES_PER_TOKEN:
            groups.setdefault(work.group, []).append(work)
    names = rng.sample(sorted(groups), min(len(groups), LENGTH // size))
    return "\n\n".join(stretch(rng.choice(groups[name]).text, size, rng) or "" for name in names)


def references(works: Sequence[Work], table: ForeignText, options: argparse.Namespace) -> dict:
    """See the module's docstring."""
    book = "\n\n".join(work.text for work in works if work.domain == "textbook")
    blanked = _LABEL.sub(_blank, _REFERENCE.sub(_blank, book))
    # Two works in one file would share every name: packages only.
    code = [work.text for work in works if work.domain == "package" or "#" in work.id]
    return {
        "textbook": _correlations("textbook", [(book, list(latex_references(book)))], table),
        "textbook, keys blanked": _correlations("blanked", [(blanked, list(latex_references(book)))], table),
        "code": _correlations("code", [(text, list(code_references(text))) for text in code], table),
    }


def _blank(found: re.Match[str]) -> str:
    return " " * len(found.group())


def latex_references(text: str) -> Iterator[tuple[int, int]]:
    """Where each reference stands, and where its label does, for labels that come before; characters."""
    events = [(found.start(), found.group(1), True) for found in _LABEL.finditer(text)]
    events += [(found.start(), found.group(1), False) for found in _REFERENCE.finditer(text)]
    labels: dict[str, int] = {}
    for place, key, is_label in sorted(events):
        if is_label:
            labels[key] = place
        elif key in labels:
            yield place, labels[key]


def code_references(text: str) -> Iterator[tuple[int, int]]:
    """Where each name is used that is defined once and before, and where it is defined."""
    places = [(found.group(1), found.start(1)) for found in _DEFINITION.finditer(text)]
    counts = Counter(name for name, _ in places)
    defined = {name: place for name, place in places if counts[name] == 1 and not name.startswith("__")}
    for found in re.finditer(r"\w{6,}", text):
        if defined.get(found.group(), len(text)) < found.start():
            yield found.start(), defined[found.group()]


def _correlations(
    name: str, texts: Sequence[tuple[str, list[tuple[int, int]]]], table: ForeignText
) -> list[dict]:
    gains: dict[int, list[float]] = {first: [] for first in OCTAVES}
    counts: dict[int, list[int]] = {first: [] for first in OCTAVES}
    for text, found in texts:
        per_token = BYTES_PER_TOKEN * len(text) / len(text.encode())
        kinds, words = shared_vocabulary().read(text)
        per_word = tokens_per_word(text, len(kinds))
        number = int(len(kinds) * per_word) // PLACE + 1
        for part in octave_gains(kinds, table.control(words), per_word=per_word):
            at = (part.place * per_word).astype(int) // PLACE
            value = np.bincount(at, part.value, number)
            reach = (
                np.bincount((np.arange(len(kinds)) * per_word).astype(int) // PLACE, part.exposure, number)
                * per_word
            )
            there = np.zeros(number, dtype=int)
            for place, target in found:
                if part.first_tokens <= (place - target) / per_token < 2 * part.first_tokens:
                    there[min(number - 1, int(place / per_token / PLACE))] += 1
            full = reach > PLACE / 2
            gains[part.first_tokens] += (value / np.maximum(reach, 1))[full].tolist()
            counts[part.first_tokens] += there[full].tolist()
    rows = []
    for first in OCTAVES:
        rho = spearman(np.array(gains[first]), np.array(counts[first], float))
        rows.append(
            {"octave": first, "rho": rho, "places": len(gains[first]), "references": sum(counts[first])}
        )
    print(
        f"{name:10} "
        + "  ".join(f"{r['octave']}: {_short(r['rho'])} ({r['references']} in {r['places']})" for r in rows)
    )
    return rows


def _row(values: Sequence[float | None] | np.ndarray) -> str:
    return " ".join(map(_short, values))


def _short(value: float | None) -> str:
    return "  .  " if value is None else f"{value:+.2f}" if abs(value) > 0.2 else f"{value:+.3f}"


if __name__ == "__main__":
    main()
