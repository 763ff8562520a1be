"""Row by row operations of every model, in one pass over memory each: RMSNorm, SwiGLU, cross entropy.

In plain torch each of them is several passes over tensors that do not fit the caches, and on a CPU costs as much as a
matrix product of a small model. float32 and bfloat16 on the CPU run in the compiled kernels (`ops/rowwise.py`); all
else in torch. May import: core, torch, and the ops' shared modules. Start reading: `rms_norm.py`.
"""

from longlode.ops.fused.cross_entropy import cross_entropy_
from longlode.ops.fused.rms_norm import rms_norm
from longlode.ops.fused.swiglu import swiglu

__all__ = ["cross_entropy_", "rms_norm", "swiglu"]
