"""One training step on one rank and on several simulated ones, and what the parallel tests compare."""

import torch

from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.parallel import RankShard, SequencePlan, next_tokens, simulate

VOCAB = 50
SHARED = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "window": 5}


def model_of(*layers, dtype=torch.float64, scale=0.3, **settings):
    """A model whose parameters are large enough that every part of it matters (scale None: as initialised)."""
    config = LonglodeConfig(
        vocab_size=VOCAB, hidden_size=24, layers=list(layers), intermediate_size=32, **{**SHARED, **settings}
    )
    model = LonglodeForCausalLM(config).to(dtype).train()
    if scale is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, scale)
            for block in model.model.layers:
                for name, value in block.attn.initial_values().items():
                    block.attn.get_parameter(name).copy_(value)
    return model


class Case:
    """A batch and a plan: `rows` rows of `tokens`, cut at `places`, or evenly for this number of ranks.

    prefixes: give every document a prefix, of none to all of its tokens.
    """

    def __init__(self, rows, num_tokens, places, documents=None, lengths=None, prefixes=False):
        self.tokens = torch.randint(0, VOCAB, (rows, num_tokens))
        self.cu_seqlens = None if documents is None else torch.tensor(documents, dtype=torch.int32)
        self.mask = None
        if lengths is not None:
            self.mask = torch.arange(num_tokens) < torch.tensor(lengths)[:, None]
        facts = {"cu_seqlens": self.cu_seqlens, "mask": self.mask}
        self.labels = next_tokens(self.tokens, **facts)
        self.prefix_lengths = None
        if prefixes:
            sizes = (
                torch.tensor(documents).diff() if documents else torch.tensor(lengths or [num_tokens] * rows)
            )
            self.prefix_lengths = (sizes * torch.rand(len(sizes))).round().long()
        if isinstance(places, int):
            self.plan = SequencePlan.even(places, self.tokens.shape, **facts)
        else:
            self.plan = SequencePlan.at(places, self.tokens.shape, **facts)

    def one_rank(self, model):
        """Loss and gradients of one rank."""
        loss = model(
            input_ids=self.tokens,
            attention_mask=self.mask,
            cu_seqlens=self.cu_seqlens,
            shift_labels=self.labels,
            num_items_in_batch=(self.labels != -100).sum(),
            prefix_lengths=self.prefix_lengths,
        ).loss
        return loss.detach(), gradients(loss, model)

    def several_ranks(self, model, attention="gather", states="fold", shard=RankShard):
        """Loss and gradients, summed over ranks, and the traffic of each."""

        def work(transport):
            inputs = self.plan.piece(transport.rank).model_inputs(
                self.tokens, self.labels, prefix_lengths=self.prefix_lengths
            )
            loss = model(**inputs, shard=shard(self.plan, transport, attention, states)).loss
            return loss.detach(), gradients(loss, model), transport.traffic

        losses, grads, traffic = zip(*simulate(self.plan.num_ranks, work, timeout_s=30), strict=True)
        return sum(losses), [sum(parts) for parts in zip(*grads, strict=True)], traffic


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)


def assert_same_step(got, want, tolerance=1e-12):
    """Loss within the tolerance, relative; every gradient too, relative to its norm (or, if that is 0, absolute)."""
    assert (got[0] - want[0]).abs() <= tolerance * want[0].abs(), (got[0], want[0])
    for one, other in zip(got[1], want[1], strict=True):
        norm = other.norm()
        assert (one - other).norm() <= tolerance * (norm if norm > 0 else 1), (one.shape, one.norm(), norm)


def relative_difference(got, want):
    """Of all gradients together, in the norm."""
    flat = [torch.cat([x.double().flatten() for x in one[1]]) for one in (got, want)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


FEW_CASES = (
    "three ranks, padded rows, each cut by its own length",
    "documents: one on three ranks, one of one token, one that ends at a cut",
)
CASES = {
    "four ranks, two rows, pieces of 2 to 15 tokens": (2, 37, [9, 11, 24]),
    "an empty piece of two rows": (2, 37, [4, 4, 24]),
    "two ranks": (1, 37, [20]),
    "three ranks, padded rows, each cut by its own length": (3, 37, 3, None, [37, 20, 2]),
    "documents: one on three ranks, one of one token, one that ends at a cut": (
        1,
        37,
        [6, 14, 22],
        [0, 5, 6, 30, 37],
    ),
    "documents: an empty piece inside one": (1, 37, [3, 3, 31], [0, 5, 6, 30, 37]),
    "documents: empty pieces at both ends": (1, 37, [0, 30, 37], [0, 30, 37]),
    "documents: pieces of one token": (1, 37, [10, 11, 12], [0, 4, 37]),
}
