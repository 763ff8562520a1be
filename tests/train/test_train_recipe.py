"""Recipes: typed, described, and refused with the reason when they make no sense."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from longlode.core.errors import ConfigError, InputError
from longlode.mixers import LETTERS, MIXERS
from longlode.models import LonglodeConfig
from longlode.packing import make_packer
from longlode.train import Recipe
from longlode.train.objectives import make_objective
from longlode.train.recipe import ModelSection, recipe_changes
from longlode.train.recipe import Recipe as Whole
from longlode.train.recipe_keys import list_keys

TEXT = """
[model]
mixers = "D*2"
hidden_size = 64
num_heads = 2
[data]
length = 128
batch_size = 8
[run]
tokens = 10_000
"""
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT)
    return path


def test_a_recipe_is_read_with_typed_overrides(path):
    overrides = ["optim.lr=1e-2", "model.mixers=DS", "optim.betas=[0.8, 0.9]", "run.checkpoint_every=none"]
    recipe = Recipe.load(path, overrides)
    assert recipe.optim.lr == 0.01
    assert recipe.model.mixers == "DS"
    assert recipe.optim.betas == (0.8, 0.9)
    assert recipe.run.checkpoint_every is None
    assert recipe.num_steps == 10  # 10,000 tokens in steps of 1,024, rounded up
    assert Recipe.parse(recipe.resolved()) == recipe


def test_an_override_may_hold_an_equals_sign(path):
    assert Recipe.load(path, ["data.shards=a=b/c"]).data.shards == "a=b/c"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", ["'lrr' is no key of [optim]", "Did you mean 'lr'?", "weight_decay"]),
        ("optm.lr=1", ["'optm' is no section", "Did you mean 'optim'?", "model, data, optim, run"]),
        ("optim.lr", ["SECTION.KEY=VALUE"]),
        ("lr=1", ["SECTION.KEY=VALUE"]),
        ("optim.lr=fast", ["optim.lr is 'fast'", "number"]),
        ("optim.lr=-1", ["optim.lr is -1", "greater than 0"]),
        ("optim.lr=nan", ["optim.lr is nan"]),
        ("optim.schedule=linear", ["optim.schedule is 'linear'", "'cosine', 'wsd' or 'constant'"]),
        ("run.keep=1", ["run.keep is 1", "greater than or equal to 2"]),
        ("run.steps=5", ["run.steps and run.tokens are both set"]),
        ("run.tokens=none", ["the length of the run is not set"]),
        ("optim.schedule_by=time", ["needs run.max_seconds"]),
        ("data.micro_batch_size=9", ["micro_batch_size is 9; expected at most batch_size, 8"]),
    ],
)
def test_what_makes_no_sense_is_refused(path, override, words):
    with pytest.raises(ConfigError) as caught:
        Recipe.load(path, [override])
    for word in words:
        assert word in str(caught.value)


def test_files_that_are_no_recipes_are_refused(tmp_path, path):
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.load(tmp_path / "absent.toml")
    with pytest.raises(InputError, match=r"is a folder; expected a TOML file, for example .*toml"):
        Recipe.load(path.parent)
    path.write_text("[model\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        Recipe.load(path)
    path.write_text(TEXT.replace("hidden_size", "hiden_size") + "[extra]\na = 1\n")
    with pytest.raises(ConfigError) as caught:
        Recipe.load(path)
    for words in (
        "Did you mean 'hidden_size'?",
        "model.hidden_size is missing. Width",
        "'extra' is no section",
    ):
        assert words in str(caught.value)
    path.write_text("model = 3\n" + TEXT[TEXT.index("[data]") :])
    with pytest.raises(ConfigError, match="model is 3"):
        Recipe.load(path, ["model.mixers=D"])


def test_every_field_says_what_it_is():
    keys = list_keys()
    assert {key.name.split(".")[0] for key in keys} == set(Whole.model_fields)
    for key in keys:
        assert key.description.endswith((".", '".')), key.name


def test_the_model_section_the_config_and_the_mixers_have_the_same_settings():
    """Field by field: settings of the model are keys of recipes, settings of mixers are settings of the model."""
    config = LonglodeConfig(mixers="D", hidden_size=768, num_heads=3)
    section = ModelSection(mixers="D", hidden_size=768, num_heads=3)
    described = {field.name: field for field in dataclasses.fields(LonglodeConfig) if "doc" in field.metadata}
    assert set(ModelSection.model_fields) == set(described)
    for name, field in ModelSection.model_fields.items():
        assert field.description == described[name].metadata["doc"]
        assert field.is_required() == (name in ("hidden_size", "num_heads")), name
        if not field.is_required():
            assert field.default == described[name].default, name
        if field.default is not None and not field.is_required():
            assert getattr(section, name) == getattr(config, name), name
    shared = set()
    for mixer in LETTERS.values():
        for field in dataclasses.fields(MIXERS.get(mixer)):
            assert field.metadata["shared"], f"{mixer}.{field.name} cannot be set by a stack of letters"
            shared |= set(field.metadata["shared"])
    own = {"mixers", "layers", "hidden_size", "intermediate_size", "initializer_range", "tie_word_embeddings"}
    assert shared == set(described) - own


def test_every_key_of_the_model_section_reaches_the_mixers():
    given = {
        "num_heads": 4,
        "head_dim": 10,
        "num_kv_heads": 3,
        "num_v_heads": 8,
        "expand_v": 1.5,
        "window": 7,
        "conv_size": 3,
        "allow_neg_eigval": True,
        "use_output_gate": True,
        "rope_theta": 99.0,
        "rope": False,
        "attn_num_heads": 6,
        "attn_head_dim": 8,
        "qkv_bias": True,
        "norm_eps": 1e-3,
    }
    section = ModelSection(mixers="DS", hidden_size=64, **given)
    layers = LonglodeConfig(vocab_size=9, **section.model_dump(exclude_none=True)).layer_configs
    delta, window = (layer.mixer.to_dict() for layer in layers)
    both = (
        "num_v_heads",
        "expand_v",
        "conv_size",
        "allow_neg_eigval",
        "use_output_gate",
        "norm_eps",
        "num_heads",
        "head_dim",
    )
    assert {name: delta[name] for name in both} == {name: given[name] for name in both}
    assert window == {
        "num_heads": 6,
        "head_dim": 8,
        "num_kv_heads": 3,
        "rope_theta": 99.0,
        "rope": False,
        "qkv_bias": True,
        "window": 7,
    }


def test_a_recipe_with_layers(tmp_path):
    text = TEXT.replace('mixers = "', "#") + '\n[[model.layers]]\nmixer = "attention"\nrope_theta = 5.0\n'
    (tmp_path / "r.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "r.toml")
    assert recipe.resolved()["model"]["layers"] == [{"mixer": "attention", "rope_theta": 5.0}]
    assert Recipe.parse(recipe.resolved()) == recipe
    both = text.replace("[model]", '[model]\nmixers = "D"')
    (tmp_path / "r.toml").write_text(both)
    with pytest.raises(ConfigError, match=r"model\.mixers and model\.layers"):
        Recipe.load(tmp_path / "r.toml")


def test_only_free_keys_may_change(path):
    base = Recipe.load(path)
    free = Recipe.load(
        path, ["run.tokens=20_000", "run.log_every=5", "data.shards=elsewhere", "run.threads=1"]
    )
    fixed = Recipe.load(path, ["run.seed=1"])
    assert recipe_changes(base.resolved(), free.resolved()) == []
    assert recipe_changes(base.resolved(), fixed.resolved()) == ["run.seed: 0 -> 1"]
    assert base.fingerprint() == free.fingerprint() != fixed.fingerprint()


@pytest.mark.parametrize("recipe_path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_we_ship_are_valid(recipe_path):
    recipe = Recipe.load(recipe_path)
    for stage in recipe.stage_list:
        make_objective(stage.optim.objective, stage.optim.objective_options)
        make_packer(stage.data.packer, stage.data.packer_options)
    if recipe.model is None:
        assert recipe.run.start
    else:
        LonglodeConfig(vocab_size=32000, **recipe.model.model_dump(exclude_none=True))


def test_stacks_of_published_studies():
    def stack(name):
        recipe = Recipe.load(RECIPES[0].parent / f"{name}.toml")
        return LonglodeConfig(vocab_size=64, **recipe.model.model_dump(exclude_none=True))

    study = stack("mamba2_hybrid")
    assert study.stack.count("M") == 24
    places = [place for place, letter in enumerate(study.stack) if letter == "A"]
    assert len(places) == 4
    assert {b - a for a, b in itertools.pairwise(places)} <= {7, 8}
    assert not any(layer.mixer.rope for layer in study.layer_configs if layer.name == "attention")
    spans = stack("masformer")
    assert spans.stack.count("A") == 4
    assert len(spans.stack) == 24
    far = stack("cpu_reads_far")
    assert [layer.name for layer in far.layer_configs] == ["ngram_head", *["delta_net"] * 3]


def test_the_paper_recipe_has_the_size_in_its_name():
    recipe = Recipe.load(next(path for path in RECIPES if path.stem == "delta_net_340m"))
    config = LonglodeConfig(vocab_size=32000, **recipe.model.model_dump(exclude_none=True))
    assert 330e6 < config.num_params < 380e6


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
def test_a_seed_that_no_generator_takes_is_refused(tiny, seed):
    with pytest.raises(ConfigError, match=r"run\.seed"):
        tiny.recipe(f"run.seed={seed}")
    assert tiny.recipe(f"run.seed={2**63 - 1}").run.seed == 2**63 - 1


def test_a_mixture_is_text_or_a_table_and_is_checked(path):
    table = tuple(
        Recipe.load(path, [text]) for text in ("data.mix={books = 1, code = 3}", "data.mix_epochs=none")
    )
    assert table[0].data.mix == {"books": 1, "code": 3}
    assert table[0].fingerprint() != table[1].fingerprint() == Recipe.load(path).fingerprint()
    assert Recipe.load(path, ["data.mix=books=0.4,code=0.6"]).data.mix == "books=0.4,code=0.6"
    for override, fact in (("data.mix=books", "NAME=WEIGHT"), ("data.mix_epochs=4", "data.mix is not")):
        with pytest.raises(ConfigError, match=fact):
            Recipe.load(path, [override])
