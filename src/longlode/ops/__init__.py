"""ops: the mathematics that the models are made of, as functions of tensors. No parameters, no modules.

Holds four rooms, each a function of its own name: `delta_rule` (the recurrence of DeltaNet and Gated
DeltaNet), `linear_attention` (without the delta rule; no decay, one a head, one a channel), `short_conv`
(depthwise causal convolution), `attention` (causal and sliding-window). May import: core and torch.
Import a function from its room (`from longlode.ops.delta_rule import delta_rule`); it is not repeated here,
where it would hide the room. Start reading: `delta_rule/reference.py` (the equations), then
`delta_rule/README.md`. What ops share: `backends.py` (which implementation a call takes; `used_backends()` says which
were taken so far), `surroundings.py` (transforms and tracers around a call), `packed.py` (`Offsets` of documents),
`chunking/` (sequences in chunks), `dtypes.py`.
"""

from longlode.ops.backends import used_backends

__all__ = ["used_backends"]
