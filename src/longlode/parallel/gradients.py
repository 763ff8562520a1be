"""Gradients of a sharded step: the sum over the ranks that share a sequence."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from longlode.parallel.transport import Transport

_BUCKET_NUMBERS = 1 << 22


def sum_gradients(parameters: Iterable[nn.Parameter], transport: Transport) -> None:
    """Replace every gradient by its sum over the ranks of a sequence.

    Each rank's loss is its share of one sum over all labels, so shares are added, not averaged (average, if at all,
    over the data dimension of a mesh). Parameters without a gradient on this rank count as 0; all ranks pass the same.
    """
    bucket: list[Tensor] = []
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = parameter.new_zeros(parameter.shape)
        if bucket and (
            bucket[0].dtype != parameter.grad.dtype
            or sum(one.numel() for one in bucket) + parameter.numel() > _BUCKET_NUMBERS
        ):
            _sum(bucket, transport)
            bucket = []
        bucket.append(parameter.grad)
    if bucket:
        _sum(bucket, transport)


def _sum(gradients: list[Tensor], transport: Transport) -> None:
    total = transport.all_reduce(torch.cat([one.flatten() for one in gradients]), "gradients")
    for gradient, part in zip(gradients, total.split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
