"""The means in compiled passes along the sorted tokens, a sum per n-gram, with a backward of its own."""

from collections.abc import Sequence
from typing import Any

import torch

from longlode.ops import rowwise
from longlode.ops.ngram_means.plain import SortedNgrams, ngram_means_torch


def ngram_means_native(
    values: torch.Tensor,
    ngrams: Sequence[SortedNgrams],
    num_asked: int,
    matches: int | None,
    instruction_set: str | None = None,
) -> torch.Tensor:
    """Compute `ngram_means` of float32 or bfloat16 values by the compiled kernels."""
    y: torch.Tensor = _NativeMeans.apply(values, tuple(ngrams), num_asked, matches, instruction_set)
    return y


class _NativeMeans(torch.autograd.Function):
    """Forward and backward through the library. The values are kept for second derivatives, by torch."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        ngrams: tuple[SortedNgrams, ...],
        num_asked: int,
        matches: int | None,
        instruction_set: str | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(values)
        ctx.call, ctx.instruction_set = (ngrams, num_asked, matches), instruction_set
        B, _, D = values.shape
        y = torch.empty(B, num_asked, len(ngrams) * D, dtype=values.dtype, device="cpu")
        values = values if values.stride(-1) == 1 else values.contiguous()
        for one, part in zip(ngrams, y.view(-1, len(ngrams), D).unbind(1), strict=True):
            call, _alive = _call(values, one, num_asked, matches)
            call.y = rowwise.rows_of(part)
            rowwise.run("match_forward", call, instruction_set)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        ngrams, num_asked, matches = ctx.call
        if torch.is_grad_enabled():
            found = rowwise.gradients_by_torch(lambda x: ngram_means_torch(x, *ctx.call), (values,), dy)
            return (*found, None, None, None, None)
        D = values.shape[2]
        dvalues = torch.zeros(values.shape, dtype=torch.float32, device="cpu")
        slopes = rowwise.as_rows(dy).view(-1, len(ngrams), D).unbind(1)
        for one, slope in zip(ngrams, slopes, strict=True):
            call, _alive = _call(values, one, num_asked, matches)
            call.dy, call.dvalues = rowwise.rows_of(slope), rowwise.rows_of(dvalues)
            rowwise.run("match_backward", call, ctx.instruction_set)
        return dvalues.to(values.dtype), None, None, None, None


def _call(
    values: torch.Tensor, ngrams: SortedNgrams, num_asked: int, matches: int | None
) -> tuple[rowwise.MatchCall, SortedNgrams]:
    """Return what forward and backward have in common, and tensors that must outlive the call."""
    alive = SortedNgrams(*(part.contiguous() for part in ngrams))
    call = rowwise.MatchCall(
        values=rowwise.rows_of(values),
        order=alive.order.data_ptr(),
        group=alive.group.data_ptr(),
        num_tokens=values.shape[0] * values.shape[1],
        D=values.shape[2],
        length=values.shape[1],
        asked=num_asked,
        matches=matches or 0,
    )
    return call, alive


def _check_inputs(dtype: torch.dtype) -> dict[str, Any]:
    # Two rows of five different tokens, with runs of one: 1-grams that occur often, and right before.
    draw = torch.Generator("cpu").manual_seed(0)
    ids = torch.randint(5, (2, 60), generator=draw, device="cpu")
    ids[:, 20:24] = 3
    key = (ids + torch.tensor([[0], [5]], device="cpu")).flatten()
    group, order = key.sort(stable=True)
    values = torch.randn(2, 60, 140, generator=draw, device="cpu").to(dtype).requires_grad_()
    return {"values": values, "ngrams": [SortedNgrams(order, group)], "num_asked": 50}


def _all_and_recent(run_it: Any) -> Any:
    """Wrap an implementation for the self-check: means of all occurrences and of the most recent two, one tensor."""
    return lambda **inputs: torch.cat([run_it(**inputs, matches=matches) for matches in (None, 2)])


BACKENDS = rowwise.backends(
    "ngram_means", ngram_means_native, ngram_means_torch, _check_inputs, as_checked=_all_and_recent
)
