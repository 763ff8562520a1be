"""Findings in sentences made from the records; the absence of an effect is stated like an effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longlode.report.agreement import Together
from longlode.report.harness import HarnessView
from longlode.report.metrics import curve_metric, curve_rows, describe
from longlode.report.read import Found
from longlode.report.results import curve, model_names, rows_in
from longlode.report.scores import ScoresView
from longlode.report.text import as_number, clipped, compact, ending, number
from longlode.report.training import TrainingView

_MAX_HARNESS = 6
_MAX_AGREEMENTS = 6


@dataclass(frozen=True)
class Tile:
    """A key figure: a number, its meaning, and a clause below it."""

    value: str
    name: str
    note: str


def score_sentences(views: Sequence[ScoresView], compared: Together | None) -> list[str]:
    """Sentences on the number of documents read and scored, on differences of groups, and on agreement of folders."""
    sentences = []
    for view in views:
        where = f"{clipped(view.name, 60)}: " if len(views) > 1 else ""
        rest = ", ".join(
            f"{count:,} {status.replace('_', ' ')}" for status, count, _, _ in view.statuses if status != "ok"
        )
        scored = f"{view.num_scored:,}" if view.num_scored else "none"
        others = "; the others" if view.num_scored else ""
        tail = f"{others}: {rest}" if rest else ", none was left out"
        sentences.append(f"{where}{_documents(view.num_documents)} read, {scored} of them scored{tail}.")
        most = f"{where}most" if where else "Most"
        sentences += [f"{most} {warning}" for warning in _missing_scores(view)]
        if not view.complete:
            sentences.append(f"The scoring of {view.name} is not complete: some of its units of work failed.")
        if len(view.quantiles) > 1:
            medians = ", ".join(
                f"{ending(name, 32)} {number(values[len(values) // 2])}"
                for name, _, values in sorted(view.quantiles, key=lambda row: -row[2][len(row[2]) // 2])
            )
            sentences.append(f"{where}{'m' if where else 'M'}edian score by {view.grouped_by}: {medians}.")
    known = [pair for pair in compared.pairs if pair.spearman is not None] if compared else []
    if known:
        alike = "; ".join(
            f"{clipped(pair.a, 40)} and {clipped(pair.b, 40)} {number(pair.spearman)}"
            for pair in known[:_MAX_AGREEMENTS]
        )
        rest = f"; {len(known) - _MAX_AGREEMENTS} more below" if len(known) > _MAX_AGREEMENTS else ""
        sentences.append(f"Rank correlation of the scores over shared documents: {alike}{rest}.")
    return sentences


def _missing_scores(view: ScoresView) -> list[str]:
    """End of a sentence on missing scores, with the commonest reason; [] unless most documents have none."""
    if 2 * view.num_scored >= view.num_documents:
        return []
    reasons = [
        (n, reason) for status, _, _, common in view.statuses if status != "ok" for reason, n in common
    ]
    if not reasons:
        return ["documents have no score."]
    count, reason = max(reasons)
    return [f"documents have no score; the commonest reason ({count:,}): {reason}."]


def _documents(count: int) -> str:
    return f"{count:,} document was" if count == 1 else f"{count:,} documents were"


def selection_sentences(selections: Sequence[Found]) -> list[str]:
    """Sentences on the share of the scored corpus that each selection kept."""
    sentences = []
    for found in selections:
        kept, num = (as_number(found.record.get(name)) for name in ("num_selected", "num_documents"))
        if kept is not None and num:
            name = clipped(found.name, 60)
            sentences.append(f"{name}: {kept:,.0f} of {num:,.0f} documents were selected ({kept / num:.0%}).")
    return sentences


def training_sentences(view: TrainingView) -> list[str]:
    """Sentences on the final loss of each run."""
    ends = [
        f"{clipped(row.name, 60)} at {number(row.loss)}"
        + (f" ({number(row.eval_loss)} on held-out text)" if row.eval_loss is not None else "")
        + (f" after {compact(row.tokens, 3)} tokens" if row.tokens else "")
        for row in view.rows
        if row.loss is not None
    ]
    unfinished = [
        clipped(row.name, 60) for row in view.rows if row.status in ("running", "failed", "interrupted")
    ]
    sentences = [f"Training loss, in nats per token, ended for {'; for '.join(ends)}."] if ends else []
    if unfinished:
        sentences.append(f"Not finished: {', '.join(unfinished)}.")
    return sentences


def evaluation_sentences(evaluations: Sequence[Found]) -> list[str]:
    """Sentences on each model's use of context: its curve along the text, and the tasks at their greatest length."""
    sentences = []
    for name, found in zip(model_names(evaluations), evaluations, strict=True):
        short = clipped(name, 60)
        sentences += _curve_sentence(short, found)
        along = curve_rows(found.record)[0]
        drawn = curve_metric([found.record], along).name
        rows = rows_in(found.record.get("summary"), "mean", "length", "n")
        longest: dict[str, int] = {}
        for row in rows:
            longest[str(row.get("task"))] = max(row["length"], longest.get(str(row.get("task")), 0))
        for task, length in longest.items():
            told = [
                part
                for row in rows
                if (str(row.get("task")), row["length"]) == (task, length)
                and (task, row.get("metric")) != (along, drawn)
                if (part := _metric_words(found, task, row))
            ]
            if told:
                sentences.append(f"{short}, {task} at {length:,} tokens: {'; '.join(told)}.")
    return sentences


def _curve_sentence(name: str, found: Found) -> list[str]:
    lengths = curve(found)
    part = lengths[max(lengths)] if lengths else []
    if len(part) < 2:
        return []
    told = curve_metric([found.record], curve_rows(found.record)[0])
    first, middle, last = part[0], part[len(part) // 2], part[-1]
    return [
        f"{name}, {told.words}: {told.value(first['mean'])} in the first {first['stop']:,} tokens, "
        f"{told.value(middle['mean'])} around token {middle['start']:,} and {told.value(last['mean'])} beyond token "
        f"{last['start']:,}."
    ]


def _metric_words(found: Found, task: str, row: Mapping[str, Any]) -> str:
    """A headline metric in words: its value, its interval, and whether that excludes the baseline."""
    told = describe([found.record], task, str(row.get("metric")))
    if not told.headline:
        return ""
    low, high = as_number(row.get("low")), as_number(row.get("high"))
    remark = ""
    if told.baseline is not None and low is not None and high is not None and low <= told.baseline <= high:
        remark = f", {told.at_baseline}" if told.at_baseline else ""
    return f"{told.words} {told.value(row['mean'])}{_interval(row)} in {row['n']:,} examples{remark}"


def harness_sentences(view: HarnessView | None) -> list[str]:
    """Sentences on lm-eval's results per model, the first metrics of each; all are in the table."""
    models: dict[str, list[str]] = {}
    for row in view.rows if view else []:
        error = "" if row.stderr is None else f" \u00b1 {number(row.stderr)}"
        models.setdefault(row.model, []).append(f"{row.task} {row.metric} {number(row.value)}{error}")
    return [
        f"{clipped(model, 60)} in lm-evaluation-harness (value \u00b1 standard error): "
        + "; ".join(found[:_MAX_HARNESS])
        + (f"; {len(found) - _MAX_HARNESS} more below." if len(found) > _MAX_HARNESS else ".")
        for model, found in models.items()
    ]


def comparison_sentences(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on the better model, if any, by paired differences at the greatest length of each task."""
    sentences = []
    for comparison in comparisons:
        a, b = (clipped(comparison.get(side, side), 60) for side in ("a", "b"))
        rows = rows_in(comparison.get("rows"), "difference", "length", "n")
        greatest: dict[tuple[str, str], Mapping[str, Any]] = {}
        for row in rows:
            key = (str(row.get("task")), str(row.get("metric")))
            if key not in greatest or row["length"] > greatest[key]["length"]:
                greatest[key] = row
        for (task, metric), compared in greatest.items():
            told = describe([comparison], task, metric)
            if told.headline:
                sentences.append(_difference_sentence(a, b, f"{told.words} ({task})", compared))
    return sentences


def _difference_sentence(a: str, b: str, what: str, row: Mapping[str, Any]) -> str:
    favours = row.get("favours")
    where = f"{what} at {row['length']:,} tokens"
    interval = _interval(row)
    if favours not in ("a", "b"):
        return (
            f"No difference between {a} and {b} is shown in {where}: {number(row['difference'])}{interval}."
        )
    winner, loser = (a, b) if favours == "a" else (b, a)
    return (
        f"{winner} is better than {loser} in {where}: difference {number(abs(row['difference']))}{interval}."
    )


def _interval(row: Mapping[str, Any]) -> str:
    low, high = as_number(row.get("low")), as_number(row.get("high"))
    return "" if low is None or high is None else f" (95 % interval {number(low)} to {number(high)})"


def tiles(
    scores: Sequence[ScoresView],
    compared: Together | None,
    training: TrainingView,
    evaluations: Sequence[Found],
) -> list[Tile]:
    """The key figures that the records hold."""
    found = []
    if scores:
        if compared:
            num, note = compared.num_documents, f"in {len(scores)} scores folders"
        else:
            num, note = scores[0].num_documents, f"{scores[0].num_scored:,} scored"
        found.append(Tile(f"{num:,}", "documents read", note))
    tokens = [row.tokens for row in training.rows if row.tokens]
    if tokens:
        runs = len(training.rows)
        found.append(Tile(compact(sum(tokens), 3), "tokens trained on", f"{runs} run{'s' * (runs > 1)}"))
    answers = sum(
        int(row["n"])
        for one in evaluations
        for row in rows_in(one.record.get("summary"), "n")
        if row.get("metric") == "hard"
    )
    if answers:
        found.append(
            Tile(f"{answers:,}", "examples asked", f"{len(evaluations)} model{'s' * (len(evaluations) > 1)}")
        )
    return found
