"""A stack as a list of layers: settings and blocks that differ, saved, loaded, overridden; mixers from elsewhere."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from longlode.core.errors import BackendError, ConfigError
from longlode.mixers import MIXERS, Mixer, MixerConfig, MixerOutput, ParameterRule, setting
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.train.optim import build_optimizer
from longlode.train.recipe import OptimSection

SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
LAYERS = [
    {"mixer": "sliding_window_attention", "window": 3, "rope_theta": 100.0},
    "delta_net",
    {"mixer": "attention", "num_heads": 2, "head_dim": 8, "block": "parallel"},
    {"mixer": "gated_delta_net", "use_output_gate": True, "expand_v": 2.0, "block": "mixer"},
    {"mixer": "sliding_window_attention", "window": 7},
]


def tiny(**fields):
    torch.manual_seed(0)
    return LonglodeForCausalLM(LonglodeConfig(**{**SIZES, **fields})).double().eval()


def tokens(rows=2, length=13):
    return torch.randint(0, 40, (rows, length), generator=torch.Generator().manual_seed(1))


def test_a_list_says_what_the_letters_say():
    by_list = tiny(layers=["delta_net", {"mixer": "sliding_window_attention"}, "attention"], window=5)
    by_letters = tiny(mixers="DSA", window=5)
    assert by_list.config.stack == by_letters.config.stack == "DSA"
    assert by_list.config.layer_types == by_letters.config.layer_types
    assert torch.equal(by_list(tokens()).logits, by_letters(tokens()).logits)


def test_layers_differ():
    config = tiny(layers=LAYERS, num_kv_heads=4).config
    mixers = [layer.mixer for layer in config.layer_configs]
    assert [mixers[0].window, mixers[4].window] == [3, 7]
    assert [mixers[0].rope_theta, mixers[4].rope_theta] == [100.0, 10000.0]
    assert (mixers[2].num_heads, mixers[2].key_heads, mixers[1].num_heads) == (2, 2, 4)
    assert (mixers[3].expand_v, mixers[1].expand_v) == (2.0, 1.0)
    assert config.num_hidden_layers == 5


def test_the_blocks_compute_what_they_say():
    model, x = tiny(layers=LAYERS), tokens()
    streams = model(x, output_hidden_states=True).hidden_states
    for n, block in enumerate(model.model.layers):
        h = streams[n]
        normed = block.attn_norm(h)
        mixed = h + block.attn(normed).y
        if block.kind == "mixer_mlp":
            want = mixed + block.mlp(block.mlp_norm(mixed))
        elif block.kind == "parallel":
            want = mixed + block.mlp(normed)
        else:
            want = mixed
        got = streams[n + 1] if n < 4 else None
        if got is None:
            want, got = model.model.norm(want), streams[-1]
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    names = {name.split(".")[3] for name in model.state_dict() if name.startswith("model.layers.3.")}
    assert names == {"attn_norm", "attn"}, "a mixer alone has no parameters of an MLP"


@torch.no_grad()
def test_under_autocast_norms_round_for_the_products_that_alone_read_them():
    model, seen = tiny(layers=[*LAYERS, "s4d"]).float(), []
    blocks = model.model.layers
    for block in blocks:
        for part in (block.attn, *([block.mlp] if block.kind == "mixer_mlp" else [])):
            part.register_forward_pre_hook(
                lambda part, args: seen.append((type(part).__name__, args[0].dtype))
            )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        streams = model(tokens(), output_hidden_states=True).hidden_states
        wide = [name for name, dtype in seen if dtype == torch.float32]
        for n, block in enumerate(blocks[:-1]):
            normed = block.attn_norm(streams[n])
            mixed = streams[n] + block.attn(normed).y
            if block.kind == "mixer_mlp":
                mixed = mixed + block.mlp(block.mlp_norm(mixed))
            elif block.kind == "parallel":
                mixed = mixed + block.mlp(normed)
            assert torch.equal(streams[n + 1], mixed), block.kind
    assert wide == ["S4D"]


def test_saved_and_loaded(tmp_path):
    model = tiny(layers=LAYERS)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.layer_configs == model.config.layer_configs
    assert again.config.to_diff_dict() == model.config.to_diff_dict()
    torch.testing.assert_close(again(tokens()).logits, model(tokens()).logits, rtol=0, atol=1e-12)
    assert again.config.num_params == model.num_parameters()
    out = model.generate(tokens(), max_new_tokens=5, do_sample=False)
    assert torch.equal(again.generate(tokens(), max_new_tokens=5, do_sample=False), out)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], "expected a list with an entry per layer"),
        ("delta_net", "expected a list with an entry per layer"),
        ([3], "Layer 0 is 3; expected the name of a mixer"),
        ([{"window": 3}], "with the key `mixer`"),
        (["delta_net", "delta_nte"], "Did you mean 'delta_net'"),
        (
            [{"mixer": "delta_net", "block": "mlp"}],
            "block of layer 0 is 'mlp'; expected mixer_mlp, mixer, parallel",
        ),
        ([{"mixer": "delta_net", "windw": 3}], "Layer 0: delta_net has no setting 'windw'"),
        (
            ["attention", {"mixer": "sliding_window_attention", "windw": 3}],
            "Layer 1: .* Did you mean 'window'",
        ),
        (
            [{"mixer": "delta_net", "conv_size": "wide"}],
            r"conv_size is 'wide'; expected int of at least 2 \(delta",
        ),
        ([{"mixer": "delta_net", "allow_neg_eigval": 1}], "allow_neg_eigval is 1; expected bool"),
        ([{"mixer": "attention", "head_dim": 7}], "even count"),
    ],
)
def test_refuses(layers, said):
    with pytest.raises(ConfigError, match=said):
        LonglodeConfig(layers=layers, **SIZES)
    with pytest.raises(ConfigError, match="mixers and layers were both given"):
        LonglodeConfig(layers=["delta_net"], mixers="D", **SIZES)


@pytest.mark.parametrize(
    "override", [{"mixers": "GAG"}, {"layers": LAYERS}, {"mixers": "D", "num_hidden_layers": 1}]
)
def test_a_stack_overridden_at_load_is_saved_as_it_is(tmp_path, override):
    tiny(mixers="GA").save_pretrained(tmp_path / "old")
    config = AutoConfig.from_pretrained(tmp_path / "old", **override)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    assert len(model.model.layers) == config.num_hidden_layers == len(config.layer_types)
    model.save_pretrained(tmp_path / "new")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    torch.testing.assert_close(again(tokens()).logits, model(tokens()).logits, rtol=0, atol=1e-12)
    assert again.config.stack == config.stack


def test_a_stack_changed_later_takes_along_what_follows_from_it():
    config = tiny(mixers="GA").config
    config.mixers = "SDS"
    assert (config.num_hidden_layers, config.layer_types[1]) == (3, "linear_attention")
    config.layers = ["attention"]
    assert (config.mixers, config.num_hidden_layers, config.stack) == (None, 1, "A")
    config.num_hidden_layers = 1
    for name, value in {"num_hidden_layers": 2, "layer_types": ["linear_attention"]}.items():
        with pytest.raises(ConfigError, match="the stack 'A' has 1 layers"):
            setattr(config, name, value)


def test_a_contradiction_at_load_is_refused(tmp_path):
    tiny(mixers="GA").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="num_hidden_layers is 1"):
        AutoConfig.from_pretrained(tmp_path, num_hidden_layers=1)
    with pytest.raises(ConfigError, match="num_hidden_layers is 2"):
        AutoConfig.from_pretrained(tmp_path, mixers="GAG", num_hidden_layers=2)
    assert AutoConfig.from_pretrained(tmp_path, sliding_window=9).window == 9


@dataclass(frozen=True, kw_only=True)
class EchoConfig(MixerConfig):
    """The running mean of a projection, with an auxiliary loss, for this test."""

    name = "echo"
    weight: float = setting("Weight of the auxiliary loss.", 0.5)

    def build(self, hidden_size, layer_idx=0, num_layers=1):
        return Echo(self, hidden_size, layer_idx)


class Echo(Mixer):
    def __init__(self, config, hidden_size, layer_idx):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.size = nn.Parameter(torch.empty(3, 2))

    def forward(self, x, state=None, context=None):
        y = self.proj(x).cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        loss = self.config.weight * self.size.square().mean()
        return MixerOutput(y, {}, {"size": loss}, {"layer": torch.tensor(float(self.layer_idx))})

    def initial_values(self):
        return {"size": torch.ones_like(self.size)}

    def parameter_rules(self):
        return {**super().parameter_rules(), "size": ParameterRule(False, lr_scale=0.1)}

    def state_layout(self, num_tokens, dtype):
        return {}

    def mixing_flops_per_token(self, num_tokens):
        return 0


@pytest.fixture
def echo():
    MIXERS.register(EchoConfig)
    yield
    del MIXERS._registered["echo"]


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_auxiliary_losses_and_metrics_reach_the_output(echo, checkpointing):
    model, x = tiny(layers=["echo", "delta_net", {"mixer": "echo", "weight": 0.25}]).train(), tokens()
    plain = model.eval()(x, labels=x)
    assert plain.aux_loss.item() == pytest.approx(0.75)
    if checkpointing:
        model.gradient_checkpointing_enable(checkpointing)
    out = model.train()(x, labels=x)
    assert out.loss.item() == pytest.approx((plain.loss + 0.75).item()), "in training the loss holds them"
    assert {name: value.item() for name, value in out.metrics.items()} == {
        "layer_0.layer": 0,
        "layer_0.size": 0.5,
        "layer_2.layer": 2,
        "layer_2.size": 0.25,
    }
    assert not any(value.requires_grad for value in out.metrics.values())
    sizes = [block.attn.size for block in model.model.layers if isinstance(block.attn, Echo)]
    out.loss.backward(retain_graph=True)
    for size, weight in zip(sizes, (0.5, 0.25), strict=True):
        torch.testing.assert_close(size.grad, torch.full((3, 2), weight / 3).double())
    number = (x[:, 1:] != -100).sum()
    half = model(x, labels=x, num_items_in_batch=2 * number).loss
    torch.testing.assert_close(half, out.loss / 2)


def test_the_optimizer_treats_parameters_as_the_mixer_says(echo):
    model = tiny(layers=["echo", "delta_net"])
    optimizer = build_optimizer(model, OptimSection(lr=1e-2, weight_decay=0.1))
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        name_of[id(parameter)]: (group["weight_decay"], group["lr_scale"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found["model.layers.0.attn.size"] == (0.0, 0.1)
    assert found["model.layers.0.attn.proj.weight"] == (0.1, 1.0)
    assert found["model.layers.1.attn.q_conv1d.weight"] == (0.0, 1.0)
    assert found["model.embeddings.weight"] == (0.0, 1.0)
    assert len(found) == len(name_of)


OUTSIDE = """
from dataclasses import dataclass
from longlode.mixers.linear_attention import LinearAttention, LinearAttentionConfig
@dataclass(frozen=True, kw_only=True)
class OtherConfig(LinearAttentionConfig):
    name = "other"
    def build(self, hidden_size, layer_idx=0, num_layers=1):
        return LinearAttention(self, hidden_size)
"""
SAVE = """
import sys
from longlode.models import LonglodeConfig, LonglodeForCausalLM
for mixer in ("other", "outside.mixers:OtherConfig"):
    config = LonglodeConfig(vocab_size=9, hidden_size=8, num_heads=2, layers=["delta_net", mixer])
    print(config.mixer_providers[mixer], config.stack)
    LonglodeForCausalLM(config).save_pretrained(f"{sys.argv[1]}/{mixer}")
"""
LOAD = """
import sys
from longlode.models.load import load_model
print(load_model(sys.argv[1]).config.stack)
"""


def run(code, *arguments, path):
    import os

    paths = os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_a_mixer_of_another_package_is_saved_with_its_name(tmp_path):
    site = tmp_path / "site"
    (site / "outside").mkdir(parents=True)
    (site / "outside" / "__init__.py").write_text("")
    (site / "outside" / "mixers.py").write_text(OUTSIDE)
    info = site / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-mixers\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("outside\n")
    (info / "entry_points.txt").write_text("[longlode.mixers]\nother = outside.mixers:OtherConfig\n")
    done = run(SAVE, tmp_path, path=[str(site)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "outside-mixers",
        "D[other]",
        "outside-mixers",
        "D[outside.mixers:OtherConfig]",
    ]
    for mixer in ("other", "outside.mixers:OtherConfig"):
        done = run(LOAD, tmp_path / mixer, path=[str(site)])
        assert done.stdout.split() == [f"D[{mixer}]"], done.stderr
        with pytest.raises(BackendError, match="pip install outside-mixers"):
            AutoConfig.from_pretrained(tmp_path / mixer)


@pytest.mark.parametrize("implementation", ["plain", "padded", "cached", "packed"])
def test_attentions_are_those_of_the_layers(implementation):
    model, x = tiny(layers=LAYERS), tokens()
    given = {}
    if implementation == "padded":
        given = {"attention_mask": torch.ones_like(x)}
        given["attention_mask"][0, :3], given["attention_mask"][1, 4:6] = 0, 0
    if implementation == "packed":
        x, given = x[:1], {"cu_seqlens": torch.tensor([0, 5, 13])}
    out = model(x, output_attentions=True, **given)
    assert [weights is None for weights in out.attentions] == [False, True, False, True, False]
    real = given.get("attention_mask", torch.ones_like(x)).bool()
    torch.testing.assert_close(out.logits[real], model(x, **given).logits[real], rtol=0, atol=1e-11)
    for weights in (w for w in out.attentions if w is not None):
        rows = weights.mean(1)[real]
        torch.testing.assert_close(rows.sum(-1), torch.ones(len(rows)).double())
        hidden = ~real[:, None, None, :].expand_as(weights)
        assert weights[hidden.logical_and(real[:, None, :, None])].abs().sum() == 0
        if implementation != "padded":
            assert weights.triu(1).abs().sum() == 0
    if implementation == "packed":
        assert all(w[:, :, 5:, :5].abs().sum() == 0 for w in out.attentions if w is not None)
    if implementation == "cached":
        first = model(x[:, :9])
        then = model(x[:, 9:], past_key_values=first.past_key_values, output_attentions=True)
        whole, new = out.attentions[2], then.attentions[2]
        torch.testing.assert_close(new, whole[:, :, 9:], rtol=0, atol=1e-11)


def test_attentions_have_gradients():
    model, x = tiny(mixers="DA"), tokens()
    out = model(x, output_attentions=True)
    (gradient,) = torch.autograd.grad(out.logits.square().sum(), out.attentions[1])
    assert gradient.abs().max() > 0
