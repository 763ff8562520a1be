"""Plans of sharded sequences, checked token by token on random cuts and documents."""

import random

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.parallel import SequencePlan, next_tokens

T = 40


def random_plan(seed):
    rng = random.Random(seed)
    places = sorted(rng.choices(range(T + 1), k=rng.randint(1, 6)))
    edges = None
    if seed % 3:
        edges = [0, *sorted(rng.sample(range(1, T), rng.randint(0, 6))), T]
    return SequencePlan.at(places, (1, T), cu_seqlens=edges), [0, *places, T], edges or [0, T]


def document(edges, token):
    return sum(edge <= token for edge in edges)


@pytest.mark.parametrize("seed", range(60))
def test_what_a_piece_needs_from_whom_token_by_token(seed):
    plan, cuts, edges = random_plan(seed)
    owner = {t: r for r in range(plan.num_ranks) for t in range(cuts[r], cuts[r + 1])}
    for rank in range(plan.num_ranks):
        cut = cuts[rank]
        inside = rank > 0 if plan.documents is None else cut not in edges
        before = [t for t in range(cut) if inside and document(edges, t) == document(edges, max(cut - 1, 0))]
        assert plan.tokens_before(rank) == (len(before),)
        for limit in (None, 0, 3, 11):
            kept = before if limit is None else before[max(0, len(before) - limit) :]
            want = {r: (sum(owner[t] == r for t in kept),) for r in {owner[t] for t in kept}}
            assert plan.wanted(rank, limit) == want
            assert list(plan.wanted(rank, limit)) == sorted(want, reverse=True)
        piece = plan.piece(rank)
        assert piece.lengths == (cuts[rank + 1] - cut,)
        if plan.documents is not None and piece.lengths[0]:
            numbers = torch.tensor([document(edges, t) for t in range(cut, cuts[rank + 1])])
            assert list(piece.documents) == [
                0,
                *((numbers[1:] != numbers[:-1]).nonzero()[:, 0] + 1).tolist(),
                len(numbers),
            ]


def test_pieces_put_together_are_the_batch():
    x = torch.randn(3, T, 2)
    lengths = torch.tensor([T, 17, 3])
    for mask in (torch.arange(T) < lengths[:, None], torch.arange(T) >= T - lengths[:, None], None):
        for plan in (
            SequencePlan.even(4, (3, T), mask=mask),
            SequencePlan.at([5, 5, 30], (3, T), mask=mask),
        ):
            out = torch.zeros_like(x)
            for rank in range(4):
                piece = plan.piece(rank)
                part = piece.take(x)
                assert part.shape[:2] == (3, piece.num_tokens)
                real = piece.mask()
                if real is not None:
                    assert real.sum(1).tolist() == list(piece.lengths)
                    assert part[~real].abs().max() == 0
                piece.put(part, out)
            assert torch.equal(out, x if mask is None else x * mask[..., None])


def test_even_pieces_differ_by_one_token_at_most():
    plan = SequencePlan.even(7, (2, T), mask=torch.arange(T) < torch.tensor([[T], [10]]))
    for row in range(2):
        lengths = [plan.lengths(rank)[row] for rank in range(7)]
        assert max(lengths) - min(lengths) <= 1


def test_next_tokens_are_shifted_inside_documents_and_rows():
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert next_tokens(tokens).tolist() == [[2, 3, 4, 5, 6, -100]]
    assert next_tokens(tokens, cu_seqlens=[0, 2, 3, 6]).tolist() == [[2, -100, -100, 5, 6, -100]]
    mask = torch.tensor([[0, 1, 1, 1, 0, 0]], dtype=torch.bool)
    assert next_tokens(tokens, mask=mask).tolist() == [[-100, 3, 4, -100, -100, -100]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SequencePlan.even(0, (1, T)), "num_ranks"),
        (lambda: SequencePlan.at([9, 5], (1, T)), "ascending"),
        (lambda: SequencePlan.even(2, (2, T), cu_seqlens=[0, T]), "one row"),
        (lambda: SequencePlan.even(2, (1, T), cu_seqlens=[0, 9]), "end at 9"),
        (lambda: SequencePlan.even(2, (1, T), cu_seqlens=[0, 9, 9, T]), "ascending offsets"),
        (lambda: SequencePlan.even(2, (1, 3), mask=torch.tensor([[True, False, True]])), "between real"),
        (lambda: SequencePlan.even(2, (1, T), cu_seqlens=[0, T], mask=torch.ones(1, T).bool()), "no padding"),
        (lambda: SequencePlan(((0,),)), "one more than ranks"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(make, match):
    with pytest.raises(ConfigError, match=match):
        make()
