"""Weights of the profile for the user's own corpus: background counts, and a gate fitted on families made from it."""

import heapq
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.api.watch import SILENT, Watch
from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import text_fingerprint
from longlode.core.kinds import RECORD_NAME
from longlode.core.outputs import claim_folder
from longlode.core.ranking import wins
from longlode.core.records import write_record
from longlode.mining.gate.fit import FOLDS, HEAVIER

if TYPE_CHECKING:
    from longlode.mining.distance_profile import ForeignText
    from longlode.mining.gate.model import LengthWeights

LENGTHS = (4096, 16_384)
"""Lengths in tokens of 4 bytes that a gate is fitted at; the second only if there are enough documents."""
FEWEST_DOCUMENTS = 24
"""Fewest documents per length that a gate is fitted at."""
FEWEST_OF_TABLE = 8
"""Fewest documents per table of words."""
HELD_OUT = 3
"""One document in this many is held out of the fit, for the reported figures."""
MOST_DOCUMENTS = 400
MOST_TOKENS = 8_000_000
"""Limit on the text that is used, all documents together, as long as each keeps LEAST_OF_DOCUMENT."""
LEAST_OF_DOCUMENT = 2 * LENGTHS[1]
"""Tokens that a document keeps at least; two stretches of the greater length fit in."""
MOST_OF_DOCUMENT = 131_072
"""Tokens that are kept of a document while the others are read."""
SPARE = 1.12
_COHERENT = "coherent"
_ALIKE = 0.4
"""Least share of the 100 commonest words that two documents of one language have in common."""


@dataclass(frozen=True)
class _Work:
    """A document. id: unique. fold: 0 is held out of the fit."""

    id: str
    text: str
    fold: int
    table: str


def fit_score(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    text_field: str = "text",
    seed: int = 0,
    max_tokens: int = MOST_TOKENS,
    folds: int = FOLDS,
    heavier: Mapping[str, float] | None = None,
    overwrite: bool = False,
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Fit the profile to a corpus, as `longlode fit-score` does; `score(..., weights=out)` uses them.

    Counts words and what documents share, per language, and fits the gate to tell stretches of the documents from 40
    families of text made of them. One document in three is held out of the gate's fit; on those and on families made of
    them the fitted gate is compared with the packaged one, which is kept where it does better. What the fitted one does
    on families it does not know is measured by fits that each leave a group of families out.
    Args: inputs, as of `score`: whole documents, each one text in its order; out, folder to write; text_field, of
      records; seed, of all draws; max_tokens, used in all: documents are cut to their equal share of it, but to
      LEAST_OF_DOCUMENT at the least; folds, as of `fit_length`: the gate is the mean of so many fits; heavier, factors
      for the weight of families in the fit, None for those of the packaged gate.
    Returns: what `record.json` holds: num_documents, num_tokens used, tables, gate ("fitted" or "packaged"), and
      `held_out`, by length the AUC of each family, their mean and worst, and the calibration, of both gates; and
      `unseen`, by group of families the mean AUC of a fit without them.
    Raises: InputError for fewer than FEWEST_DOCUMENTS documents that are long enough; ConfigError for an unknown
      family, or fewer than one fold.
    """
    heavier = check_heavier(HEAVIER if heavier is None else heavier)
    if folds < 1:
        raise ConfigError(f"folds is {folds}; expected 1 or more.")
    named = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    works, num_read = _read_works([os.fspath(one) for one in named], text_field, seed, max_tokens)
    lengths = [length for length in LENGTHS if len(_long(works, length)) >= FEWEST_DOCUMENTS]
    if not lengths:
        raise InputError(
            f"fit-score found {len(_long(works, LENGTHS[0]))} documents of {LENGTHS[0] * SPARE:,.0f} tokens (4 bytes "
            f"each) or more among {num_read:,}; needs {FEWEST_DOCUMENTS}. Give more or longer documents, or use the "
            "packaged weights."
        )
    asked: dict[str, Any] = {
        "inputs": [os.fspath(one) for one in named],
        "settings": {
            "text_field": text_field,
            "seed": seed,
            "max_tokens": max_tokens,
            "folds": folds,
            "heavier": heavier,
        },
    }
    folder = claim_folder(Path(out), "weights", identity=asked, overwrite=overwrite)
    watch.note(f"counting the words of {len(works):,} documents")
    tables = _tables(works)
    watch.note(f"fitting the gate at {' and '.join(f'{length:,}' for length in lengths)} tokens")
    fitted = _fit(works, lengths, asked["settings"], watch)
    return _write(folder, asked, works, tables, fitted, num_read)


def check_heavier(heavier: Mapping[str, float]) -> dict[str, float]:
    """The factors as given. Raises: ConfigError for a family that there is not, or a factor that is not above 0."""
    from longlode.synthetic.families import FAMILIES

    families = [label for makers in FAMILIES.values() for label in makers]
    for name, factor in heavier.items():
        if name not in families or not factor > 0:
            raise ConfigError(
                f"heavier is {name}={factor}; expected a factor above 0 of one of {', '.join(families)}."
            )
    return dict(heavier)


def _read_works(
    inputs: Sequence[str], text_field: str, seed: int, max_tokens: int
) -> tuple[list[_Work], int]:
    """The documents that are long enough for some fit, at most MOST_DOCUMENTS of them, and how many there were.

    Those drawn last are kept in memory, cut to MOST_OF_DOCUMENT, not the corpus.
    """
    from longlode.corpus import Document, read
    from longlode.mining.baselines import estimated_tokens

    drawn: list[tuple[float, str, str]] = []
    seen: set[str] = set()
    num_read = 0
    for name in inputs:
        for item in read(name, text_field=text_field):
            num_read += 1
            if not isinstance(item, Document) or estimated_tokens(item.text) < LENGTHS[0] * SPARE:
                continue
            digest = text_fingerprint(item.text)  # a text that is there twice is one document
            if digest in seen:
                continue
            seen.add(digest)
            # The lowest of random numbers are kept: the heap has the highest of those in front.
            number = random.Random(f"{seed}:{item.id}#{num_read}").random()
            row = (-number, f"{item.id}#{num_read}", beginning(item.text, MOST_OF_DOCUMENT))
            (heapq.heappush if len(drawn) < MOST_DOCUMENTS else heapq.heappushpop)(drawn, row)
    share = max(LEAST_OF_DOCUMENT, max_tokens // max(1, len(drawn)))
    chosen = [(name, beginning(text, share)) for _, name, text in sorted(drawn, reverse=True)]
    tables = _table_names([text for _, text in chosen])
    return [
        _Work(name, text, fold=number % HELD_OUT, table=table)
        for number, ((name, text), table) in enumerate(zip(chosen, tables, strict=True))
    ], num_read


def beginning(text: str, num_tokens: int) -> str:
    """The first `num_tokens` tokens of 4 bytes of a text, or all of it."""
    from longlode.synthetic.families import cut_tokens

    return cut_tokens(text, num_tokens) or text


def _long(works: Sequence[_Work], length: int) -> list[_Work]:
    from longlode.mining.baselines import estimated_tokens

    return [work for work in works if estimated_tokens(work.text) >= length * SPARE]


def _table_names(texts: Sequence[str]) -> list[str]:
    """The table that each text belongs to: the language that the package knows it by, else one of texts alike.

    Texts are alike by their commonest words, numbers left out: those of one language have half of them in common, those
    of two next to none.
    """
    from longlode.mining.distance_profile.tables import KNOWN_SHARE, packaged_tables
    from longlode.mining.gate import ParsedText

    found: list[str] = []
    unknown: list[tuple[str, set[str]]] = []
    for text in texts:
        parsed = ParsedText.of(text[:200_000])
        shares = {
            table.language: table.known_share(parsed.kinds, parsed.words) for table in packaged_tables()
        }
        best = max(shares, key=lambda name: shares[name])
        if shares[best] >= KNOWN_SHARE:
            found.append(best)
            continue
        order = np.argsort(-np.where(parsed.is_number, 0, parsed.counts), kind="stable")[:100]
        common = {parsed.words[kind] for kind in order}
        name = next((name for name, known in unknown if len(known & common) >= _ALIKE * len(common)), None)
        if name is None:
            name = f"own-{len(unknown) + 1}"
            unknown.append((name, common))
        found.append(name)
    return found


def _tables(works: Sequence[_Work]) -> "list[ForeignText]":
    """A table of each language that has documents enough."""
    from longlode.mining.distance_profile.control import fit_foreign

    names = [work.table for work in works]
    return [
        fit_foreign([(work.id, "document", work.text) for work in works if work.table == name], name)
        for name in sorted(set(names))
        if names.count(name) >= FEWEST_OF_TABLE
    ]


@dataclass(frozen=True)
class _Fitted:
    """A gate at each length, and figures of both gates on what was held out, by length."""

    by_length: "dict[int, LengthWeights]"
    names: list[str]
    families: list[str]
    figures: dict[str, Any]


def _fit(
    works: Sequence[_Work], lengths: Sequence[int], settings: Mapping[str, Any], watch: Watch
) -> _Fitted:
    """Fit on two documents in three, and judge the rest by both gates; then the same families of all lengths."""
    from longlode.mining.gate.model import packaged_gate
    from longlode.synthetic.families import FAMILIES

    families = [label for makers in FAMILIES.values() for label in makers]
    names, seed = list(packaged_gate().names), settings["seed"]
    by_length, figures = {}, {}
    for length in lengths:
        title = f"fitting the gate at {length:,} tokens"
        fit_on = _measured([work for work in works if work.fold], length, seed, watch, f"{title}: texts")
        held = _measured(
            [work for work in works if not work.fold], length, seed + 1, watch, f"{title}: held out"
        )
        weights = _fit_on(fit_on, names, families, settings["folds"], settings["heavier"])
        by_length[length] = weights
        values = np.array([[row[name] for name in names] for row in held.features])
        fitted = -np.logaddexp.reduce(weights.against(values), axis=1)
        packaged = np.array([packaged_gate().judge_features(row, length).log_odds for row in held.features])
        figures[str(length)] = {
            "num_fitted": len(fit_on.labels),
            "num_held_out": len(held.labels),
            "fitted": _figures(fitted, held.labels),
            "packaged": _figures(packaged, held.labels),
            "unseen": _unseen(fit_on, held, names, settings["heavier"], watch, f"{title}: groups left out"),
        }
    return _Fitted(by_length, names, families, figures)


@dataclass(frozen=True)
class _Texts:
    """Measured texts: label, table and number of the work (or of the text, if made of several) of each; features."""

    labels: list[str]
    tables: list[str]
    works: list[int]
    features: list[dict[str, float]]


def _measured(works: Sequence[_Work], length: int, seed: int, watch: Watch, title: str) -> _Texts:
    from longlode.mining.gate.model import packaged_gate

    samples, found = _samples(works, length, seed), []
    known, place = packaged_gate().known, {work.id: number for number, work in enumerate(works)}
    with watch.progress(title) as update:
        for number, (_, _, _, text) in enumerate(samples):
            found.append(_features(text, known))
            update(number + 1, len(samples), "")
    own = [place.get(work, number) for number, (_, _, work, _) in enumerate(samples)]
    return _Texts([label for label, *_ in samples], [table for _, table, *_ in samples], own, found)


def _fit_on(
    texts: _Texts, names: Sequence[str], families: Sequence[str], folds: int, heavier: Mapping[str, float]
) -> "LengthWeights":
    """A fit to the texts that are coherent or of these families."""
    from longlode.mining.gate.fit import fit_length

    rows = [k for k, label in enumerate(texts.labels) if label == _COHERENT or label in families]
    return fit_length(
        np.array([[texts.features[k][name] for name in names] for k in rows]),
        [texts.labels[k] for k in rows],
        [texts.tables[k] for k in rows],
        families,
        heavier={name: factor for name, factor in heavier.items() if name in families},
        folds=[texts.works[k] % folds for k in rows] if folds > 1 else None,
    )


def _unseen(
    fit_on: _Texts, held: _Texts, names: Sequence[str], heavier: Mapping[str, float], watch: Watch, title: str
) -> dict[str, float]:
    """By group of families, the mean AUC on its held-out texts of one fit without the group."""
    from longlode.synthetic.families import FAMILIES

    values = np.array([[row[name] for name in names] for row in held.features])
    label, found = np.array(held.labels), {}
    with watch.progress(title) as update:
        for number, (group, makers) in enumerate(FAMILIES.items()):
            rest = [name for other, names_ in FAMILIES.items() if other != group for name in names_]
            weights = _fit_on(fit_on, names, rest, 1, heavier)
            odds = -np.logaddexp.reduce(weights.against(values), axis=1)
            coherent = odds[label == _COHERENT]
            aucs = [wins(coherent, odds[label == name]).mean() for name in makers if (label == name).any()]
            if aucs:
                found[group] = round(float(np.mean(aucs)), 3)
            update(number + 1, len(FAMILIES), group)
    return found


def _features(text: str, known: Any) -> dict[str, float]:
    from longlode.mining.gate import ParsedText, measure

    return measure(ParsedText.of(text), known)


def _samples(works: Sequence[_Work], length: int, seed: int) -> list[tuple[str, str, str, str]]:
    """(label, table, id of the work or "", text): two stretches of each document, some texts of every family."""
    from longlode.synthetic.families import FAMILIES, Draw, cut_tokens, stretch

    found = []
    shelves: dict[str, list[_Work]] = {}
    for work in _long(works, length):
        shelves.setdefault(work.table, []).append(work)
    for table, members in shelves.items():
        strangers = [work for name, others in shelves.items() if name != table for work in others]
        for work in members:
            for number in range(2):
                rng = random.Random(f"{seed}:{length}:{work.id}:{number}")
                text = stretch(work.text, int(length * SPARE), rng)
                cut = None if text is None else cut_tokens(text, length)
                if cut is not None:
                    found.append((_COHERENT, table, work.id, cut))
        per_family = min(6, 2 + len(members) // 12)
        for label, make in ((label, make) for makers in FAMILIES.values() for label, make in makers.items()):
            for number in range(per_family):
                rng = random.Random(f"{seed}:{length}:{table}:{label}:{number}")
                draw = Draw(members, int(length * SPARE), rng, strangers, [])
                text = make(draw)
                cut = None if text is None else cut_tokens(text, length)
                if cut is not None:
                    found.append((label, table, draw.used[0] if len(draw.used) == 1 else "", cut))
    return found


def _figures(odds: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """AUC of each family against the coherent texts, and the calibration at even odds of both kinds."""
    label = np.array(labels)
    coherent = odds[label == _COHERENT]
    by_family = {
        name: round(float(wins(coherent, odds[label == name]).mean()), 3)
        for name in sorted(set(labels) - {_COHERENT})
    }
    worst = min(by_family, key=lambda name: by_family[name])
    weight = np.where(label == _COHERENT, 0.5 / len(coherent), 0.5 / max(1, len(odds) - len(coherent)))
    probability = 1 / (1 + np.exp(-odds))
    bins = np.minimum((5 * probability).astype(int), 4)
    reliability = [
        [
            round(float(np.average(probability[bins == k], weights=weight[bins == k])), 3),
            round(float(weight[(bins == k) & (label == _COHERENT)].sum() / weight[bins == k].sum()), 3),
        ]
        for k in range(5)
        if (bins == k).any()
    ]
    off = sum(
        float(weight[bins == k].sum()) * abs(said - were)
        for k, (said, were) in zip((k for k in range(5) if (bins == k).any()), reliability, strict=True)
    )
    return {
        "auc_mean": round(float(np.mean(list(by_family.values()))), 4),
        "auc_worst": by_family[worst],
        "worst": worst,
        "auc": by_family,
        "reliability": reliability,
        "calibration_error": round(off, 4),
    }


def _write(
    folder: Path,
    asked: dict[str, Any],
    works: Sequence[_Work],
    tables: "Sequence[ForeignText]",
    fitted: _Fitted,
    num_read: int,
) -> dict[str, Any]:
    """Write the folder; the record last, without which it is none."""
    from longlode.mining.baselines import estimated_tokens
    from longlode.mining.distance_profile.tables import write_tables
    from longlode.mining.gate.fit import write_gate
    from longlode.mining.gate.model import packaged_gate

    (folder / RECORD_NAME).unlink(missing_ok=True)
    write_tables(folder, tables)
    means = [
        np.mean([one[which]["auc_mean"] for one in fitted.figures.values()])
        for which in ("fitted", "packaged")
    ]
    gate = "fitted" if means[0] > means[1] else "packaged"
    if gate == "fitted":
        write_gate(folder, fitted.names, fitted.families, fitted.by_length, packaged_gate().known)
    head = {
        "num_read": num_read,
        "num_documents": len(works),
        "num_tokens": sum(round(estimated_tokens(work.text)) for work in works),
        "tables": {
            table.language: {
                "documents": sum(work.table == table.language for work in works),
                "words": len(table.counts),
                "windows": table.num_windows,
            }
            for table in tables
        },
        "gate": gate,
        "held_out": fitted.figures,
    }
    (folder / "README.md").write_text(_card(head), encoding="utf-8")
    write_record(folder, "weights", **asked, **head)
    return head


def _card(head: dict[str, Any]) -> str:
    """The model card of the weights."""
    rows = [
        f"| {int(length):,} | {which}{' (in use)' if which == head['gate'] else ''} | {one[which]['auc_mean']:.3f} | "
        f"{one[which]['auc_worst']:.3f} ({one[which]['worst']}) | {one[which]['calibration_error']:.3f} |"
        for length, one in head["held_out"].items()
        for which in ("fitted", "packaged")
    ]
    counted = [
        f"| {name} | {one['documents']:,} | {one['words']:,} | {one['windows']:,} |"
        for name, one in head["tables"].items()
    ]
    return "\n".join(
        [
            "# Weights of the profile score",
            "",
            f"Fitted by `longlode fit-score` on {head['num_documents']:,} of {head['num_read']:,} documents. Use them "
            "with `longlode score DOCS -o OUT --weights FOLDER`.",
            "",
            "Background counts, by table (languages known to the package by name):",
            "",
            "| table | documents | words | windows of 1,000 words |",
            "|---|---|---|---|",
            *counted,
            "",
            "The gate, on documents held out of its fit and families of text made of them:",
            "",
            "| tokens | gate | AUC, mean over families | worst family | calibration error |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Groups of families that a fit did not know, mean AUC: "
            + "; ".join(
                f"{int(length):,} tokens: "
                + ", ".join(f"{name} {auc:.2f}" for name, auc in one["unseen"].items())
                for length, one in head["held_out"].items()
            )
            + ".",
            "",
            "The families are the same in the fit and here, so these figures say how the gate does on other documents "
            "of this corpus, not on other kinds of junk. The packaged gate was fitted on other documents. The tables "
            "count the words of all documents, held-out ones too.",
            "",
        ]
    )
