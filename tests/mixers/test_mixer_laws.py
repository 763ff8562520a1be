"""All mixers that longlode brings obey the laws of `mixer_laws.py`, and broken ones are rejected."""

import pytest
import torch
from mixer_laws import (
    LAWS,
    SHARED,
    T,
    build,
    causality,
    cost_slope,
    gradients,
    inputs,
    left_padding,
    mapping,
    packed,
    packing,
    packing_from_states,
    pieces,
    right_padding,
    second_derivatives,
    sharding,
    state_size,
    steps,
)

from longlode.core.errors import ConfigError
from longlode.mixers import (
    MIXERS,
    DeltaNet,
    FullAttention,
    LinearAttention,
    MixerOutput,
    SegmentMap,
    SequenceContext,
    SlidingWindowAttention,
)

MORE = {
    "delta_net, beta to 2, gated output": (
        "delta_net",
        {"allow_neg_eigval": True, "use_output_gate": True, "conv_size": 3},
    ),
    "gated_delta_net, wide values, gated output": (
        "gated_delta_net",
        {"expand_v": 1.5, "use_output_gate": True},
    ),
    "delta_net, grouped values": ("delta_net", {"num_heads": 2, "num_v_heads": 4}),
    "gated_delta_net, grouped wide values, gated output": (
        "gated_delta_net",
        {"num_heads": 2, "num_v_heads": 6, "expand_v": 1.5, "use_output_gate": True},
    ),
    "sliding_window_attention of one": ("sliding_window_attention", {"window": 1}),
    "attention, other heads, biases": (
        "attention",
        {"num_heads": 2, "head_dim": 8, "num_kv_heads": 1, "qkv_bias": True},
    ),
}
# Every name of the registry with its defaults: a new mixer is here by itself.
VARIANTS = {**{name: (name, {}) for name in MIXERS.names()}, **MORE}


def config_of(name, **settings):
    return MIXERS.get(name).from_settings(settings, SHARED)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_mixer_obeys(variant, law):
    name, settings = VARIANTS[variant]
    law(build(config_of(name, **settings)))


@pytest.mark.parametrize("name", MIXERS.names())
def test_every_mixer_runs_under_autocast(name):
    """Activations in half precision, parameters and states in float32: a piece, its gradients, a step."""
    mixer = build(config_of(name)).float()
    x = inputs(2).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = mixer(x)
        y_t, _ = mixer.step(x[:, 0], output.state)
        if mixer.traits.narrow_input:
            rounded = mixer(x.bfloat16())
            assert torch.equal(rounded.y, output.y)
            assert all(torch.equal(rounded.state[key], value) for key, value in output.state.items())
    assert (output.y.isfinite().all(), y_t.isfinite().all()) == (True, True)
    for gradient in gradients(output.y.float().square().sum(), [x, *mixer.parameters()]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["atlas", "cca", "landmark", "seqboat"])
def test_mixers_with_counts_of_their_own_export(name):
    """No size depends on data when a text is read whole."""
    mixer, x = build(config_of(name)), inputs(2, 40)
    with torch.no_grad():
        exported = torch.export.export(mixer, (x,), strict=False).module()
        torch.testing.assert_close(exported(x + 1).y, mixer(x + 1).y, rtol=0, atol=1e-12)


def test_packed_rows_hold_no_padding():
    x, mask = inputs(1), torch.ones(1, T, dtype=torch.bool)
    with pytest.raises(ConfigError, match="packed rows hold no padding"):
        SequenceContext.of(x, cu_seqlens=torch.tensor([0, T]), mask=mask)


@pytest.mark.parametrize("name", MIXERS.names())
def test_other_shapes_are_refused(name):
    mixer, x = build(config_of(name)), inputs(1)
    for wrong in (x[0], x[:, :0]):
        with pytest.raises(ConfigError, match="at least 1"):
            mixer(wrong)


def test_a_mixer_without_a_map_says_so():
    with pytest.raises(ConfigError, match="FullAttention has no map"):
        build(config_of("attention")).segment_map(inputs(1))


class SeesTheFuture(FullAttention):
    def forward(self, x, state=None, context=None):
        output = super().forward(x, state, context)
        return output._replace(y=output.y + 0.01 * x.flip(1))


class ForgetsTheConvolution(DeltaNet):
    def forward(self, x, state=None, context=None):
        return super().forward(x, {"memory": state["memory"]} if state else None, context)


class KeepsOneTokenTooFew(SlidingWindowAttention):
    def forward(self, x, state=None, context=None):
        y, state, *_ = super().forward(x, state, context)
        return MixerOutput(
            y, {name: t[:, 1:] if t.dim() > 1 and t.shape[1] > 3 else t for name, t in state.items()}
        )


class IgnoresDocuments(DeltaNet):
    def forward(self, x, state=None, context=None):
        return super().forward(x, state, None)


class GivesEachDocumentTheFirstState(DeltaNet):
    def forward(self, x, state=None, context=None):
        if context is not None and context.cu_seqlens is not None and state:
            state = {name: value[:1].expand_as(value) for name, value in state.items()}
        return super().forward(x, state, context)


class ZeroesPaddingTooLate(DeltaNet):
    def forward(self, x, state=None, context=None):
        return super().forward(x.nan_to_num(1.0), state, None)


class ComparesAllPairs(DeltaNet):
    def forward(self, x, state=None, context=None):
        output = super().forward(x, state, context)
        return output._replace(y=output.y + 0 * (x @ x.mT).sum())


class CountsPaddingAsInput(DeltaNet):
    def forward(self, x, state=None, context=None):
        output = super().forward(x, state, context)
        if context is not None and context.mask is not None:
            x = x.masked_fill(~context.mask[..., None], 0)
            before = state["conv_v"] if state else None
            output.state["conv_v"] = self.v_conv1d(self.v_proj(x), before)[1]
        return output


class AddsButDoesNotErase(DeltaNet):
    """Its map is that of linear attention: what it writes under a key does not replace what stood there."""

    def _map(self, writes, context):
        return SegmentMap(super()._map(writes, context).added)


class StartsAnewOnEveryRank(DeltaNet):
    def forward(self, x, state=None, context=None):
        return super().forward(x, state, None)


class ClaimsHalfItsState(DeltaNet):
    def state_layout(self, num_tokens, dtype):
        layout = super().state_layout(num_tokens, dtype)
        return {**layout, "memory": layout["memory"].half()}


class _SquareOnce(torch.autograd.Function):
    """x squared; its gradient passes for a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0].detach() * grad


class HasConstantGradients(LinearAttention):
    def forward(self, x, state=None, context=None):
        output = super().forward(x, state, context)
        return output._replace(y=_SquareOnce.apply(output.y))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (SeesTheFuture, causality),
        (ForgetsTheConvolution, pieces),
        (ForgetsTheConvolution, steps),
        (KeepsOneTokenTooFew, pieces),
        (IgnoresDocuments, packing),
        (GivesEachDocumentTheFirstState, packing_from_states),
        (ZeroesPaddingTooLate, left_padding),
        (CountsPaddingAsInput, right_padding),
        (ComparesAllPairs, cost_slope),
        (AddsButDoesNotErase, mapping),
        (AddsButDoesNotErase, sharding),
        (StartsAnewOnEveryRank, sharding),
        (ClaimsHalfItsState, state_size),
        (HasConstantGradients, second_derivatives),
    ],
)
def test_the_laws_reject_a_broken_mixer(broken, law):
    names = {DeltaNet: "delta_net", FullAttention: "attention", LinearAttention: "linear_attention"}
    name = names.get(broken.__base__, "sliding_window_attention")
    with pytest.raises(AssertionError):
        law(build(config_of(name), kind=broken))


def test_documents_are_unpacked_and_packed_again():
    x, offsets = inputs(1), [0, 2, 3, 11, T]
    context = packed(x, offsets)
    rows = context.unpack(x)
    assert rows.shape == (4, 8, x.shape[2])
    assert torch.equal(rows[1, 0], x[0, 2])
    assert rows[1, 1:].abs().max() == 0
    assert torch.equal(context.repack(rows), x)
    assert context.lengths.tolist() == [2, 1, 8, 8]
    assert context.positions[0].tolist() == [0, 1, 0, *range(8), *range(8)]
    assert context.rows.mask.sum(1).tolist() == [2, 1, 8, 8]
    assert context.to("cpu") is context
    moved = context.to("meta")
    assert (moved.cu_seqlens.device.type, context.to("meta") is moved) == ("meta", True)
