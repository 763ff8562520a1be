"""The Python of docs/models.md runs, block by block, and its mixer obeys the laws of mixers."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from longlode.mixers import MIXERS

ROOT = Path(__file__).resolve().parent.parent
PAGE = "docs/models.md"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.DOTALL)


def run_block(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    try:
        exec(compile(text, PAGE, "exec"), names)  # our own file
    finally:
        MIXERS._registered.clear()
    return names


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_block_runs(number, monkeypatch, tmp_path):
    run_block(BLOCKS[number], monkeypatch, tmp_path)


def test_the_five_lines_write_something(monkeypatch, tmp_path):
    assert len(BLOCKS[0].replace("\n\n", "\n").strip().splitlines()) <= 5
    names = run_block(BLOCKS[0], monkeypatch, tmp_path)
    assert names["written"].startswith("def main(")
    assert len(names["written"]) > len("def main(")


def test_the_saved_state_is_small_and_answers(monkeypatch, tmp_path):
    (block,) = [block for block in BLOCKS if "document.state" in block]
    names = run_block(block, monkeypatch, tmp_path)
    assert names["answer"].shape[1] == names["question"].shape[1] + 5
    model, tokens = names["model"], names["document"].shape[1]
    said = model.config.state_bytes(tokens, model.dtype)
    assert said <= (tmp_path / "document.state").stat().st_size < said + 10_000


def test_the_mixer_of_the_page_obeys_the_laws(monkeypatch, tmp_path):
    (block,) = [block for block in BLOCKS if "class Retention" in block]
    names = run_block(block, monkeypatch, tmp_path)
    assert sum(type(block.attn) is names["Retention"] for block in names["model"].model.layers) == 2
    spec = importlib.util.spec_from_file_location("laws_of_mixers", ROOT / "tests/mixers/mixer_laws.py")
    laws = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(laws)
    config = names["RetentionConfig"].from_settings({}, laws.SHARED)
    for law in laws.LAWS:
        law(laws.build(config))
    x = laws.inputs(1, 40)
    plain = laws.build(MIXERS.get("linear_attention").from_settings({}, laws.SHARED))
    assert not torch.allclose(laws.build(config)(x).y, plain(x).y)
