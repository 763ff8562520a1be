"""The backbone as a Hugging Face model: files, loss, gradients, packing. Exact in float64 on tiny models."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from longlode.core.errors import ConfigError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM, LonglodeModel
from longlode.models import loss as loss_module
from longlode.models.loss import next_token_loss

STACKS = ["DD", "GD", "DS", "DA", "SA"]


def tiny(mixers="DSGA", seed=0, **fields):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(mixers=mixers, intermediate_size=48, initializer_range=0.3, **{**sizes, **fields})
    return LonglodeForCausalLM(config).double().eval()


def tokens(rows=2, length=13, seed=1):
    return torch.randint(0, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [False, True])
def test_saved_and_loaded_bit_for_bit(tmp_path, tied):
    model = tiny(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is LonglodeForCausalLM
    assert again.dtype == torch.float64
    assert (again.lm_head.weight is again.model.embeddings.weight) == tied
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    # The file's weights lie elsewhere in memory, which the CPU's matrix products round differently.
    torch.testing.assert_close(again(tokens()).logits, model(tokens()).logits, rtol=0, atol=1e-12)
    backbone = AutoModel.from_pretrained(tmp_path)
    assert type(backbone) is LonglodeModel
    want = model.model(tokens()).last_hidden_state
    torch.testing.assert_close(backbone(tokens()).last_hidden_state, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixers", ["DG", "MS", "DS"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_built_in_a_dtype_has_decays_of_float32_or_wider(mixers, dtype):
    config = LonglodeConfig(mixers=mixers, vocab_size=40, hidden_size=16, num_heads=2, intermediate_size=48)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    decays = {"A_log", "dt_bias"} if set(mixers) & set("GM") else set()
    assert model._keep_in_fp32_modules_strict == decays
    for name, weight in model.named_parameters():
        wide = name.rpartition(".")[2] in decays and dtype != torch.float64
        assert weight.dtype == (torch.float32 if wide else dtype), name


def test_half_precision_keeps_decays_wide(tmp_path):
    tiny("DG").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    assert kept == {"model.layers.1.attn.A_log", "model.layers.1.attn.dt_bias"}
    logits = model(tokens()).logits
    assert logits.dtype == torch.bfloat16
    exact = AutoModelForCausalLM.from_pretrained(tmp_path)(tokens()).logits
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()


def test_parameter_names_are_flas():
    names = set(tiny("D").state_dict())
    layer = "model.layers.0."
    expected = {f"{layer}attn.{x}_proj.weight" for x in "qkvbo"} | {
        f"{layer}attn.{x}_conv1d.weight" for x in "qkv"
    }
    expected |= {f"{layer}mlp.{x}_proj.weight" for x in ("gate", "up", "down")}
    expected |= {f"{layer}{x}.weight" for x in ("attn_norm", "mlp_norm", "attn.o_norm")}
    expected |= {"model.embeddings.weight", "model.norm.weight", "lm_head.weight"}
    assert names == expected
    assert tiny("D").model.layers[0].attn.q_conv1d.weight.shape == (24, 1, 4)


def test_initial_values():
    torch.manual_seed(0)
    model = LonglodeForCausalLM(LonglodeConfig(vocab_size=500, hidden_size=128, num_heads=2, mixers="DG"))
    for name, value in model.named_parameters():
        if "norm" in name:
            assert (value == 1).all(), name
        elif name.endswith("A_log"):
            assert ((value.exp() >= 1) & (value.exp() <= 16)).all()
        elif name.endswith("dt_bias"):
            step = torch.nn.functional.softplus(value)
            assert ((step > 0.99e-3) & (step < 1.01e-1)).all()
        else:
            assert abs(value.std() / 0.02 - 1) < 0.15, name
            assert abs(value.mean()) < 0.003, name


def test_convolutions_of_mamba_keep_the_size_of_their_input():
    """As its published models: uniform in +-1/2 for four taps; of the delta rule normal, as in fla."""
    torch.manual_seed(0)
    model = LonglodeForCausalLM(LonglodeConfig(vocab_size=50, hidden_size=128, num_heads=2, mixers="MD"))
    mamba, delta = (block.attn for block in model.model.layers)
    for conv in (mamba.x_conv1d, mamba.bc_conv1d):
        assert abs(float(conv.weight.detach().std()) * 12**0.5 - 1) < 0.1
        assert conv.weight.detach().abs().max() <= 0.5
    assert abs(float(delta.v_conv1d.weight.detach().std()) / 0.02 - 1) < 0.15


def test_a_stack_of_full_attention_is_a_llama():
    ours = tiny("AAA")
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        attn_implementation="eager",
    )
    llama = LlamaForCausalLM(config).double().eval()
    renamed = {}
    for name, value in ours.state_dict().items():
        for old, new in (
            ("embeddings", "embed_tokens"),
            ("attn_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
            (".attn.", ".self_attn."),
        ):
            name = name.replace(old, new)
        renamed[name] = value
    llama.load_state_dict(renamed)
    # Llama normalises in float32 whatever the dtype, hence not tighter.
    torch.testing.assert_close(ours(tokens()).logits, llama(tokens()).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("block_logits", [1 << 24, 130])
def test_loss_and_gradients_equal_plain_cross_entropy(monkeypatch, block_logits):
    monkeypatch.setattr(loss_module, "_CHUNK_LOGITS", block_logits)
    model, x = tiny(), tokens()
    labels = x.clone()
    labels[0, 4:7] = -100
    parameters = list(model.parameters())
    logits = model(x).logits
    plain = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    wanted = torch.autograd.grad(plain, parameters)
    model.train()
    out = model(x, labels=labels)
    assert out.logits is None
    torch.testing.assert_close(out.loss, plain, rtol=0, atol=1e-12)
    for got, want in zip(torch.autograd.grad(out.loss, parameters), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    shifted = torch.cat((labels[:, 1:], torch.full((2, 1), -100)), 1)
    torch.testing.assert_close(model(x, shift_labels=shifted).loss, plain, rtol=0, atol=1e-12)
    count = (shifted != -100).sum()
    torch.testing.assert_close(model(x, labels=labels, num_items_in_batch=2 * count).loss, plain / 2)


def test_loss_with_nothing_asked_is_zero():
    hidden = torch.randn(1, 3, 4, requires_grad=True)
    loss = next_token_loss(hidden, torch.nn.Linear(4, 7, bias=False), torch.full((1, 3), -100))
    assert loss == 0
    assert torch.autograd.grad(loss, hidden)[0].abs().max() == 0


def test_second_derivatives_are_refused_not_wrong():
    model, x = tiny("A").train(), tokens()
    with pytest.raises(ConfigError, match="second derivative"):
        torch.autograd.grad(model(x, labels=x).loss, model.lm_head.weight, create_graph=True)


def test_gradient_checkpointing_changes_nothing():
    model, x = tiny(), tokens()
    model.train()
    wanted = torch.autograd.grad(model(x, labels=x).loss, list(model.parameters()))
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    got = torch.autograd.grad(model(x, labels=x).loss, list(model.parameters()))
    assert len(calls) == 2, "the block should have run again in backward"
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stack", STACKS)
def test_packed_equals_separate(stack):
    model, x = tiny(stack), tokens(1, 14)
    offsets = [0, 5, 6, 14]
    cu_seqlens = torch.tensor(offsets, dtype=torch.int32)
    packed = model(x, labels=x, cu_seqlens=cu_seqlens)
    separate = [model(x[:, a:b]).logits for a, b in ((0, 5), (5, 6), (6, 14))]
    torch.testing.assert_close(packed.logits, torch.cat(separate, 1), rtol=0, atol=1e-11)
    losses = [
        torch.nn.functional.cross_entropy(logits[0, :-1], x[0, a + 1 : b], reduction="sum")
        for logits, (a, b) in zip(separate, ((0, 5), (5, 6), (6, 14)), strict=True)
    ]
    torch.testing.assert_close(packed.loss, sum(losses) / (14 - 3), rtol=0, atol=1e-11)
    assert packed.past_key_values is None


def test_hidden_states_and_kept_logits():
    model, x = tiny("DS"), tokens()
    out = model(x, output_hidden_states=True)
    assert len(out.hidden_states) == 3
    assert torch.equal(out.hidden_states[0], model.model.embeddings(x))
    assert torch.equal(out.hidden_states[-1], model.model(x).last_hidden_state)
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)
    torch.testing.assert_close(model(x, logits_to_keep=2).logits, out.logits[:, -2:])
    torch.testing.assert_close(model(x, logits_to_keep=torch.tensor([0, 5])).logits, out.logits[:, [0, 5]])
    embedded = model(inputs_embeds=model.model.embeddings(x))
    assert torch.equal(embedded.logits, out.logits)
    as_tuple = model(x, return_dict=False)
    assert torch.equal(as_tuple[0], out.logits)


def test_training_keeps_no_cache_unless_asked():
    model, x = tiny("DA").train(), tokens()
    assert model(x).past_key_values is None
    assert model(x, use_cache=True).past_key_values.num_positions == 13
    assert model.eval()(x).past_key_values.num_positions == 13
    assert model(x, use_cache=False).past_key_values is None


def test_trainer_trains_and_evaluates(tmp_path):
    model = tiny("DS").float()
    rows = [{"input_ids": row, "labels": row} for row in tokens(8)]
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
    arguments = TrainingArguments(
        tmp_path, max_steps=4, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **options
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    assert before == pytest.approx(model.eval()(tokens(8), labels=tokens(8)).loss.item(), rel=1e-5)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert trainer.predict(rows).predictions.shape == (8, 13, 40)


def test_contradictory_inputs_are_refused():
    model, x = tiny("DA"), tokens()
    offsets = torch.tensor([0, 13])
    for said, inputs in {
        "exactly one": {},
        "batch of 2 rows": {"input_ids": x, "cu_seqlens": offsets},
        "output_attentions": {
            "input_ids": x[:1],
            "cu_seqlens": offsets,
            "use_cache": True,
            "output_attentions": True,
        },
        "attention_mask has shape": {"input_ids": x, "attention_mask": torch.ones(2, 5)},
        "has 3 layers and the model 2": {"input_ids": x, "past_key_values": LonglodeCache(3)},
    }.items():
        with pytest.raises(ConfigError, match=said):
            model(**inputs)
