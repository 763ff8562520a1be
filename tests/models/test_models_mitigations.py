"""Mitigations of state collapse, each against plain loops over tokens in float64."""

import itertools
import math

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.mixers.forgetting import PLAIN
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM
from longlode.models.mitigations import ForgetMore, NormaliseState, SlidingState, mitigated

KINDS = ("delta_net", "gated_delta_net", "gated_linear_attention", "mamba2")
T, H, K = 13, 2, 4


def model_of(*mixers):
    torch.manual_seed(3)
    config = LonglodeConfig(
        layers=[{"mixer": one, "block": "mixer"} for one in mixers],
        vocab_size=17,
        hidden_size=8,
        num_heads=H,
        head_dim=K,
        num_kv_heads=1,
    )
    model = LonglodeForCausalLM(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "A_log" not in name and "dt_bias" not in name:
                parameter.normal_(0, 0.6)
    return model


def tokens(rows=2, length=T, seed=0):
    return torch.randint(17, (rows, length), generator=torch.Generator().manual_seed(seed))


class Rule:
    """What a mixer writes at each token, found by asking its single steps: S_t = M_t S_{t-1} + H_t.

    M_t is read off column by column from basis states, H_t from the empty state; the convolutions go on as they do.
    """

    def __init__(self, model, ids):
        self.mixer = model.model.layers[0].attn
        x = model.model.layers[0].attn_norm(model.model.embeddings(ids)).detach()
        self.x, self.M, self.H, self.convs, convs = x, [], [], [], {}
        with torch.no_grad():
            for t in range(x.shape[1]):
                self.convs.append(convs)
                after = self.mixer.step(x[:, t], convs)[1]
                empty = torch.zeros_like(after["memory"])
                added = self._after(t, empty)
                columns = []
                for k in range(empty.shape[2]):
                    basis = empty.clone()
                    basis[:, :, k, 0] = 1
                    columns.append((self._after(t, basis) - added)[..., 0])
                self.H.append(added)
                self.M.append(torch.stack(columns, -1))
                convs = {name: value for name, value in after.items() if name != "memory"}

    def _after(self, t, memory):
        return self.mixer.step(self.x[:, t], {**self.convs[t], "memory": memory})[1]["memory"]

    def outputs(self, memory_before):
        """y of each token when it is read from the memory `memory_before(t)`."""
        with torch.no_grad():
            found = [
                self.mixer.step(self.x[:, t], {**convs, "memory": memory_before(t)})[0]
                for t, convs in enumerate(self.convs)
            ]
        return torch.stack(found, 1)

    def run(self, first, last):
        """The memory after tokens first .. last - 1, from an empty one."""
        memory = torch.zeros_like(self.H[0])
        for t in range(first, last):
            memory = self.M[t] @ memory + self.H[t]
        return memory


def mixed(model, ids, mitigation=None, cuts=(), mask=None):
    """Outputs of the first layer's mixer for a text read in pieces, as the model reads it."""
    seen = []
    hook = model.model.layers[0].attn.register_forward_hook(
        lambda module, args, output: seen.append(output.y)
    )
    cache, edges = LonglodeCache(len(model.model.layers)), [0, *cuts, ids.shape[1]]
    with torch.inference_mode():
        for start, stop in itertools.pairwise(edges):
            piece = ids[:, start:stop]
            if mitigation is None:
                model(piece, attention_mask=mask, past_key_values=cache)
            else:
                with mitigated(model, mitigation):
                    model(piece, attention_mask=mask, past_key_values=cache)
    hook.remove()
    return torch.cat(seen, 1), cache


@pytest.mark.parametrize("kind", KINDS)
def test_a_sliding_state_is_the_difference_of_two_states(kind):
    """S_{t-1} - M_{t-1} .. M_{t-w+1} S_{t-w}: with token t, the window is w tokens. Pieces change nothing."""
    model, ids, window = model_of(kind), tokens(), 4
    rule = Rule(model, ids)

    def before(t):
        memory, old = rule.run(0, t), rule.run(0, max(0, t - window + 1))
        for s in range(max(0, t - window + 1), t):
            old = rule.M[s] @ old
        return memory - old

    wanted = rule.outputs(before)
    for cuts in ((), (1, 2, 7)):
        got, _ = mixed(model, ids, SlidingState(window=window, hop=1), cuts)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    plain, _ = mixed(model, ids)
    assert (plain[:, -1] - wanted[:, -1]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["delta_net", "mamba2"])
def test_a_window_moves_by_hops(kind):
    model, ids = model_of(kind), tokens()
    rule = Rule(model, ids)
    wanted = rule.outputs(lambda t: rule.run(max(0, t // 3 - 1) * 3, t))
    for cuts in ((), (2, 5, 6)):
        got, cache = mixed(model, ids, SlidingState(window=6, hop=3), cuts)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    with pytest.raises(ConfigError, match="window"):
        mixed_again(model, cache, SlidingState(window=9, hop=3))


def mixed_again(model, cache, mitigation):
    with mitigated(model, mitigation), torch.inference_mode():
        model(tokens(2, 1), past_key_values=cache)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_scaled_down_to_its_limit(kind):
    model, ids = model_of(kind), tokens()
    rule = Rule(model, ids)
    limit = float(rule.run(0, 4).norm(dim=(-2, -1)).mean())
    memories = [torch.zeros_like(rule.H[0])]
    for t in range(T):
        memory = rule.M[t] @ memories[-1] + rule.H[t]
        norm = memory.square().sum((-2, -1), keepdim=True).sqrt()
        memories.append(torch.where(norm > limit, memory * limit / norm, memory))
    for cuts in ((), (3,)):
        got, cache = mixed(model, ids, NormaliseState(limit=limit), cuts)
        torch.testing.assert_close(got, rule.outputs(memories.__getitem__), rtol=0, atol=1e-10)
    assert float(cache.layers[0].state["memory"].norm(dim=(-2, -1)).max()) <= limit * (1 + 1e-12)
    coarse, _ = mixed(model, ids, NormaliseState(limit=limit, every=5))
    assert (coarse - got)[:, :5].abs().max() > 0, "within a stretch nothing is scaled"


@pytest.mark.parametrize("kind", KINDS)
def test_forgetting_changes_decay_and_amount_as_written(kind):
    model, ids = model_of(kind), tokens()
    rule = Rule(model, ids)
    decays = kind != "delta_net"
    settings = ForgetMore(decay=1.5 if decays else 1.0, fade=0.1, amount=0.5)
    memory, eye = torch.zeros_like(rule.H[0]), torch.eye(rule.M[0].shape[-1]).double()
    for t in range(T):
        if kind.endswith("delta_net"):
            # H_t = beta k v^T and M_t = a (I - beta k k^T): of a unit key, so that beta and a follow from M_t.
            trace = rule.M[t].diagonal(dim1=-2, dim2=-1).sum(-1)
            squares = (rule.M[t] @ rule.M[t]).diagonal(dim1=-2, dim2=-1).sum(-1)
            # The eigenvalues are a, K - 1 times, and a (1 - beta): a from their mean and their spread.
            spread = (squares * K - trace**2).clamp(min=0) / (K * K * (K - 1))
            a = (trace / K + spread.sqrt())[..., None, None]
            kept = memory - settings.amount * (eye - rule.M[t] / a) @ memory
            memory = a**settings.decay * math.exp(-settings.fade) * kept + settings.amount * rule.H[t]
        else:
            a = rule.M[t].diagonal(dim1=-2, dim2=-1)[..., None]
            memory = a**settings.decay * math.exp(-settings.fade) * memory + settings.amount * rule.H[t]
    _, cache = mixed(model, ids, settings)
    torch.testing.assert_close(cache.layers[0].state["memory"], memory, rtol=0, atol=1e-9)
    assert model.model.layers[0].attn.forgetting == PLAIN, "nothing stays after the block"


@pytest.mark.parametrize(
    "mitigation",
    [SlidingState(window=4, hop=2), NormaliseState(limit=0.5), ForgetMore(fade=0.2)],
    ids=lambda one: type(one).__name__,
)
def test_padding_changes_nothing_and_other_layers_are_left_alone(mitigation):
    model = model_of("delta_net", "attention", "mamba2")
    ids = tokens(1)
    with mitigated(model, mitigation), torch.inference_mode():
        alone = model(ids).logits
        padded = torch.cat((torch.zeros(1, 3, dtype=torch.int64), ids), 1)
        mask = (torch.arange(T + 3) >= 3).long()[None]
        beside = model(padded, attention_mask=mask).logits[:, 3:]
        written = model.generate(ids, max_new_tokens=4, do_sample=False)
        again = model(written).logits[:, -5:-1].argmax(-1)
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-10)
    assert torch.equal(written[:, -4:], again)
    with torch.inference_mode():
        assert (model(ids).logits - alone).abs().max() > 1e-6


def test_what_cannot_be_mitigated_is_refused():
    with pytest.raises(ConfigError, match="attention"), mitigated(model_of("attention"), ForgetMore(fade=1)):
        pass
    model, packed = model_of("delta_net"), torch.tensor([0, 5, T], dtype=torch.int32)
    with mitigated(model, NormaliseState(limit=1.0)), pytest.raises(ConfigError, match="packed"):
        model(tokens(1), cu_seqlens=packed, use_cache=False)
    with mitigated(model, ForgetMore(decay=2.0)), pytest.raises(ConfigError, match="fade"):
        model(tokens(1))
    for wrong in (
        lambda: ForgetMore(amount=2.0),
        lambda: NormaliseState(limit=0.0),
        lambda: SlidingState(window=5, hop=2),
    ):
        with pytest.raises(ConfigError):
            wrong()
