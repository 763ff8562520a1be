"""Interface of the attention schemes: causal softmax attention of a sequence that lies on several ranks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of one attention layer: query heads, key heads, numbers in a head, bytes of a number."""

    num_heads: int
    num_key_heads: int
    head_dim: int
    itemsize: int

    @property
    def kv_bytes(self) -> int:
        """Bytes of a token's key and value."""
        return 2 * self.num_key_heads * self.head_dim * self.itemsize

    @property
    def q_bytes(self) -> int:
        """Bytes of a token's query, which are also those of its output."""
        return self.num_heads * self.head_dim * self.itemsize


class AttentionScheme(ABC):
    """A way to attend over the pieces of all ranks; results are those of one rank, up to rounding."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Attend from this rank's queries q `[B, T', H, K]` to the keys k, v `[B, T', G, K]` of all ranks.

        window: tokens that a query sees, itself included; None: all before it. Returns: o `[B, T', H, K]`.
        """

    @abstractmethod
    def received_bytes(
        self, plan: SequencePlan, rank: int, sizes: AttentionSizes, window: int | None
    ) -> tuple[int, int]:
        """Bytes that `rank` receives in the forward and in the backward pass of one layer."""
