"""Generation with landmarks, and with blocks on disk, against the same in memory."""

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM
from longlode.models.landmarks import (
    LandmarkProcessor,
    blocks_on_disk,
    with_landmarks,
    without_landmarks,
)

VOCAB, MARK, G = 23, 22, 4


def model_of(num_retrieved=2):
    torch.manual_seed(2)
    layers = [{"mixer": "landmark", "block_size": G, "num_retrieved": num_retrieved}] * 2
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24}
    return LonglodeForCausalLM(LonglodeConfig(layers=layers, initializer_range=0.3, **sizes)).double().eval()


def text(rows=2, length=31, seed=0):
    return torch.randint(MARK, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_landmarks_go_in_and_out():
    ids = text()
    marked = with_landmarks(ids, MARK, G)
    wanted = []
    for row in ids.tolist():
        out = []
        for token in row:
            out.append(token)
            if len(out) % G == G - 1:
                out.append(MARK)
        wanted.append(out)
    assert marked.tolist() == wanted
    assert torch.equal(without_landmarks(marked, G), ids)
    with pytest.raises(ConfigError, match="block_size is 1"):
        with_landmarks(ids, MARK, 1)


def test_generation_writes_landmarks_where_blocks_end(tmp_path):
    model, prompt = model_of(), with_landmarks(text(), MARK, G)
    options = {"max_new_tokens": 14, "do_sample": False, "logits_processor": [LandmarkProcessor(MARK, G)]}
    written = model.generate(prompt, **options)
    ends = torch.arange(written.shape[1]) % G == G - 1
    assert torch.equal(written == MARK, ends.expand_as(written))
    with blocks_on_disk(model, tmp_path / "blocks"):
        again = model.generate(prompt, **options)
        files = list((tmp_path / "blocks").rglob("*.bin"))
        assert {file.parent.name for file in files} == {"layer_0", "layer_1"}
        assert sum(file.stat().st_size for file in files) >= 2 * 2 * written[:, 1:].numel() * 16 * 8
    assert torch.equal(again, written)
    assert not list((tmp_path / "blocks").rglob("*.bin"))


@pytest.mark.parametrize("num_retrieved", [None, 1, 50])
def test_blocks_on_disk_give_what_blocks_in_memory_give(tmp_path, num_retrieved):
    """Pieces of any size, padded rows, a cache from before, a copy that goes another way, rows in another order."""
    model, ids = model_of(num_retrieved), text(3, 40)
    mask = torch.ones_like(ids)
    mask[1, :5], mask[2, :13] = 0, 0

    def read(cache, start, stop, tokens=ids):
        part = mask[:, :stop]
        return model(tokens[:, start:stop], attention_mask=part, past_key_values=cache).logits

    def story(wrapped):
        cache = LonglodeCache(2)
        found = [read(cache, 0, 9)]
        with wrapped():
            found += [read(cache, 9, 10), read(cache, 10, 17)]
            other = cache.copy()
            found += [read(cache, 17, 30), read(other, 17, 23, ids.flip(0)), read(cache, 30, 31)]
            found += [read(other, 23, 24)]
            swapped = cache.select(torch.tensor([0, 2, 1]))
            kept = {name: value.clone() for name, value in swapped.layers[1].state.items()}
            found += [model(ids[:, :2], past_key_values=swapped).logits, read(cache, 31, 40)]
        return found, kept

    with torch.inference_mode():
        wanted, states = story(lambda: torch.inference_mode())
        got, own = story(lambda: blocks_on_disk(model, tmp_path))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    torch.testing.assert_close(own["landmark_k"], states["landmark_k"], rtol=0, atol=1e-12)


def test_what_cannot_be_on_disk_is_refused(tmp_path):
    model = LonglodeForCausalLM(LonglodeConfig(mixers="DA", vocab_size=9, hidden_size=8, num_heads=2))
    with pytest.raises(ConfigError, match="landmark"), blocks_on_disk(model, tmp_path):
        pass
    with blocks_on_disk(model_of(), tmp_path) as on_disk, pytest.raises(ConfigError, match="gradients"):
        on_disk(text())
