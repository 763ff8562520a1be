"""The loss goes through the head that is there: plain ones block by block, wrapped ones as they are."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM

from longlode.core.errors import ConfigError
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models import loss as loss_module
from longlode.models.loss import is_plain, next_token_loss


def tiny(mixers="DA"):
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "intermediate_size": 48}
    return LonglodeForCausalLM(LonglodeConfig(**sizes, mixers=mixers, initializer_range=0.3)).double()


def tokens(rows=2, length=13):
    return torch.randint(0, 40, (rows, length), generator=torch.Generator().manual_seed(1))


class LowRank(nn.Module):
    """What LoRA puts around a linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.a, self.b = nn.Linear(24, 3, bias=False), nn.Linear(3, 40, bias=False)
        self.double()
        self.weight = base.weight  # as PEFT's wrappers have it, too

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def low_rank(model):
    model.lm_head = LowRank(model.lm_head)


def hooked(model):
    model.lm_head.register_forward_hook(lambda _, __, logits: 2 * logits)


def hooked_before(model):
    model.lm_head.register_forward_pre_hook(lambda _, inputs: (3 * inputs[0],))


def parametrised(model):
    parametrize.register_parametrization(model.lm_head, "weight", Doubled())


def replaced_forward(model):
    plain = model.lm_head.forward
    model.lm_head.forward = lambda x: 2 * plain(x)


def biased(model):
    model.lm_head.bias = nn.Parameter(torch.randn(40).double())


WRAPPED = [low_rank, hooked, hooked_before, parametrised, replaced_forward, biased]


def from_logits(model, x):
    logits = model.eval()(x).logits
    model.train()
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())


@pytest.mark.parametrize("block_logits", [1 << 24, 130])
@pytest.mark.parametrize("wrap", WRAPPED)
def test_loss_of_a_wrapped_head_is_the_loss_of_its_logits(monkeypatch, wrap, block_logits):
    monkeypatch.setattr(loss_module, "_CHUNK_LOGITS", block_logits)
    model, x = tiny(), tokens()
    before = from_logits(model, x)
    wrap(model)
    want = from_logits(model, x)
    assert abs(want - before) > 1e-3
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(want, parameters)
    got = model(x, labels=x).loss
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for gradient, other in zip(torch.autograd.grad(got, parameters), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(model(x, labels=x).loss, want, rtol=0, atol=1e-12)


def test_a_low_rank_head_trains():
    model, x = tiny(), tokens()
    low_rank(model)
    gradient = torch.autograd.grad(model(x, labels=x).loss, model.lm_head.b.weight)[0]
    assert gradient.abs().max() > 1e-3


def test_a_head_on_disk_gives_its_own_loss(tmp_path):
    model, x = tiny(), tokens()
    model.save_pretrained(tmp_path / "model")
    names = ["model.embeddings", "model.layers.0", "model.layers.1", "model.norm", "lm_head"]
    device_map = {name: "disk" if name == "lm_head" else "cpu" for name in names}
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert again.lm_head.weight.is_meta
    torch.testing.assert_close(again(x, labels=x).loss, from_logits(model, x), rtol=0, atol=1e-11)


def test_which_heads_are_plain():
    assert is_plain(tiny().lm_head)
    for wrap in WRAPPED:
        wrap(model := tiny())
        assert not is_plain(model.lm_head), wrap.__name__
    assert not is_plain(nn.Linear(2, 3, bias=False, device="meta"))


def test_a_wrapped_head_sees_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(loss_module, "_CHUNK_LOGITS", 130)
    head, sizes = nn.Linear(4, 65, bias=False), []
    hidden, targets = torch.randn(2, 5, 4, requires_grad=True), torch.randint(0, 65, (2, 5))
    plain = next_token_loss(hidden, head, targets)
    head.register_forward_hook(lambda _, __, logits: sizes.append(len(logits)))
    torch.testing.assert_close(next_token_loss(hidden, head, targets), plain)
    assert sizes == [2] * 5


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("label", [-1, 40, 10**12])
def test_labels_outside_the_vocabulary_are_refused(label, wide):
    model, x = tiny("D"), tokens(rows=60 if wide else 2)  # many enough for the compiled kernel, or not
    labels = x.clone()
    labels[1, 5] = label
    with pytest.raises(ConfigError, match=f"labels holds {label}; expected token ids from 0 to 39"):
        model.float()(input_ids=x, labels=labels)


def test_labels_of_another_shape_or_kind_are_refused():
    model, x = tiny("D"), tokens()
    with pytest.raises(ConfigError, match=r"labels has shape \[2, 5\]"):
        model(input_ids=x, labels=x[:, :5])
    with pytest.raises(ConfigError, match=r"label_weights has shape \[1, 13\]"):
        model(input_ids=x, labels=x, label_weights=torch.ones(1, 13))
    with pytest.raises(ConfigError, match=r"labels is torch.float64"):
        model(input_ids=x, labels=x.double())


def test_labels_of_any_integer_type_give_the_same_loss():
    model, x = tiny("D").float(), tokens(rows=60)
    losses = [model(input_ids=x, labels=x.to(dtype)).loss for dtype in (torch.int64, torch.int32)]
    assert losses[0] == losses[1]


def test_token_ids_outside_the_vocabulary_are_named():
    with pytest.raises(ConfigError, match=r"from 40 to 40; the model's vocabulary is 0 to 39"):
        tiny("D")(input_ids=torch.full((1, 3), 40))
