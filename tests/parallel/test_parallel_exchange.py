"""Halo, fold and gather of simulated ranks, their bytes on the wire, and ranks that fail."""

import threading
import time

import pytest
import torch
from sharded_steps import SHARED, Case, model_of

from longlode.core.errors import ConfigError, RankError
from longlode.mixers import MIXERS, SegmentMap, s4d
from longlode.mixers.segment_map import identity_states
from longlode.mixers.short_conv import ShortConv
from longlode.ops.delta_rule import delta_rule
from longlode.parallel import RankShard, SequencePlan, ThreadTransport, next_tokens, simulate
from longlode.parallel.exchange import total


def shards(plan, work, **options):
    return simulate(plan.num_ranks, lambda transport: work(RankShard(plan, transport)), **options)


def test_a_halo_reaches_several_ranks_back_and_its_gradient_returns():
    plan, width = SequencePlan.at([4, 5, 5, 7], (2, 12)), 5
    x, first = torch.randn(2, 12, 3, dtype=torch.float64), torch.randn(2, 3, width, dtype=torch.float64)
    weights = torch.randn(5, 2, 3, width, dtype=torch.float64)
    for start in (None, first):

        def work(shard, start=start):
            own = shard.piece.take(x).clone().requires_grad_()
            before = shard.halo(own, width, start)
            loss = (before * weights[shard.rank]).sum()
            return before.detach(), torch.autograd.grad(loss, own)[0], shard.transport.traffic

        results = shards(plan, work)
        whole = torch.cat((first if start is not None else torch.zeros_like(first), x.mT), 2)
        want_grad = torch.zeros_like(x)
        for rank, (before, _, traffic) in enumerate(results):
            cut = plan.cuts[rank][0]
            assert torch.equal(before, whole[:, :, cut : cut + width])
            for place in range(max(0, cut - width), cut):
                want_grad[:, place] += weights[rank, :, :, width - cut + place]
            own_share = width if start is not None and rank else min(cut, width)
            assert traffic.num_bytes["halo"] == 2 * 3 * own_share * 8
        got_grad = torch.zeros_like(x)
        for rank, (_, grad, _) in enumerate(results):
            plan.piece(rank).put(grad, got_grad)
        torch.testing.assert_close(got_grad, want_grad, rtol=0, atol=1e-14)


def states_by_fold(k, v, beta, g, ranks, dtype=torch.float64):
    """State before each of `ranks` equal pieces, folded from the maps of the delta rule in `dtype`."""
    plan = SequencePlan.even(ranks, k.shape[:2])

    def work(shard):
        own = [None if x is None else shard.piece.take(x).to(dtype) for x in (k, v, beta, g)]

        def make_map():
            _, added = delta_rule(own[0], own[0], own[1], own[2], g=own[3])
            eye = identity_states(k.shape[0], k.shape[2], k.shape[3], like=own[0])
            _, matrix = delta_rule(own[0], own[0], torch.zeros_like(own[0]), own[2], g=own[3], state=eye)
            return SegmentMap(added, matrix)

        # A model in half precision may run under autocast; the maps are not composed in it.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
            return shard.fold(make_map, None)

    return shards(plan, work)


@pytest.mark.parametrize("decay", [None, "zero"])
def test_repeated_keys_with_beta_near_two_over_64_pieces(decay):
    """Each token reflects the same direction: chains of maps must not grow; g = 0 is no decay."""
    T, H, K = 256, 2, 4
    k = torch.nn.functional.normalize(torch.randn(1, 1, H, K, dtype=torch.float64), dim=-1).expand(1, T, H, K)
    k = k + 1e-6 * torch.randn(1, T, H, K, dtype=torch.float64)
    v, beta = torch.randn(1, T, H, K, dtype=torch.float64), torch.full((1, T, H), 1.999, dtype=torch.float64)
    g = None if decay is None else torch.zeros(1, T, H, dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        states = states_by_fold(k, v, beta, g, 64, dtype)
        for rank in (1, 17, 63):
            part = [x[:, : rank * T // 64] for x in (k, k, v, beta)]
            _, want = delta_rule(*part, backend="reference")
            assert (states[rank] - want).norm() <= tolerance * want.norm()


def test_bytes_on_the_wire_are_those_of_the_formula_at_any_length():
    """A layer's fold: one all-gather of H K (K + V) numbers, and one of H K V for the gradient."""
    found = []
    for length in (32, 96):
        model, case = model_of("delta_net"), Case(1, length, 4)
        _, _, traffic = case.several_ranks(model)
        H, K, width, inner = 4, 6, 3, 24
        for rank, one in enumerate(traffic):
            assert one.num_calls == {"fold": 1, "fold backward": 1, "halo": 3, "halo backward": 3}
            assert one.num_bytes["fold"] == 3 * H * K * (K + K) * 8
            assert one.num_bytes["fold backward"] == 3 * H * K * K * 8
            assert one.num_bytes["halo"] == (3 * width * inner * 8 if rank else 0)
            assert one.num_bytes["halo backward"] == (3 * width * inner * 8 if rank < 3 else 0)
        found.append([one.total_bytes for one in traffic])
    assert found[0] == found[1]


def events_of_a_step(monkeypatch, model, case):
    """By rank: begin and end of every all-gather, other exchanges, the mixer's modules, and gradients of these."""
    thread, events = threading.local(), {}
    gather, exchange, inside = ThreadTransport.begin_all_gather, ThreadTransport.begin, s4d._inside

    def log(event):
        events.setdefault(thread.rank, []).append(event)

    def begin_all_gather(self, x, kind):
        thread.rank = self.rank
        log(f"begin {kind}")
        wait = gather(self, x, kind)

        def end():
            log(f"end {kind}")
            return wait()

        return end

    def begin(self, sends, shapes, like, kind):
        thread.rank = self.rank
        log(kind)
        return exchange(self, sends, shapes, like, kind)

    def computed(name, output):
        if hasattr(thread, "rank"):
            log(name)
            output.register_hook(lambda grad: log(f"{name} backward"))

    def logged_inside(chunks, dynamics):
        found = inside(chunks, dynamics)
        computed("inside", found[0])
        return found

    monkeypatch.setattr(ThreadTransport, "begin_all_gather", begin_all_gather)
    monkeypatch.setattr(ThreadTransport, "begin", begin)
    monkeypatch.setattr(s4d, "_inside", logged_inside)
    for name, module in model.model.layers[0].attn.named_modules():
        if isinstance(module, torch.nn.Linear | ShortConv):
            module.register_forward_hook(
                lambda module, inputs, out, name=name: computed(name, out[0] if type(out) is tuple else out)
            )
    case.several_ranks(model)
    return events


def test_queries_are_computed_while_maps_are_on_their_way(monkeypatch):
    """Forward: the third convolution's halo between begin and end of the fold. Backward: its gradient likewise."""
    events = events_of_a_step(monkeypatch, model_of("delta_net"), Case(2, 37, [9, 11, 24]))
    for rank in range(4):
        assert [event for event in events[rank] if "halo" in event or "fold" in event] == [
            *["halo", "halo", "begin fold", "halo", "end fold"],
            *["begin fold backward", "halo backward", "end fold backward", "halo backward", "halo backward"],
        ]


LOCAL = {
    "delta_net": ["q_proj q_conv1d"],
    "gated_delta_net": ["q_proj q_conv1d g_proj"],
    "mixture_of_memories": ["q_proj"],
    "linear_attention": ["q_proj"],
    "prefix_linear_attention": ["q_proj"],
    "gated_linear_attention": ["q_proj g_proj"],
    "conv_gla": ["q_proj q_conv1d"],
    "mamba2": ["z_proj"],
    "lightnet": ["q_proj g_proj.0 g_proj.1"],
    "longvq": ["inside", "q_proj gate_proj"],
    "s4": ["inside"],
    "s4d": ["inside"],
}
"""What each mixer computes while the maps of a fold are on their way; longvq has two folds, of S4D and its own."""


def test_every_mixer_with_a_map_is_in_the_table():
    kinds = {name: MIXERS.get(name).from_settings({}, SHARED).build(24) for name in MIXERS.names()}
    assert sorted(LOCAL) == sorted(name for name, mixer in kinds.items() if mixer.traits.shards == "map")


@pytest.mark.parametrize("name", LOCAL)
def test_maps_are_sent_before_the_local_work_that_does_not_need_them(name, monkeypatch):
    extra = {"use_output_gate": True} if name == "gated_delta_net" else {}
    model = model_of({"mixer": name, **extra})
    events = events_of_a_step(monkeypatch, model, Case(1, 13, [4]))
    want = [sorted(names.split()) for names in LOCAL[name]]
    for rank in range(2):
        for suffix, names in (("", want), (" backward", want[::-1])):
            begins = [place for place, one in enumerate(events[rank]) if one == f"begin fold{suffix}"]
            ends = [place for place, one in enumerate(events[rank]) if one == f"end fold{suffix}"]
            assert len(begins) == len(ends) == len(want)
            for begin, end, local in zip(begins, ends, names, strict=True):
                between = [one.removesuffix(" backward") for one in events[rank][begin + 1 : end]]
                assert sorted(one for one in between if one != "halo") == local


def test_a_sum_over_ranks_and_its_gradient():
    x, weights = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)

    def work(transport):
        own = x[transport.rank].clone().requires_grad_()
        y = total(own, transport)
        return y.detach(), torch.autograd.grad((y * weights[transport.rank]).sum(), own)[0]

    for y, grad in simulate(3, work):
        torch.testing.assert_close(y, x.sum(0), rtol=0, atol=1e-14)
        torch.testing.assert_close(grad, weights.sum(0), rtol=0, atol=1e-14)


def test_documents_shorter_than_the_halo_do_not_leak():
    plan = SequencePlan.at([3, 5], (1, 9), cu_seqlens=[0, 2, 9])
    x = torch.arange(9.0).view(1, 9, 1)
    halos = shards(plan, lambda shard: shard.halo(shard.piece.take(x), 4, None))
    assert [halo[0, 0].tolist() for halo in halos] == [[0] * 4, [0, 0, 0, 2], [0, 2, 3, 4]]
    assert halos[0].shape == (2, 1, 4)


def test_gather_takes_the_last_tokens_of_the_document_only():
    plan = SequencePlan.at([3, 5], (1, 9), cu_seqlens=[0, 2, 9])
    x = torch.arange(9).view(1, 9)
    for last, want in ((None, [2, 3, 4, 5, 6, 7, 8]), (2, [3, 4, 5, 6, 7, 8]), (0, [5, 6, 7, 8])):
        got = shards(plan, lambda shard, last=last: shard.gather(shard.piece.take(x), last=last)[0])
        assert got[2].tolist() == [want]
        assert got[0].tolist() == [[0, 1, 2]]


def test_a_rank_that_raises_ends_the_others_and_its_error_is_told():
    def work(transport):
        if transport.rank == 1:
            raise ValueError("no memory left")
        transport.all_gather(torch.ones(1), "fold")

    with pytest.raises(ValueError, match="no memory left") as caught:
        simulate(3, work)
    assert "rank 1" in caught.value.__notes__[0]


def test_a_rank_that_hangs_ends_the_others_within_the_time_limit():
    released = threading.Event()

    def work(transport):
        if transport.rank == 1:
            released.wait(60)
        else:
            transport.all_gather(torch.ones(1), "fold")

    started = time.monotonic()
    try:
        with pytest.raises(RankError, match="did not answer within"):
            simulate(2, work, timeout_s=0.2)
    finally:
        released.set()
    assert time.monotonic() - started < 30


def test_ranks_that_run_different_layers_are_told():
    def different(transport):
        transport.all_gather(torch.ones(1), "fold" if transport.rank else "halo")

    with pytest.raises(RankError, match="must run the same model"):
        simulate(2, different)
    with pytest.raises(ConfigError, match="num_ranks"):
        simulate(0, different)


def test_a_plan_that_differs_between_ranks_is_told():
    x = torch.ones(1, 8, 2)

    def work(transport):
        plan = SequencePlan.at([3 + transport.rank], (1, 8))
        shard = RankShard(plan, transport)
        return shard.gather(plan.piece(transport.rank).take(x))

    with pytest.raises(RankError, match="same plan"):
        simulate(2, work)


def test_labels_and_tokens_of_all_pieces_are_those_of_the_batch():
    tokens = torch.randint(0, 9, (1, 12))
    labels, weights = next_tokens(tokens), torch.rand(1, 12)
    plan = SequencePlan.at([5, 5], (1, 12))
    inputs = [plan.piece(rank).model_inputs(tokens, labels, weights) for rank in range(3)]
    assert all(int(one["num_items_in_batch"]) == 11 for one in inputs)
    assert inputs[1]["shift_labels"].tolist() == [[-100]]
    for name, whole in (("input_ids", tokens), ("shift_labels", labels), ("label_weights", weights)):
        assert torch.equal(torch.cat([inputs[rank][name] for rank in (0, 2)], 1), whole)
    assert inputs[1]["attention_mask"].tolist() == [[False]]
