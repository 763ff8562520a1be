"""Several folders on one page: scores of different scorers, lm-eval's tables, runs that mostly failed."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_records import make_records
from test_report_page import Page, faults, page_of

from longlode.core.ranking import spearman
from longlode.core.records import write_record
from longlode.core.rows import write_rows


def write_scores(folder, scores, *, scorer="default", status="ok", reasons=(), **columns):
    """A scores folder: one row for each of `scores` and one without a score for each of `reasons`."""
    rows = [{"score": score, "status": status, "reason": ""} for score in scores]
    rows += [{"score": None, "status": "too_short", "reason": reason} for reason in reasons]
    for number, row in enumerate(rows):
        row |= {"id": f"d{number}", "source": "s", "file": "f", "row": number, "num_tokens": 5000}
        row |= {name: values[number] for name, values in columns.items()}
    (folder / "parts").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "parts" / "a.parquet")
    write_record(
        folder,
        "scores",
        scorer={"name": scorer, "version": 1, "options": {}},
        num_documents=len(rows),
        complete=True,
        parts=[{"part": "a.parquet"}],
    )


@pytest.mark.parametrize(
    ("second", "expected"),
    [([10, 20, 30, 40], 1.0), ([4, 3, 2, 1], -1.0), ([1, 1, 1, 1], None), ([1, 3, 2, 4], 0.8)],
)
def test_spearman(second, expected):
    found = spearman(np.array([1.0, 2.0, 3.0, 100.0]), np.array(second, dtype=float))
    assert found == (None if expected is None else pytest.approx(expected))


def test_spearman_gives_ties_their_mean_rank():
    first, second = np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(first, second) == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1])


def test_scorers_side_by_side(tmp_path):
    write_scores(
        tmp_path / "a", [0.1, 0.2, 0.3, 0.4], score_se=[0.01] * 4, strength_mean=[0.5, 0.5, None, 0.5]
    )
    write_scores(tmp_path / "b", [9.0, 8.0, 7.0, 6.0], scorer="gzip", strength_mean=[None] * 4)
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    page = Page(text)
    assert "Corpus 4 documents" in page.text  # each once
    assert "a: 4 documents were read, 4 of them scored, none was left out." in page.text
    assert "Rank correlation of the scores over shared documents: a and b \u22121.00." in page.text
    assert "scorer gzip" in page.text
    assert "score (gzip)" in page.text
    (table,) = [json.loads(raw) for _, kind, raw in page.raw if kind == "application/json"]
    names = [column["name"] for column in table["columns"]]
    scores = {row[0]: dict(zip(names, row[3], strict=True)) for row in table["rows"]}
    assert [(scores[f"d{k}"]["score a"], scores[f"d{k}"]["score b"]) for k in range(4)] == [
        (0.1, 9.0),
        (0.2, 8.0),
        (0.3, 7.0),
        (0.4, 6.0),
    ]
    assert [scores[f"d{k}"]["strength_mean"] for k in range(4)] == [0.5, 0.5, None, 0.5]
    assert page.text.count("Score 0.400 \u00b1 0.0100 b: 6.00") == 1
    assert "Distributions of scores" not in page.text  # of two scorers, which have no common axis


def test_folders_of_one_scorer_share_a_chart(tmp_path):
    for name, scores in (("a", [0.0, 0.1, 0.2, 1.0]), ("b", [0.0, 1.0])):
        write_scores(tmp_path / name, scores)
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    assert text.count("<title") == 1 + text.count("<svg viewBox")
    assert Page(text).words.count("Distributions of scores, default") == 2  # wide and narrow
    outlines = re.findall(r'<path d="M([^"]+)" class="line c(\d) d\d"', text)
    drawn = [
        (path.split("L"), series) for path, series in outlines if path.count("L") > 1
    ]  # not the legend's
    by_folder = {series: [point.split() for point in points] for points, series in drawn[:2]}
    ground = max(float(y) for points in by_folder.values() for _, y in points)
    first = {series: ground - float(points[0][1]) for series, points in by_folder.items()}
    assert first["1"] / first["0"] == pytest.approx(2, rel=0.02)  # half of b's documents, a quarter of a's


def test_folders_of_one_name_are_distinguished(tmp_path):
    for name in ("old", "new"):
        write_scores(tmp_path / name / "scores", [0.1, 0.2, 0.3])
    tops = [tmp_path / name / "scores" for name in ("old", "new")]
    page = Page(page_of(tops, tmp_path / "report.html"))
    assert "old/scores: 3 documents were read" in page.text
    assert "new/scores: 3 documents were read" in page.text


def test_one_folder_is_compared_with_nothing(tmp_path):
    write_scores(tmp_path / "a", [0.1, 0.2])
    text = page_of(tmp_path, tmp_path / "report.html")
    assert "Do the scores rank alike?" not in text
    assert "2 documents were read, 2 of them scored, none was left out." in text


def test_a_run_in_which_most_failed(tmp_path):
    reasons = [f"{number} tokens; needed 1024" for number in (7, 7, 8, 9)] + ["no field 'text'"]
    write_scores(tmp_path / "a", [0.25], reasons=reasons)
    text = page_of(tmp_path, tmp_path / "report.html")
    page = Page(text)
    assert "6 documents were read, 1 of them scored; the others: 5 too short." in page.text
    common = "7 tokens; needed 1024 and with other numbers"
    assert f"Most documents have no score; the commonest reason (4): {common}." in page.text
    assert f"{common} (4)" in page.text
    assert "no field 'text' (1)" in page.text
    assert "One document of a has a score: 0.250." in page.text
    assert "Distribution of scores" not in text


def test_a_run_without_a_score(tmp_path):
    write_scores(tmp_path / "a", [], reasons=["5 tokens"] * 3)
    page = Page(page_of(tmp_path, tmp_path / "report.html"))
    assert "3 documents were read, none of them scored: 3 too short." in page.text
    assert "No document of a has a score." in page.text


def test_lm_eval_is_a_table_with_the_models_side_by_side(tmp_path):
    make_records(tmp_path / "demo")
    text = page_of(tmp_path / "demo" / "harness", tmp_path / "report.html")
    assert faults(text) == []
    page = Page(text)
    assert "There is no evaluation here." not in page.text
    assert "longlode evaluate MODEL" not in page.text
    table = text[text.index('aria-label="Results of lm-evaluation-harness"') :]
    rows = [
        re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(<th scope.*?)</tr>", table, re.S)
    ][:6]
    assert rows == [
        ["lambada", "acc", "random", "half", "0.375", "0.0300", "200"],
        ["lambada", "acc", "selected", "half", "0.250", "0.0300", "200"],
        ["lambada", "perplexity", "random", "half", "91.6", "\u2013", "200"],
        ["lambada", "perplexity", "selected", "half", "91.5", "\u2013", "200"],
        ["sums", "exact_match", "strict-match", "random", "half", "0.625", "0.100", "8"],
        ["sums", "exact_match", "strict-match", "selected", "half", "0.500", "0.100", "8"],
    ]
    assert "random half: a context of 2,048 tokens, the first 200 examples of each task." in page.text
    assert "lambada acc 0.375 \u00b1 0.0300; lambada perplexity 91.6;" in page.text


def test_a_strange_lm_eval_record_does_not_stop_the_page(tmp_path):
    write_record(tmp_path, "lm_eval", model=3, summary=[{"task": "x"}, 5], settings=[])
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    assert "gave no figure" in text


def test_tasks_say_what_chance_gives_and_their_heat_maps_share_a_scale(tmp_path):
    info = {"recall": {"metrics": [
        {"name": "hard", "about": "keys right", "unit": "share", "better": "higher", "headline": True, "chance": 0.125},
        {"name": "gain", "about": "gain of the line", "unit": "nats/token", "better": "higher", "headline": True},
    ]}}  # fmt: skip
    for name, gain in (("low", 0.2), ("high", 2.0)):
        examples = [
            {"task": "recall", "length": 512, "depth": depth, "hard": 0.5, "gain": gain * depth}
            for depth in (0.0, 0.5, 1.0)
        ]
        summary = [
            {
                "task": "recall",
                "length": 512,
                "metric": metric,
                "mean": mean,
                "low": mean - 0.1,
                "high": mean + 0.1,
                "n": 3,
            }
            for metric, mean in (("hard", 0.5), ("gain", gain / 2))
        ]
        write_record(tmp_path / name, "evaluation", model=name, task_info=info, summary=summary)
        write_rows(tmp_path / name / "examples.parquet", examples)
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    assert "higher is better; chance 12 %" in Page(text).text
    assert (
        "keys right (higher is better"
        in Page(re.search(r'<figure class="hero">.*?</figure>', text, re.S)[0]).text
    )
    assert text.count("recall: keys right</title>") == 2  # in the summary, and not again
    gains = re.findall(r"<svg[^>]*><title[^>]*>recall of (\w+): gain of the line.*?</svg>", text, re.S)
    assert gains == ["high", "low"]
    levels = {
        name: re.findall(r'class="cell (h\w)"', image)
        for name, image in re.findall(r"<title[^>]*>recall of (\w+): gain of the line(.*?)</svg>", text, re.S)
    }
    assert levels == {"high": ["h0", "h4", "h7"], "low": ["h0", "h0", "h0"]}
    row = re.search(r"<tbody>\s*<tr><th scope=\"rowgroup\".*?</tbody>", text, re.S)[0]
    assert "0.400 to 0.600" in row


def test_a_curve_that_rises_comes_first(tmp_path):
    curve = [
        {"length": 64, "start": a, "stop": 2 * a, "mean": 1.0, "low": 0.9, "high": 1.1, "n": 2}
        for a in (8, 16, 32)
    ]
    info = {
        "loss": {
            "curve": {"metric": "nats"},
            "metrics": [{"name": "nats", "about": "loss", "better": "lower"}],
        },
        "worth": {
            "curve": {"metric": "gain"},
            "metrics": [{"name": "gain", "about": "worth", "better": "higher"}],
        },
    }
    write_record(
        tmp_path / "e",
        "evaluation",
        model="m",
        task_info=info,
        curves={"loss": curve, "worth": curve},
        summary=[],
    )
    write_rows(tmp_path / "e" / "examples.parquet", [])
    text = page_of(tmp_path, tmp_path / "report.html")
    assert text.index("worth: worth</title>") < text.index("loss: loss</title>")
    assert "Evaluation of m" in Page(text).text
    assert text.count("worth: worth</title>") == 2  # in the summary, and not again


def test_a_number_of_the_whole_curve_is_in_the_summary(tmp_path):
    curve = [{"length": 64, "start": a, "stop": 2 * a, "mean": 0.1, "low": 0.0, "high": 0.2} for a in (8, 16)]
    metrics = [
        {
            "name": "gain",
            "about": "worth",
            "better": "higher",
            "baseline": 0.0,
            "at_baseline": "no use shown",
        },
        {"name": "used", "about": "reach", "better": "higher", "unit": "tokens", "headline": True},
    ]
    used = {
        "task": "worth",
        "length": 64,
        "metric": "used",
        "mean": 1024.0,
        "low": None,
        "high": None,
        "n": 8,
    }
    info = {"worth": {"curve": {"metric": "gain"}, "metrics": metrics}}
    write_record(
        tmp_path / "e", "evaluation", model="m", task_info=info, curves={"worth": curve}, summary=[used]
    )
    write_rows(tmp_path / "e" / "examples.parquet", [])
    text = Page(page_of(tmp_path, tmp_path / "report.html")).text
    assert "reach 1,024 tokens" in text
    assert "Where an interval holds 0, no use shown." in text
