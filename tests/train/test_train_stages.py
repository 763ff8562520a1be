"""Stages: what each step of a run belongs to, bitwise resume across their edges, RoPE base, frozen parameters."""

import itertools
import json

import numpy as np
import pytest
import torch
from document_words import WORDS
from transformers import LlamaConfig, LlamaForCausalLM

from longlode.api.training import train_run
from longlode.api.training_data import open_run_data
from longlode.core.errors import ConfigError
from longlode.core.records import read_jsonl, read_record
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.convert import save_for_fla
from longlode.models.load import load_model
from longlode.packing import open_shards
from longlode.packing.by_name import pack
from longlode.train import Recipe, build_model, train
from longlode.train.checkpoint import RunState
from longlode.train.enter_stage import Entrance
from longlode.train.optim import build_optimizer
from longlode.train.recipe import recipe_changes
from longlode.train.rope import set_rope_theta
from longlode.train.stages import from_step, stage_at

VALUES = {
    "model": {"mixers": "DA", "hidden_size": 16, "num_heads": 2, "intermediate_size": 32},
    "data": {"length": 16, "batch_size": 4},
    "optim": {"lr": 0.01, "warmup_steps": 1},
    "run": {"checkpoint_every": 100, "threads": 1},
    "stages": [
        {"name": "short", "steps": 4},
        {"name": "long", "tokens": 257, "length": 32, "batch_size": 2, "lr": 0.001, "rope_theta": 5e5},
        {
            "steps": 3,
            "length": 32,
            "batch_size": 2,
            "packer": "best_fit",
            "freeze": ["*.mlp.*", "model.embeddings.*"],
            "fresh_moments": True,
            "weight_decay": 0.0,
            "schedule": "constant",
        },
    ],
}


def recipe(*overrides, **changes):
    return Recipe.parse(json.loads(json.dumps(VALUES | changes)), list(overrides))


class Killed(BaseException):
    """Stands for kill -9."""


def test_stages_fill_in_what_they_do_not_say():
    stages = recipe().stage_list
    assert [(stage.name, stage.first_step, stage.num_steps) for stage in stages] == [
        ("short", 0, 4),
        ("long", 4, 5),  # 257 tokens are 5 steps of 64
        ("3", 9, 3),
    ]
    assert recipe().num_steps == 12
    assert [stage.data.length for stage in stages] == [16, 32, 32]
    assert [stage.optim.lr for stage in stages] == [0.01, 0.001, 0.01]
    assert [stage.rope_theta for stage in stages] == [None, 5e5, 5e5]
    assert stages[2].data.packer == "best_fit"
    assert [stage_at(stages, step).number for step in (0, 3, 4, 8, 9, 11, 12)] == [0, 0, 1, 1, 2, 2, 2]
    assert [stage.progress(stage.first_step) for stage in stages] == [0, 0, 0]
    assert stages[1].progress(8) == 1
    assert len({stage.seed(3) for stage in stages}) == 3
    assert stages[0].seed(3) == 3
    assert [(stage.number, begin, steps) for stage, begin, steps in from_step(stages, 6)] == [
        (1, 2, 3),
        (2, 0, 3),
    ]
    assert [begin for _, begin, _ in from_step(stages, 9)] == [0]


def test_a_recipe_with_stages_is_read_back_and_overridden():
    changed = recipe("stages.2.lr=0.5", "stages.1.steps=7")
    assert [stage.optim.lr for stage in changed.stage_list] == [0.01, 0.5, 0.01]
    assert changed.num_steps == 15
    assert Recipe.parse(changed.resolved()) == changed
    assert Recipe.parse(changed.resolved()).stage_list == changed.stage_list
    assert recipe_changes(recipe().resolved(), changed.resolved()) == [
        "stages.1.steps: 4 -> 7",
        "stages.2.lr: 0.001 -> 0.5",
    ]
    assert recipe_changes(recipe().resolved(), recipe("stages.2.micro_batch_size=1").resolved()) == []


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["stages.2.lrr=1"], "Did you mean 'lr'"),
        (["stages.4.lr=1"], "3 stages"),
        (["stages.lr=1"], "stages.2.lr"),
        (["stages.2.steps=3"], "one of its steps and tokens"),
        (["stages.2.lr=-1"], "stages.2.lr is -1"),
        (["stages.2.micro_batch_size=9"], "stage long: micro_batch_size is 9"),
        (["stages.2.name=short"], "names that differ"),
        (["run.steps=3"], "stages say how long"),
        (["run.start=starter"], "set one of them"),
        (["stages.2.mix=a"], "stage long"),
    ],
)
def test_stages_that_make_no_sense_are_refused(overrides, word):
    with pytest.raises(ConfigError, match=word.replace(".", r"\.")):
        recipe(*overrides)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(7)
    lines = [
        json.dumps(
            {"id": str(n), "source": "ab"[n % 2], "text": " ".join(rng.choice(WORDS, rng.integers(10, 80)))}
        )
        for n in range(60)
    ]
    (folder / "docs.jsonl").write_text("\n".join(lines))
    pack(folder / "docs.jsonl", folder / "shards", length=32)
    return str(folder / "shards")


def weights_and_losses(folder):
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]
    return load_model(folder / "model").state_dict(), [
        (row["step"], row["stage"], row["loss"]) for row in rows
    ]


@pytest.fixture(scope="module")
def straight(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    train_run(recipe(), folder, set_=[f"data.shards={shards}"])
    return folder


@pytest.mark.parametrize("stop", [4, 6, 10])
def test_a_run_resumes_bitwise_across_stages(shards, tmp_path, straight, stop):
    """Resumes inside a stage, at the end of one, where a checkpoint is always made, and in one with cleared moments."""

    def kill(row):
        if row["step"] == stop:
            raise Killed

    with pytest.raises(Killed):
        train_run(
            recipe(), tmp_path / "run", set_=[f"data.shards={shards}", "run.checkpoint_every=3"], on_step=kill
        )
    summary = train_run(None, tmp_path / "run", resume=True)
    assert summary.resumed_from == {4: 3, 6: 4, 10: 9}[stop]
    expected, found = weights_and_losses(straight), weights_and_losses(tmp_path / "run")
    assert found[1] == expected[1]
    assert [stage for _, stage, _ in found[1]] == ["short"] * 4 + ["long"] * 5 + ["3"] * 3
    assert all(torch.equal(tensor, expected[0][name]) for name, tensor in found[0].items())


def test_a_run_resumes_bitwise_across_an_epoch(tmp_path):
    """Few documents: the data begin anew, in another order, between the checkpoint and the end of either stage."""
    text = "the river and the captain of the village went on with the letter "
    rows = [{"id": str(number), "text": text * (number % 3 + 1)} for number in range(6)]
    (tmp_path / "docs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pack(tmp_path / "docs.jsonl", tmp_path / "shards", length=32)
    shards = open_shards([tmp_path / "shards"])
    overrides = [f"data.shards={tmp_path / 'shards'}", "run.checkpoint_every=2", "stages.1.steps=6"]
    assert shards.num_tokens < 5 * 64  # of a stage: six steps of 64 tokens

    def kill(row):
        if row["step"] == 4:
            raise Killed

    train_run(recipe(), tmp_path / "straight", set_=overrides)
    with pytest.raises(Killed):
        train_run(recipe(), tmp_path / "broken", set_=overrides, on_step=kill)
    assert train_run(None, tmp_path / "broken", resume=True).resumed_from == 2
    expected, found = (weights_and_losses(tmp_path / name) for name in ("straight", "broken"))
    assert found[1] == expected[1]
    assert all(torch.equal(tensor, expected[0][name]) for name, tensor in found[0].items())


def test_a_finished_run_has_the_last_base_and_says_what_its_stages_read(straight):
    assert load_model(straight / "model").config.rope_theta == 5e5
    record = read_record(straight, "run")
    assert list(record["data"]["stages"]) == ["short", "long", "3"]
    assert {facts["packing"]["num_documents"] for facts in record["data"]["stages"].values()} == {60}


def test_stages_read_other_rows_of_the_same_shards(shards):
    data = open_run_data(recipe(f"data.shards={shards}"), None, False, lambda line: None)
    first, second = data.batches(4), data.batches(9)
    assert {batch.tokens.size for batch in itertools.islice(first, 5)} == {64}
    assert not np.array_equal(next(data.batches(4)).tokens, next(second).tokens)
    again = itertools.islice(data.batches(0), 4, None)
    for one, other in zip(again, data.batches(4), strict=True):
        assert np.array_equal(one.tokens, other.tokens)


def test_entering_a_stage_freezes_thaws_and_clears(tiny):
    model = build_model(recipe(), 24)
    model.model.norm.weight.requires_grad_(False)  # by the caller: no stage trains it
    optimizer = build_optimizer(model, recipe().optim)
    entrance = Entrance(model, optimizer, recipe().stage_list)
    frozen = recipe().stage_list[2]

    def trained():
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    everything = trained()
    model(torch.zeros(1, 4, dtype=torch.long), labels=torch.zeros(1, 4, dtype=torch.long)).loss.backward()
    optimizer.step()
    entrance.enter(frozen, RunState(frozen.first_step + 1, recent=[(1.0, 1.0)]))
    assert optimizer.state  # in the middle of a stage, after a resume
    state = RunState(frozen.first_step, recent=[(1.0, 1.0)])
    entrance.enter(frozen, state)
    assert not optimizer.state
    assert state.recent == []
    assert everything - trained() == {
        name for name in everything if ".mlp." in name or name.startswith("model.embeddings.")
    }
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    entrance.enter(recipe().stage_list[0], RunState())
    assert trained() == everything
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}


@pytest.mark.parametrize("freeze", ['["*.nlp.*"]', '["*"]'])
def test_patterns_that_freeze_nothing_or_everything_are_refused(freeze):
    model = build_model(recipe(), 24)
    stages = recipe(f"stages.3.freeze={freeze}").stage_list
    with pytest.raises(ConfigError, match="freezes"):
        Entrance(model, build_optimizer(model, recipe().optim), stages)


def test_frozen_parameters_stay_and_others_move(tiny, tmp_path):
    """The frozen stage against the state it began with."""
    stages = [{"steps": 2, "freeze": ["*.mlp.*"]}]
    run = {"checkpoint_every": 1, "threads": 1}
    chosen = recipe(stages=stages, run=run)
    model = build_model(chosen, 24)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, tiny.batches, chosen, tmp_path / "run", data_fingerprint="d")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".mlp." in name), name


STACKS = {
    "letters": {"mixers": "DA"},
    "layers": {"layers": ["delta_net", {"mixer": "attention", "rope_theta": 50.0}]},
}


@pytest.mark.parametrize("stack", STACKS)
def test_a_new_rope_base_is_that_of_a_model_built_with_it(stack):
    sizes = {"vocab_size": 24, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32}
    model = LonglodeForCausalLM(LonglodeConfig(**sizes, **STACKS[stack]))
    tokens = torch.randint(0, 24, (2, 30))
    before = model(tokens).logits
    assert set_rope_theta(model, 777.0)
    other = LonglodeForCausalLM(LonglodeConfig.from_dict(model.config.to_dict()))
    other.load_state_dict(model.state_dict())
    assert {layer.mixer.to_dict().get("rope_theta") for layer in other.config.layer_configs} == {None, 777.0}
    assert torch.equal(model(tokens).logits, other(tokens).logits)
    assert not torch.allclose(model(tokens).logits, before, atol=1e-5)


def test_a_model_without_rotary_positions_says_so():
    sizes = {"vocab_size": 24, "hidden_size": 16, "num_heads": 2}
    assert not set_rope_theta(LonglodeForCausalLM(LonglodeConfig(mixers="D", **sizes)), 777.0)


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=20_000, **sizes))


def test_a_new_rope_base_of_a_transformers_model():
    model, tokens = llama(), torch.randint(0, 24, (2, 30))
    before = model(tokens).logits
    assert set_rope_theta(model, 777.0)
    other = LlamaForCausalLM(LlamaConfig.from_dict(model.config.to_dict()))
    other.load_state_dict(model.state_dict())
    assert other.config.rope_parameters["rope_theta"] == 777.0
    assert torch.equal(model(tokens).logits, other(tokens).logits)
    assert not torch.allclose(model(tokens).logits, before, atol=1e-5)


@pytest.mark.parametrize("kind", ["ours", "fla", "transformers"])
def test_a_run_starts_from_a_checkpoint(shards, tmp_path, kind):
    vocab_size = open_shards([shards]).vocab_size
    if kind == "transformers":
        llama().save_pretrained(tmp_path / "start")
    else:
        stack = {"mixers": "D"} if kind == "fla" else {"mixers": "DA"}
        new = LonglodeForCausalLM(LonglodeConfig(vocab_size=vocab_size, hidden_size=16, num_heads=2, **stack))
        if kind == "fla":
            save_for_fla(new, tmp_path / "start")
        else:
            new.save_pretrained(tmp_path / "start")
    values = VALUES | {"run": VALUES["run"] | {"start": str(tmp_path / "start")}}
    del values["model"]
    chosen = Recipe.parse(
        values,
        [f"data.shards={shards}", "stages.1.steps=1", "stages.2.tokens=64", 'stages.3.freeze=["*.mlp.*"]'],
    )
    start = load_model(tmp_path / "start").state_dict()
    built = build_model(chosen, vocab_size)
    assert all(torch.equal(tensor, start[name]) for name, tensor in built.state_dict().items())
    summary = train_run(chosen, tmp_path / "run")
    assert summary.status == "finished"
    after = load_model(tmp_path / "run" / "model")
    assert isinstance(after, LlamaForCausalLM if kind == "transformers" else LonglodeForCausalLM)
    assert not torch.equal(after.lm_head.weight, start["lm_head.weight"])
    with pytest.raises(ConfigError, match="embeddings"):
        build_model(chosen, 10**6)


def test_shards_of_another_tokenizer_than_the_models_are_warned_of(shards, tmp_path):
    values = VALUES | {"run": VALUES["run"] | {"start": "starter"}}
    del values["model"]
    data = open_run_data(Recipe.parse(values, [f"data.shards={shards}"]), None, False, lambda line: None)
    assert list(data.warnings()) == []
    tokenizer = json.loads((data.shards.tokenizer_folder / "tokenizer.json").read_text())
    entries = tokenizer["model"]["vocab"]
    one, other = list(entries)[300:302]
    entries[one], entries[other] = entries[other], entries[one]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    data.shards.tokenizer_folder = tmp_path
    assert "another tokenizer" in next(data.warnings())
