"""What the code of today gives is what it gave when the golden was made; README.md says when that may change."""

import json

import pytest
import torch
from safetensors.torch import load_file

from longlode.models import LonglodeConfig, LonglodeForCausalLM

from . import models, scores, stored
from .machine import KERNELS_RELATIVE, RELATIVE, ZLIB_RELATIVE, bits_depend_on, differences, to_stored

MODELS, SAVED, SCORES = stored.read("models"), stored.read("checkpoints"), stored.read("scores")
_OF_ZLIB = ("coherence", "coherence without a model", "gzip")


def _unlike(golden):
    here = bits_depend_on()
    return {name: (was, here[name]) for name, was in golden["bits_depend_on"].items() if here[name] != was}


def _relative(golden, name=""):
    """The tolerance: none where all that decides the last bits is as it was."""
    unlike = _unlike(golden)
    if "zlib" in unlike and name in _OF_ZLIB:
        return ZLIB_RELATIVE
    if unlike.keys() & {"compiled_kernels", "instructions"}:
        return KERNELS_RELATIVE
    return RELATIVE if unlike else 0.0


def _check(stored_value, now, relative):
    found = differences(stored_value, to_stored(now), relative)
    how = f"to {relative:g}" if relative else "bit for bit"
    assert not found, f"{len(found)} differences, compared {how}:\n" + "\n".join(found[:12])


@pytest.mark.parametrize("golden", [MODELS, SAVED, SCORES], ids=["models", "checkpoints", "scores"])
def test_the_comparison_is_bit_for_bit(golden):
    """Skips itself, visibly, where the comparisons below are only to a tolerance."""
    if unlike := _unlike(golden):
        pytest.skip(f"compared to {_relative(golden):g} only; made there, run here: {unlike}")


def test_every_case_is_kept():
    for section in ("configs", "parameters", "losses"):
        assert list(MODELS[section]) == list(models.CASES)
    assert list(SAVED["losses"]) == list(models.CHECKPOINTS)
    assert list(SCORES["parts"]) == list(scores.RUNS)


@pytest.mark.parametrize("name", models.CASES)
def test_losses(name):
    _check(MODELS["losses"][name], models.losses(models.CASES[name]), _relative(MODELS))


@pytest.mark.parametrize("name", models.CASES)
def test_a_config_of_then_builds_the_model_of_then(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODELS["configs"][name]))
    config = LonglodeConfig.from_pretrained(tmp_path)
    torch.manual_seed(0)
    network = LonglodeForCausalLM(config)
    _check(MODELS["parameters"][name], models.parameters(network), 0.0)
    wanted = MODELS["losses"][name]["rows"]["once"]
    _check(wanted, models.pass_once(network, packed=False), _relative(MODELS))


@pytest.mark.parametrize("name", models.CHECKPOINTS)
def test_a_checkpoint_of_then_loads(name):
    folder = stored.CHECKPOINTS / name
    network = LonglodeForCausalLM.from_pretrained(folder)
    state = network.state_dict()
    for key, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(state[key], tensor), key
    now = {kind: models.pass_once(network, kind == "packed") for kind in ("rows", "packed")}
    _check(SAVED["losses"][name], now, _relative(SAVED))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    scores.write_texts(folder / "texts")
    scores.write_attending(folder / "attending")
    return folder / "texts", folder / "attending"


@pytest.mark.parametrize("name", scores.RUNS)
def test_scores_and_names_of_parts(name, inputs, tmp_path):
    now = scores.run(name, *inputs, tmp_path / "scores")
    _check(SCORES[name], now["rows"], _relative(SCORES, name))
    if name != "attention_mass" or not _unlike(SCORES):  # the name of that model is made of its weights' bits
        assert now["parts"] == SCORES["parts"][name]


def test_a_changed_bit_is_seen():
    """The broken twin of the comparison."""
    was = to_stored({"loss": [1.0, 2.0], "name": "a"})
    near, far = {"loss": [1.0, 2.0000000000000004], "name": "a"}, {"loss": [1.0, 2.001], "name": "a"}
    assert differences(was, to_stored(near), 0.0) != []
    assert differences(was, to_stored(near), RELATIVE) == []
    assert differences(was, to_stored(far), RELATIVE) != []
    assert differences(was, to_stored({"loss": [1.0, 2.0], "name": "b"}), RELATIVE) != []
    assert differences(was, to_stored({"loss": [1.0, 2.0]}), RELATIVE) != []
    assert differences(was, to_stored({"loss": [1.0], "name": "a"}), RELATIVE) != []
