"""A small outside package with a mixer, task, packer and scorer, used from the command line and other processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longlode import read_result

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "longlode-outside"
version = "1.0"
[project.entry-points."longlode.mixers"]
retention = "longlode_outside.retention:RetentionConfig"
[project.entry-points."longlode.tasks"]
parrot = "longlode_outside.parrot:Parrot"
[project.entry-points."longlode.packers"]
concat_again = "longlode_outside.again:ConcatAgain"
[project.entry-points."longlode.scorers"]
longest_word = "longlode_outside.longest:LongestWord"
[tool.setuptools]
packages = ["longlode_outside"]
"""
RETENTION = """
from dataclasses import dataclass

import torch
from longlode.mixers import LinearAttention
from longlode.mixers.linear_attention import LinearAttentionConfig


@dataclass(frozen=True, kw_only=True)
class RetentionConfig(LinearAttentionConfig):
    name = "retention"
    pace: float = 5.0

    def build(self, hidden_size, layer_idx=0, num_layers=1):
        return Retention(self, hidden_size)


class Retention(LinearAttention):
    def _log_decay(self, x, mask):
        heads = self.config.num_heads
        pace = torch.log1p(-(2.0 ** (-self.config.pace - torch.arange(heads, device=x.device, dtype=x.dtype))))
        g = pace.expand(*x.shape[:2], heads)
        return g if mask is None else g * mask[..., None]
"""
PARROT = """
from longlode.evaluate import Example, Metric, Task


class Parrot(Task):
    name = "parrot"
    about = "a word comes again"
    metrics = (Metric("hard", "the word is right", "share", "higher", "wilson", words="words repeated", headline=True),)

    def make(self, length, seed):
        prompt, word = "the field is wide and the road is", ("long", "wide")[seed % 2]
        return Example(prompt, " " + word, ((len(prompt) + 1, len(prompt) + 1 + len(word)),), {"depth": None})

    def rows(self, example, scores):
        return [{"hard": float(scores[""][0].greedy_exact)}]
"""
AGAIN = """
from dataclasses import dataclass
from longlode.packing.packers.concat import ConcatPacker


@dataclass(frozen=True, kw_only=True)
class ConcatAgain(ConcatPacker):
    name = "concat_again"
"""
LONGEST = """
from dataclasses import dataclass

from longlode.mining import DocumentScore, ExtraColumn, Scorer
from longlode.mining.requests import Words


@dataclass(frozen=True, kw_only=True)
class LongestOptions:
    least: int = 1


class LongestWord(Scorer):
    name = "longest_word"
    asks = (Words,)
    min_segments = 0
    options_type = LongestOptions
    extra_columns = (
        ExtraColumn("long_words", "int", "words", "words of at least `least` letters; 0: none"),
    )

    def text_requests(self, text):
        return [Words(text, keep=word_lengths)]

    def finish(self, doc, readings):
        (lengths,) = (words.kept for words in doc.of_text)
        long = sum(length >= self.own.least for length in lengths)
        return DocumentScore(float(max(lengths)), extras={"long_words": long})


def word_lengths(text):
    return [len(word) for word in text.split()]
"""
RECIPE = """
[model]
hidden_size = 32
num_heads = 2
[[model.layers]]
mixer = "retention"
pace = 4.0
[data]
length = 32
batch_size = 2
packer = "concat_again"
[run]
steps = 2
device = "cpu"
"""
SOURCE = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the package is installed, as pip does it, without a network."""
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("site")
    (project / "pyproject.toml").write_text(PYPROJECT)
    package = project / "longlode_outside"
    package.mkdir()
    modules = {"__init__": "", "retention": RETENTION, "parrot": PARROT, "again": AGAIN, "longest": LONGEST}
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(project)], check=True)
    return target


@pytest.fixture(scope="module")
def run(site):
    """Run `longlode` in a process of its own, with the package or without it."""

    def _run(*arguments, status=0, with_package=True):
        paths = [str(SOURCE), *([str(site)] if with_package else [])]
        done = subprocess.run(
            [sys.executable, "-m", "longlode", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).replace("\u2502", " ").split())

    return _run


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """A run of a model with the outside mixer, trained by the command."""
    folder = tmp_path_factory.mktemp("trained")
    lines = [json.dumps({"id": str(n), "text": f"word{n} and more " * 60}) for n in range(8)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    run("pack", folder / "corpus.jsonl", "-o", folder / "shards", "--length", 32)
    out = folder / "run"
    run("train", folder / "recipe.toml", "-o", out, "--set", f"data.shards={folder / 'shards'}")
    return out


def test_a_model_of_an_outside_mixer_trains_and_is_evaluated_by_an_outside_task(run, trained, tmp_path):
    config = json.loads((trained / "model" / "config.json").read_text())
    assert "longlode-outside" in json.dumps(config)
    out = tmp_path / "eval"
    options = ("--tasks", "parrot", "--lengths", 64, "--num-examples", 4, "--device", "cpu")
    assert "parrot" in run("evaluate", trained, "-o", out, *options)
    info = json.loads((out / "record.json").read_text())["task_info"]["parrot"]
    assert info["provider"] == "longlode-outside"
    # The report and comparisons need the record alone.
    run("report", out, "-o", tmp_path / "report.html", with_package=False)
    assert "words repeated" in (tmp_path / "report.html").read_text(encoding="utf-8").lower()
    run("compare", out, out, with_package=False)


def test_without_its_package_a_model_says_what_to_install(run, trained, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(trained / "model", copy)
    options = ("-o", tmp_path / "eval", "--tasks", "repeated_list", "--lengths", 256, "--num-examples", 2)
    assert "pip install longlode-outside" in run("evaluate", copy, *options, status=2, with_package=False)
    assert "parrot" in run(
        *("evaluate", "starter", "-o", tmp_path / "eval", "--tasks", "parrot"), status=2, with_package=False
    )


def test_another_process_knows_the_packer(site):
    program = "from longlode.packing import make_packer; print(type(make_packer('concat_again')).__module__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(site)])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "longlode_outside.again"


def test_an_outside_scorer_with_an_option_and_a_column_of_its_own(run, tmp_path):
    texts = ["a bb ccc", "dddd eeee ff g", "hhhhh"]
    lines = [json.dumps({"id": f"{n}", "text": text}) for n, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    out, kept = tmp_path / "scores", tmp_path / "kept.jsonl"
    score = (
        "score",
        tmp_path / "in.jsonl",
        "-o",
        out,
        "--scorer",
        "longest_word",
        "--workers",
        2,
        "--rows-per-unit",
        1,
    )
    run(*score, "--scorer-option", "least=3")
    # What reads the scores needs the record and the parts, not the package.
    run("select", out, "-o", kept, "--top", 0.3, "--column", "extras.long_words", with_package=False)
    assert [json.loads(line)["id"] for line in kept.read_text().splitlines()] == ["1"]
    run("report", out, "-o", tmp_path / "report.html", with_package=False)
    assert "long_words" in (tmp_path / "report.html").read_text(encoding="utf-8")
    record = json.loads((out / "record.json").read_text())
    assert record["extras"]["long_words"]["unit"] == "words"
    assert record["scorer"]["options"]["least"] == 3
    table = read_result(out).table().sort_by("id")
    assert table.column("extras.long_words").to_pylist() == [1, 2, 1]
    assert table.column("score").to_pylist() == [3.0, 4.0, 5.0]
    told = run(*score, "--scorer-option", "lest=3", status=2)
    assert "Did you mean 'least'" in told
    assert "least (int, default 1)" in told


def test_a_recipe_names_an_outside_packer(trained):
    record = json.loads((trained / "record.json").read_text())
    assert record["recipe"]["data"]["packer"] == "concat_again"
