"""Sharded weights (FSDP2): each rank keeps a part of every parameter, gradient and moment."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from longlode.core.errors import ConfigError
from longlode.parallel.world import World


def shard_model(model: PreTrainedModel, world: World) -> None:
    """Shard the parameters of `model` over all ranks, in place, block by block.

    Gradients are summed, not averaged: the loss is divided by the weight of the whole batch already, and FSDP2's own
    average is a silent sum on gloo (pytorch issue 162338). Tensors of one number stay whole in effect.
    Raises: ConfigError on one rank.
    """
    if world.size == 1:
        raise ConfigError("run.shard is true with one rank; start several with torchrun, or set it to false.")
    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (world.size,))
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in kinds:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def set_gradient_sync(model: nn.Module, on: bool) -> None:
    """Choose whether the next backward pass of a sharded model sums gradients over the ranks."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(on)


def is_sharded(model: nn.Module) -> bool:
    """Return True for a model that `shard_model` has sharded."""
    return isinstance(model, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its parts. Of a sharded one every rank must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """Return a whole tensor on the device of `pattern`, sharded as it is."""
    moved = tensor.to(pattern.device)
    if not isinstance(pattern, DTensor) or not moved.ndim:
        return moved
    return distribute_tensor(moved, pattern.device_mesh, pattern.placements, src_data_rank=None)


def whole_state(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a sharded model with whole tensors on the CPU; all ranks take part."""
    with torch.no_grad():
        return {name: whole(tensor).cpu() for name, tensor in model.state_dict().items()}
