"""The page in a real browser: a clean console, and a table that sorts, filters, opens rows and copies, from a file."""

import csv
import html
import io
import json
import re
import shutil
import subprocess

import pytest
from far_records import far_rows, write_far, write_selection
from report_records import NASTY, make_records
from test_report_page import page_of

from longlode.report.text import visible

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def chromium(path, folder, *options):
    """Open a page; what was printed, and the lines of its console."""
    profile = f"--user-data-dir={folder / 'profile'}"
    logging = ("--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000")
    done = subprocess.run(
        [BROWSER, *OPTIONS, profile, *logging, *options, path.as_uri()],
        capture_output=True,
        timeout=120,
        text=True,
    )
    return done.stdout, re.findall(r"CONSOLE[^\n]*", done.stderr)


def driven(text, script, folder):
    """The page after a script: its policy allows none but its own, so this copy has none; the script's `result`."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    told = f"""<pre id="result"></pre><script>(async () => {{
      const set = (value) => document.getElementById("result").textContent = JSON.stringify(value);
      try {{ set(await (async () => {{ {script} }})()); }} catch (error) {{ set(String(error)); }}
    }})();</script>"""
    path = folder / "driven.html"
    path.write_text(text.replace("</body>", told + "</body>"), encoding="utf-8")
    printed, console = chromium(path, folder, "--dump-dom")
    assert console == []
    return json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', printed, re.S)[1]))


ROWS = """const rows = () => [...document.querySelectorAll("table.rows tbody tr:not(.opened) th")]
  .map((head) => (head.querySelector("a") ?? head.querySelector("span")).textContent);
const head = (name) => [...document.querySelectorAll("button.sort")].find((one) => one.textContent === name);
const copied = async (kind) => { let text; navigator.clipboard.writeText = async (one) => { text = one; };
  document.querySelector(`[data-copy=${kind}]`).click(); await new Promise((done) => setTimeout(done, 50));
  return text; };
const count = () => document.querySelector(".count").textContent;
const choose = (select, word) => { select.value = [...select.options].find((one) => one.textContent === word).value;
  select.dispatchEvent(new Event("change")); };
const search = (word) => { const input = document.querySelector("input[type=search]"); input.value = word;
  input.dispatchEvent(new Event("input")); };
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    top = tmp_path_factory.mktemp("browse")
    rows = far_rows(90, 12)
    rows[1]["id"], rows[2]["id"] = "=1+1", 'a "quoted", one'
    write_far(top / "scores", rows)
    write_selection(top, "kept.jsonl", top / "scores", rows, lambda row: f"Text of {row['id']}")
    return rows, page_of(top, top / "report.html")


def ranked(rows):
    return [
        row["id"]
        for row in sorted(rows, key=lambda row: -(row["score"] if row["score"] is not None else -1e9))
    ]


@pytest.mark.parametrize("nasty", [False, True])
def test_the_console_is_clean(nasty, tmp_path):
    make_records(tmp_path / "demo", nasty=nasty, num_documents=60)
    page_of(tmp_path / "demo", tmp_path / "report.html")
    printed, console = chromium(tmp_path / "report.html", tmp_path, "--dump-dom")
    assert console == []
    assert '<div class="controls">' in printed  # the script ran under its own policy


def test_a_click_sorts_and_a_second_turns_round(scored, tmp_path):
    rows, text = scored
    by_gate = [
        r["id"]
        for r in sorted((r for r in rows if r["extras.gate"] is not None), key=lambda r: -r["extras.gate"])
    ]
    first, falling, rising, marked = driven(
        text,
        ROWS
        + """const first = rows(); head("gate").click(); const falling = rows(); head("gate").click();
        return [first, falling, rows(), head("gate").parentElement.getAttribute("aria-sort")];""",
        tmp_path,
    )
    assert first[:20] == ranked(rows)[:20]
    assert falling == by_gate[:25]
    assert rising == by_gate[::-1][:25]
    assert marked == "ascending"


def test_search_filters_and_pages(scored, tmp_path):
    rows, text = scored
    found, dropped, none, second = driven(
        text,
        ROWS
        + """search("DOC1"); const found = rows(); search("");
        choose(document.querySelector(".filters select"), "dropped"); const dropped = count();
        search("nothing like it"); const none = count();
        search(""); choose(document.querySelector(".filters select"), "all");
        document.querySelector("[data-page=next]").click(); return [found, dropped, none, rows()];""",
        tmp_path,
    )
    assert sorted(found) == sorted(row["id"] for row in rows if "doc1" in row["id"])
    num_dropped = sum((row["score"] or 0) <= 0 for row in rows)
    assert f"of {num_dropped} (of 90)" in dropped
    assert none.startswith("No document matches")
    scored_ids = [
        name for name in ranked(rows) if next(r for r in rows if r["id"] == name)["score"] is not None
    ]
    assert second == scored_ids[25:50]


def test_copies_hold_the_rows_found_and_no_formula(scored, tmp_path):
    rows, text = scored
    as_csv, as_json = driven(text, ROWS + 'return [await copied("csv"), await copied("json")];', tmp_path)
    table = list(csv.DictReader(io.StringIO(as_csv)))
    assert len(table) == len(rows)
    assert {row["id"] for row in table} == {row["id"] if row["id"] != "=1+1" else "'=1+1" for row in rows}
    assert not any(value.startswith(("=", "+", "@")) for row in table for value in row.values())
    data = {row["id"]: row for row in json.loads(as_json)}
    assert set(data) == {row["id"] for row in rows}
    for row in rows:
        assert data[row["id"]]["score"] == (
            None if row["score"] is None else pytest.approx(row["score"], rel=1e-3)
        )


def test_a_row_opens_by_keyboard_and_says_all(scored, tmp_path):
    _, text = scored
    label, opened, again = driven(
        text,
        ROWS
        + """const open = document.querySelector("button.open"); open.focus(); document.activeElement.click();
        const opened = document.querySelector("tr.opened").textContent;
        const label = open.getAttribute("aria-expanded");
        open.click(); return [label, opened, document.querySelector("tr.opened") === null];""",
        tmp_path,
    )
    assert label == "true"
    for piece in ("Text of", "1\u20132k", "most like", "docs.jsonl, row"):
        assert piece in opened
    assert again


def test_hostile_rows_run_nothing_when_they_are_drawn_anew(tmp_path):
    rows = [row | {"id": f"{row['id']} {NASTY[k % len(NASTY)]}"} for k, row in enumerate(far_rows(30, 4))]
    write_far(tmp_path / "scores", rows)
    text = page_of(tmp_path, tmp_path / "report.html")
    shown, foreign = driven(
        text,
        ROWS
        + """head("document").click(); for (const open of document.querySelectorAll("button.open")) open.click();
        return [rows(), document.querySelectorAll("main img, main script:not([type]), main svg[onload]").length];""",
        tmp_path,
    )
    assert foreign == 0
    assert set(shown) <= {visible(row["id"]) for row in rows}


def test_on_paper_nothing_is_folded(scored, tmp_path):
    _, text = scored
    folded, after, shown, buttons = driven(
        text,
        ROWS
        + """window.dispatchEvent(new Event("beforeprint"));
        const folded = document.querySelectorAll("details:not([open])").length; const shown = rows().length;
        const buttons = document.querySelectorAll("thead button").length;
        window.dispatchEvent(new Event("afterprint"));
        return [folded, document.querySelectorAll("details:not([open])").length, shown,
          [buttons, document.querySelectorAll("thead button").length > 0]];""",
        tmp_path,
    )
    assert folded == 0
    assert after > 0
    assert shown == 90
    assert buttons == [0, True]  # a browser repeats heads on every page, but no buttons
