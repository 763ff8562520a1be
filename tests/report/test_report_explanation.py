"""What a scorer tells of a document in explain.json: signs, the boundary with its curve, words; oddly given, too."""

import random
import re

import pytest
from far_records import far_rows, write_far
from report_records import NASTY
from test_report_page import Page, faults, page_of

from longlode.core.records import write_json
from longlode.report.explanation import boundary_chart, explanation
from longlode.report.text import number, visible


def told(salt=lambda text: text):
    """An `explanation` as the profile gives it."""
    place = {
        "token": 300,
        "character": 1200,
        "before": salt("in the old "),
        "text": "Har",
        "after": salt("bour of"),
    }
    again = place | {"token": 5300}
    return {
        "kind": "profile",
        "gate": {
            "log_odds": 2.0,
            "rivals": [{"family": "x", "about": salt("lists, tables"), "share": 0.75}, {"family": "y", "share": 0.001}],
            "signs": [
                {"name": salt("names"), "about": salt("names that come back"), "nats": 0.5},
                {"name": "lines", "about": "repeated lines", "nats": -1.25},
                {"name": "tiny", "about": "nothing much", "nats": 0.01},
            ],
        },
        "boundary": {
            "share": 0.5, "typical": 0.9, "span_tokens": 400, "token": 2000, "character": 8000,
            "before": salt("left side"), "after": salt("right side"), "curve": [[1000, 1.2], [2000, 0.5], [3000, 0.9]],
        },
        "profile": {
            "carriers": [
                {"text": salt("harbour"), "gain_nats": 0.002, "num_returns": 3,
                 "returns": [{"distance_tokens": 5000, "before": place, "again": again}]},
                {"text": "nowhere", "gain_nats": 0.001, "num_returns": 0, "returns": []},
            ]
        },
    }  # fmt: skip


def page_with(explained, tmp_path):
    rows = [row for row in far_rows(30, 3) if row["score"] is not None]
    write_far(tmp_path / "s", rows)
    entry = {name: rows[0][name] for name in ("id", "file", "row", "score")} | {"label": "best"}
    write_json(tmp_path / "s" / "explain.json", [entry | {"explanation": explained}])
    return page_of(tmp_path, tmp_path / "report.html")


def test_a_card_shows_the_whole_explanation(tmp_path):
    text = page_with(told(), tmp_path)
    assert faults(text) == []
    words = Page(text).text
    for piece in (
        "most like: lists, tables (75 %).",
        "names +0.500 names that come back",
        "lines \u22121.25 repeated lines",
        "Weakest boundary, at token 2,000",
        "The 400 tokens on either side share 0.50 of what passages as far apart share",
        "the median over its cuts is 0.90.",
        "adds 0.0020 nats per token comes back 3 times",
        "before at token 300",
        "again at token 5,300",
        "5,000 tokens later",
    ):
        assert piece in words, piece
    assert "nothing much" not in words
    assert "nowhere" not in words
    assert text.count("<mark>Harbour</mark>") == 2  # the whole word


def test_hostile_explanations_stay_text(tmp_path):
    rng = random.Random(1)
    text = page_with(told(lambda part: f"{part} {rng.choice(NASTY)}"), tmp_path)
    assert faults(text) == []
    assert any(" ".join(visible(one).split()) in Page(text).text for one in NASTY)


STRANGE = [
    None, 3, [], {}, {"gate": 4, "boundary": [], "profile": "x"},
    {"gate": {"signs": [1, {"nats": "x"}], "rivals": [{}]}, "boundary": {"before": "a", "curve": [[1], "x", [2, None]]},
     "profile": {"carriers": [{}, {"returns": [{}]}, {"gain_nats": 1, "returns": [{"before": {"token": 1}}]}]}},
]  # fmt: skip


@pytest.mark.parametrize("given", STRANGE)
def test_strange_explanations_do_not_stop_the_page(given, tmp_path):
    assert faults(page_with(given, tmp_path)) == []
    shown = explanation({"explanation": given}, "k", "n")
    assert (shown.signs_for, shown.signs_against, shown.carriers) == ([], [], [])


def test_the_curve_falls_where_its_numbers_fall_and_marks_the_weakest():
    rng = random.Random()
    curve = [(100.0 * k, rng.uniform(0.2, 2.0)) for k in range(1, 30)]
    weakest = min(curve, key=lambda point: point[1])
    image = str(boundary_chart(curve, weakest, key="k", name="n"))
    points = [
        tuple(map(float, p.split())) for p in re.search(r'd="M([^"]+)" class="line c0"', image)[1].split("L")
    ]
    assert sorted(range(29), key=lambda k: curve[k][1]) == sorted(range(29), key=lambda k: -points[k][1])
    x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', image).groups())
    assert (x, y) == pytest.approx(points[curve.index(weakest)], abs=0.02)
    assert number(weakest[1]) in image
