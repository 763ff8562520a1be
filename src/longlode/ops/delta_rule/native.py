"""The delta rule in compiled C for CPUs: binding and autograd of the library compiled from `native/`.

The kernels are plain C behind four functions, loaded with ctypes (which releases the GIL during a call): the
library depends neither on torch nor on Python, so one file serves all versions of both. README.md, section 7, explains
the kernels, their build, and how to turn them off. float32 arithmetic; bfloat16 is read and written as it is, float16
widened first.
"""

import ctypes
import itertools
import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from longlode.core.errors import BackendError
from longlode.ops.delta_rule.first_order import first_order

FOLDER = Path(__file__).parent / "native"
LIBRARY = FOLDER / "libdelta_rule.so"
BUILD_FAILURE = FOLDER / "build-failure.txt"
SWITCH = "LONGLODE_NATIVE"
CHUNK_SIZES = (16, 32, 64)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_HEAD_DIM = 256
_ABI = 4
_CHUNK = 32
# Kept states are a backward's memory, the chunks between two of them its working set, which must fit the L2 cache.
_SPAN_BYTES = 1 << 19
_SPANS = (4, 16)
REBUILD = (
    "install a C compiler (gcc or clang) and then longlode again "
    "(pip install --force-reinstall --no-deps longlode, or -e . in a clone)"
)
_REBUILD = f"{REBUILD}; until then use backend='chunkwise'"


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("row", ctypes.c_int64),
        ("token", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("narrow", ctypes.c_int64),
    ]


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, _Tensor) for name in ("q", "k", "v", "beta", "g", "o", "dq", "dk", "dv", "dbeta", "dg")),
        *((name, ctypes.c_void_p) for name in ("state", "final_state", "dfinal_state", "dstate", "kept")),
        ("documents", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("num_documents", "H", "K", "V", "chunk", "interval")),
        ("scale", ctypes.c_float),
    ]


class _Token(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "beta", "g", "state", "o", "new_state")),
        *((name, ctypes.c_int64) for name in ("num_heads", "K", "V")),
        ("scale", ctypes.c_float),
    ]


@dataclass(frozen=True)
class DocumentTable:
    """Table of the documents of a call and of their kept states.

    documents: int64 `[N, 4]`: batch row, first token, number of tokens, first kept state of each.
    chunk: C.  interval: chunks between two kept states.  num_kept: kept states over all documents.
    """

    documents: torch.Tensor
    chunk: int
    interval: int
    num_kept: int


@lru_cache(maxsize=64)
def make_document_table(
    offsets: tuple[int, ...] | None, num_rows: int, num_tokens: int, chunk: int, interval: int
) -> DocumentTable:
    """Make the table of `num_rows` documents of `num_tokens` each, or of those that `offsets` cut one row into."""
    if offsets is None:
        places = [(row, 0, num_tokens) for row in range(num_rows)]
    else:
        places = [(0, start, end - start) for start, end in itertools.pairwise(offsets)]
    rows, num_kept = [], 0
    for row, start, length in places:
        rows.append((row, start, length, num_kept))
        num_kept += -(-length // (chunk * interval))
    return DocumentTable(torch.tensor(rows, dtype=torch.int64, device="cpu"), chunk, interval, num_kept)


def interval_chunks(K: int, V: int, chunk: int) -> int:
    """Return the chunks between two kept states: as many as the L2 cache holds with their working memory."""
    slot_bytes = 4 * (K * V + 2 * chunk * V + 4 * chunk * chunk)
    return max(_SPANS[0], min(_SPANS[1], _SPAN_BYTES // slot_bytes))


def delta_rule_native(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    chunk: int | None,
    instruction_set: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the compiled kernels; arguments and results as in `longlode.ops.delta_rule.delta_rule`.

    `offsets` is the checked `cu_seqlens`; `chunk` is 16, 32 or 64, None for the fastest. instruction_set: one of
    `instruction_sets()`, None for the best. Differentiable once. Raises: BackendError on an unsupported call.
    """
    K, V = q.shape[-1], v.shape[-1]
    why_not = unsupported(q.dtype, K, V, chunk)
    if why_not:
        raise BackendError(f"delta_rule backend 'native' cannot run this call: {why_not}.")
    C = chunk or _CHUNK
    table = make_document_table(offsets, q.shape[0], q.shape[1], C, interval_chunks(K, V, C))
    inputs = (q, k, v, beta, g, state)
    differentiate = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final_state = _NativeDeltaRule.apply(
        *inputs, float(scale), table, instruction_set or instruction_sets()[0], differentiate
    )
    return o, final_state


def unsupported(dtype: torch.dtype, K: int, V: int, chunk: int | None) -> str:
    """Return why the kernels cannot run such a call, and what to do; "" if they can."""
    if dtype not in DTYPES:
        return f"q is {dtype} and the kernels compute in float32. Use backend='chunkwise'"
    if K % 16 or V % 16 or max(K, V) > MAX_HEAD_DIM:
        return (
            f"K is {K} and V is {V}; expected multiples of 16 up to {MAX_HEAD_DIM}. Use backend='chunkwise'"
        )
    if chunk is not None and chunk not in CHUNK_SIZES:
        return f"chunk_size is {chunk}; expected None or one of {CHUNK_SIZES}. Use backend='chunkwise'"
    return ""


def why_no_native() -> str:
    """Return "" if the library exists and loads, else why not and what to do."""
    return switched_off() or _why_not_loaded(LIBRARY)


def switched_off() -> str:
    """Return "" if the kernels may be used, else the reason that the environment variable turns them off."""
    if os.environ.get(SWITCH, "") == "off":
        return f"the environment variable {SWITCH} is 'off'; unset it, or use backend='chunkwise'"
    return ""


def instruction_sets() -> tuple[str, ...]:
    """List the instruction sets in the library that this CPU supports, best first."""
    names: bytes = _load(LIBRARY).longlode_instruction_sets()
    return tuple(names.decode().split(","))


@cache
def _why_not_loaded(library: Path) -> str:
    if not library.exists():
        reason = "this installation was made without it"
        if BUILD_FAILURE.exists():
            reason = BUILD_FAILURE.read_text(encoding="utf-8").strip()
        return f"the compiled library is missing ({reason}); {_REBUILD}"
    try:
        version = _load(library).longlode_abi()
    except (OSError, AttributeError) as error:
        return f"the compiled library does not load ({error}); {_REBUILD}"
    if version != _ABI:
        return f"the compiled library has interface {version} and this code needs {_ABI}; {_REBUILD}"
    return ""


@cache
def _load(library: Path) -> ctypes.CDLL:
    """Load the library. Raises: OSError if it cannot be loaded, AttributeError if a function is missing."""
    loaded = ctypes.CDLL(str(library))
    loaded.longlode_abi.restype = ctypes.c_int
    loaded.longlode_instruction_sets.restype = ctypes.c_char_p
    loaded.longlode_token.argtypes = [ctypes.POINTER(_Token), ctypes.c_char_p]
    loaded.longlode_token.restype = ctypes.c_int
    for function in (loaded.longlode_forward, loaded.longlode_backward):
        function.argtypes = [ctypes.POINTER(_Call), ctypes.c_char_p, ctypes.c_int]
        function.restype = ctypes.c_int
    return loaded


def library() -> ctypes.CDLL:
    """Return the loaded library, for kernels beside those of the delta rule. Raises: OSError, AttributeError."""
    return _load(LIBRARY)


def step_native(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance by one token, in float32, without gradients; shapes as in `longlode.ops.delta_rule.delta_rule_step`."""
    inputs = [x if x is None else x.contiguous() for x in (q, k, v, beta, g, state)]
    B, H, K, V = state.shape
    # The device is given here and below, because torch.set_default_device must not choose it.
    o = torch.empty(B, H, V, dtype=torch.float32, device="cpu")
    new_state = torch.empty(B, H, K, V, dtype=torch.float32, device="cpu")
    pointers = [x if x is None else x.data_ptr() for x in (*inputs, o, new_state)]
    instruction_set = _best_instruction_set()
    call = _Token(*pointers, B * H, K, V, scale)
    _check(_load(LIBRARY).longlode_token(ctypes.byref(call), instruction_set), instruction_set.decode())
    return o, new_state


@cache
def _best_instruction_set() -> bytes:
    return instruction_sets()[0].encode()


def _readable(x: torch.Tensor) -> torch.Tensor:
    """Convert to float32 or bfloat16 with a contiguous last dimension; return x itself if it is so already."""
    x = x.to(_dtype_in_memory(x))
    return x if x.stride(-1) == 1 else x.contiguous()


def _dtype_in_memory(x: torch.Tensor) -> torch.dtype:
    """Return the dtype in which the kernels read or write what is x, or like it, for the caller."""
    return torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32


def _described(x: torch.Tensor | None) -> _Tensor:
    if x is None:
        return _Tensor(None, 0, 0, 0, 0)
    return _Tensor(x.data_ptr(), *x.stride()[:3], int(x.dtype == torch.bfloat16))


def _pointer(x: torch.Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _inputs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, g: torch.Tensor | None
) -> dict[str, torch.Tensor | None]:
    rows: dict[str, torch.Tensor | None] = {name: _readable(x) for name, x in (("q", q), ("k", k), ("v", v))}
    return {**rows, "beta": beta.float(), "g": None if g is None else g.float()}


def _run(
    function: str,
    tensors: dict[str, torch.Tensor | None],
    states: dict[str, torch.Tensor | None],
    scale: float,
    table: DocumentTable,
    instruction_set: str,
) -> None:
    """Call the library; `tensors` and `states` are those of the C struct, by name, and must outlive the call."""
    q, v = tensors["q"], tensors["v"]
    assert q is not None
    assert v is not None
    call = _Call(
        **{name: _described(x) for name, x in tensors.items()},
        **{name: _pointer(x) for name, x in states.items()},
        documents=table.documents.data_ptr(),
        num_documents=len(table.documents),
        H=q.shape[2],
        K=q.shape[3],
        V=v.shape[3],
        chunk=table.chunk,
        interval=table.interval,
        scale=scale,
    )
    run = getattr(_load(LIBRARY), function)
    _check(run(ctypes.byref(call), instruction_set.encode(), torch.get_num_threads()), instruction_set)


def _check(status: int, instruction_set: str) -> None:
    """Raise BackendError for a status that is not 0."""
    if status:
        reasons = {
            1: "out of memory",
            2: f"this CPU or library has no {instruction_set!r}",
            3: "a size beyond the kernels' limits, or a tensor that is missing",
        }
        reason = reasons.get(status, f"status {status}")
        raise BackendError(f"delta_rule backend 'native' failed: {reason}. Use backend='chunkwise'.")


def _gradient_dtype(name: str, x: torch.Tensor) -> torch.dtype:
    """Return the dtype of a gradient in memory. dv is float32, since threads that share a document read it back."""
    return _dtype_in_memory(x) if name in ("q", "k") else torch.float32


class _NativeDeltaRule(torch.autograd.Function):
    """Forward and backward through the library."""

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
        table: DocumentTable,
        instruction_set: str,
        differentiate: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        H, K, V = q.shape[2], q.shape[3], v.shape[3]
        o = torch.empty(v.shape, dtype=_dtype_in_memory(q), device="cpu")
        final_state = torch.empty(len(table.documents), H, K, V, dtype=torch.float32, device="cpu")
        kept = (
            torch.empty(table.num_kept, H, K, V, dtype=torch.float32, device="cpu") if differentiate else None
        )
        initial = None if state is None else state.float().contiguous()
        states = {"state": initial, "final_state": final_state, "kept": kept}
        tensors = {**_inputs(q, k, v, beta, g), "o": o}
        _run("longlode_forward", tensors, states, scale, table, instruction_set)
        if differentiate:
            ctx.save_for_backward(q, k, v, beta, g, kept)
            ctx.call = (scale, table, instruction_set)
            ctx.state_dtype = None if state is None else state.dtype
            ctx.set_materialize_grads(False)
        return o.to(q.dtype), final_state

    @staticmethod
    def backward(
        ctx: Any, do: torch.Tensor | None, dfinal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        return first_order("native", _NativeDeltaRule._backward, ctx, do, dfinal)

    @staticmethod
    def _backward(
        ctx: Any, do: torch.Tensor | None, dfinal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        *originals, kept = ctx.saved_tensors
        scale, table, instruction_set = ctx.call
        inputs = _inputs(*originals)
        grads = {
            f"d{name}": None
            if x is None
            else torch.empty(x.shape, dtype=_gradient_dtype(name, x), device="cpu")
            for name, x in inputs.items()
        }
        shape = (len(table.documents), *kept.shape[1:])
        dstate = None if ctx.state_dtype is None else torch.empty(shape, dtype=torch.float32, device="cpu")
        dfinal = None if dfinal is None else dfinal.float().contiguous()
        states = {"dfinal_state": dfinal, "dstate": dstate, "kept": kept}
        tensors = {**inputs, **grads, "o": None if do is None else _readable(do)}
        _run("longlode_backward", tensors, states, scale, table, instruction_set)
        found = [
            None if grad is None else grad.to(x.dtype)
            for grad, x in zip(grads.values(), originals, strict=True)
        ]
        return (*found, None if dstate is None else dstate.to(ctx.state_dtype), None, None, None, None)
