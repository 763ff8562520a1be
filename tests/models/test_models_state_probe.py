"""The probe of recurrent states, against numbers computed one by one."""

import math

import numpy as np
import pytest
import torch

from longlode.core.errors import ConfigError, InputError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM
from longlode.models.state_probe import MEASURES, probe_positions, probe_states


def model_of(*layers):
    torch.manual_seed(1)
    return LonglodeForCausalLM(
        LonglodeConfig(
            layers=list(layers),
            vocab_size=13,
            hidden_size=12,
            num_heads=3,
            head_dim=4,
            num_kv_heads=1,
            initializer_range=0.4,
        )
    ).eval()


def measured_by_hand(memory, before):
    values = np.sqrt(np.clip(np.linalg.eigvalsh(memory.T @ memory), 0, None))
    shares = [value / values.sum() for value in values if value > 0]
    norm = math.sqrt((memory**2).sum())
    return {
        "norm": norm,
        "mean": memory.sum() / memory.size,
        "std": math.sqrt(((memory - memory.mean()) ** 2).sum() / memory.size),
        "largest": abs(memory).max(),
        "rank": math.exp(-sum(share * math.log(share) for share in shares)),
        "drift": math.sqrt(((memory - before) ** 2).sum()) / math.sqrt((before**2).sum()),
    }


def test_measures_are_those_of_the_states_that_reading_leaves(monkeypatch):
    monkeypatch.setattr("longlode.models.state_probe._PIECE", 5)  # stretches are read in pieces
    model = model_of("delta_net", "attention", "mamba2")
    ids = torch.randint(13, (2, 40), generator=torch.Generator().manual_seed(2))
    found = probe_states(model, ids, positions=[1, 9, 40])
    assert found["positions"] == [1, 9, 40]
    assert [(one["layer"], one["mixer"], one["head"]) for one in found["states"]] == [
        (layer, mixer, head) for layer, mixer in ((0, "delta_net"), (2, "mamba2")) for head in range(3)
    ]
    memories = []
    with torch.inference_mode():
        for stop in found["positions"]:
            cache = LonglodeCache(3)
            model(ids[:, :stop], past_key_values=cache, use_cache=True)
            memories.append({n: cache.layers[n].state["memory"].double().numpy() for n in (0, 2)})
        nats = -model(ids, use_cache=False).logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    for one in found["states"]:
        for place in range(3):
            now = memories[place][one["layer"]][:, one["head"]]
            was = memories[max(0, place - 1)][one["layer"]][:, one["head"]]
            rows = [measured_by_hand(*pair) for pair in zip(now, was, strict=True)]
            for name in MEASURES:
                wanted = (rows[0][name] + rows[1][name]) / 2
                assert one[name][place] == pytest.approx(wanted, rel=1e-3, abs=1e-5), (name, place)
    assert math.isnan(found["loss"][0])
    assert found["loss"][1:] == pytest.approx(
        [float(nats[:, :8].mean()), float(nats[:, 8:].mean())], rel=1e-5
    )


def test_every_recurrent_memory_is_found_and_entries_can_be_named():
    layers = ("s4d", "atlas", "hax", "lightnet")
    model = model_of(
        *({"mixer": one, "num_heads": 2, "head_dim": 4} if one != "s4d" else one for one in layers)
    )
    ids = torch.randint(13, (1, 20), generator=torch.Generator().manual_seed(2))
    found = probe_states(model, ids)
    assert found["positions"] == [16, 20]
    assert {one["mixer"] for one in found["states"]} == set(layers)
    named = probe_states(model, ids, entries=["momentum_0"])["states"]
    assert {(one["mixer"], one["entry"]) for one in named} == {("atlas", "momentum_0")}


def test_positions_and_what_cannot_be_probed():
    assert probe_positions(10) == [10]
    assert probe_positions(64) == [16, 32, 64]
    assert probe_positions(100) == [16, 32, 64, 100]
    ids = torch.zeros(1, 8, dtype=torch.int64)
    with pytest.raises(InputError, match="8 tokens"):
        probe_states(model_of("delta_net"), ids, positions=[4, 9])
    with pytest.raises(ConfigError, match="attention"):
        probe_states(model_of("attention"), ids)
