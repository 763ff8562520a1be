"""The delta rule in Triton kernels: `../triton_kernels/` on a CUDA device, or in Triton's interpreter on the CPU.

`TRITON.md` says what each kernel reads and writes, and what was measured. This module plans a call (the documents of
all chunks), picks block sizes from a fixed table, and wires forward and backward to autograd.
Importing it imports triton, which reads TRITON_INTERPRET at that moment.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton

from longlode.core.errors import BackendError
from longlode.ops.delta_rule.first_order import FirstOrderOnly
from longlode.ops.delta_rule.triton_kernels.chunks import inverses_kernel
from longlode.ops.delta_rule.triton_kernels.gradients import gradients_kernel
from longlode.ops.delta_rule.triton_kernels.scan import backward_kernel, forward_kernel, states_kernel

CHUNK_SIZES = (16, 32, 64)
DTYPES = (torch.float32, torch.bfloat16)
MAX_HEAD_DIM = 256
# Chunks between two kept states: at C = 64 and K = V = 128 they cost 128 bytes per token and head, an eighth of the
# inputs and outputs. More would leave the parallel recomputation too few programs.
_INTERVAL = 8


@dataclass(frozen=True)
class Config:
    """Block sizes of one (K, V, dtype); warps and stages of the kernels are (num_warps, num_stages).

    chunk: C. block_v: tile of V in the scans. gradient_block_v: tile of V in the gradients kernel.
    """

    chunk: int
    block_v: int
    gradient_block_v: int
    inverses: tuple[int, int]
    scan: tuple[int, int]
    gradients: tuple[int, int]


def launch_config(K: int, V: int, dtype: torch.dtype) -> Config:
    """Return the fixed block sizes for key and value sizes and a dtype; nothing is tuned at run time.

    The gradients kernel runs with 8 warps, never 4: `prepare_wy_repr_bwd`, its like in another library, gave wrong
    dk and dbeta on Hopper with 4 warps and Triton >= 3.4 (and right ones with 2). The cause known there, a
    transposed accumulator, does not occur here; the choice costs little and the self-check covers it.
    """
    wide = max(K, V) > 128
    if dtype == torch.float32:
        block_v = min(_block(V), 32)
        # With C = 32 at K = 128 the gradients kernel overflows its registers by kilobytes (Triton 3.6 and 3.9).
        return Config(16 if max(K, V) > 64 else 32, block_v, block_v, (4, 1), (4, 1), (8, 1))
    block_v = min(_block(V), 32 if wide else 64)
    # At K = 128 a second stage would leave space for one program per multiprocessor; two programs hide more latency.
    scan_stages = 2 if max(K, V) <= 64 else 1
    return Config(32 if wide else 64, block_v, block_v, (4, 1), (4, scan_stages), (8, 2))


@dataclass(frozen=True)
class ChunkTables:
    """Positions of documents, chunks and segments (of _INTERVAL chunks) of a call: integer tensors on the device.

    documents: int64 `[N + 1, 3]`, each document's first token, chunk and segment; the last row holds the ends.
    chunk_owners, segment_owners: int32 `[num_chunks]` and `[num_segments]`, the document each belongs to.
    """

    documents: torch.Tensor
    chunk_owners: torch.Tensor
    segment_owners: torch.Tensor


@lru_cache(maxsize=16)
def make_chunk_tables(offsets: tuple[int, ...], C: int, device: torch.device) -> ChunkTables:
    """Cut documents `offsets[n]` to `offsets[n + 1]` into chunks of C tokens; none crosses a document boundary."""
    starts = torch.tensor(offsets, dtype=torch.int64)
    num_chunks = (starts.diff() + C - 1) // C
    num_segments = (num_chunks + _INTERVAL - 1) // _INTERVAL
    firsts = [torch.nn.functional.pad(counts.cumsum(0), (1, 0)) for counts in (num_chunks, num_segments)]
    document = torch.arange(len(offsets) - 1, dtype=torch.int32)
    owners = [torch.repeat_interleave(document, counts) for counts in (num_chunks, num_segments)]
    return ChunkTables(*(table.to(device) for table in (torch.stack((starts, *firsts), dim=1), *owners)))


def delta_rule_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    chunk: int | None,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernels; arguments and results as in `longlode.ops.delta_rule.delta_rule`.

    `offsets` is the checked `cu_seqlens`; `chunk` is 16, 32 or 64, None for the table's. config: block sizes in
    place of the table's, for measuring. Differentiable once. Raises: BackendError on an unsupported call.
    """
    why_not = unsupported(q.dtype, q.shape[-1], v.shape[-1], chunk)
    if why_not:
        raise BackendError(f"delta_rule backend 'triton' cannot run this call: {why_not}.")
    config = config or launch_config(q.shape[-1], v.shape[-1], q.dtype)
    B, T = q.shape[:2]
    if offsets is None:
        offsets = tuple(range(0, B * T + 1, T))
    tables = make_chunk_tables(offsets, chunk or config.chunk, q.device)
    inputs = (q, k, v, beta, g, state)
    differentiate = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final_state = _TritonDeltaRule.apply(
        *inputs, float(scale), tables, config, chunk or config.chunk, differentiate
    )
    return o, final_state


def unsupported(dtype: torch.dtype, K: int, V: int, chunk: int | None) -> str:
    """Return why the kernels cannot run such a call, and what to do; "" if they can."""
    if dtype not in DTYPES:
        return f"q is {dtype}; expected float32 or bfloat16. Use backend='chunkwise'"
    if max(K, V) > MAX_HEAD_DIM:
        return f"K is {K} and V is {V}; expected at most {MAX_HEAD_DIM}. Use backend='chunkwise'"
    if chunk is not None and chunk not in CHUNK_SIZES:
        return f"chunk_size is {chunk}; expected None or one of {CHUNK_SIZES}. Use backend='chunkwise'"
    return ""


class _Launch:
    """Data shared by the launches of one forward or backward call."""

    def __init__(
        self,
        tensors: tuple[torch.Tensor | None, ...],
        scale: float,
        tables: ChunkTables,
        config: Config,
        chunk: int,
    ) -> None:
        q, k, v, beta, g = tensors
        assert q is not None
        assert k is not None
        assert v is not None
        assert beta is not None
        self.q, self.k, self.v, self.beta = q, k, v, beta
        # A pointer is required; without a gate no kernel reads it.
        self.g = beta if g is None else g
        self.scale, self.tables, self.config, self.C = scale, tables, config, chunk
        self.H, self.K, self.V = q.shape[2], q.shape[3], v.shape[3]
        self.N, self.num_chunks = len(tables.documents) - 1, len(tables.chunk_owners)
        self.gated = g is not None
        # tf32x3: float32's accuracy on the tensor cores. bfloat16 products are exact before they are added.
        self.options = {
            "K": self.K,
            "BK": _block(self.K),
            "C": chunk,
            "GATED": self.gated,
            "PRECISION": "tf32x3" if q.dtype == torch.float32 else "ieee",
        }
        self.scan_grid = (-(-self.V // config.block_v), self.N * self.H)
        self.chunk_grid = (self.num_chunks, self.H)

    def states(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(count, self.H, self.K, self.V, dtype=dtype, device=self.q.device)

    def warps(self, kernel: str) -> dict[str, int | bool]:
        num_warps, num_stages = getattr(self.config, kernel)
        # Fused multiply-adds are set explicitly, as the default differs between Triton's versions.
        return {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}

    def values(self) -> dict[str, int]:
        return {"V": self.V, "BV": self.config.block_v}

    def inverses(self) -> torch.Tensor:
        tables, C = self.tables, self.C
        parts = 2 if self.q.dtype == torch.bfloat16 else 1
        inverses = torch.empty(self.num_chunks, self.H, parts, C, C, dtype=self.q.dtype, device=self.q.device)
        inverses_kernel[self.chunk_grid](
            *(self.k, self.beta, self.g, inverses, tables.documents, tables.chunk_owners, self.H),
            **self.options,
            **self.warps("inverses"),
        )
        return inverses

    def forward(
        self, inverses: torch.Tensor, state: torch.Tensor | None, save: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute outputs, final state, and the states kept for the backward (empty without `save`)."""
        tables = self.tables
        o, final_state = torch.empty_like(self.v), self.states(self.N, torch.float32)
        initial = torch.zeros_like(final_state) if state is None else state.float().contiguous()
        checkpoints = self.states(len(tables.segment_owners) if save else 0, torch.float32)
        forward_kernel[self.scan_grid](
            *(self.q, self.k, self.v, self.beta, self.g, inverses, initial, o, final_state),
            checkpoints if save else final_state,
            *(tables.documents, self.scale, self.H),
            **{**self.options, **self.values(), "INTERVAL": _INTERVAL, "SAVE": save},
            **self.warps("scan"),
        )
        return o, final_state, checkpoints

    def recompute(
        self, inverses: torch.Tensor, checkpoints: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the state before each chunk, in the inputs' dtype, and R."""
        tables = self.tables
        states, corrections = self.states(self.num_chunks, self.q.dtype), torch.empty_like(self.v)
        states_kernel[(self.scan_grid[0], len(tables.segment_owners), self.H)](
            *(self.k, self.v, self.beta, self.g, inverses, checkpoints, states, corrections),
            *(tables.documents, tables.segment_owners, self.H),
            **{**self.options, **self.values(), "INTERVAL": _INTERVAL},
            **self.warps("scan"),
        )
        return states, corrections

    def scan_back(
        self, inverses: torch.Tensor, do: torch.Tensor, dfinal_state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute dX, the gradient of the state after each chunk, and that of the incoming state."""
        tables = self.tables
        dX, dstates = torch.empty_like(self.v), self.states(self.num_chunks, self.q.dtype)
        dstate = self.states(self.N, torch.float32)
        backward_kernel[self.scan_grid](
            *(self.q, self.k, self.beta, self.g, inverses, do, dfinal_state, dX, dstates, dstate),
            *(tables.documents, self.scale, self.H),
            **{**self.options, **self.values()},
            **self.warps("scan"),
        )
        return dX, dstates, dstate

    def gradients(
        self,
        do: torch.Tensor,
        dX: torch.Tensor,
        corrections: torch.Tensor,
        states: torch.Tensor,
        dstates: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Compute gradients of q, k, v, beta and (meaningless without a gate) g."""
        tables = self.tables
        grads = [torch.empty_like(x) for x in (self.q, self.k, self.v, self.beta, self.g)]
        gradients_kernel[self.chunk_grid](
            *(self.q, self.k, self.v, self.beta, self.g, do, dX, corrections, states, dstates, *grads),
            *(tables.documents, tables.chunk_owners, self.scale, self.H),
            **{**self.options, "V": self.V, "BV": self.config.gradient_block_v},
            **self.warps("gradients"),
        )
        return grads


class _TritonDeltaRule(torch.autograd.Function):
    """Forward and backward over the launches."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        beta: torch.Tensor,
        g: torch.Tensor | None,
        state: torch.Tensor | None,
        scale: float,
        tables: ChunkTables,
        config: Config,
        chunk: int,
        differentiate: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = tuple(x if x is None else x.contiguous() for x in (q, k, v, beta, g))
        launch = _Launch(inputs, scale, tables, config, chunk)
        inverses = launch.inverses()
        o, final_state, checkpoints = launch.forward(inverses, state, differentiate)
        if differentiate:
            ctx.save_for_backward(*inputs, inverses, checkpoints)
            ctx.call = (scale, tables, config, chunk)
            ctx.state_dtype = None if state is None else state.dtype
        return o, final_state

    @staticmethod
    def backward(ctx: Any, do: torch.Tensor, dfinal: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *inputs, inverses, checkpoints = ctx.saved_tensors
        with torch.no_grad():
            launch = _Launch(tuple(inputs), *ctx.call)
            do_contiguous = do.contiguous()
            dX, dstates, dstate = launch.scan_back(inverses, do_contiguous, dfinal.float().contiguous())
            states, corrections = launch.recompute(inverses, checkpoints)
            grads = launch.gradients(do_contiguous, dX, corrections, states, dstates)
        dstate_or_none = None if ctx.state_dtype is None else dstate.to(ctx.state_dtype)
        result = (*grads[:4], grads[4] if launch.gated else None, dstate_or_none)
        if torch.is_grad_enabled():
            result = FirstOrderOnly.apply("triton", len(result), *result, do, dfinal, *inputs)
        return (*result, None, None, None, None, None)


def _block(size: int) -> int:
    """Return the smallest block allowed in a product that holds `size`."""
    return max(16, triton.next_power_of_2(size))
