"""Sequences on several ranks: the model reads this rank's piece of whatever rows an objective gives it.

An objective calls the model with whole rows, as on one rank. While `sequence_pieces` holds, the model cuts them and
reads its own piece, so that `loss` is this rank's share of the sum over all labels; the shares of all ranks add up.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch.distributed as dist
from torch import nn

from longlode.core.errors import ConfigError
from longlode.models import LonglodeForCausalLM
from longlode.parallel import GroupTransport, RankShard, SequencePlan, Transport
from longlode.train.sections import ParallelSection
from longlode.train.world import World

_WHOLE = ("input_ids", "attention_mask", "cu_seqlens", "shift_labels", "label_weights")
"""Arguments of the model that are cut; all others are passed on."""


@contextlib.contextmanager
def sequence_pieces(model: nn.Module, world: World, settings: ParallelSection) -> Iterator[None]:
    """Let `model` read one piece of every row, on the sequence ranks of the grid; nothing changes where there is one.

    Raises: ConfigError for a model that is none of longlode; from a call of the model, for an objective that needs more
      than the loss of whole rows.
    """
    if world.sequence_ranks == 1:
        yield
        return
    if not isinstance(model, LonglodeForCausalLM):
        raise ConfigError(
            f"parallel.sequence is {world.sequence_ranks} and the model is a {type(model).__name__}; only models of "
            "longlode read a sequence on several ranks. Set parallel.sequence = 1."
        )
    with _sequence_group(world) as transport:

        def cut(
            module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            return args, given | inputs_of_piece(given, transport, settings)

        handle = model.register_forward_pre_hook(cut, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def inputs_of_piece(
    given: Mapping[str, Any], transport: Transport, settings: ParallelSection
) -> dict[str, Any]:
    """Return the arguments of a call of the model for this rank's piece, and its shard, from those for whole rows.

    Raises: ConfigError without shift_labels or with a prefix: an objective then reads what is not on this rank.
    """
    if given.get("shift_labels") is None or given.get("prefix_lengths") is not None:
        raise ConfigError(
            f"The objective asks the model for more than its next-token loss, and parallel.sequence is "
            f"{transport.num_ranks}; expected next_token, far_tokens, or another that only weighs labels. Set "
            "parallel.sequence = 1."
        )
    tokens, edges = given["input_ids"], given.get("cu_seqlens")
    documents = None if edges is None else edges.tolist()
    plan = SequencePlan.even(
        transport.num_ranks, tokens.shape, cu_seqlens=documents, mask=given.get("attention_mask")
    )
    inputs = plan.piece(transport.rank).model_inputs(
        tokens, given["shift_labels"], given.get("label_weights"), given.get("num_items_in_batch")
    )
    shard = RankShard(plan, transport, settings.attention, settings.states, tokens.device)
    return dict.fromkeys(_WHOLE) | dict(inputs) | {"shard": shard}


@contextlib.contextmanager
def _sequence_group(world: World) -> Iterator[Transport]:
    """Make the process groups of all rows of the grid, as every rank must, and yield the transport of this rank's."""
    groups = [
        dist.new_group(list(range(first, first + world.sequence_ranks)))
        for first in range(0, world.size, world.sequence_ranks)
    ]
    try:
        yield GroupTransport(groups[world.data_rank], world.timeout_seconds)
    finally:
        with contextlib.suppress(
            RuntimeError, ValueError
        ):  # after an error the whole group may be closed already
            dist.destroy_process_group(groups[world.data_rank])
