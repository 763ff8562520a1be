"""A scorer that measures far context: the verdict, its figure, and what decided each document's score."""

import random
import re

import numpy as np
import pytest
from far_records import STARTS, far_rows, write_far
from report_records import NASTY
from test_report_page import Page, faults, page_of
from test_report_side_by_side import write_scores

from longlode.core.records import write_json
from longlode.report.distance_charts import profile_chart, profile_scale
from longlode.report.far_context import probability
from longlode.report.text import number, visible


def bars_of(text, title):
    """{name: count} of the figure with this title, in its wide form."""
    image = re.search(rf"<svg[^>]*><title[^>]*>{title}</title>.*?</svg>", text, re.S)[0]
    names = re.findall(r'text-anchor="end" ?[^>]*>([^<]+)</text>|class="tick"[^>]*>([^<]+)</text>', image)
    counts = re.findall(r'class="note"[^>]*>([\d,]+)</text>', image)
    return dict(zip([a or b for a, b in names], [int(one.replace(",", "")) for one in counts], strict=True))


@pytest.mark.parametrize("draw", range(3))
def test_the_verdict_and_its_figure_count_the_rows(draw, tmp_path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown when the test fails
    rows = far_rows(200, seed)
    write_far(tmp_path / "s", rows)
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    far = less = stopped = without = 0
    reaches = {}
    for row in rows:
        if row["extras.gate"] is None:
            without += 1
        elif row["extras.gate"] < 0:
            stopped += 1
        else:
            reach = row["extras.dependency_tokens"]
            reaches[reach] = reaches.get(reach, 0) + 1
            if reach > 4096:
                far += 1
            else:
                less += 1
    verdict = Page(re.search(r'<p class="verdict-line">(.*?)</p>', text)[1]).text
    assert [int(n) for n in re.findall(r"\b(\d+)\b(?!k)", verdict)] == [far, 200, less, stopped, without]
    assert "4k tokens" in verdict
    named = {
        f"up to {reach // 1024}k tokens back" if reach else "not beyond 1k tokens": n
        for reach, n in reaches.items()
    }
    shown = bars_of(text, "Documents by how far they use their context")
    assert {name: n for name, n in shown.items() if n} == {
        **named,
        "stopped by the gate": stopped,
        "no score": without,
    }


def test_the_farthest_octave_is_the_verdict_of_short_documents(tmp_path):
    rows = [
        {name: value for name, value in row.items() if not re.search(r"far_[48]k", name)}
        for row in far_rows(30, 1)
    ]
    write_far(tmp_path / "s", rows)
    page = Page(page_of(tmp_path, tmp_path / "report.html"))
    assert "beyond 2k tokens" in page.text


def test_a_card_says_what_decided_first_and_has_the_map_last(tmp_path):
    rows = far_rows(60, 7)
    write_far(tmp_path / "s", rows)
    best = max((row for row in rows if row["score"] is not None), key=lambda row: row["score"])
    explained = {
        **{name: best[name] for name in ("id", "file", "row", "score")},
        "label": "best",
        "segments": ["one", "two"],
        "pairs": [[1, 0, 0.5, 0.1]],
        "factors": {"order": 0.9, "names": 0.25},
        "seam": {
            "share": 0.125,
            "typical": 0.5,
            "span": 60,
            "character": 77,
            "before": "<left>",
            "after": "right",
        },
    }
    write_json(tmp_path / "s" / "explain.json", [explained])
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    cards = re.findall(r'<article class="card".*?</article>', text, re.S)
    card = next(one for one in cards if f'<span class="name">{best["id"]}</span>' in one)
    words = Page(card).text
    order = [
        "Passes the gate",
        "log-odds",
        "Context helps",
        "order 90.0 %",
        "Weakest boundary",
        "<left>",
        "Pairwise map",
    ]
    assert [words.index(piece) for piece in order] == sorted(words.index(piece) for piece in order)
    assert "12 % of the rare words" in words
    assert "usual in this document: 50 %" in words
    assert "has no part in a score" in words
    assert len(re.findall("Profile by distance of", text)) == len(cards)


def test_documents_at_both_ends_and_at_the_gate_have_cards(tmp_path):
    rows = [row for row in far_rows(80, 3) if row["score"] is not None]
    write_far(tmp_path / "s", rows)
    text = page_of(tmp_path, tmp_path / "report.html")
    shown = re.findall(r'<span class="name">([^<]+)</span>', text)
    by_score = sorted(rows, key=lambda row: -row["score"])
    above = sorted((row for row in rows if row["extras.gate"] >= 0), key=lambda row: row["extras.gate"])[:2]
    below = sorted((row for row in rows if row["extras.gate"] < 0), key=lambda row: -row["extras.gate"])[:2]
    wanted = [*by_score[:3], *by_score[-3:], *above, *below]
    assert set(shown) == {row["id"] for row in wanted}
    assert shown == [row["id"] for row in by_score if row["id"] in shown]


def test_hostile_names_stay_text(tmp_path):
    rng = random.Random(5)
    rows = far_rows(40, 5, lambda text: f"{text} {rng.choice(NASTY)}")
    write_far(tmp_path / "s", rows)
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    best = max((row for row in rows if row["score"] is not None), key=lambda row: row["score"])
    assert " ".join(visible(best["id"]).split()) in Page(text).text


def test_profiles_have_one_scale_and_columns_of_their_size():
    rng = np.random.default_rng()
    gains, errors = rng.normal(0.05, 0.05, (2, 4)), np.full((2, 4), 0.01)
    gains[1, 3] = np.nan
    scale = profile_scale([(gains[0], errors[0]), (gains[1], errors[1])])
    starts = [1024 * start for start in STARTS]
    heights = []
    for k in range(2):
        image = str(profile_chart(starts, gains[k], errors[k], 2048, scale, key="k", name="n"))
        found = [float(h) for h in re.findall(r'height="([\d.]+)" class="fill', image)]
        heights += found
        assert len(found) == np.isfinite(gains[k]).sum()
        assert image.count("too short") == int(np.isnan(gains[k]).sum())
        assert len(re.findall('class="fill c0"', image)) == int((gains[k] > 2 * errors[k]).sum())
        assert image.count('class="reach"') == 1
    known = np.abs(gains[np.isfinite(gains)])
    tall = known > 0.01
    ratios = np.array(heights)[tall] / known[tall]
    assert ratios == pytest.approx(np.full(len(ratios), ratios[0]), rel=0.03)


@pytest.mark.parametrize(
    ("odds", "told"),
    [
        (0.0, "50 %"),
        (3.0, "95 %"),
        (50.0, "over 99.9 %"),
        (-50.0, "under 0.1 %"),
        (-6.0, "0.2 %"),
        (1e9, "over 99.9 %"),
    ],
)
def test_a_probability_is_never_certain(odds, told):
    assert probability(odds) == told


def test_the_score_says_its_unit_and_its_zero(tmp_path):
    write_far(tmp_path / "s", far_rows(30, 2))
    page = Page(page_of(tmp_path, tmp_path / "report.html"))
    assert "Above 0: the document passes the gate" in page.text
    assert number(0.0) == "0"


def test_of_several_folders_the_one_with_a_gate_gives_the_verdict(tmp_path):
    write_scores(tmp_path / "a", [0.1, 0.2, 0.3])
    write_far(tmp_path / "b", far_rows(40, 2))
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    verdict = Page(re.search(r'<p class="verdict-line">(.*?)</p>', text)[1]).text
    assert re.match(r"b: \d+ of 40 documents", verdict)
    assert "Documents by how far they use their context" in text


def test_without_a_gate_the_verdict_counts_around_the_zero(tmp_path):
    write_scores(tmp_path / "a", [0.1, -0.2, 0.3], scorer="coherence", reasons=["short"])
    page = Page(page_of(tmp_path, tmp_path / "report.html"))
    assert (
        "2 of 4 documents are more likely than not one text in its own order, 1 are not, 1 has no score."
        in page.text
    )
    assert "score (coherence), nats" in page.text
    write_scores(tmp_path / "b", [3.0, 1.0, 2.0, 4.0], scorer="strange")
    page = Page(page_of(tmp_path / "b", tmp_path / "report.html"))
    assert (
        "4 of 4 documents have a score; their median score is 2.50, the middle half lies between 1.75 and 3.25."
        in page.text
    )
