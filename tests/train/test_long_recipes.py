"""The long-context recipes that we ship, each run for a few steps at small size from a model on disk."""

import json

import numpy as np
import pytest
from document_words import WORDS

from longlode.api.training import train_run
from longlode.core.records import read_jsonl, read_record
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.load import load_model
from longlode.packing import open_shards
from longlode.packing.by_name import pack
from longlode.train import Recipe
from recipes.scaled_down import FOLDER, LONG_RECIPES, scaled_down

DIVIDE = 1024


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Shards of three sources with a column of dependency lengths, and a small hybrid to start from."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(7)
    rows = [
        {
            "id": str(number),
            "source": ("books", "code", "web")[number % 3],
            "text": " ".join(rng.choice(WORDS, int(size))),
            "extras.dependency_tokens": int(size) // 2,
            "score": 1.0,
        }
        for number, size in enumerate(np.concatenate([rng.integers(20, 260, 60), rng.integers(1, 5, 240)]))
    ]
    (folder / "docs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pack(folder / "docs.jsonl", folder / "shards", length=64)
    vocab_size = open_shards([folder / "shards"]).vocab_size
    config = LonglodeConfig(
        vocab_size=vocab_size, hidden_size=16, mixers="DA", num_heads=2, intermediate_size=32
    )
    LonglodeForCausalLM(config).save_pretrained(folder / "start")
    return folder


@pytest.mark.parametrize("name", LONG_RECIPES)
def test_a_long_recipe_runs(work, tmp_path, name):
    whole = Recipe.load(FOLDER / f"{name}.toml")
    recipe = scaled_down(
        name, str(work / "shards"), divide=DIVIDE, tokens_per_step=512, steps=4, start=str(work / "start")
    )
    for small, large in zip(recipe.stage_list, whole.stage_list, strict=True):
        assert small.data.length == large.data.length // DIVIDE
        assert small.data.packer == large.data.packer
        assert (small.rope_theta, small.optim.objective) == (large.rope_theta, large.optim.objective)
    seen = []
    summary = train_run(recipe, tmp_path / "run", on_start=seen.append)
    assert (summary.status, summary.step) == ("finished", recipe.num_steps)
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert list(dict.fromkeys(row["stage"] for row in rows if "loss" in row)) == [
        s.name for s in whole.stage_list
    ]
    assert "eval_loss" in rows[-1]
    assert load_model(tmp_path / "run" / "model").config.rope_theta == whole.stage_list[-1].rope_theta
    mixed = read_record(tmp_path / "run", "run")["data"]["stages"]
    for stage in recipe.stage_list:
        groups = (
            {} if stage.data.mix is None else dict(part.rsplit("=", 1) for part in stage.data.mix.split(","))
        )
        found = {source["name"]: source for source in mixed[stage.name].get("mixture", [])}
        assert set(found) == set(groups)
    assert f"Stage {whole.stage_list[0].name}" in seen[0].in_words()


def test_bands_and_contexts_are_divided_too(work):
    recipe = scaled_down(
        "mined_long", "s", divide=64, tokens_per_step=2048, steps=100, start="starter", lr=0.5
    )
    assert [stage.data.mix for stage in recipe.stage_list] == [
        f"extras.dependency_tokens:{low}..=0.7,score:0..=0.3" for low in (64, 256, 512)
    ]
    assert [stage.num_steps for stage in recipe.stage_list] == [50, 35, 15]
    assert recipe.stage_list[2].optim.objective_options["min_context"] == 128
    assert {stage.optim.lr for stage in recipe.stage_list} == {0.5}
    assert {stage.data.batch_size * stage.data.length for stage in recipe.stage_list} == {2048}
