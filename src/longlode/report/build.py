"""Building of the page: one self-contained HTML file from all records found."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from longlode.core.outputs import claim_file
from longlode.core.records import atomic_path
from longlode.report.agreement import Together, together
from longlode.report.auc import auc_chart, auc_table
from longlode.report.bench_tables import bench_sentences, bench_tables
from longlode.report.browse import BrowseView, browse_view
from longlode.report.documents import Card, cards
from longlode.report.excerpts import excerpts
from longlode.report.facts import facts
from longlode.report.harness import harness_view
from longlode.report.headline import headline
from longlode.report.maps import colour_tops
from longlode.report.read import Found, Gathered, explained, gather, labels, rows_of
from longlode.report.results import results_view
from longlode.report.scores import QUANTILES, Corpus, ScoresView, corpus, scores_view
from longlode.report.summary import (
    comparison_sentences,
    evaluation_sentences,
    harness_sentences,
    score_sentences,
    selection_sentences,
    tiles,
    training_sentences,
)
from longlode.report.text import as_number, clipped, duration, shown, visible
from longlode.report.training import training_view

_PAGE = Path(__file__).parent / "page"
_SCRIPTS = ("maps.js", "browse.js", "page.js")
_GENERATOR = b'<meta name="generator" content="longlode report">'
_HEAD_BYTES = 4096
_MAKERS = {
    "scores": "longlode score INPUT -o scores",
    "selection": "longlode select scores -o best.jsonl",
    "shards": "longlode pack INPUT -o shards --tokenizer FOLDER --length 4096",
    "run": "longlode train RECIPE.toml -o run",
    "evaluation": "longlode evaluate MODEL -o eval",
}


_FOLDED = (
    *("kind", "made_with", "format", "files", "dtype", "fingerprint", "eos_id"),
    *("tokenizer_fingerprint", "tokenizer_files"),
    *("scores", "out", "dropped_path", "scorer", "reader"),
)
"""Fields of selections and shards that only the provenance shows."""


def build(folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the report of everything found in `folders` and three levels below to `out`, atomically.

    The page loads nothing: styles and script are inline and named by hash in its content security
    policy. Texts from corpora and records are escaped, and characters that hide or reorder text are shown as
    code points. An earlier report is replaced, as it can be made again from its records; any other file only with
    `overwrite`.
    Returns: the path of the page.
    Raises: InputError when a folder is missing, none holds a record, or `out` may not be written.
    """
    path = claim_file(out, "a report", replaceable=is_page, overwrite=overwrite)
    page = render(gather([Path(folder) for folder in folders]))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def is_page(path: Path) -> bool:
    """Tell if a file is a report that longlode wrote."""
    with path.open("rb") as stream:
        return _GENERATOR in stream.read(_HEAD_BYTES)


def render(gathered: Gathered) -> str:
    """The page of the records found."""
    demos = [found.record for found in gathered.of("demo")]
    evaluations = gathered.of("evaluation")
    scores = _scores(gathered)
    training = training_view([(one, rows_of(gathered, one, "metrics.jsonl")) for one in gathered.of("run")])
    comparisons = _comparisons(demos)
    harness = harness_view(gathered.of("lm_eval"))
    trained = bench_tables(gathered.of("bench"))
    results = results_view(
        [(found, rows_of(gathered, found, "examples.parquet")) for found in evaluations], comparisons
    )
    sentences = [
        *score_sentences(scores.views, scores.together),
        *selection_sentences(gathered.of("selection")),
        *training_sentences(training),
        *comparison_sentences(comparisons),
        *evaluation_sentences(evaluations),
        *harness_sentences(harness),
        *bench_sentences(trained),
    ]
    findings, auc = _strings(demos, "findings"), auc_chart(demos)
    head = headline(gathered, scores.corpora, results, auc, findings, sentences)
    style = Markup(_read("page.css") + _read("print.css") + page_header(head.title))
    script = Markup("\n".join(_read(name) for name in _SCRIPTS))
    return (
        _environment()
        .get_template("page.html")
        .render(
            style=style,
            script=script,
            policy=content_policy(str(style), str(script)),
            head=head,
            sentences=sentences,
            tiles=tiles(scores.views, scores.together, training, evaluations),
            stages=_stages(demos),
            auc=auc,
            auc_table=auc_table(demos),
            scores=scores,
            training=training,
            results=results,
            harness=harness,
            trained=trained,
            selections=_fact_tables(gathered.of("selection")),
            shards=_fact_tables(gathered.of("shards")),
            provenance=_provenance(gathered.found),
            missing=_missing(gathered),
            problems=gathered.problems,
            quantile_names=[_quantile_name(q) for q in QUANTILES],
        )
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def page_header(title: str) -> str:
    """The style of the head and foot of printed pages; all but ASCII letters and digits is written as code points."""
    written = "".join(
        one if one.isascii() and one.isalnum() else f"\\{ord(one):06x}" for one in visible(title)
    )
    return (
        f'@page {{ @top-left {{ content: "{written}"; }} @top-right {{ content: "longlode report"; }} '
        '@bottom-right { content: counter(page) " / " counter(pages); } }\n'
    )


def _quantile_name(q: float) -> str:
    return {0.0: "lowest", 0.5: "median", 1.0: "highest"}.get(q, f"{100 * q:.0f} % quantile")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    return environment


def content_policy(style: str, script: str) -> Markup:
    """The page's content security policy: nothing but this style and this script, by their SHA-256."""
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in (style, script)
    ]
    return Markup(
        f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


@dataclass(frozen=True)
class _Scores:
    """All scores folders. together: several compared, None for one. tops: ends of the colour scales of all maps.

    explain_missing: names of folders without explain.json.
    """

    corpora: list[Corpus]
    views: list[ScoresView]
    together: Together | None
    cards: list[Card]
    tops: list[float]
    browse: BrowseView | None
    explain_missing: list[str]


def _scores(gathered: Gathered) -> _Scores:
    marks = labels(gathered)
    folders = gathered.of("scores")
    corpora = [corpus(gathered, found, marks) for found in folders]
    texts = [explained(gathered, found) for found in folders]
    tops = colour_tops([one for documents in texts for one in documents])
    begun, told = excerpts(gathered, corpora, texts)
    shown, anchors = cards(corpora, texts, begun, tops)
    return _Scores(
        corpora=corpora,
        views=[scores_view(one, f"scores{index}") for index, one in enumerate(corpora)],
        together=together(corpora),
        cards=shown,
        tops=tops,
        browse=browse_view(corpora, anchors, begun, told),
        explain_missing=[
            found.name for found, documents in zip(folders, texts, strict=True) if not documents
        ],
    )


def _missing(gathered: Gathered) -> list[tuple[str, str]]:
    """Missing kinds of record, each with the command that makes one; lm-eval's results count as an evaluation."""
    there = {found.kind for found in gathered.found}
    if "lm_eval" in there:
        there.add("evaluation")
    return [(kind, how) for kind, how in _MAKERS.items() if kind not in there]


def _strings(demos: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return [one for demo in demos for one in _list(demo.get(name)) if isinstance(one, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _comparisons(demos: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The demo's `compare`: one comparison, a list of them, or a mapping of names to them."""
    found: list[Mapping[str, Any]] = []
    for demo in demos:
        given = demo.get("compare")
        if isinstance(given, Mapping) and "rows" not in given:
            given = list(given.values())
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, Mapping) and isinstance(one.get("rows"), list):
                found.append(one)
    return found


def _stages(demos: Sequence[Mapping[str, Any]]) -> list[tuple[str, float | None, str, int]]:
    """(name, seconds, outcome, share of the longest stage in %) of each stage."""
    stages = [stage for demo in demos for stage in _list(demo.get("stages")) if isinstance(stage, Mapping)]
    seconds = [as_number(stage.get("seconds")) for stage in stages]
    longest = max((value for value in seconds if value is not None), default=0.0)
    return [
        (
            clipped(stage.get("name", ""), 60),
            value,
            clipped(_summary_text(stage.get("summary")), 300),
            round(100 * (value or 0.0) / longest) if longest else 0,
        )
        for stage, value in zip(stages, seconds, strict=True)
    ]


def _summary_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {inner}" for name, inner in facts(value, depth=2))
    return "" if value is None else str(value)


def _fact_tables(found: Sequence[Found]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(one.name, facts(one.record, skip=_FOLDED, depth=2)) for one in found]


def _provenance(found: Sequence[Found]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    # Extra columns are explained in the section to browse.
    skip = ("kind", "summary", "curves", "task_info", "findings", "compare", "extras", "rows")
    return [(one.kind, one.name, facts(one.record, skip=skip)) for one in found]
