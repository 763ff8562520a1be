"""The student of a transformer begins with its weights."""

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.student import student_of

VOCAB = 19


def transformer(mixers="AS", **settings):
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_heads": 4, "intermediate_size": 24, "window": 5}
    return LonglodeForCausalLM(LonglodeConfig(mixers=mixers, initializer_range=0.3, **sizes, **settings))


def test_a_student_has_the_teachers_weights():
    teacher = transformer("ADS", num_kv_heads=2)
    student = student_of(teacher)
    assert [layer.name for layer in student.config.layer_configs] == ["conv_gla", "delta_net", "conv_gla"]
    theirs, own = teacher.state_dict(), student.state_dict()
    for name, weight in own.items():
        if name.endswith(("k_proj.weight", "v_proj.weight")) and ".1." not in name:
            # Query heads 0 and 1 shared the first head of keys, 2 and 3 the second.
            first, second = theirs[name].chunk(2)
            assert torch.equal(weight, torch.cat((first, first, second, second)))
        elif name in theirs:
            assert torch.equal(weight, theirs[name]), name
    assert student.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, do_sample=False).shape == (1, 6)
    again = LonglodeForCausalLM(student.config)
    again.load_state_dict(own)


def test_convolutions_begin_as_the_identity():
    """The first layer's queries and keys are those that the teacher would see, through silu and elu + 1."""
    teacher = transformer("A")
    mixer = student_of(teacher).model.layers[0].attn
    x = torch.randn(2, 7, 16)
    q, _ = mixer.q_conv1d(mixer.q_proj(x))
    torch.testing.assert_close(q, torch.nn.functional.silu(teacher.model.layers[0].attn.q_proj(x)))


@pytest.mark.parametrize(
    ("teacher", "mixer", "word"),
    [
        ({"mixers": "DG"}, "conv_gla", "no softmax attention"),
        ({"qkv_bias": True}, "conv_gla", "without biases"),
        ({}, "s4d", "head_dim"),
    ],
)
def test_what_cannot_be_a_student_is_refused(teacher, mixer, word):
    with pytest.raises(ConfigError, match=word):
        student_of(transformer(**teacher), mixer)
