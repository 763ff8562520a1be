"""States that grow in place: the tensors of torch.cat, and no state is changed by what continues it."""

import contextlib
import copy
import io
import pickle

import mixer_laws as laws
import pytest
import torch

from longlode.mixers import MIXERS
from longlode.mixers.growing import append

SETTINGS = {"attention": {"num_heads": 4, "head_dim": 4}, "ngram_head": {"matches": 2}}
MODES = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "gradients": contextlib.nullcontext}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_appending_is_concatenation(mode, shape):
    pieces = [torch.randn(2, length, *shape) for length in (3, 1, 1, 0, 70, 1, 300, 1)]
    with MODES[mode]():
        state = pieces[0]
        for number, piece in enumerate(pieces[1:], 2):
            state = append(state, piece)
            assert torch.equal(state, torch.cat(pieces[:number], dim=1))


@torch.no_grad()
def test_continuations_of_one_state_do_not_disturb_one_another():
    base = append(torch.randn(1, 4, 3), torch.randn(1, 2, 3))
    kept, news = base.clone(), torch.randn(3, 1, 1, 3)
    branches = [append(base, new) for new in news]
    further = [append(branch, new) for branch, new in zip(branches, news.flip(0), strict=True)]
    for new, branch, last, leaf in zip(news, branches, news.flip(0), further, strict=True):
        assert torch.equal(branch, torch.cat((kept, new), 1))
        assert torch.equal(leaf, torch.cat((kept, new, last), 1))
    assert torch.equal(base, kept)


@torch.no_grad()
def test_a_token_is_written_behind_the_others_without_copying_them():
    state = append(torch.randn(1, 1000, 2), torch.randn(1, 1, 2))
    after = append(state, torch.randn(1, 1, 2))
    assert after.data_ptr() == state.data_ptr()
    assert after.untyped_storage().nbytes() <= 1.3 * after.nbytes


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@torch.no_grad()
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state)), saved_and_loaded]
)
def test_a_copy_goes_on_by_itself(copied):
    state = append(torch.randn(1, 4, 3), torch.randn(1, 2, 3))
    other, expected = copied(state), state.clone()
    ours, theirs = append(state, torch.zeros(1, 1, 3)), append(other, torch.ones(1, 1, 3))
    assert torch.equal(ours, torch.cat((expected, torch.zeros(1, 1, 3)), 1))
    assert torch.equal(theirs, torch.cat((expected, torch.ones(1, 1, 3)), 1))


@torch.no_grad()
@pytest.mark.parametrize(
    "new", [torch.randn(2, 1, 3, dtype=torch.float64), torch.randn(1, 1, 3), torch.randn(2, 1, 1)]
)
def test_what_does_not_fit_is_treated_as_by_torch_cat(new):
    state = append(torch.randn(2, 4, 3), torch.randn(2, 1, 3))
    if new.dtype == torch.float64:
        assert torch.equal(append(state, new), torch.cat((state, new), 1))
    else:
        with pytest.raises(RuntimeError, match="must match"):
            append(state, new)


@torch.no_grad()
def test_a_state_with_other_data_continues_those():
    state, other = append(torch.randn(1, 4, 3), torch.randn(1, 1, 3)), torch.randn(1, 5, 3)
    state.data = other
    new = torch.randn(1, 1, 3)
    assert torch.equal(append(state, new), torch.cat((other, new), 1))


def test_a_graph_that_reads_a_state_survives_its_continuation():
    with torch.no_grad():
        state = append(torch.randn(1, 4, 3), torch.randn(1, 1, 3))
    weight = torch.randn(3, requires_grad=True)
    loss = (state * weight).square().sum()
    with torch.no_grad():
        append(state, torch.randn(1, 1, 3))
    loss.backward()
    torch.testing.assert_close(weight.grad, (2 * weight * state.square().sum((0, 1))).detach())


def test_a_state_made_in_inference_mode_goes_on_outside():
    with torch.inference_mode():
        state = append(torch.randn(1, 4, 3), torch.randn(1, 1, 3))
    with torch.no_grad():
        assert append(state, torch.zeros(1, 1, 3)).shape == (1, 6, 3)


@pytest.mark.parametrize("name", ["attention", "ngram_head"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "law", [laws.pieces, laws.steps, laws.packing_from_states, laws.left_padding, laws.states_are_left_alone]
)
def test_the_laws_of_states_hold_where_states_grow_in_place(name, mode, law):
    mixer = laws.build(MIXERS.get(name).from_settings(SETTINGS[name]))
    with mode():
        law(mixer)
