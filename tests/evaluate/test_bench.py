"""Small models trained on tasks of symbols: rows are right, training learns, results go on and come again."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch

import longlode
from longlode.cli.bench import bench as command
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record, write_json
from longlode.evaluate.bench import (
    ROW_TASKS,
    BenchSettings,
    bench,
    run,
    train_model,
    trained_model,
    with_best_rate,
)
from longlode.evaluate.bench.row_tasks import NOT_ASKED
from longlode.evaluate.tasks.regular_languages import SYMBOLS

QUICK = BenchSettings(layers=1, hidden_size=32, steps=2, batch_size=4, test_rows=8)


@pytest.mark.parametrize("name", ROW_TASKS)
def test_rows_are_of_one_length_within_the_vocabulary_and_come_again(name):
    task = ROW_TASKS[name]()
    for length in (task.train_lengths[0], task.test_lengths[-1]):
        rows = task.rows(np.random.default_rng(1), 6, length)
        again = task.rows(np.random.default_rng(1), 6, length)
        assert (rows.tokens == again.tokens).all()
        assert (rows.labels == again.labels).all()
        assert rows.tokens.shape == rows.labels.shape == (6, length)
        assert rows.tokens.min() >= 0
        assert rows.tokens.max() < task.vocabulary
        asked = rows.labels[rows.labels != NOT_ASKED]
        assert len(asked)
        assert 0 <= asked.min() <= asked.max() < task.vocabulary
        assert (rows.labels != NOT_ASKED).any(1).all()


def test_a_value_that_is_written_again_replaces_the_one_before():
    tokens, labels = ROW_TASKS["overwrite"]().row(np.random.default_rng(3), 64)
    pairs = tokens.reshape(-1, 2)
    assert len(set(pairs[-4:, 0])) == 4
    for place in range(28, 32):
        key, answer = pairs[place]
        before = pairs[:28][pairs[:28, 0] == key]
        assert len(before) >= 2
        assert before[-1, 1] == answer == labels[2 * place]
    assert (labels != NOT_ASKED).sum() == 4


def test_what_is_allowed_after_a_string_is_what_the_language_allows():
    """Symbols seen after the same state of the row's automaton are allowed wherever one of them is."""
    task = ROW_TASKS["in_context_language"]()
    rows = task.rows(np.random.default_rng(4), 5, 256)
    assert not rows.allowed[..., len(SYMBOLS)].any()
    asked = rows.labels != NOT_ASKED
    assert rows.allowed[asked, rows.labels[asked]].all()
    assert 1 <= rows.allowed[asked].sum(-1).min() <= rows.allowed[asked].sum(-1).max() <= 3
    assert not asked[:, :128].any()


def test_listops_rows_hold_their_value():
    names = [*map(str, range(10)), "]", "[MIN", "[MAX", "[MED", "[SM"]
    rows = ROW_TASKS["listops"]().rows(np.random.default_rng(5), 8, 160)

    def value(parts):
        part = parts.pop(0)
        if not part.startswith("["):
            return int(part)
        values = []
        while parts[0] != "]":
            values.append(value(parts))
        parts.pop(0)
        return {
            "[MIN": min(values),
            "[MAX": max(values),
            "[MED": int(np.floor(np.median(values))),
            "[SM": sum(values) % 10,
        }[part]

    for tokens, labels in zip(rows.tokens, rows.labels, strict=True):
        parts = [names[token] for token in tokens[:-1] if token < len(names)]
        assert value(parts) == labels[-1]
        assert not parts


def test_training_learns_and_the_table_says_so(tmp_path):
    settings = BenchSettings(layers=1, hidden_size=32, steps=60, batch_size=32, lr=1e-2, test_rows=64)
    found = bench("parity", tmp_path / "out", mixers=["D"], seeds=1, settings=settings)
    first = next(row for row in found["summary"] if row["length"] == 40)
    assert first["loss"] < 0.69
    untrained = bench(
        "parity",
        tmp_path / "none",
        mixers=["D"],
        seeds=1,
        settings=BenchSettings(layers=1, hidden_size=32, steps=1),
    )
    assert first["loss"] < next(row for row in untrained["summary"] if row["length"] == 40)["loss"]
    assert found["chance"] == 0.5


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path):
    whole = bench("overwrite", tmp_path / "whole", mixers=["D", "L"], seeds=2, settings=QUICK)

    def stop(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench("overwrite", tmp_path / "out", mixers=["D", "L"], seeds=2, settings=QUICK, progress=stop)
    seen = []
    found = bench(
        "overwrite",
        tmp_path / "out",
        mixers=["D", "L"],
        seeds=2,
        settings=QUICK,
        progress=lambda done, total, what: seen.append(what),
    )
    assert seen == [
        "delta_net, seed 0",
        "linear_attention, seed 0",
        "delta_net, seed 1",
        "linear_attention, seed 1",
        "",
    ]
    for one, other in zip(found["rows"], whole["rows"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert len({row["accuracy"] for row in found["rows"]} | {row["loss"] for row in found["rows"]}) > 2
    assert read_record(tmp_path / "out", "bench")["summary"] == found["summary"]
    assert longlode.read_result(tmp_path / "out").table().num_rows == 4


def test_models_can_have_equal_parameters(tmp_path):
    settings = BenchSettings(layers=1, hidden_size=32, steps=1, batch_size=2, test_rows=4, parameters=20_000)
    found = bench("overwrite", tmp_path, mixers=["D", "L", "A", "s4d"], seeds=1, settings=settings)
    counts = [row["parameters"] for row in found["rows"]]
    assert max(counts) - min(counts) < 200
    assert abs(counts[0] - 20_000) < 200


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="overwrite"):
        bench("overwrit", tmp_path / "a")
    with pytest.raises(ConfigError, match="nomixer"):
        bench("overwrite", tmp_path / "a", mixers=["nomixer"])
    with pytest.raises(ConfigError, match="no mixer twice"):
        bench("overwrite", tmp_path / "a", mixers=["D", "delta_net"])
    with pytest.raises(ConfigError, match="steps"):
        BenchSettings(steps=0)
    for rate in ("nan", "inf"):
        with pytest.raises(ConfigError, match=f"lr is {rate}"):
            BenchSettings(lr=float(rate))
    with pytest.raises(ConfigError, match="rates is empty"):
        bench("overwrite", tmp_path / "a", rates=[])
    assert not (tmp_path / "a").exists()


def test_a_mixer_gets_the_rate_with_the_least_loss_on_rows_that_are_not_reported(tmp_path):
    """Planted records: the rate of the least validation loss is taken, though another tests better."""
    task, rates = ROW_TASKS["parity"](), (1e-2, 1e-3, 1e-4)
    losses = {1e-2: (float("nan"), 0.1), 1e-3: (0.5, 0.9), 1e-4: (0.6, 0.2)}

    def get(folder, task, mixer, seed, settings):
        validation, tested = losses[settings.lr]
        assert (mixer, seed) == ("delta_net", 0)
        return [{"validation_loss": validation + by, "loss": tested} for by in (0.0, 0.1)]

    assert with_best_rate(tmp_path, task, "delta_net", QUICK, rates, get=get).lr == 1e-3
    assert with_best_rate(tmp_path, task, "delta_net", QUICK, rates, get=trained_model) is None
    found = bench("parity", tmp_path / "out", mixers=["L"], seeds=2, settings=QUICK, rates=(1e-2, 1e-6))
    want = with_best_rate(tmp_path / "out", task, "linear_attention", QUICK, (1e-2, 1e-6), get=trained_model)
    assert {row["lr"] for row in found["rows"]} == {want.lr}
    assert (
        len({row["loss"] for row in found["rows"]} & {row["validation_loss"] for row in found["rows"]}) == 0
    )


def test_the_rates_of_the_function_are_those_of_the_command_and_are_checked_first(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "_every_row", lambda *given: asked.append(given[4:6]) or [])
    monkeypatch.setattr(run, "summary", lambda *_: [])
    bench("parity", tmp_path / "default")
    bench("parity", tmp_path / "settings", settings=QUICK)
    default = inspect.signature(command).parameters["lr"].default
    assert [list(rates) for _, rates in asked] == [[float(one) for one in default.split(",")], [QUICK.lr]]
    with pytest.raises(ConfigError, match="lr is -1"):
        bench("parity", tmp_path / "wrong", rates=(0.01, -1.0))
    assert not (tmp_path / "wrong").exists()


def test_the_help_names_every_task():
    annotation = inspect.signature(command).parameters["task"].annotation
    named = annotation.__metadata__[0].help.removeprefix("One of: ").removesuffix(".").split(", ")
    assert named == list(ROW_TASKS)


@pytest.mark.parametrize("held", ["[]", "{}", "5", '[{"length": 40}]', '[["length"]]'])
def test_parts_that_hold_no_rows_are_trained_again(tmp_path, held):
    task = ROW_TASKS["parity"]()
    path = run._part_path(tmp_path, task, "delta_net", 0, QUICK)
    path.parent.mkdir()
    path.write_text(held)
    assert trained_model(tmp_path, task, "delta_net", 0, QUICK) is None


def test_a_model_of_another_task_of_the_same_name_is_not_taken_for_one_of_this(tmp_path):
    parity = ROW_TASKS["parity"]

    class Longer(parity):
        train_lengths = (3, 50)

    class Inverted(parity):
        def row(self, rng, length):
            tokens, labels = super().row(rng, length)
            return tokens, np.where(labels == NOT_ASKED, labels, 1 - labels)

    place = ("delta_net", 0, QUICK)
    rows = train_model(tmp_path, parity(), *place)
    assert trained_model(tmp_path, parity(), *place) == rows
    for other, key in ((Longer, "train_lengths"), (Inverted, "rows_fingerprint")):
        for get in (trained_model, train_model):
            with pytest.raises(InputError, match=key):
                get(tmp_path, other(), *place)
    anew = train_model(tmp_path, Inverted(), *place, overwrite=True)
    assert anew[0]["loss"] != rows[0]["loss"]
    assert trained_model(tmp_path, Inverted(), *place) == anew
    # Parts of earlier versions do not say what task it was.
    write_json(run._part_path(tmp_path, parity(), *place), rows)
    assert trained_model(tmp_path, parity(), *place) == trained_model(tmp_path, Inverted(), *place) == rows


def test_a_changed_task_is_trained_again_with_overwrite_alone(tmp_path, monkeypatch):
    given = {"mixers": ["L"], "seeds": 1, "settings": QUICK, "rates": (1e-2, 1e-3)}
    before = bench("overwrite", tmp_path, **given)

    class Fewer(ROW_TASKS["overwrite"]):
        vocabulary = 32

    monkeypatch.setitem(ROW_TASKS, "overwrite", Fewer)
    with pytest.raises(InputError, match="vocabulary was 64 and is 32"):
        bench("overwrite", tmp_path, **given)
    after = bench("overwrite", tmp_path, **given, overwrite=True)
    assert after["rows"][0]["parameters"] < before["rows"][0]["parameters"]
    assert bench("overwrite", tmp_path, **given)["rows"] == after["rows"]


def test_models_begin_at_the_size_of_their_width_and_mixers_say_what_decays():
    task = ROW_TASKS["overwrite"]()
    model = run._model(task, "s4d", QUICK)
    assert abs(float(model.model.embeddings.weight.detach().std()) * 32**0.5 - 1) < 0.1
    given = dataclasses.replace(QUICK, initializer_range=0.02, front="linear_attention")
    other = run._model(task, "s4d", given)
    assert abs(float(other.model.embeddings.weight.detach().std()) / 0.02 - 1) < 0.1
    assert [type(block.attn).__name__ for block in other.model.layers] == ["LinearAttention", "S4D"]
    assert not hasattr(other.model.layers[0], "mlp")
    groups = {
        id(held): (group["weight_decay"], group["lr_scale"])
        for group in run._optimizer(model, QUICK).param_groups
        for held in group["params"]
    }
    block = model.model.layers[0]
    assert groups[id(block.mlp.up_proj.weight)] == (0.1, 1.0)
    assert groups[id(block.attn.log_rate)][0] == 0
    assert groups[id(block.attn.log_rate)][1] < 1
    assert groups[id(model.model.embeddings.weight)] == (0.0, 1.0)


def test_stacks_are_trained_beside_mixers_and_one_model_alone(tmp_path):
    found = bench("overwrite", tmp_path, mixers=["DA", "D*2 S"], seeds=1, settings=QUICK)
    assert [row["mixer"] for row in found["rows"]] == ["DA", "DDS"]
    assert found["rows"][0]["parameters"] < found["rows"][1]["parameters"]  # two layers, three layers
    task = ROW_TASKS["overwrite"]()
    assert trained_model(tmp_path, task, "DA", 0, QUICK) == [found["rows"][0]]
    assert trained_model(tmp_path, task, "DA", 1, QUICK) is None
    rows = train_model(tmp_path, task, "DA", 1, QUICK)
    assert trained_model(tmp_path, task, "DA", 1, QUICK) == rows
    assert rows[0]["loss"] != found["rows"][0]["loss"]
    with pytest.raises(ConfigError, match="Z"):
        bench("overwrite", tmp_path / "z", mixers=["DZ"])


def test_compression_is_decoded_from_the_last_state_alone(tmp_path):
    """Another row with the same last hidden state gives the same logits; the decoder is trained with the model."""
    decoder = ROW_TASKS["compression"]().decoder(8)
    hidden = torch.randn(2, 32, 8)
    changed = torch.cat([torch.randn(2, 31, 8), hidden[:, -1:]], dim=1)
    torch.testing.assert_close(decoder(hidden), decoder(changed))
    assert (decoder(hidden)[:, 0] - decoder(hidden)[:, 1]).abs().max() > 1e-3  # places differ by position
    rows = bench("compression", tmp_path, mixers=["A"], seeds=1, settings=QUICK)["rows"]
    mixer_alone = bench("parity", tmp_path / "p", mixers=["A"], seeds=1, settings=QUICK)["rows"]
    decoder_size = 2 * (32 * 32 + 32) + 3 * 32 + 33 * 16
    assert rows[0]["parameters"] == mixer_alone[0]["parameters"] + 14 * 32 + decoder_size


def test_memorized_values_are_the_same_in_every_row():
    rows = ROW_TASKS["memorization"]().rows(np.random.default_rng(8), 200, 32)
    keys, values = rows.tokens[:, ::2].reshape(-1), rows.labels[:, 1::2].reshape(-1)
    assert len(set(zip(keys.tolist(), values.tolist(), strict=True))) == len(set(keys.tolist())) == 128
    assert (rows.tokens[:, 1::2] == 255).all()
    assert 128 <= values.min() <= values.max() < 255
