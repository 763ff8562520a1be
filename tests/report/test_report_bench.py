"""Tables of `longlode bench` in the report."""

import re

from test_report_page import Page, faults, page_of

from longlode.core.records import write_record


def summary_of(mixer, length, accuracy, **more):
    return {"mixer": mixer, "length": length, "accuracy": accuracy, "loss": 1.5, "parameters": 12345} | more


def test_a_bench_record_is_a_chart_a_table_and_a_sentence(tmp_path):
    summary = [
        summary_of("attention", 64, 0.25, low=0.2, high=0.3, n=3, state_bytes=4096),
        summary_of("attention", 32, 0.9, low=None, high=None, n=3),
        summary_of("<b>delta</b>", 64, 0.75, low=0.7, high=0.8, n=3),
    ]
    write_record(
        tmp_path / "mqar",
        "bench",
        task="mqar",
        about="values of 4 keys",
        chance=0.125,
        source="Zoology",
        settings={"layers": 2, "hidden_size": 64, "steps": 600, "batch_size": 16},
        summary=summary,
        rows=[],
    )
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    page = Page(text)
    table = text[text.index('aria-label="Figures of mqar"') :]
    rows = [
        re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(<th scope.*?)</tr>", table, re.S)
    ][:3]
    assert rows == [
        ["attention", "64", "0.250", "0.200", "to", "0.300", "1.50", "12,345", "4,096", "3"],
        ["attention", "32", "0.900", "1.50", "12,345", "\u2013", "3"],
        ["&lt;b&gt;delta&lt;/b&gt;", "64", "0.750", "0.700", "to", "0.800", "1.50", "12,345", "\u2013", "3"],
    ]
    assert (
        "Trained on mqar, <b>delta</b> is right in 0.750 of answers at 64 tokens, the most of 2 mixers"
        in page.text
    )
    assert "chance is 0.125." in page.text
    assert "2 layers, 64 wide, 600 steps, 16 rows per step." in page.text
    chart = text[text.index('id="mixers"') : text.index('aria-label="Figures of mqar"')]
    assert chart.index("delta") < chart.index("attention")  # the best first
    assert "reference" in chart


def test_a_strange_bench_record_does_not_stop_the_page(tmp_path):
    write_record(tmp_path, "bench", task=3, summary=[{"mixer": "x"}, 5], settings=[])
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    assert 'id="mixers"' not in text
