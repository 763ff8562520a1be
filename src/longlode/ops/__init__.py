"""ops: the numerical operations of the models, as functions of tensors. No parameters, no modules.

Holds five packages, each with a function of its name: `delta_rule` (the recurrence of DeltaNet and Gated
DeltaNet), `linear_attention` (without the delta rule; no decay, one per head or one per channel), `short_conv`
(depthwise causal convolution), `attention` (causal and sliding-window), `ngram_means` (what followed earlier n-grams);
and `fused` (RMSNorm, SwiGLU, cross entropy).
May import: core and torch.
Import a function from its package (`from longlode.ops.delta_rule import delta_rule`); it is not exported here,
where it would hide the package. Start reading: `delta_rule/reference.py` (the equations), then
`delta_rule/README.md`. Shared by ops: `backends.py` (choice of the implementation of a call; `used_backends()` lists
those used so far), `surroundings.py` (transforms and tracers around a call), `packed.py` (`Offsets` of documents),
`chunking/` (sequences in chunks), `dtypes.py`, `rowwise.py` (compiled kernels for CPUs beside the delta rule's),
`host_memory.py`.
"""

from longlode.ops.backends import used_backends

__all__ = ["used_backends"]
