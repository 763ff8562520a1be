"""The demo: material that does not leak, figures against plain loops, honest sentences, and the whole way in small."""

import itertools
import math
import random
import re

import numpy as np
import pytest

from longlode.core.errors import InputError
from longlode.core.records import read_json, read_jsonl, read_record
from longlode.demo import comparison
from longlode.demo import findings as words
from longlode.demo import material as demo_material
from longlode.demo import run as demo_run
from longlode.demo import steps as demo_steps
from longlode.demo import training as demo_training
from longlode.demo.comparison import Arm
from longlode.demo.curves import Gain, read_curves
from longlode.demo.material import KINDS, REAL, File, Material, corpus_rows, gather
from longlode.demo.separation import Auc, auc, auc_interval, separation
from longlode.demo.views import bar, curve_lines, profile_lines, separation_lines, separation_table
from longlode.synthetic.order_pool import make_order_pool


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A made-up library folder: 40 modules of definitions, 15 of them named as fitted ones, and other files."""
    folder = tmp_path_factory.mktemp("library")
    fitted = [name for name in sorted(demo_material.FITTED) if name.endswith(".py")]
    packages = [f"{name}/core.py" for name in ("ctypes", "html", "xml", "tkinter", "zoneinfo")]
    for number, name in enumerate([*fitted, *packages, *(f"own_{k:02d}.py" for k in range(25))]):
        draw = random.Random(number)
        parts = []
        for part in range(260):
            terms = " + ".join(f"part_{number}_{draw.randrange(90)}" for _ in range(12))
            parts.append(f"def part_{number}_{part}(value):\n    # file {number}\n    return {terms}\n")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n\n".join(parts))
    (folder / "short.py").write_text("x = 1\n")
    (folder / "latin.py").write_bytes(b"# \xe9\n" * 50_000)
    (folder / "test").mkdir()
    (folder / "test" / "left_out.py").write_text("y = 2\n" * 50_000)
    return folder


def test_no_file_that_the_score_was_fitted_on_is_scored(library):
    material = gather(0, library)
    assert sorted(one.id for one in material.files) == [f"own_{k:02d}.py" for k in range(25)]
    assert {one.id.partition("/")[0] for one in material.heldout} <= demo_material.FITTED
    assert len(material.heldout) >= 12


def test_material_depends_on_the_seed_alone(library):
    assert gather(3, library) == gather(3, library)
    assert gather(3, library).files != gather(4, library).files
    rows = [corpus_rows(gather(3, library).files, 2, seed) for seed in (5, 5, 6)]
    assert rows[0] == rows[1] != rows[2]


def test_a_library_without_long_sources_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds 0 long Python source files"):
        gather(0, tmp_path)


def test_each_kind_is_made_of_the_files_as_it_says(library):
    files = gather(0, library).files
    rows = corpus_rows(files, 3, 0)
    counts = {kind.name: sum(row["source"] == kind.name for row in rows) for kind in KINDS}
    assert counts == dict.fromkeys(counts, 3)
    assert len({row["id"] for row in rows}) == len(rows) == len(files) + 3 * len(KINDS)
    length = demo_material.LENGTH * 4
    for row in rows:
        assert 0.89 * length <= len(row["text"].encode()) <= length
        several = len(set(re.findall(r"# file (\d+)", row["text"])))
        least, most = {"spliced": (8, 25), "glued": (4, 4), "interleaved": (2, 2)}.get(row["source"], (0, 1))
        assert least <= several <= most, row["id"]


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng()
    real, fake = rng.integers(0, 6, 9).tolist(), rng.integers(0, 6, 7).tolist()
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in real for b in fake]
    found = auc(real, fake)
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert (found.num_real, found.num_fake) == (9, 7)
    assert auc([], [1.0]) is None


@pytest.mark.parametrize(("value", "sizes"), [(0.83, (12, 20)), (0.5, (4, 4)), (0.31, (60, 24))])
def test_the_ends_of_the_interval_are_1_96_of_their_own_standard_errors_away(value, sizes):
    m, n = sizes
    for end in auc_interval(value, m, n):
        half = (m + n) / 2 - 1
        variance = (end * (1 - end) / (m * n)) * (1 + half * (1 - end) / (2 - end) + half * end / (1 + end))
        assert abs(value - end) / math.sqrt(variance) == pytest.approx(1.959964, rel=1e-4)


def test_the_interval_covers_and_has_a_width_where_all_pairs_are_in_order():
    low, high = auc_interval(1.0, 60, 24)
    assert high == 1.0
    assert 0.85 < low < 0.97
    rng, covered = np.random.default_rng(0), 0
    truth = 0.5 * (1 + math.erf(1.5 / 2))  # of two normal distributions 1.5 apart
    for _ in range(300):
        found = auc((rng.normal(size=20) + 1.5).tolist(), rng.normal(size=12).tolist())
        covered += found.low <= truth <= found.high
    assert covered >= 0.9 * 300


def test_separation_leaves_out_documents_without_a_value():
    sources = ["real", "real", "log", "log", "glued"]
    signals = {"a": [2.0, 1.0, 0.0, None, None], "b": [0.0, None, 5.0, 5.0, 5.0]}
    found = separation(sources, signals, ["log", "glued"], "real")
    assert (found["log"]["a"].value, found["log"]["a"].num_fake) == (1.0, 1)
    assert found["log"]["b"].value == 0.0
    assert set(found["glued"]) == {"b"}


ROWS = {
    "spliced": {"default": Auc(0.95, 0.88, 0.98, 60, 24), "gzip": Auc(0.6, 0.45, 0.74, 60, 24)},
    "log": {"default": Auc(0.55, 0.4, 0.7, 60, 20), "gzip": Auc(0.0, 0.0, 0.06, 60, 20)},
}


def test_sentences_say_what_holds_and_what_does_not():
    first, *rest = words.about_score(ROWS)
    assert "1 of 2 kinds" in first
    assert "60 real, 20 to 24 fakes" in first
    assert "0.75 in the mean" in first
    assert "log" in rest[0]
    flipped = {"log": {"default": Auc(0.1, 0.05, 0.2, 60, 20)}}
    assert any("upside down on log" in sentence for sentence in words.about_score(flipped))
    assert "could not be tested" in words.about_score({})[0]
    (other,) = words.about_other(ROWS, "gzip", "what it is")
    assert "0 of 2 kinds" in other
    assert "log above real" in other
    assert words.about_other(ROWS, "ProLong", "") == []


def test_a_short_training_is_called_short_and_not_judged():
    unsure, sure = Gain(256, 4096, 0.01, -0.02, 0.04, 20), Gain(256, 4096, 0.3, 0.2, 0.4, 20)
    (few,) = words.about_context({"It": unsure}, 20, 1000, 5000)
    assert "too few" in few
    (enough,) = words.about_context({"It": unsure}, 20, 9000, 5000)
    assert "no use of far context" in enough
    (far,) = words.about_context({"It": sure}, 20, 9000, 5000)
    assert "reads far" in far
    assert "-0.300" in far
    assert "n = 20" in far


def test_a_comparison_of_training_says_what_its_intervals_carry():
    unclear, more = (0.01, -0.02, 0.04), (0.05, 0.02, 0.09)
    random_arm = Arm(0.5, 4.0, 0.2, None, None)
    arms = {"text in order": Arm(1.0, 4.0, 0.3, unclear, more), "random": random_arm}
    seen = words.about_training(arms | {"default": Arm(0.8, 4.1, 0.3, more, more)}, 9000, 5000)
    assert "can make a difference" in seen[0]
    assert "+0.050 (+0.020 to +0.090)" in seen[0]
    assert "higher loss and more gain" in seen[1]
    assert "80%" in seen[1]
    arms["text in order"] = Arm(1.0, 4.0, 0.3, unclear, unclear)
    unseen = words.about_training(arms | {"default": Arm(0.8, 4.1, 0.3, unclear, unclear)}, 9000, 5000)
    assert "no choice by order can be shown" in unseen[0]
    assert "no difference" in unseen[1]
    (few,) = words.about_training({}, 4000, 5000)
    assert "too few" in few


def explained(name, gains, probability=0.9):
    octaves = [{"first_tokens": 1024 << place, "gain_nats": one} for place, one in enumerate(gains)]
    gate = {"probability": probability}
    return {"id": name, "score": 1.5, "explanation": {"gate": gate, "profile": {"octaves": octaves}}}


def test_pictures_fit_into_80_columns():
    kinds = {kind.name: ROWS["spliced"] for kind in KINDS}
    marks = {"default": "D", "gzip": "g", "overlap": "o", "ProLong": "P"}
    pair = [explained("a/very/long/path/to/some/module.py", [0.1, 0.05]), explained("b", [0.02])]
    curves = {"The model trained here": {16: 5.0, 4096: 4.5}, "The packaged starter": {16: 4.0, 4096: 4.1}}
    pictures = [separation_table(kinds, [*marks]), separation_lines(kinds, marks), profile_lines(pair)]
    assert max(len(line) for line in itertools.chain(*pictures, curve_lines(curves))) <= 80
    axis = next(line for line in separation_lines({"x": ROWS["log"]}, marks) if "▕" in line).split("▕")[1]
    assert axis.index("g") == 0
    assert abs(axis.index("D") - 0.55 * 40) <= 0.5
    assert "0.0200" in profile_lines(pair)[1]


def test_a_bar_is_as_long_as_its_value():
    assert bar(0.5, 1.0, 10) == "█████"
    assert bar(-1.0, 1.0, 10) == bar(0.0, 0.0, 10) == ""
    assert len(bar(0.33, 1.0, 10)) == 4


def test_curves_pair_the_windows_and_average_them():
    """Rows of three windows of two texts, in any order, against sums by hand."""
    losses = {0: (0, [5.0, 4.0, 3.5]), 1: (1, [4.0, 4.5, 3.0]), 2: (1, [3.0, 2.0, 2.5])}
    rows = [
        {
            "example": window,
            "text": text,
            "context_start": 16 << place,
            "context_stop": 32 << place,
            "nats_before": near,
            "nats": far,
        }
        for window, (text, nats) in losses.items()
        for place, (near, far) in enumerate(itertools.pairwise(nats))
    ]
    random.shuffle(rows)
    found = read_curves(rows)
    assert found.contexts == (16, 32, 64)
    assert found.means() == pytest.approx({16: 4.0, 32: 3.5, 64: 3.0})
    assert (found.gain(50).near, found.gain(50).far, found.gain(50).num_texts) == (32, 64, 2)
    assert found.gain(50).mean == pytest.approx((0.5 + 1.5 - 0.5) / 3)
    assert found.gain(1).near == 16


@pytest.fixture
def tiny_demo(monkeypatch):
    """Few and short documents, two steps."""
    real = demo_run.gather
    monkeypatch.setattr(demo_material, "LENGTH", 1536)

    def few(seed):
        found = real(seed)
        return Material([File(one.id, one.text[:8000]) for one in found.files[:12]], found.heldout[:4])

    monkeypatch.setattr(demo_run, "gather", few)
    for name, value in {"NUM_PER_KIND": 2, "NUM_PROLONG": 1, "PROLONG_PAIRS": 3, "NEAR_TOKENS": 16}.items():
        monkeypatch.setattr(demo_steps, name, value)
    sizes = {"LENGTH": 64, "BATCH_SIZE": 2, "MIN_STEPS": 2, "MAX_STEPS": 2, "MOST_CONTEXT": 64}
    for name, value in {**sizes, "NUM_TARGETS": 16}.items():
        monkeypatch.setattr(demo_training, name, value)
    sizes = {"ROW_LENGTH": 256, "NUM_SEEDS": 1, "NEAR": 16, "FAR": 64, "NUM_TARGETS": 16}
    for name, value in sizes.items():
        monkeypatch.setattr(comparison, name, value)
    monkeypatch.setattr(
        comparison, "make_order_pool", lambda works, *rest: make_order_pool(dict([*works.items()][:2]), *rest)
    )


def test_the_whole_demo_in_small(run, tmp_path, model_folder, tiny_demo):
    out = tmp_path / "demo"
    shown = run("demo", "-o", out, "--model", model_folder, "--minutes", 0.1, "--full")
    record = read_record(out, "demo")
    assert record["status"] == "finished"
    assert len(record["stages"]) == demo_run.NUM_FULL_STAGES
    assert record["findings"] == [line for line in record["findings"] if " ".join(line.split()) in shown]
    made = {kind.name for kind in KINDS} - {"renamed"}  # needs a thousand words
    assert set(record["labels"].values()) == {REAL, *made}
    assert set(record["auc_intervals"]) == {"default", "gzip", "overlap", "ProLong"}
    assert record["auc_intervals"]["default"]["log"]["num_fake"] == 2
    assert record["auc_intervals"]["ProLong"]["log"]["num_fake"] == 1
    assert read_record(out / "scores", "scores")["scorer"]["name"] == "profile"
    assert read_record(out / "run", "run")["steps"] == 2
    labels = [one["label"] for one in read_json(out / "scores" / "explain.json")]
    assert labels[:2] == ["median real", "median glued"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(kind.about in page for kind in KINDS if kind.name in made)
    assert "context_curve" in page
    assert set(record["training"]) == set(comparison.ARMS)
    assert record["training"][comparison.LABELS]["in_order"] == 1.0
    assert record["training"][comparison.RANDOM]["loss_less_random"] is None
    steps = len(read_jsonl(out / "comparison" / "run" / "metrics.jsonl"))
    assert f"{len(comparison.ARMS)} models of {steps} steps" in shown
    assert any("too few to compare" in line for line in record["findings"])


def test_an_earlier_demo_is_replaced_and_nothing_else(tmp_path):
    out = tmp_path / "demo"
    settings = demo_steps.DemoSettings(out=out, minutes=1.0)
    demo_run.clear(settings)
    (out / "scores").mkdir()
    (out / "notes.txt").write_text("mine")
    demo_run.clear(settings)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "record.json"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        demo_run.clear(demo_steps.DemoSettings(out=other, minutes=1.0))
    longer = demo_steps.DemoSettings(out=out, minutes=2.0)
    with pytest.raises(InputError, match="settings"):
        demo_run.clear(longer)
    demo_run.clear(longer, overwrite=True)
    assert read_record(out, "demo")["settings"]["minutes"] == 2.0
