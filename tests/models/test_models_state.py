"""A state on disk: what goes on from it is what would have followed, and nobody else's state is taken."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from longlode.core.errors import ConfigError, InputError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM

EXACT = {"rtol": 0, "atol": 1e-11}


def tiny(mixers, seed=0, **fields):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(**sizes, mixers=mixers, intermediate_size=48, initializer_range=0.3, **fields)
    return LonglodeForCausalLM(config).double().eval()


def tokens(rows, length, seed=1):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stack", ["DD", "GS", "SA", "DAG", "LCM"])
def test_resumed_is_one_shot_token_by_token(stack, tmp_path):
    model, x = tiny(stack), tokens(2, 60)
    with torch.no_grad():
        want = model(x).logits[:, 50:]
        model(x[:, :50], past_key_values=(cache := LonglodeCache(len(stack))))
        cache.save(tmp_path / "state", model=model)
        again = LonglodeCache.load(tmp_path / "state", model=tiny(stack))
        assert (again.num_positions, again.batch_size) == (50, 2)
        got = [model(x[:, t : t + 1], past_key_values=again).logits for t in range(50, 60)]
        torch.testing.assert_close(torch.cat(got, 1), want, **EXACT)
        # What was read back is untouched by reading on from what was kept, and the other way round.
        torch.testing.assert_close(model(x[:, 50:], past_key_values=cache.copy()).logits, want, **EXACT)
        torch.testing.assert_close(model(x[:, 50:], past_key_values=cache).logits, want, **EXACT)


def test_generate_goes_on_from_the_new_tokens_alone(tmp_path):
    model, x = tiny("DA"), tokens(1, 30)
    model(x[:, :25], past_key_values=(cache := LonglodeCache(2)))
    cache.save(tmp_path / "state", model=model)
    cache = LonglodeCache.load(tmp_path / "state", model=model)
    options = {"max_new_tokens": 8, "do_sample": False}
    mask = torch.ones(1, 30, dtype=torch.int64)
    got = model.generate(x[:, 25:], attention_mask=mask, past_key_values=cache, **options)
    assert torch.equal(got[:, 5:], model.generate(x, **options)[:, 30:])


def test_the_file_does_not_grow_with_the_text(tmp_path):
    for stack, grows in (("DGSLCM", False), ("DA", True)):
        model, sizes = tiny(stack), []
        for length in (100, 200):
            cache = model(tokens(1, length)).past_key_values
            cache.save(tmp_path / "state", model=model)
            sizes.append((tmp_path / "state").stat().st_size)
            assert sizes[-1] - cache.num_bytes < 4096
        assert (sizes[1] > sizes[0]) == grows, stack


@pytest.mark.parametrize(
    ("other", "changes"),
    [("weights", {"seed": 1}), ("window", {"window": 6}), ("rope", {"rope_theta": 9.0})],
)
def test_another_models_state_is_refused(other, changes, tmp_path):
    model = tiny("SD")
    model(tokens(1, 9), past_key_values=(cache := LonglodeCache(2)))
    cache.save(tmp_path / "state", model=model)
    seed = changes.pop("seed", 0)
    torch.manual_seed(seed)
    fields = {**model.config.to_dict(), **changes}
    stranger = LonglodeForCausalLM(LonglodeConfig(**fields)).double()
    with pytest.raises(InputError, match="the state of another model"):
        LonglodeCache.load(tmp_path / "state", model=stranger)
    with pytest.raises(InputError, match="the state of another model"):
        LonglodeCache.load(tmp_path / "state", model=tiny("SD").float())


def test_files_that_are_no_state_are_refused(tmp_path):
    model, path = tiny("D"), tmp_path / "state"
    with pytest.raises(ConfigError, match="empty cache"):
        LonglodeCache(1).save(path, model=model)
    with pytest.raises(InputError, match="cannot be read"):
        LonglodeCache.load(path, model=model)
    path.write_text("text")
    with pytest.raises(InputError, match="cannot be read"):
        LonglodeCache.load(path, model=model)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="without the state"):
        LonglodeCache.load(path, model=model)
    cache = model(tokens(1, 9)).past_key_values
    cache.save(path, model=model)
    with safe_open(path, "pt") as file:
        header = file.metadata()["longlode_state"]
    for wrong, said in (
        (header.replace('"version":1', '"version":2'), "version 2"),
        (header.replace('"num_layers":1', '"num_layers":0'), "cannot be read"),
        ("{", "cannot be read"),
    ):
        save_file({"layers.0.memory": torch.zeros(1)}, path, metadata={"longlode_state": wrong})
        with pytest.raises(InputError, match=said):
            LonglodeCache.load(path, model=model)
    with pytest.raises(InputError, match="cannot be written"):
        cache.save(tmp_path, model=model)
