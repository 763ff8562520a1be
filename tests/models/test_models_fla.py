"""fla checkpoints: the numbers they compute, by a second implementation; every dtype, hybrids, shards; fla itself."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from longlode.models import LonglodeForCausalLM
from longlode.models.convert import config_from_fla, config_to_fla, save_for_fla
from longlode.models.load import load_model

DELTA = {
    "model_type": "delta_net",
    "hidden_size": 24,
    "num_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 40,
    "intermediate_size": 32,
}
GATED = DELTA | {"model_type": "gated_deltanet", "num_heads": 3, "head_dim": 6, "expand_v": 1.5}
SPEC = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "window_size": 3, "rope_theta": 500.0}
CASES = {
    "delta": DELTA,
    "delta, gate and negative eigenvalues": DELTA | {"use_gate": True, "allow_neg_eigval": True},
    "delta, window": DELTA | {"attn": SPEC},
    "delta, full and window": DELTA | {"attn": [SPEC | {"window_size": None, "layers": [0]}, SPEC]},
    "delta, other heads, biases": DELTA
    | {"attn": SPEC | {"num_heads": 2, "num_kv_heads": 1, "qkv_bias": True}},
    "gated": GATED,
    "gated, grouped values": GATED | {"num_v_heads": 6},
    "gated, window": GATED | {"attn": SPEC},
}


def tensors_of(fields, dtype=torch.float64):
    """A checkpoint of this configuration under fla's names, drawn at random."""
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in LonglodeForCausalLM(config_from_fla(fields)).named_parameters()}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.4 * torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def write(folder, fields, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def silu(x):
    return x * torch.sigmoid(x)


def recurrent(w, x, fields, gated):
    """fla's DeltaNet or GatedDeltaNet layer on x `[T, D]`, a token at a time."""
    heads = fields["num_heads"]
    value_heads = fields.get("num_v_heads", heads)
    streams = []
    for name in "qkv":
        padded = torch.nn.functional.pad(x @ w[f"{name}_proj.weight"].T, (0, 0, 3, 0))
        taps = w[f"{name}_conv1d.weight"][:, 0]
        y = torch.stack([(padded[t : t + 4] * taps.T).sum(0) for t in range(len(x))])
        streams.append(silu(y).view(len(x), value_heads if name == "v" else heads, -1))
    q, k, v = streams
    q, k = (u / (u.square().sum(-1, keepdim=True) + 1e-6).sqrt() for u in (q, k))
    # As fla: "... h d -> ... (h g) d".
    q, k = (u.repeat_interleave(value_heads // heads, 1) for u in (q, k))
    beta = torch.sigmoid(x @ w["b_proj.weight"].T) * (2 if fields.get("allow_neg_eigval") else 1)
    S, rows = torch.zeros(value_heads, k.shape[-1], v.shape[-1], dtype=x.dtype), []
    for t in range(len(x)):
        if gated:
            rate = torch.nn.functional.softplus(x[t] @ w["a_proj.weight"].T + w["dt_bias"])
            S = S * torch.exp(-torch.exp(w["A_log"]) * rate)[:, None, None]
        old = torch.einsum("hk,hkv->hv", k[t], S)
        S = S + torch.einsum("h,hk,hv->hkv", beta[t], k[t], v[t] - old)
        rows.append(rms(torch.einsum("hk,hkv->hv", q[t], S) / math.sqrt(k.shape[-1]), w["o_norm.weight"]))
    o = torch.stack(rows)
    if fields.get("use_gate", gated):
        o = o * silu(x @ w["g_proj.weight"].T).view_as(o)
    return o.flatten(1) @ w["o_proj.weight"].T


def softmax_attention(w, x, spec):
    """fla's Attention layer: rotary halves, a window that counts the token itself."""
    q, k, v = (x @ w[f"{n}_proj.weight"].T + w.get(f"{n}_proj.bias", 0) for n in "qkv")
    T, K = len(x), q.shape[1] // spec["num_heads"]
    angle = torch.arange(T)[:, None] * spec["rope_theta"] ** (-2 / K * torch.arange(K // 2).double())
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]

    def rotated(u):
        pairs = torch.complex(*u.view(T, -1, K).chunk(2, -1)) * turn
        return torch.cat((pairs.real, pairs.imag), -1)

    group = spec["num_heads"] // spec["num_kv_heads"]
    q, k, v = rotated(q), rotated(k).repeat_interleave(group, 1), v.view(T, -1, K).repeat_interleave(group, 1)
    back = torch.arange(T)[:, None] - torch.arange(T)
    seen = (back >= 0) & (back < (spec["window_size"] or T))
    scores = torch.einsum("thk,shk->hts", q, k) / math.sqrt(K)
    shares = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("hts,shk->thk", shares, v).flatten(1) @ w["o_proj.weight"].T


def forward(fields, tensors, tokens):
    specs = fields.get("attn") or []
    specs = [specs] if isinstance(specs, dict) else specs
    x = tensors["model.embeddings.weight"][tokens]
    for n in range(fields["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        w = {name.removeprefix(layer): value for name, value in tensors.items() if name.startswith(layer)}
        mixer = {name.removeprefix("attn."): value for name, value in w.items() if name.startswith("attn.")}
        spec = next((spec for spec in specs if n in spec["layers"]), None)
        normed = rms(x, w["attn_norm.weight"])
        gated = fields["model_type"] == "gated_deltanet"
        x = x + (softmax_attention(mixer, normed, spec) if spec else recurrent(mixer, normed, fields, gated))
        normed = rms(x, w["mlp_norm.weight"])
        wide = silu(normed @ w["mlp.gate_proj.weight"].T) * (normed @ w["mlp.up_proj.weight"].T)
        x = x + wide @ w["mlp.down_proj.weight"].T
    return rms(x, tensors["model.norm.weight"]) @ tensors["lm_head.weight"].T


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_computes_what_flas_equations_say(name, tmp_path):
    fields, tokens = CASES[name], torch.randint(40, (17,), generator=torch.Generator().manual_seed(1))
    tensors = tensors_of(fields)
    model = load_model(write(tmp_path / "fla", fields, tensors), dtype="float64")
    want = forward(fields, tensors, tokens)
    torch.testing.assert_close(model(tokens[None]).logits[0], want, rtol=0, atol=1e-10)
    save_for_fla(load_model(tmp_path / "fla"), tmp_path / "back")
    assert load_file(tmp_path / "back" / "model.safetensors").keys() == tensors.keys()
    again = json.loads((tmp_path / "back" / "config.json").read_text())
    torch.testing.assert_close(forward(again | {"attn": fields.get("attn")}, tensors, tokens), want)
    assert config_from_fla(again).layer_configs == model.config.layer_configs


def in_bfloat16(tensors, wide=()):
    return {n: v.to(torch.float32 if n.endswith(tuple(wide)) else torch.bfloat16) for n, v in tensors.items()}


@pytest.mark.parametrize("wide", [(), ("A_log", "dt_bias"), ("norm.weight",)])
@pytest.mark.parametrize("by_way_of_longlode", [False, True])
def test_every_tensor_is_written_back_in_its_own_dtype(wide, by_way_of_longlode, tmp_path):
    tensors = in_bfloat16(tensors_of(GATED), wide)
    fields = GATED | {"torch_dtype": "bfloat16"}
    model = load_model(write(tmp_path / "fla", fields, tensors))
    assert model.dtype == torch.bfloat16
    tokens = torch.arange(9)[None]
    as_wide = load_model(tmp_path / "fla", dtype="bfloat16")
    assert torch.equal(model(tokens).logits, as_wide(tokens).logits)
    assert {p.dtype for n, p in as_wide.named_parameters() if n.endswith("A_log")} == {torch.float32}
    if by_way_of_longlode:
        model.save_pretrained(tmp_path / "ours")
        model = load_model(tmp_path / "ours")
    save_for_fla(model, tmp_path / "back")
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        assert written[name].dtype == value.dtype, name
        assert torch.equal(written[name], value), name
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("tied", [False, True])
def test_shards_and_tied_embeddings(tied, tmp_path):
    fields, tensors = DELTA | {"tie_word_embeddings": tied}, tensors_of(DELTA, torch.bfloat16)
    if tied:
        del tensors["lm_head.weight"]
    folder, names = tmp_path / "fla", sorted(tensors)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields | {"torch_dtype": "bfloat16"}))
    placed = {name: f"model-{1 + n % 2:05}-of-00002.safetensors" for n, name in enumerate(names)}
    for file in set(placed.values()):
        part = {name: tensors[name] for name in names if placed[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = load_model(folder)
    assert (model.lm_head.weight is model.model.embeddings.weight) == tied
    save_for_fla(model, tmp_path / "back")
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("name", CASES)
def test_names_and_shapes_are_those_of_flas_own_module(name, monkeypatch):
    fla = pytest.importorskip("fla.models", reason="flash-linear-attention is not installed")
    # Its attention wants flash-attn installed, though not to make parameters.
    monkeypatch.setattr("fla.layers.attn.flash_attn_func", object())
    fields = {key: value for key, value in CASES[name].items() if key != "model_type"}
    kind = "DeltaNet" if CASES[name]["model_type"] == "delta_net" else "GatedDeltaNet"
    theirs = getattr(fla, f"{kind}Config")(**fields)
    with torch.device("meta"):
        want = getattr(fla, f"{kind}ForCausalLM")(theirs).state_dict()
        ours = config_from_fla(theirs.to_dict())
        got = LonglodeForCausalLM(ours).state_dict()
        back = getattr(fla, f"{kind}ForCausalLM")(getattr(fla, f"{kind}Config")(**config_to_fla(ours)))
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in want.items()}
    assert {k: v.shape for k, v in back.state_dict().items()} == {k: v.shape for k, v in want.items()}
