"""The head of the page: a title, a date, the corpus, the finding in one sentence, and one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath

import numpy as np
from markupsafe import Markup

from longlode.report.charts import Group, histograms
from longlode.report.distance_charts import reach_chart, reach_rows
from longlode.report.far_context import FarContext, thousands
from longlode.report.read import Found, Gathered
from longlode.report.results import ResultsView, model_names
from longlode.report.scores import Corpus
from longlode.report.text import clipped, number

FAR_TOKENS = 4096
"""The distance that the verdict on a corpus is about, or the farthest measured octave if that is nearer."""
_MAX_INPUTS = 3


@dataclass(frozen=True)
class Figure:
    """The one figure. kind: "reach", "auc", "histogram", "curve", ...: not drawn again by a section."""

    kind: str
    caption: str
    chart: Markup


@dataclass(frozen=True)
class Headline:
    """Data for the template. facts: (name, value) of the page: its date, corpus, version. rest: further sentences."""

    title: str
    facts: list[tuple[str, str]]
    verdict: str
    figure: Figure | None
    rest: list[str]


def headline(
    gathered: Gathered,
    corpora: Sequence[Corpus],
    results: ResultsView,
    auc: Markup | None,
    findings: Sequence[str],
    sentences: Sequence[str],
) -> Headline:
    """Choose the finding that the page opens with.

    Args: auc, the demo's chart. findings, the demo's, the first of which is the verdict. sentences, the findings of
      all records, the verdict of a page that has no better one.
    """
    told = [*findings, *sentences]
    main = _main(corpora)
    if findings:
        verdict, rest = findings[0], list(findings[1:])
    elif main:
        where = f"{clipped(main.name, 60)}: " if len(corpora) > 1 else ""
        verdict, rest = where + _corpus_verdict(main), []
    else:
        verdict, rest = (told[0] if told else "The records hold no result yet."), []
    return Headline(
        title=_title(gathered, corpora),
        facts=_facts(gathered, corpora),
        verdict=verdict,
        figure=_figure(main, len(corpora), results, auc if findings else None),
        rest=rest,
    )


def _main(corpora: Sequence[Corpus]) -> Corpus | None:
    """The folder that the verdict is about: the first with a gate, else the first with scores."""
    scored = [one for one in corpora if len(one.scored)]
    return next((one for one in scored if one.far), scored[0] if scored else None)


def _title(gathered: Gathered, corpora: Sequence[Corpus]) -> str:
    if gathered.of("demo"):
        return "The demo: what the score tells apart, and how far models read"
    if corpora:
        what = "Use of far context in" if any(one.far for one in corpora) else "Scores of"
        return f"{what} {_inputs(corpora) or clipped(corpora[0].name, 60)}"
    evaluated = [*gathered.of("evaluation"), *gathered.of("lm_eval")]
    if evaluated:
        names = list(dict.fromkeys(str(found.record.get("model") or found.name) for found in evaluated))
        return f"Evaluation of {_listed(names)}"
    runs = [found.name for found in gathered.of("run")]
    if runs:
        return f"Training of {_listed(runs)}"
    return f"Report on {_listed([found.name for found in gathered.found])}"


def _inputs(corpora: Sequence[Corpus]) -> str:
    given = [name for one in corpora for name in _strings(one.found.record.get("inputs"))]
    return _listed([PurePath(name).name or name for name in dict.fromkeys(given)])


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a, b and 5 more"."""
    shown = [clipped(name, 60) for name in names[:_MAX_INPUTS]]
    if len(names) > _MAX_INPUTS:
        return f"{', '.join(shown)} and {len(names) - _MAX_INPUTS} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _facts(gathered: Gathered, corpora: Sequence[Corpus]) -> list[tuple[str, str]]:
    newest = datetime.fromtimestamp(max(found.written for found in gathered.found), tz=UTC)
    facts = [("Newest record", f"{newest.day} {newest:%B %Y}, {newest:%H:%M} UTC")]
    if corpora:
        num = len({identity for one in corpora for identity in one.identities})
        names = _inputs(corpora)
        size = _num_bytes(corpora[0])
        length = f", {number(size / 1e6)} MB of text" if size and len(corpora) == 1 else ""
        told = f"{num:,} document{'' if num == 1 else 's'}{length}"
        facts.append(("Corpus", f"{names}: {told}" if names else told))
        facts.append(("Scorer", ", ".join(dict.fromkeys(one.scorer or "unknown" for one in corpora))))
    models = model_names(gathered.of("evaluation"))
    if models:
        facts.append(("Models", _listed(models)))
    versions = dict.fromkeys(_version(found) for found in gathered.found)
    facts.append(
        ("Made with", "longlode " + ", ".join(sorted(filter(None, versions)) or ["of an unknown version"]))
    )
    facts.append(("Read from", ", ".join(clipped(name, 80) for name in gathered.names)))
    return facts


def _num_bytes(corpus: Corpus) -> float:
    if "num_bytes" not in corpus.table.column_names:
        return 0.0
    return float(np.nansum(corpus.table.column("num_bytes").to_numpy(zero_copy_only=False).astype(float)))


def _version(found: Found) -> str:
    made = found.record.get("made_with")
    return clipped(made.get("longlode") or "", 20) if isinstance(made, Mapping) else ""


def _corpus_verdict(corpus: Corpus) -> str:
    """Finding on a corpus: the number of documents that use far context, or the distribution of scores."""
    num, scored = corpus.table.num_rows, len(corpus.scored)
    kept = _kept(corpus)
    if corpus.far:
        return f"{_far_verdict(corpus.far, num)}{kept}."
    score = corpus.score[corpus.scored]
    if corpus.meaning.above:
        above = int((score >= 0).sum())
        rest = f", {scored - above:,} {corpus.meaning.below}" + _without(num - scored)
        return f"{above:,} of {num:,} documents {corpus.meaning.above}{rest}{kept}."
    low, middle, high = (number(q) for q in np.quantile(score, [0.25, 0.5, 0.75]))
    unit = f" ({corpus.meaning.unit})" if corpus.meaning.unit else ""
    spread = f"their median score is {middle}{unit}, the middle half lies between {low} and {high}"
    return f"{scored:,} of {num:,} documents have a score; {spread}{kept}."


def _far_verdict(far: FarContext, num: int) -> str:
    beyond = min(FAR_TOKENS, far.starts[-1])
    uses, passed = int((far.passes & (far.reach > beyond)).sum()), int(far.passes.sum())
    stopped = int((far.gate < 0).sum())
    less = f"{passed - uses:,} more pass the gate but use less"
    rest = f"{less}, {stopped:,} are stopped by the gate{_without(num - passed - stopped)}"
    what = f"{'is' if uses == 1 else 'are each'} one text in its own order and use{'s' * (uses == 1)} context"
    return f"{uses:,} of {num:,} documents {what} beyond {thousands(beyond)} tokens back; {rest}"


def _without(count: int) -> str:
    return f", {count:,} {'has' if count == 1 else 'have'} no score" if count else ""


def _kept(corpus: Corpus) -> str:
    if corpus.decisions is None:
        return ""
    kept = corpus.table.num_rows - len(corpus.decisions.dropped)
    return f"; {kept:,} were selected"


def _figure(one: Corpus | None, num_folders: int, results: ResultsView, auc: Markup | None) -> Figure | None:
    if auc:
        caption = (
            "AUC: the chance that a coherent document scores above one that is not. Each bar is a score, with its 95 % "
            "interval; the line at 0.5 is a coin toss."
        )
        return Figure("auc", caption, auc)
    if one and one.far:
        rows = reach_rows(one.far, one.table.num_rows - int(np.isfinite(one.far.gate).sum()))
        caption = "Documents by the distance up to which context helps."
        if any(row.limited for row in rows):
            caption += " Faded: those that end there, so that nothing farther could be measured."
        return Figure("reach", caption, reach_chart(rows, key="verdict"))
    if one and len(one.scored) > 1:
        chart = histograms(
            [Group("all scored documents", one.score[one.scored])],
            key="verdict",
            title="Scores of all documents",
            x_label=one.meaning.axis(one.scorer),
            reference=0.0 if one.meaning.above else None,
        )
        told = f" {one.meaning.zero}." if one.meaning.zero else ""
        whose = (
            f"How the scores of {clipped(one.name, 60)} spread."
            if num_folders > 1
            else "How the scores spread."
        )
        return Figure("histogram" if num_folders == 1 else "first histogram", whose + told, chart)
    if results.curves:
        curve = results.curves[0]
        return Figure("curve", curve.about, Markup("{}{}").format(results.legend, curve.chart))
    if results.panels:
        # What an answer gained from its context says more than whether it was right, which small models never are.
        panel = next((panel for panel in results.panels if panel.has_baseline), results.panels[0])
        meaning = f" ({panel.meaning})" if panel.meaning else ""
        chart = Markup("{}{}").format(results.legend, panel.chart)
        return Figure("panel", f"{panel.task}: {panel.about}{meaning}.", chart)
    return None
