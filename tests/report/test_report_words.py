"""Announced words and token gains of explain.json: shown, escaped, and missing without harm."""

import json
import re

import pytest
from report_records import make_records
from test_report_page import Page, faults, page_of

from longlode.core.records import read_json, write_json, write_record
from longlode.report.text import visible
from longlode.report.words import words_view


@pytest.fixture
def scores(tmp_path):
    return make_records(tmp_path / "demo") / "scores"


def place(token, before="", text="x", after=""):
    return {"token": token, "segment": token // 128, "before": before, "text": text, "after": after}


def word(announced, used, **fields):
    return {"word": "x", "contribution_nats": 0.01, "announced": announced, "used": used} | fields


def test_words_stand_below_the_maps_that_have_them(scores, tmp_path):
    text = page_of(scores, tmp_path / "report.html")
    page = Page(text)
    assert text.count('class="map"') == 5
    assert page.text.count("Announced words") == 3  # the two worst are as older versions wrote them
    for piece in (
        "0.210 \u00b1 0.0300 nats per token",
        "1,024 tokens before the last 128",
        "announced at token 700",
        "used at token 1,500",
        "800 tokens later",
    ):
        assert page.text.count(piece) == 3
    assert page.text.count("paid to the harbour0 master, who named") == 6
    assert page.text.count("7 of 9 uses announced 25 % expected") == 9
    assert text.count("<mark>harbour2</mark>") == 6


def test_a_word_leads_to_its_cell_and_none_that_is_not_there(scores, tmp_path):
    text = page_of(scores, tmp_path / "report.html")
    words = re.findall(r'<ol class="wordlist">.*?</ol>', text, re.S)
    assert len(words) == 3
    for one in words:  # the second lies beyond the map, the third within one segment
        assert re.findall(r'data-i="(\d+)" data-j="(\d+)"', one) == [("11", "5")]
    rings = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="0.32" class="announced"', text)
    assert rings == [("5.5", "11.5")] * 3


def test_tokens_that_gained_most_are_marked(scores, tmp_path):
    page = Page(page_of(scores, tmp_path / "report.html"))
    data = [
        json.loads(content)
        for _, kind, content in page.raw
        if kind == "application/json" and "gains" in content
    ]
    source = {tuple(map(visible, one["segments"])): one for one in read_json(scores / "explain.json")}
    assert sorted(len(one["gains"]) for one in data) == [0, 0, 5, 5, 5]
    for one in data:
        document = source[tuple(one["segments"])]
        for (i, j, pieces, named), pair in zip(one["gains"], document.get("strongest", []), strict=True):
            assert (i, j) == (pair["target"], pair["source"])
            text = visible(document["segments"][i])
            assert "".join(piece for piece, _ in pieces) == text
            marked = [piece for piece, most in pieces if most]
            assert len(marked) == 8
            assert all(re.fullmatch(r"\w+", piece) for piece in marked)
            gains = sorted(gains_of_words(pair["target_tokens"], text).values(), reverse=True)
            assert [float(gain) for gain in re.findall(r" (\d+\.\d)(?:, |$)", named)] == [
                round(gain, 1) for gain in gains[:8]
            ]


def gains_of_words(tokens, text):
    """First character of a word -> the sum of the tokens whose first character that is no space lies in it."""
    kind = ["word" if one.isalnum() or one == "_" else "space" if one.isspace() else "sign" for one in text]
    sums, at = {}, 0
    for piece, gain in tokens:
        first = next((k for k in range(at, at + len(piece)) if kind[k] != "space"), at)
        while first > 0 and kind[first - 1] == kind[first]:
            first -= 1
        if kind[first] == "word":
            sums[first] = sums.get(first, 0.0) + (gain or 0.0)
        at += len(piece)
    return sums


def test_a_document_with_words_and_no_map(scores, tmp_path):
    documents = read_json(scores / "explain.json")[:1]
    documents[0] |= {"pairs": [], "strongest": []}
    write_json(scores / "explain.json", documents)
    text = page_of(scores, tmp_path / "report.html")
    assert faults(text) == []
    assert "Announced words" in text
    assert 'class="canvas"' not in text
    assert not re.search(r'class="wordlist">.*data-i="', text, re.S)


def test_a_document_without_a_default_score_says_why(tmp_path):
    order = {"score": None, "score_se": None, "reason": "<40> tokens; too few", "announcements": []}
    write_record(tmp_path / "s", "scores", parts=[])
    explained = {"id": "a", "segments": ["x", "y"], "pairs": [[1, 0, 0.5, 0.1]], "order": order}
    write_json(tmp_path / "s" / "explain.json", [explained])
    text = page_of(tmp_path, tmp_path / "report.html")
    assert "No order contrast: &lt;40&gt; tokens; too few." in text
    assert faults(text) == []


def test_only_usable_words_are_taken():
    good = word(place(10, "a ", " nam", "es it"), place(500, "na", "mes", ""))
    given = [7, {}, word(place(500), place(10)), word(place(1), place(9), contribution_nats=None), good]
    given.append(word(place(3, "", "cur", "ious"), place(9, "ob", "cur", "")))  # two words with one piece
    view = words_view({"score": 1.0, "announcements": [*given, word({"token": "x"}, place(5))]}, 10)
    (one,) = view.words
    assert (one.announced.before, one.announced.word, one.announced.after) == ("a  ", "names", " it")
    assert (one.used.before, one.used.word) == ("", "names")
    assert one.distance == 490
    assert one.in_map
    assert one.num_uses is None
    assert words_view(None, 3) is None
    assert words_view({"announcements": 5}, 3).words == []


def test_long_and_hostile_context_is_cut_and_shown():
    view = words_view(
        {
            "announcements": [
                word(place(1, "b " * 200, "\u202eevil", " a" * 200), place(9, text="\u202eevil"))
            ]
        },
        0,
    )
    (one,) = view.words
    assert one.announced.word == visible("\u202eevil")
    assert one.announced.before.startswith("\u2026")
    assert one.announced.after.endswith("\u2026")
    assert len(one.announced.before) + len(one.announced.after) < 330
    assert not one.in_map
