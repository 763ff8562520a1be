"""Attention schemes: the results of one rank, the bytes of the formula, and what each promises."""

import functools

import pytest
import torch
from sharded_steps import CASES, Case, assert_same_step, model_of, relative_difference

from longlode.core.errors import ConfigError
from longlode.parallel import ATTENTION_SCHEMES, AttentionSizes, RankShard, SequencePlan, simulate
from longlode.parallel.attention import keep_attention_outputs
from longlode.parallel.attention.blocks import Visible, block_backward, block_forward, merge
from longlode.parallel.attention.pieces import local_forward
from longlode.parallel.attention.ring import RingAttention
from longlode.parallel.attention.ring_balanced import pairs_computed

SIZES = AttentionSizes(num_heads=6, num_key_heads=2, head_dim=6, itemsize=8)


@functools.cache
def model():
    """Full attention with grouped heads, and a window; 6 heads, so that 2 and 3 ranks divide them."""
    torch.manual_seed(3)
    return model_of("attention", {"mixer": "sliding_window_attention"}, num_heads=6)


def ranks_fit(scheme, case):
    return scheme != "ulysses" or 6 % case.plan.num_ranks == 0


@pytest.mark.parametrize("scheme", ATTENTION_SCHEMES)
def test_every_scheme_gives_the_step_of_one_rank_and_the_bytes_of_its_formula(scheme):
    for facts in CASES.values():
        case = Case(*facts)
        if not ranks_fit(scheme, case):
            case = Case(*facts[:2], case.plan.cuts[1][:1] + case.plan.cuts[3][:1], *facts[3:])
        loss, grads, traffic = case.several_ranks(model(), scheme)
        assert_same_step((loss, grads), case.one_rank(model()))
        one = ATTENTION_SCHEMES[scheme]()
        for rank, counted in enumerate(traffic):
            full, windowed = (one.received_bytes(case.plan, rank, SIZES, window) for window in (None, 5))
            backward = sum(n for kind, n in counted.num_bytes.items() if "backward" in kind)
            assert backward == full[1] + windowed[1]
            assert counted.total_bytes - backward == full[0] + windowed[0]


@pytest.mark.parametrize("scheme", ATTENTION_SCHEMES)
def test_float32_agrees_to_its_own_rounding(scheme):
    torch.manual_seed(1)
    single = model_of("attention", "attention", dtype=torch.float32, scale=None, num_heads=6)
    case = Case(1, 64, [10, 40], [0, 5, 6, 50, 64])
    got, want = case.several_ranks(single, scheme)[:2], case.one_rank(single)
    assert abs(got[0] - want[0]) <= 1e-6 * want[0]
    assert relative_difference(got, want) <= 1e-6


@pytest.mark.parametrize("scheme", ["ring", "ring_balanced", "ring_scores"])
def test_autocast_does_not_reach_the_scores(scheme):
    """Schemes that merge blocks compute in float32, whatever the products of a model are cast to."""
    plan = SequencePlan.at([9, 11], (2, 20))
    q, k, v = (torch.randn(2, 20, heads, 6) for heads in (4, 2, 2))

    def work(transport, autocast):
        shard = RankShard(plan, transport, scheme)
        own = [shard.piece.take(x).clone().requires_grad_() for x in (q, k, v)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            o = shard.attend(*own, None)
            return [o, *torch.autograd.grad(o.square().sum(), own)]

    plain, cast = (simulate(3, functools.partial(work, autocast=on)) for on in (False, True))
    for one, other in zip(plain, cast, strict=True):
        for x, y in zip(one, other, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", sorted(set(ATTENTION_SCHEMES) - {"ulysses"}))
def test_a_window_sends_its_own_tokens_and_no_more_at_any_length(scheme):
    one = ATTENTION_SCHEMES[scheme]()
    for length in (40, 4000):
        plan = SequencePlan.even(4, (2, length))
        assert [one.received_bytes(plan, rank, SIZES, 5) for rank in range(4)] == [
            (2 * 4 * SIZES.kv_bytes * (rank > 0), 2 * 4 * SIZES.kv_bytes * (rank < 3)) for rank in range(4)
        ]


class ForgetsTheRowSums(RingAttention):
    """Its log-sums are those of the piece's own keys: outputs are right, gradients are not."""

    def forward_pass(self, shard, q, k, v):
        return super().forward_pass(shard, q, k, v)[0], local_forward(shard, q, k, v)[1]


class ReadsNothingFromRankZero(RingAttention):
    def forward_pass(self, shard, q, k, v):
        return super().forward_pass(shard, q, k if shard.rank else 0 * k, v)


@pytest.mark.parametrize("broken", [ForgetsTheRowSums, ReadsNothingFromRankZero])
def test_the_comparison_rejects_a_broken_ring(broken):
    case = Case(2, 29, 3)
    with pytest.raises(AssertionError):
        assert_same_step(case.several_ranks(model(), broken())[:2], case.one_rank(model()))


def test_balanced_ranks_compute_as_many_pairs_up_to_one():
    for num_ranks in range(1, 9):
        plan = SequencePlan.even(num_ranks, (1, 8 * num_ranks))
        work = [pairs_computed(plan, rank) for rank in range(num_ranks)]
        assert sum(work) == num_ranks * (num_ranks - 1) // 2
        assert max(work) - min(work) <= 1


@pytest.mark.parametrize("scheme", ["ring", "ring_balanced"])
def test_checkpoints_keep_the_outputs_of_attention(scheme):
    """With them no key is sent a second time for the forward pass; without them the whole block is read again."""
    single = model_of("attention", num_heads=6)
    case = Case(1, 37, [6, 20], [0, 5, 6, 30, 37])
    want = case.one_rank(single)
    plain = case.several_ranks(single, scheme)[2]
    for options, times in (({}, 2), ({"context_fn": keep_attention_outputs}, 1)):
        single.gradient_checkpointing_enable({"use_reentrant": False, **options})
        loss, grads, traffic = case.several_ranks(single, scheme)
        assert_same_step((loss, grads), want)
        for one, once in zip(traffic, plain, strict=True):
            assert one.num_bytes[scheme] == times * once.num_bytes[scheme]
            assert one.num_bytes[f"{scheme} backward"] == once.num_bytes[f"{scheme} backward"]


@pytest.mark.parametrize(
    "name",
    [
        "delta_net",
        "gated_delta_net",
        "linear_attention",
        "gated_linear_attention",
        "conv_gla",
        "mamba2",
        "mixture_of_memories",
    ],
)
def test_recurrent_mixers_exchange_sequence_for_heads(name):
    settings = {"num_v_heads": 12, "expand_v": 1.5} if name == "gated_delta_net" else {}
    single = model_of({"mixer": name, **settings}, num_heads=6)
    for case in (Case(3, 37, 3, None, [37, 20, 2]), Case(1, 37, [6, 22], [0, 5, 6, 30, 37])):
        loss, grads, traffic = case.several_ranks(single, states="ulysses")
        assert_same_step((loss, grads), case.one_rank(single))
        assert all(one.num_bytes["ulysses"] > 0 and one.num_bytes["fold"] == 0 for one in traffic)


def test_heads_that_the_ranks_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="6 heads are to be shared by 4 ranks"):
        Case(1, 37, 4).several_ranks(model(), "ulysses")
    with pytest.raises(ConfigError, match="fold or ulysses"):
        Case(1, 37, 2).several_ranks(model(), states="heads")


def test_unknown_schemes_are_refused_with_the_names():
    with pytest.raises(ConfigError, match="ring_balanced"):
        simulate(1, lambda transport: RankShard(SequencePlan.even(1, (1, 4)), transport, "zigzag"))


@pytest.mark.parametrize("num_queries", [7, 300])
def test_blocks_merge_to_whole_rows_and_give_their_gradients(num_queries):
    """Against float64 autograd of the plain formula; more queries than a block holds, and rows that see no key."""
    heads, groups, keys = 4, 2, 11
    make = functools.partial(torch.randn, dtype=torch.float64)
    q = make(2, num_queries, heads, 3).requires_grad_()
    k, v = (make(2, keys, groups, 3).requires_grad_() for _ in range(2))
    counts = torch.tensor([keys, 4])
    s = torch.einsum("bthk,bshk->bhts", q, k.repeat_interleave(2, 2)) * 3**-0.5
    s = s.masked_fill((torch.arange(keys) >= counts[:, None])[:, None, None], -torch.inf)
    want = torch.einsum("bhts,bshk->bthk", s.softmax(-1), v.repeat_interleave(2, 2))
    with torch.no_grad():
        first = block_forward(q, k[:, :5], v[:, :5], Visible(counts=counts.clamp(max=5)))
        second = block_forward(q, k[:, 5:], v[:, 5:], Visible(counts=(counts - 5).clamp(min=0)))
        o, lse = merge(*first, *second)
    torch.testing.assert_close(o, want, rtol=0, atol=1e-13)
    torch.testing.assert_close(lse, s.logsumexp(-1).transpose(1, 2), rtol=0, atol=1e-13)
    assert second[1][1].isneginf().all()
    grad = make(o.shape)
    wanted = torch.autograd.grad(want, (q, k, v), grad)
    with torch.no_grad():
        row_sum = (grad * o).sum(-1)
        facts = (lse, grad, row_sum)
        dq1, dk1, dv1 = block_backward(q, k[:, :5], v[:, :5], Visible(counts=counts.clamp(max=5)), *facts)
        rest = Visible(counts=(counts - 5).clamp(min=0))
        dq2, dk2, dv2 = block_backward(q, k[:, 5:], v[:, 5:], rest, *facts)
    got = (dq1 + dq2, torch.cat((dk1, dk2), 1), torch.cat((dv1, dv2), 1))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
