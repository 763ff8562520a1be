"""The whole page: from all records, from any part of them, from hostile ones."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import orjson
import pytest
from report_records import NASTY, make_records

from longlode.core.errors import InputError
from longlode.core.records import read_json, read_record, write_json, write_record
from longlode.report import build
from longlode.report.text import visible

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class Page(HTMLParser):
    """What a browser would see: elements with attributes, raw text of style and scripts, visible text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.raw, self.words = [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside = (tag, dict(attributes).get("type", ""), [])

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[0]:
            self.raw.append((self._inside[0], self._inside[1], "".join(self._inside[2])))
            self._inside = None

    def handle_data(self, data):
        (self._inside[2] if self._inside else self.words).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def faults(text):
    """Every way in which a page could load, run or hide something that it should not."""
    page, found = Page(text), []
    found += [f"hidden U+{ord(character):04X}" for character in set(HIDDEN.findall(text))]
    policy = next(
        (a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"), ""
    )
    allowed = {
        "html",
        "head",
        "body",
        "meta",
        "title",
        "style",
        "script",
        "header",
        "nav",
        "main",
        "section",
        "footer",
    }
    allowed |= {
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "a",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "b",
        "q",
        "code",
    }
    allowed |= {
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "details",
        "summary",
        "output",
    }
    allowed |= {
        "article",
        "select",
        "option",
        "fieldset",
        "legend",
        "label",
        "input",
        "button",
        "blockquote",
        "mark",
    }
    allowed |= {"svg", "path", "rect", "line", "circle", "text", "desc"}
    for tag, attributes in page.elements:
        if tag not in allowed:
            found.append(f"element {tag}")
        for name, value in attributes.items():
            if name.startswith("on") or name in ("style", "src", "srcset", "xlink:href", "action"):
                found.append(f"attribute {name}")
            if name == "href" and not value.startswith("#"):
                found.append(f"link {value}")
    for tag, kind, content in page.raw:
        digest = "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"
        if kind == "application/json":
            json.loads(content)
        elif f"{tag}-src {digest}" not in policy:
            found.append(f"{tag} without a hash in the policy")
    if "default-src 'none'" not in policy or "unsafe" in policy:
        found.append("weak policy")
    ids = [a["id"] for _, a in page.elements if "id" in a]
    found += [f"id {name} twice" for name in {name for name in ids if ids.count(name) > 1}]
    wanted = [name for _, a in page.elements for name in a.get("aria-labelledby", "").split()]
    wanted += [a["href"][1:] for t, a in page.elements if t == "a"]
    found += [f"no id {name}" for name in wanted if name not in ids]
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("records")
    make_records(top / "plain")
    make_records(top / "nasty", nasty=True)
    return top


def page_of(folder, out):
    build([folder] if not isinstance(folder, list) else folder, out)
    return out.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["plain", "nasty"])
def test_nothing_from_outside_runs_loads_or_hides(kind, folders, tmp_path):
    text = page_of(folders / kind, tmp_path / "report.html")
    assert faults(text) == []
    assert "{{ 7*7 }}" in text if kind == "nasty" else "{{" not in text
    assert len(text) < 2_000_000


def test_the_checker_sees_what_it_should():
    bad = '<p onclick="x()" id="a">\u202e<img src="https://e.com/x"><p id="a"><a href="//e.com">y</a>'
    bad += "<script>1</script>"
    found = " ".join(faults(bad))
    for part in (
        "onclick",
        "U+202E",
        "element img",
        "src",
        "link",
        "script without",
        "weak policy",
        "id a twice",
    ):
        assert part in found


def test_hostile_text_is_there_to_read(folders, tmp_path):
    page = Page(page_of(folders / "nasty", tmp_path / "report.html"))
    for nasty in NASTY:
        assert " ".join(visible(nasty).split()) in page.text
    data = [json.loads(content) for _, kind, content in page.raw if kind == "application/json"]
    source = read_json(folders / "nasty" / "scores" / "explain.json")
    assert sorted(one["segments"] for one in data if "segments" in one) == sorted(
        [visible(text) for text in one["segments"]] for one in source
    )


def test_all_sections_have_their_pieces(folders, tmp_path):
    text = page_of(folders / "plain", tmp_path / "report.html")
    page = Page(text)
    titles = list(page.words)
    for title in (
        "Distribution of scores, scores",
        "loss_by_position: loss",
        "Training loss",
        "AUC of each score",
    ):
        assert titles.count(title) == 2  # wide and narrow
    verdict = page.text.index("The score told 93 % of intact files from spliced ones.")
    assert verdict < page.text.index("AUC of each score") < page.text.index("Mining did not help here")
    assert page.text.index("Mining did not help here") < page.text.index("documents read")
    assert (
        "No difference between selected half and random half is shown in held-out loss (loss_by_position) at 2,048"
        in page.text
    )
    assert (
        "selected half is better than random half in surprisal of the second list over the first" in page.text
    )
    assert "Could not be read" not in page.text
    assert "Not in these folders" not in page.text
    assert text.count('class="map"') == 5
    assert text.count('class="card"') == 6  # three best, explained too, and three worst, of which two are
    (table,) = [
        json.loads(raw) for _, kind, raw in page.raw if kind == "application/json" and "columns" in raw
    ]
    place = [column["name"] for column in table["columns"]].index("score")
    scores = [row[3][place] for row in table["rows"]]
    assert len(scores) == 240
    assert scores[:225] == sorted(scores[:225], reverse=True)
    assert scores[225:] == [None] * 15


def test_status_counts_add_up(folders, tmp_path):
    text = page_of(folders / "plain" / "scores", tmp_path / "report.html")
    table = text[text.index("Every document has a status") :]
    counts = re.findall(r'<th scope="row">(\w+)</th><td class="num">([\d,]+)</td>', table)[:4]
    assert [name for name, _ in counts] == ["ok", "failed", "too_short", "all"]
    *parts, total = [int(count) for _, count in counts]
    assert sum(parts) == total == 240
    assert (
        "240 documents were read, 225 of them scored; the others: 8 failed, 7 too short." in Page(text).text
    )


@pytest.mark.parametrize("part", ["scores", "selected", "shards", "runs", "evaluations", "runs/selected"])
def test_any_part_makes_a_page_that_names_what_is_missing(part, folders, tmp_path):
    text = page_of(folders / "plain" / part, tmp_path / "report.html")
    assert faults(text) == []
    page = Page(text)
    assert "Not in these folders" in page.text
    assert ('<section id="training">' in text) == part.startswith("runs")
    assert ('<section id="evaluation">' in text) == (part == "evaluations")
    assert ('<section id="scores">' in text) == (part == "scores")


def test_several_folders_and_their_depth(folders, tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    shutil.copytree(folders / "plain" / "shards", deep / "shards")
    shutil.copytree(folders / "plain" / "selected", deep / "d" / "selected")
    with pytest.raises(InputError, match=r"no record\.json"):
        build([tmp_path], tmp_path / "x.html")
    text = page_of([deep, deep / "shards"], tmp_path / "x.html")
    assert text.count("Token shards:") == 1  # found twice, shown once
    assert text.count("Selection:") == 1
    with pytest.raises(InputError, match="does not exist"):
        build([tmp_path / "nowhere"], tmp_path / "y.html")
    assert not (tmp_path / "y.html").exists()


def test_broken_files_are_reported_and_do_not_stop_the_page(folders, tmp_path):
    top = tmp_path / "demo"
    shutil.copytree(folders / "plain", top)
    parts = sorted((top / "scores" / "parts").glob("*.parquet"))
    parts[0].write_bytes(b"PAR1 not really")
    (top / "scores" / "explain.json").write_text("{", encoding="utf-8")
    (top / "runs" / "random" / "metrics.jsonl").unlink()
    (top / "evaluations" / "random" / "record.json").write_text('{"kind": "evaluation"', encoding="utf-8")
    write_json(top / "shards" / "record.json", {"kind": "tea"})
    write_json(top / "selected" / "record.json", [1])
    text = page_of(top, tmp_path / "report.html")
    assert faults(text) == []
    page = Page(text)
    told = page.text[page.text.index("Could not be read") :]
    for piece in (
        parts[0].name,
        "explain.json",
        "metrics.jsonl",
        "evaluations/random",
        "'tea'",
        "is of kind None",
    ):
        assert piece in told
    assert "160 documents were read" in page.text


def test_strange_values_do_not_stop_the_page(tmp_path):
    write_record(
        tmp_path / "eval",
        "evaluation",
        model=["x"],
        summary=[{"task": "passkey", "mean": None, "length": 5}, 7, {"mean": 1.0, "length": 8, "n": 1}],
        curves={"no": "list", "more": 3},
        task_info=3,
    )
    write_record(
        tmp_path,
        "demo",
        findings="text",
        stages=[{"name": None}, 4],
        auc=[1],
        compare={"x": {"rows": [{}, 5]}},
        labels="../../x",
    )
    write_record(tmp_path / "scores", "scores")
    write_json(
        tmp_path / "scores" / "explain.json",
        [{"id": 1, "segments": "no", "pairs": [[1], [2, 3, 0.5], [3, 1, "x"]]}],
    )
    write_record(tmp_path / "run", "run", status=5)
    (tmp_path / "run" / "metrics.jsonl").write_bytes(
        b"\n".join(
            orjson.dumps(row)
            for row in ({"tokens": 1, "loss": None}, {"tokens": "x", "loss": 2.0}, {"loss": 1})
        )
    )
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    assert "lie outside of it" in text


def test_the_same_records_make_the_same_page(folders, tmp_path):
    assert page_of(folders / "plain", tmp_path / "a.html") == page_of(folders / "plain", tmp_path / "b.html")


def test_a_map_of_many_segments_stays_small(folders, tmp_path):
    num = 256
    pairs = [[i, j, ((i * 7 + j) % 50) / 60, ((i * 3 + j) % 40) / 30] for i in range(num) for j in range(i)]
    shutil.copytree(folders / "plain" / "scores", tmp_path / "scores")
    segments = [f"segment {index}" for index in range(num)]
    write_json(
        tmp_path / "scores" / "explain.json",
        [{"id": "x", "score": 1.0, "segments": segments, "pairs": pairs}],
    )
    text = page_of(tmp_path, tmp_path / "report.html")
    assert len(text) < 2_000_000
    drawn = sum(
        path.count("M") for path in re.findall(r'<path d="([^"]+)" class="cell h\w layer-strength"', text)
    )
    assert drawn == len(pairs) == num * (num - 1) // 2


def test_record_of_the_evaluate_package_fits(tmp_path):
    """The fields that `longlode.evaluate` writes, spelled out, so that a renamed one is seen here."""
    row = {
        "task": "passkey",
        "length": 64,
        "metric": "hard",
        "mean": 0.5,
        "low": 0.2,
        "high": 0.8,
        "n": 4,
        "unit": "share",
        "better": "higher",
    }
    curve = [
        {"length": 64, "start": a, "stop": b, "mean": 3.0, "low": None, "high": None, "n": 1}
        for a, b in ((1, 16), (16, 32), (32, 64))
    ]
    write_record(
        tmp_path / "e", "evaluation", model="m", summary=[row], curves={"along": curve}, task_info={}
    )
    assert read_record(tmp_path / "e")["model"] == "m"
    text = page_of(tmp_path, tmp_path / "report.html")
    assert "by position, in windows of 64 tokens" in text
    assert "passkey: hard" in text
    assert "has no examples.parquet" in text
