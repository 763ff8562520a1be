"""ops: the mathematics that the models are made of, as functions of tensors. No parameters, no modules.

Holds `delta_rule` (the recurrence of DeltaNet and Gated DeltaNet), `short_conv` (depthwise causal convolution) and
`attention` (causal and sliding-window attention). May import: core and torch.
Start reading: `delta_rule/reference.py` (the equations), then `delta_rule/README.md` (how the fast form follows).
"""

from longlode.ops.attention import attention
from longlode.ops.delta_rule import available_backends, delta_rule, delta_rule_step
from longlode.ops.short_conv import short_conv, short_conv_step

__all__ = [
    "attention",
    "available_backends",
    "delta_rule",
    "delta_rule_step",
    "short_conv",
    "short_conv_step",
]
