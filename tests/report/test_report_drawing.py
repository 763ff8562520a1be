"""Drawings: escaped, described, and with marks where the numbers say."""

import re

import numpy as np
import pytest

from longlode.report.charts import Bar, Group, Series, bars, histograms, level, lines, matrix
from longlode.report.svg import Scale, Sheet, padded, round_step


def numbers(pattern, text):
    return [float(found) for found in re.findall(pattern, text)]


def test_sheet_escapes_text_and_attributes():
    sheet = Sheet(10, 10, key='k"><script>', title="<t>\u202e", desc="d & </desc>")
    sheet.text(1, 2, "</text><script>alert(1)</script>", cls='"><img src=x>')
    image = str(sheet.render())
    assert "<script" not in image
    assert "<img" not in image
    assert "\u202e" not in image
    assert "U+202E" in image
    assert 'role="img"' in image
    assert " style=" not in image


def test_scale_and_ticks():
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale(x) for x in (0, 5, 10, 12, -3)] == [100, 150, 200, 200, 100]
    assert scale.ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Scale(4, 2048, 0, 90, log=True)(4 * 2**4.5) == pytest.approx(45)
    assert Scale(4, 2000, 0, 90, log=True).ticks(20) == [4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert Scale(3.0, 3.0, 0, 10)(3.0) == 5
    assert [round_step(x) for x in (0.9, 1, 1.1, 3, 7, 0.03)] == pytest.approx([1, 1, 2, 5, 10, 0.05])
    low, high = padded(2.0, 2.0)
    assert low < 2.0 < high


NAMES = {"key": "k", "title": "t", "x_label": "score"}


def bar_heights(image, group):
    """Heights of a group's bars in the wide image."""
    found = numbers(rf'<rect x="[^"]+" y="[^"]+" width="[^"]+" height="([^"]+)" class="fill c{group}"', image)
    return sorted(found[: len(found) // 2], reverse=True)


def test_histogram_bins_hold_the_values_inside_and_mark_the_median():
    values = np.concatenate([np.zeros(30), np.ones(20), [1000.0]])
    image = str(histograms([Group("one", values)], key="k", title="t", x_label="score"))
    assert image.count("<svg") == 2  # wide and narrow
    assert len(set(re.findall(r' id="([^"]+)"', image))) == 4
    assert "n 51 · median 0" in image
    tall, small = bar_heights(image, 0)
    assert small / tall == pytest.approx(20 / 30, rel=0.01)


def test_what_lies_outside_of_a_histogram_is_counted_at_its_edge_and_in_no_bar():
    values = np.concatenate([np.linspace(-1, 1, 100), [-50.0, -40.0, -30.0, 90.0]])
    image = str(histograms([Group("one", values)], **NAMES))
    assert "3 lower" in image
    assert "1 higher" in image
    assert "3 below" in image  # the description
    heights = bar_heights(image, 0)  # the lowest bar is of one value
    assert sum(heights) / heights[-1] == pytest.approx(100, rel=0.01)
    inside = str(histograms([Group("one", values[:100])], key="k", title="t", x_label="score"))
    assert "lower" not in inside
    assert "higher" not in inside


def test_histograms_of_several_groups_have_one_scale_of_counts():
    groups = [Group("many", np.repeat([0.0, 1.0], [100, 1])), Group("few", np.array([0.0, 0.0]))]
    image = str(histograms(groups, key="k", title="t", x_label="score"))
    assert bar_heights(image, 1)[0] / bar_heights(image, 0)[0] == pytest.approx(2 / 100, abs=0.02)
    assert image.count(">100</text>") == 4  # the axis of each group, wide and narrow
    assert "documents per bar" in image


def test_lines_fall_where_the_numbers_fall():
    image = str(
        lines(
            [Series("a", [1, 2, 3], [3.0, 2.0, 1.0], low=[2.5, 1.5, 0.5], high=[3.5, 2.5, 1.5], points=True)],
            key="k",
            title="t",
            x_label="x",
            y_label="y",
        )
    )
    path = re.search(r'<path d="M([^"Z]+)" class="line c0 d0"', image)[1]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    assert points == sorted(points)
    assert points[0][1] < points[1][1] < points[2][1]  # y grows downwards
    assert points[1][1] - points[0][1] == pytest.approx(points[2][1] - points[1][1], abs=0.02)
    assert image.count('class="band c0"') == 2
    assert image.count("<circle") == 6


def test_lines_cut_what_lies_above_y_max():
    series = [Series("a", [1, 2, 3, 4], [50.0, 3.0, 2.0, 1.0])]
    image = str(lines(series, key="k", title="t", x_label="x", y_label="y", y_max=3.0))
    path = re.search(r'<path d="M([^"Z]+)" class="line', image)[1]
    assert len(path.split("L")) == 3


def test_bars_have_length_by_value_and_whiskers_by_interval():
    rows = [("512", [Bar("a", 0.5, 0.25, 0.75, 0), Bar("b", 1.0, None, None, 1)])]
    image = str(bars(rows, key="k", title="t", x_label="share", domain=(0.0, 1.0)))
    half, whole = numbers(r'<rect [^>]*width="([^"]+)" height="13" class="fill', image)[:2]
    assert whole == pytest.approx(2 * half, rel=0.01)
    ends = re.findall(r'x1="([^"]+)" x2="([^"]+)" y1="([^"]+)" y2="\3" class="whisker"', image)
    assert len(ends) == 2
    assert float(ends[0][1]) - float(ends[0][0]) == pytest.approx(half, rel=0.01)


def test_bars_of_negative_values_stay_inside():
    rows = [("x", [Bar("a", -2.0, -3.0, -1.0, 0)])]
    image = str(bars(rows, key="k", title="t", x_label="nats"))
    assert all(x >= 0 for x in numbers(r' (?:x|x1|x2|width)="([^"]+)"', image))


def test_matrix_and_levels():
    labels = {"key": "k", "title": "t", "x_label": "x", "y_label": "y"}
    image = str(matrix([[0.0, 1.0], [None, -0.5]], ["a", "b"], ["0", "1"], top_value=1.0, **labels))
    assert ">\u22120.00<" not in str(matrix([[-0.001]], ["a"], ["0"], top_value=1.0, **labels))
    assert re.findall(r'class="cell (h\w)"', image) == ["h0", "h7", "hn"]
    assert image.count('class="empty"') == 1
    assert [level(x, 1.0) for x in (-0.5, -0.01, 0.0, 0.124, 0.126, 0.99, 5.0)] == [
        "hn",
        "h0",
        "h0",
        "h0",
        "h1",
        "h7",
        "h7",
    ]
