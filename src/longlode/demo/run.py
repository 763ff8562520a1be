"""Stages of the demo, one after the other, each timed; `run_demo` reads from top to bottom.

Time determines only the number of training steps. Everything else is fixed by the seed.
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from longlode.cli.console import say_lines
from longlode.core.defaults import SCORER
from longlode.core.kinds import RECORD_NAME
from longlode.core.outputs import claim_folder
from longlode.core.records import write_record
from longlode.demo import comparison, training
from longlode.demo import findings as words
from longlode.demo.curves import Gain
from longlode.demo.material import KINDS, LENGTH, REAL, File, gather
from longlode.demo.separation import Auc, separation
from longlode.demo.stages import Stages
from longlode.demo.steps import (
    NEAR_TOKENS,
    PROLONG_PAIRS,
    TRAINED,
    DemoSettings,
    Row,
    explain_two,
    pack_kept,
    prolong_values,
    read_far,
    score_by_default,
    select_best,
    train_on_kept,
    values_by,
    write_corpus,
)
from longlode.demo.views import (
    comparison_lines,
    curve_lines,
    profile_lines,
    separation_lines,
    separation_table,
)

NUM_STAGES, NUM_FULL_STAGES = 9, 10
_MADE = ("corpus", "scores", "kept", "shards", "run", "eval", "comparison", "report.html", RECORD_NAME)
_MARKS = {words.DEFAULT: "D", words.GZIP: "g", words.OVERLAP: "o", words.PROLONG: "P"}
AucTable = dict[str, dict[str, Auc]]


def run_demo(settings: DemoSettings, *, overwrite: bool = False) -> list[str]:
    """Run all stages into `settings.out`; returns the findings.

    Args: overwrite: replace a demo of other settings in that folder.
    Raises: as the functions of the other packages.
    """
    out, stages = settings.out, Stages(NUM_FULL_STAGES if settings.full else NUM_STAGES)
    clear(settings, overwrite=overwrite)
    mined = _mine(settings, stages)
    used = _use(settings, stages, mined)
    compared = _compare(settings, stages, mined)
    found = _sentences(settings, mined, used, compared)
    record = {
        "settings": _recorded(settings),
        "auc_intervals": _by_signal(mined.auc),
        "kinds": {kind.name: kind.about for kind in KINDS},
        "context": {name: asdict(one) for name, one in used.gains.items()},
        "training": {arm: asdict(one) for arm, one in compared.items()},
        "findings": found,
        "labels": {row["id"]: row["source"] for row in mined.rows},
    }
    with stages("report", "writing the report") as facts:
        from longlode.report import build

        write_record(out, "demo", status="finished", stages=stages.done, **record)
        build([out], out / "report.html")
        facts |= {"kilobytes": (out / "report.html").stat().st_size // 1024}
    write_record(out, "demo", status="finished", stages=stages.done, **record)
    return found


def clear(settings: DemoSettings, *, overwrite: bool = False) -> None:
    """Make the folder of a demo ready: new, empty, or that of the same demo made before, whose files are removed."""
    out = claim_folder(settings.out, "demo", identity={"settings": _recorded(settings)}, overwrite=overwrite)
    for name in _MADE:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_record(out, "demo", status="running", settings=_recorded(settings))


def _recorded(settings: DemoSettings) -> dict[str, Any]:
    """The settings that decide what the demo finds."""
    return {name: value for name, value in asdict(settings).items() if name != "out"}


@dataclass(frozen=True)
class _Mined:
    """Results of the stages before the training. plan: of the comparison, if asked. pair: entries of explain.json."""

    rows: list[Row]
    heldout: list[File]
    plan: comparison.Plan | None
    auc: AucTable
    pair: list[dict[str, Any]]


def _mine(settings: DemoSettings, stages: Stages) -> _Mined:
    with stages("gather", "reading Python's own library and making fake long texts of it") as facts:
        material = gather(settings.seed)
        rows = write_corpus(settings, material)
        counts = Counter(row["source"] for row in rows)
        facts |= {source: counts[source] for source in (REAL, *(kind.name for kind in KINDS))}
        facts |= {"tokens_each": LENGTH}
    plan = comparison.plan_comparison(settings, material.files) if settings.full else None
    if plan is not None:
        say_lines([plan.in_words()])
    with stages("score", f"scoring {len(rows)} documents by the default, which needs no model") as facts:
        signals = score_by_default(settings, rows)
        facts |= {"documents": len(rows)}
    with stages("compare", "scoring them by other signals, and a sample by ProLong's formulas") as facts:
        signals[words.OVERLAP] = values_by(settings, rows, "overlap")
        signals[words.PROLONG] = prolong_values(settings, rows)
        auc = separation([row["source"] for row in rows], signals, [kind.name for kind in KINDS], REAL)
        facts |= {
            f"documents_by_{name}": sum(v is not None for v in values) for name, values in signals.items()
        }
    say_lines(["", *separation_table(auc, [*_MARKS]), "", *separation_lines(auc, _MARKS), ""])
    with stages("explain", "explaining a real and a glued document, those of median score") as facts:
        pair = explain_two(settings, rows)
        facts |= {one["label"]: one["score"] for one in pair}
    title = "What context adds, nats per token, by how far back it stands"
    say_lines(["", title, *profile_lines(pair), ""])
    return _Mined(rows, material.heldout, plan, auc, pair)


@dataclass(frozen=True)
class _Used:
    """Results on the kept documents. kept: their sources. gains: by model."""

    kept: list[str]
    num_steps: int
    gains: dict[str, Gain]


def _use(settings: DemoSettings, stages: Stages, mined: _Mined) -> _Used:
    with stages("select", "keeping as many documents as there are real ones, the best first") as facts:
        kept = select_best(settings, mined.rows)
        facts |= {"kept": len(kept), "real_among_them": kept.count(REAL)}
    with stages("pack", "packing them") as facts:
        facts |= {"tokens": pack_kept(settings)}
    with stages("train", "training a small model on them") as facts:
        num_steps = train_on_kept(settings)
        facts |= {"steps": num_steps, "tokens": training.num_tokens(num_steps)}
    with stages("evaluate", "measuring how far models read, on files that neither has read") as facts:
        curves = read_far(settings, mined.heldout)
        gains = {name: one.gain(NEAR_TOKENS) for name, one in curves.items()}
        facts |= {"files": gains[TRAINED].num_texts}
    title = "Loss of the same tokens by context, nats per token (bars: what it saves)"
    say_lines(["", title, *curve_lines({name: one.means() for name, one in curves.items()}), ""])
    return _Used(kept, num_steps, gains)


def _compare(settings: DemoSettings, stages: Stages, mined: _Mined) -> dict[str, comparison.Arm]:
    """Results of the training comparison by arm; none without --full."""
    if mined.plan is None:
        return {}
    with stages("training", "training on three choices of text, all else equal") as facts:
        values = partial(values_by, settings, scorer=SCORER)
        arms = comparison.compare_training(settings, mined.plan, mined.heldout, values)
        facts |= {"models": len(arms) * comparison.NUM_SEEDS, "tokens_each": mined.plan.num_tokens}
    title = f"Held-out nats per token after {comparison.FAR:,} tokens; gain: loss after {comparison.NEAR} less that"
    say_lines(["", title, *comparison_lines({name: asdict(arm) for name, arm in arms.items()}), ""])
    return arms


def _sentences(
    settings: DemoSettings, mined: _Mined, used: _Used, compared: dict[str, comparison.Arm]
) -> list[str]:
    auc, kept = mined.auc, used.kept
    prolong = f"{PROLONG_PAIRS} pairs of segments per document, read by {settings.model}; a sample"
    return [
        *words.about_score(auc),
        *words.about_other(auc, words.GZIP, "1 - compressed / raw size"),
        *words.about_other(auc, words.OVERLAP, "share of rare token pairs seen before"),
        *words.about_other(auc, words.PROLONG, prolong),
        words.about_selection(len(kept), kept.count(REAL), len(mined.rows)),
        *words.about_pair(mined.pair),
        *words.about_context(
            used.gains, used.num_steps, training.num_tokens(used.num_steps), training.FEW_TOKENS
        ),
        *(words.about_training(compared, mined.plan.num_tokens, training.FEW_TOKENS) if mined.plan else ()),
        *words.LIMITS,
        words.SMALL_MODELS if compared else words.ONE_MODEL,
    ]


def _by_signal(found: Mapping[str, Mapping[str, Auc]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Signal -> kind -> AUC, as the report reads it."""
    turned: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, signals in found.items():
        for name, one in signals.items():
            turned.setdefault(name, {})[kind] = asdict(one)
    return turned
