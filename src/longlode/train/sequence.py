"""Rows on several ranks: the model reads this rank's piece of whatever whole rows an objective gives it.

An objective calls the model with whole rows, as on one rank. While `shared_rows` holds, the model cuts them and reads
its own piece, so that `loss` is this rank's share of the sum over all labels; the shares of all ranks add up. An
objective that reads more of the model than its loss asks `sharing_of` for the piece.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from longlode.core.errors import ConfigError
from longlode.models import LonglodeForCausalLM
from longlode.parallel import Piece, RankShard, SequencePlan, Transport

_WHOLE = (
    "input_ids",
    "attention_mask",
    "cu_seqlens",
    "shift_labels",
    "label_weights",
    "label_places",
    "prefix_lengths",
)
"""Arguments of the model that are cut, or that hold only of whole rows; all others are passed on."""


@dataclass(frozen=True)
class Sharing:
    """The ranks that share rows, and what they exchange (`RankShard`)."""

    transport: Transport
    attention: str = "gather"
    states: Literal["fold", "ulysses"] = "fold"

    def cut(self, given: Mapping[str, Any]) -> tuple[Piece, dict[str, Any]]:
        """Return this rank's piece of whole rows, and the model's arguments for it, with the shard.

        Args: given, arguments of the model for whole rows.
        """
        tokens, edges = given["input_ids"], given.get("cu_seqlens")
        documents = None if edges is None else edges.tolist()
        plan = SequencePlan.even(
            self.transport.num_ranks, tokens.shape, cu_seqlens=documents, mask=given.get("attention_mask")
        )
        piece = plan.piece(self.transport.rank)
        inputs = piece.model_inputs(
            tokens,
            given.get("shift_labels"),
            given.get("label_weights"),
            given.get("num_items_in_batch"),
            given.get("prefix_lengths"),
        )
        shard = RankShard(plan, self.transport, self.attention, self.states, tokens.device)
        rest = {name: value for name, value in given.items() if name not in _WHOLE}
        return piece, rest | dict(inputs) | {"shard": shard}

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor without gradient over the ranks."""
        return self.transport.all_reduce(x.detach(), "objective")

    def refused(self, what: str) -> ConfigError:
        """Return the error for an objective that needs what a rank with a piece of the rows does not have."""
        return ConfigError(
            f"The objective needs {what}, and {self.transport.num_ranks} ranks share each sequence; expected one that "
            "reads losses or predictions of single labels. Set parallel.sequence = 1."
        )


_SHARED: WeakKeyDictionary[nn.Module, Sharing] = WeakKeyDictionary()


def sharing_of(model: nn.Module) -> Sharing | None:
    """Return how the model's rows are shared now, None if each rank reads whole rows."""
    return _SHARED.get(model)


@contextlib.contextmanager
def shared_rows(model: nn.Module, sharing: Sharing | None) -> Iterator[None]:
    """Let `model` read one piece of the rows of every call; nothing changes where no ranks share them.

    Raises: ConfigError for a model that is none of longlode; from a call of the model, for an objective that needs more
      than losses and predictions.
    """
    if sharing is None:
        yield
        return
    if not isinstance(model, LonglodeForCausalLM):
        raise ConfigError(
            f"{sharing.transport.num_ranks} ranks share each sequence (parallel.sequence) and the model is a "
            f"{type(model).__name__}; only models of longlode read a sequence on several ranks. Set "
            "parallel.sequence = 1."
        )

    def cut(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if given.get("shard") is not None:  # the caller has cut them, to know its piece
            return args, given
        if given.get("shift_labels") is None:
            raise sharing.refused("all predictions of whole rows")
        return args, sharing.cut(given)[1]

    handle = model.register_forward_pre_hook(cut, with_kwargs=True)
    _SHARED[model] = sharing
    try:
        yield
    finally:
        del _SHARED[model]
        handle.remove()
