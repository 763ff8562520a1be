"""One rank and several give one loss and one set of gradients, through the whole model, for every mixer that shards."""

from dataclasses import replace

import pytest
import torch
from sharded_steps import CASES, FEW_CASES, SHARED, Case, assert_same_step, model_of, relative_difference

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS
from longlode.models import LonglodeCache
from longlode.parallel import RankShard, SequencePlan, simulate
from longlode.parallel.exchange import Chain

SHARDS = {name: MIXERS.get(name).from_settings({}, SHARED).build(24).traits.shards for name in MIXERS.names()}
MORE = {
    "s4": {"state_size": 6},
    "s4d": {"state_size": 6},
    "longvq": {"num_codes": 8, "state_size": 6},
    "mixture_of_memories": {"num_heads": 2},
    "gated_delta_net": {"num_v_heads": 8, "expand_v": 1.5, "use_output_gate": True},
    "delta_net": {"allow_neg_eigval": True},
    "sliding_window_attention": {"window": 20},
}


@pytest.mark.parametrize("name", [name for name, shards in SHARDS.items() if shards])
def test_every_mixer_that_shards_gives_one_loss_and_one_set_of_gradients(name):
    layer = {"mixer": name, **MORE.get(name, {})}
    model = model_of(layer, layer if name not in ("delta_net", "attention") else name)
    for case in CASES if name in ("delta_net", "attention") else FEW_CASES:
        case = Case(*CASES[case])
        assert_same_step(case.several_ranks(model)[:2], case.one_rank(model))


def test_a_prefix_is_read_in_both_directions_wherever_its_ranks_are():
    model = model_of("prefix_linear_attention", "attention", "prefix_linear_attention")
    for case in CASES.values():
        case = Case(*case, prefixes=True)
        assert_same_step(case.several_ranks(model)[:2], case.one_rank(model))


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net", "attention", "mamba2"])
def test_float32_agrees_to_its_own_rounding(name):
    model = model_of(name, "sliding_window_attention", dtype=torch.float32, scale=None)
    case = Case(1, 64, [10, 20, 40], [0, 5, 6, 50, 64])
    got, want = case.several_ranks(model)[:2], case.one_rank(model)
    assert abs(got[0] - want[0]) <= 1e-6 * want[0]
    assert relative_difference(got, want) <= 1e-6


class SendsTheWrongHalo(RankShard):
    """The inputs before the piece, one token too early."""

    def halo(self, x, width, first):
        return super().halo(x, width, first).roll(1, 2)


class ComposesInBfloat16(RankShard):
    def begin_fold(self, make_map, first):
        def halved():
            own = make_map()
            return replace(own, added=own.added.bfloat16().double(), matrix=own.matrix.bfloat16().double())

        return super().begin_fold(halved, first)


class DropsARank(RankShard):
    """Rank 1's map reaches nobody."""

    def begin_fold(self, make_map, first):
        def without_one():
            own = make_map()
            return replace(own, added=0 * own.added) if self.rank == 1 else own

        return super().begin_fold(without_one, first)


class CountsPositionsFromTheCut(RankShard):
    @property
    def tokens_before(self):
        return torch.zeros(self.piece.num_states, dtype=torch.int64)


class GathersOneTokenTooFew(RankShard):
    def gather(self, *tensors, last=None):
        return super().gather(*tensors, last=last if last is None else last - 1)


class KeepsItsPartOfAPrefix(RankShard):
    def document_total(self, x):
        return x


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (SendsTheWrongHalo, "delta_net"),
        (ComposesInBfloat16, "delta_net"),
        (DropsARank, "delta_net"),
        (CountsPositionsFromTheCut, "attention"),
        (GathersOneTokenTooFew, "sliding_window_attention"),
        (KeepsItsPartOfAPrefix, "prefix_linear_attention"),
    ],
)
def test_the_comparison_rejects_a_broken_shard(broken, name):
    model, case = model_of(name), Case(1, 37, [6, 14, 22], [0, 5, 6, 30, 37])
    if name == "prefix_linear_attention":
        case.prefix_lengths = torch.tensor([2, 1, 20, 3])
    assert_same_step(case.several_ranks(model)[:2], case.one_rank(model))
    with pytest.raises(AssertionError):
        assert_same_step(case.several_ranks(model, shard=broken)[:2], case.one_rank(model))


def test_a_backward_pass_that_drops_a_rank_is_rejected(monkeypatch):
    model, case = model_of("delta_net"), Case(2, 37, [9, 11, 24])
    reached = Chain.reached
    monkeypatch.setattr(Chain, "reached", lambda self: reached(self)[:2])
    got, want = case.several_ranks(model)[:2], case.one_rank(model)
    assert abs(got[0] - want[0]) <= 1e-12 * want[0]
    with pytest.raises(AssertionError):
        assert_same_step(got, want)


def test_gradient_checkpointing_changes_nothing():
    model, case = model_of("delta_net", "attention"), Case(1, 37, [6, 14, 22], [0, 5, 6, 30, 37])
    want = case.one_rank(model)
    model.gradient_checkpointing_enable()
    assert_same_step(case.several_ranks(model)[:2], want)


def test_a_prompt_read_on_three_ranks_goes_on_from_the_last():
    """The state after the last rank is that of one rank; a cache read so far may come first."""
    model = model_of("delta_net", "sliding_window_attention", "attention").eval()
    first, tokens, more = (torch.randint(0, 50, (2, n)) for n in (7, 21, 2))
    whole = model(input_ids=torch.cat((first, tokens, more), 1), use_cache=False).logits
    plan = SequencePlan.at([4, 10], tokens.shape)
    begun = model(input_ids=first, use_cache=True).past_key_values

    @torch.no_grad()
    def work(transport):
        inputs = plan.piece(transport.rank).model_inputs(tokens)
        cache = begun.copy()
        shard = RankShard(plan, transport)
        logits = model(**inputs, past_key_values=cache, shard=shard).logits
        return logits, cache

    results = simulate(3, work)
    logits = torch.cat([one for one, _ in results], 1)
    torch.testing.assert_close(logits, whole[:, 7:28], rtol=0, atol=1e-11)
    after = model(input_ids=more, past_key_values=results[-1][1]).logits
    torch.testing.assert_close(after, whole[:, 28:], rtol=0, atol=1e-11)


def test_mixers_that_cannot_shard_are_refused_by_name():
    refused = [name for name, shards in SHARDS.items() if not shards]
    assert refused
    for name in refused:
        model, case = model_of("delta_net", name), Case(1, 12, 2)
        kind = type(model.model.layers[1].attn).__name__
        with pytest.raises(ConfigError, match=kind):
            case.several_ranks(model)


def test_labels_must_be_shifted_and_counted_before_the_cut():
    model, plan = model_of("delta_net"), SequencePlan.even(2, (1, 12))
    tokens = torch.randint(0, 50, (1, 12))

    def work_with(**labels):
        def work(transport):
            inputs = plan.piece(transport.rank).model_inputs(tokens)
            return model(**inputs, **labels, shard=RankShard(plan, transport))

        return work

    with pytest.raises(ConfigError, match="shift_labels"):
        simulate(2, work_with(labels=tokens[:, :6]))
    with pytest.raises(ConfigError, match="num_items_in_batch"):
        simulate(2, work_with(shift_labels=tokens[:, :6]))
    with pytest.raises(ConfigError, match="plan is for 2 ranks"):
        simulate(3, work_with())


def test_a_filled_cache_with_padding_is_refused():
    model, plan = model_of("delta_net").eval(), SequencePlan.at([1], (1, 2))
    cache = LonglodeCache(1)
    model(input_ids=torch.zeros(1, 3, dtype=torch.int64), past_key_values=cache)
    plan = SequencePlan.at([2], (1, 2))

    @torch.no_grad()
    def work(transport):
        inputs = plan.piece(transport.rank).model_inputs(torch.zeros(1, 2, dtype=torch.int64))
        return model(**inputs, past_key_values=cache.copy(), shard=RankShard(plan, transport))

    with pytest.raises(ConfigError, match="filled cache"):
        simulate(2, work, timeout_s=10)
