"""What every token mixer answers, so that one backbone and one set of law tests serve them all."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError

State = dict[str, Tensor]
"""What a mixer carries from one piece of a sequence to the next: named tensors, batch row first in each."""


@dataclass(frozen=True, kw_only=True)
class MixerSettings:
    """The numbers that size a mixer; one record for all kinds, each reads what concerns it."""

    hidden_size: int
    """D, width of the residual stream."""
    num_heads: int
    """H, query heads (attention) or state heads (recurrent mixers)."""
    num_kv_heads: int
    """Key and value heads of attention; divides its query heads. Recurrent mixers do not read it."""
    head_dim: int
    """K = V, numbers in a head (C: K is half of it; D and G: see expand_v)."""
    expand_v: float = 1.0
    """V / K in the delta rule's heads (D and G)."""
    conv_size: int = 4
    """W, tokens that the short convolutions of D, G and M see."""
    allow_neg_eigval: bool = False
    """Double beta, so that a write may flip the sign of what stood under its key (arXiv 2411.12537)."""
    use_output_gate: bool = False
    """Multiply the normalised output of the delta rule by silu(Linear(x))."""
    window: int = 2048
    """Tokens that sliding-window attention sees, the current one included."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies of attention."""
    attn_num_heads: int | None = None
    """Query heads of attention; None for num_heads."""
    attn_head_dim: int | None = None
    """Numbers in a head of attention; None for head_dim."""
    qkv_bias: bool = False
    """Add a bias to q, k and v of attention."""
    norm_eps: float = 1e-6
    """Added to the mean square in every RMSNorm."""

    @property
    def value_dim(self) -> int:
        """V of the delta rule's heads."""
        return round(self.head_dim * self.expand_v)

    @property
    def query_heads(self) -> int:
        """Query heads of attention."""
        return self.attn_num_heads or self.num_heads

    @property
    def query_dim(self) -> int:
        """Numbers in a head of attention."""
        return self.attn_head_dim or self.head_dim


class Mixer(nn.Module, ABC):
    """A layer that moves information between tokens.

    Laws, checked by one shared test for every mixer: causality; in pieces = whole; step by step = whole;
    packed = separate; padding at either end = no padding; the closed forms below equal the built module.
    """

    letter: ClassVar[str]
    """How a stack names this mixer."""
    layer_type: ClassVar[str]
    """How transformers calls this kind of layer; one of its closed list."""
    float32_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that half precision would spoil; they stay float32 in models of any narrower dtype."""
    segment_map: Callable[..., tuple[Tensor, Tensor]] | None = None
    """The affine map of a span of tokens on the state, where there is one (for sequence sharding)."""

    def __init__(self, settings: MixerSettings) -> None:
        """Build the parameters; their values come from the model's initialisation."""
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Mix a piece of a sequence, going on from `state`.

        Args:
          x: `[B, T, D]`.
          state: what the call on the piece before returned, or None at the start.
          cu_seqlens: `[N + 1]` offsets of the documents packed in the one row of x (then B = 1), or None.
            Nothing passes from one document to the next.
          mask: `[B, T]` bool, False at padding, which then neither writes to the state nor is read; None
            means that all positions are real. In each row the real tokens stand together, first or last; last
            only without a state. Outputs at padding are meaningless; what follows goes on after the real tokens.
        Returns: y `[B, T, D]`; the state after the last token, in new tensors (the one passed in is not
          changed). With cu_seqlens the state has one row a document.
        Raises: ConfigError on wrong shapes or on a combination that the mixer cannot do.
        """

    def step(self, x_t: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mix one token: x_t `[B, D]` -> (y_t `[B, D]`, state), as `forward` does on a piece of one."""
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def state_bytes(self, num_tokens: int, dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the state of one row after `num_tokens` tokens in activations of `dtype`."""
        return self.count_state_bytes(self.settings, num_tokens, dtype)

    def flops_per_token(self, num_tokens: int) -> float:
        """Forward floating-point operations a token, mean over a sequence of `num_tokens` tokens."""
        return self.count_flops_per_token(self.settings, num_tokens)

    def initial_values(self) -> dict[str, Tensor]:
        """First values of parameters that are no Linear, norm or convolution; drawn anew a call."""
        return {}

    @classmethod
    @abstractmethod
    def count_params(cls, settings: MixerSettings) -> int:
        """Parameters of the mixer, without building it."""

    @classmethod
    @abstractmethod
    def count_flops_per_token(cls, settings: MixerSettings, num_tokens: int) -> float:
        """Forward operations a token (a multiply-add is two), mean over `num_tokens`, without building it."""

    @classmethod
    @abstractmethod
    def count_state_bytes(cls, settings: MixerSettings, num_tokens: int, dtype: torch.dtype) -> int:
        """Bytes of the state of one row after `num_tokens` tokens, without building it."""


def refuse_padded_packing(cu_seqlens: Tensor | None, mask: Tensor | None) -> None:
    """Raise ConfigError when both are given: recurrent mixers take one or the other."""
    if cu_seqlens is not None and mask is not None:
        raise ConfigError("A padding mask was given together with cu_seqlens; packed rows hold no padding.")


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """x `[B, T, D]`, 0 where mask `[B, T]` is False; filled, not multiplied: padding may hold NaN."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)
