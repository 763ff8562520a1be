"""torchao: int8 weights by `quantize_` and by a config at load time, a quantised head, the loss through it."""

import pytest
import torch
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
from transformers import AutoModelForCausalLM, TorchAoConfig

from peers import tiny

PACKAGES = ("torchao", "transformers")


def loss_and_logits(model):
    ids = tiny.token_rows()
    with torch.no_grad():
        outputs = model(input_ids=ids, labels=ids)
        return outputs.loss, outputs.logits


@pytest.mark.parametrize("settings", [Int8WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig])
@pytest.mark.parametrize("mixers", ["DS", "GA", "MC"])
def test_a_quantised_model_is_near_the_plain_one(mixers, settings):
    """Every linear layer is quantised, the head with it, and the loss is that of the quantised logits."""
    plain_loss, plain = loss_and_logits(tiny.model(mixers))
    model = tiny.model(mixers)
    quantize_(model, settings())
    assert type(model.lm_head.weight.data) is not torch.Tensor, "the head is quantised"
    loss, logits = loss_and_logits(model)
    assert 0 < float((logits - plain).norm() / plain.norm()) < 0.05
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tiny.token_rows()[:, 1:].flatten()
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert abs(float(loss - plain_loss)) < 0.05
    written = model.generate(tiny.token_rows(), max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert written.shape == (2, 44)


def test_quantised_while_loading(model_folder):
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
    )
    plain = AutoModelForCausalLM.from_pretrained(model_folder)
    difference = (loss_and_logits(model)[1] - loss_and_logits(plain)[1]).norm()
    assert 0 < float(difference / loss_and_logits(plain)[1].norm()) < 0.05
