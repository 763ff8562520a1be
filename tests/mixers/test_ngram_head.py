"""The n-gram head: against plain loops over all pairs of tokens, and as a layer of a model."""

import itertools
import random

import pytest
import torch
from mixer_laws import LAWS, D, T, build, inputs, packed

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, SequenceContext
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM

CASES = [("1 2 3", None), ("1 2 3", 1), ("2 4", 3), ("1", None), ("3", 2)]
EXACT = {"rtol": 0, "atol": 1e-11}


def config_of(ngrams, matches):
    return MIXERS.get("ngram_head").from_settings({"ngrams": ngrams, "matches": matches})


def by_hand(mixer, x, ids):
    """y of one document x `[T, D]` with the given ids, a pair of tokens at a time."""
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    output = []
    for t in range(len(x)):
        y = weights["own_proj.weight"] @ x[t]
        for place, n in enumerate(mixer.config.sizes):
            behind = []
            for s in range(n, t):
                if t >= n - 1 and all(ids[s - 1 - k] == ids[t - k] for k in range(n)):
                    behind.append(x[s])
            behind = behind[-mixer.config.matches :] if mixer.config.matches else behind
            if behind:
                part = weights["match_proj.weight"][:, place * D : (place + 1) * D]
                y = y + part @ (sum(behind) / len(behind))
        output.append(y)
    return torch.stack(output)


def some_ids(seed, *shape):
    rng = random.Random(seed)
    count = int(torch.tensor(shape).prod())
    return torch.tensor([rng.choice([0, 1, 2, 500, 40_000]) for _ in range(count)]).view(shape)


@pytest.mark.parametrize(("ngrams", "matches"), CASES)
def test_against_plain_loops(ngrams, matches):
    mixer, seed = build(config_of(ngrams, matches)), random.randrange(10**6)
    forward = type(mixer).forward
    x, ids = inputs(2, 60, seed), some_ids(seed, 2, 60)
    y = forward(mixer, x, None, SequenceContext.of(x, token_ids=ids)).y
    for row in range(2):
        want = by_hand(mixer, x[row], ids[row].tolist())
        torch.testing.assert_close(y[row], want, **EXACT, msg=f"seed {seed}")
    offsets = [0, 1, 3, 20, 60]
    y = forward(mixer, x[:1], None, packed(x[:1], offsets, token_ids=ids[:1], keeps_state=False)).y[0]
    for start, stop in itertools.pairwise(offsets):
        want = by_hand(mixer, x[0, start:stop], ids[0, start:stop].tolist())
        torch.testing.assert_close(y[start:stop], want, **EXACT, msg=f"seed {seed}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("law", LAWS)
def test_the_laws_at_other_settings(case, law):
    law(build(config_of(*case)))


def test_half_precision_keeps_means_of_many_matches():
    """Running sums over a long text lose nothing that the mean shows."""
    mixer = config_of("1", None).build(4).bfloat16()
    x = torch.full((1, 6000, 4), 3.0, dtype=torch.bfloat16)
    ids = torch.zeros(1, 6000, dtype=torch.int64)
    found = mixer._retrieve(ids, x, None, SequenceContext.of(x, token_ids=ids))
    assert (found[0, 2:] == 3).all()
    assert (found[0, :2] == 0).all()


def test_operations_per_token():
    dense = 2 * D * D + 2 * D * 3 * D
    assert build(config_of("1 2 3", None)).flops_per_token(T) == dense + 2 * 3 * D
    assert build(config_of("1 2 3", 4)).flops_per_token(T) == dense + 2 * 4 * 3 * D


@pytest.mark.parametrize("ngrams", ["", "0 1", "2 1", "1 1", "1,2", "one", "1 65", "-1"])
def test_sizes_that_cannot_be(ngrams):
    with pytest.raises(ConfigError, match="ngrams is"):
        config_of(ngrams, None)


def test_without_token_ids_it_refuses():
    config = LonglodeConfig(vocab_size=30, hidden_size=16, num_heads=2, layers=["ngram_head"])
    model = LonglodeForCausalLM(config)
    with pytest.raises(ConfigError, match="compares token ids"):
        model(inputs_embeds=torch.randn(1, 4, 16))


def test_a_model_learns_to_copy_in_a_few_steps_and_writes_on():
    """Random text twice: what comes the second time cannot be known but by copying."""
    torch.manual_seed(0)
    layers = [{"mixer": "ngram_head", "ngrams": "2"}, "delta_net"]
    config = LonglodeConfig(
        vocab_size=40,
        hidden_size=32,
        num_heads=2,
        layers=layers,
        intermediate_size=64,
        initializer_range=0.15,
    )
    model = LonglodeForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        half = torch.randint(40, (8, 30))
        text = torch.cat([half, half], 1)
        logits = model(text).logits[:, 33:-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 34:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.detach() < 0.5, "log 40 is 3.7"
    model.eval()
    half = torch.randint(40, (1, 30))
    prompt = torch.cat([half, half[:, :10]], 1)
    written = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, 40:]
    assert (written == half[0, 10:22]).float().mean() > 0.8
    assert written.tolist() == _greedy_without_cache(model, prompt, 12)


def _greedy_without_cache(model, prompt, count):
    for _ in range(count):
        following = model(prompt, use_cache=False).logits[:, -1:].argmax(-1)
        prompt = torch.cat([prompt, following], 1)
    return prompt[0, -count:].tolist()


def test_a_saved_state_goes_on(tmp_path):
    torch.manual_seed(0)
    config = LonglodeConfig(vocab_size=9, hidden_size=16, num_heads=2, layers=["delta_net", "ngram_head"])
    model, text = LonglodeForCausalLM(config).eval(), torch.randint(9, (2, 50))
    cache = LonglodeCache(2)
    with torch.inference_mode():
        whole = model(text).logits
        model(text[:, :31], cache=cache)
        cache.save(tmp_path / "state", model=model)
        again = LonglodeCache.load(tmp_path / "state", model=model)
        rest = model(text[:, 31:], cache=again).logits
    torch.testing.assert_close(rest, whole[:, 31:], rtol=0, atol=1e-5)
