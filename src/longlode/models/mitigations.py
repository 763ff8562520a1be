"""Mitigations of state collapse: a model trained on short texts reads longer ones with a memory that does not overflow.

    with mitigated(model, SlidingState(window=4096, hop=512)):
        model.generate(...)

A recurrent memory that never had to forget in training goes on adding beyond the length of the training, until its
size is one that the layers above have not seen. Stuffed Mamba (arXiv 2410.07145, version 1) names three changes at
inference, without training:

    ForgetMore      a_t and the amount written are scaled by constants:  S_t = a_t^decay e^-fade S_{t-1} + amount H_t
    NormaliseState  S_t is scaled to the norm p, per head, where its own is above p
    SlidingState    S_t - M S_{t-w} instead of S_t, with M the product of the w transitions between

for Mamba-2, gated linear attention and the delta rule, with and without decay (mixers with `Mixer.forgetting`). Other
layers are left as they are. The paper has them for Mamba-2, where a transition is a number; here it is also a diagonal
or a matrix.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longlode.core.errors import ConfigError
from longlode.mixers import Mixer, MixerOutput, SegmentMap, SequenceContext, SequenceShard, State
from longlode.mixers.forgetting import Forgetting

_Forward = Callable[[Tensor, State | None, SequenceContext | None], MixerOutput]


class Mitigation(ABC):
    """A change to how a mixer with a linear memory reads, while it is in force."""

    @abstractmethod
    def install(self, mixer: Mixer) -> None:
        """Change this mixer alone, by attributes of the instance that hide those of its class."""


@contextmanager
def mitigated(model: Any, mitigation: Mitigation) -> Iterator[Any]:
    """Read with a mitigation in force in all layers that it knows; they are as before at the end.

    A cache belongs to one kind of reading: states of `SlidingState` hold more than plain ones. Several mitigations may
    be nested. For inference: gradients pass, auxiliary losses of mixers do not.
    Args: model: a longlode model.   Raises: ConfigError if it has no layer with a linear memory.
    """
    mixers = [block.attn for block in model.base_model.layers if block.attn.forgetting is not None]
    if not mixers:
        kinds = ", ".join(sorted({type(block.attn).__name__ for block in model.base_model.layers}))
        raise ConfigError(
            f"The model has layers of {kinds}; a mitigation expected Mamba-2, gated linear attention or the delta rule."
        )
    before = [dict(vars(mixer)) for mixer in mixers]
    try:
        for mixer in mixers:
            mitigation.install(mixer)
        yield model
    finally:
        for mixer, attributes in zip(mixers, before, strict=True):
            for name in ("forward", "forgetting"):
                vars(mixer).pop(name, None)
                if name in attributes:
                    vars(mixer)[name] = attributes[name]


@dataclass(frozen=True, kw_only=True)
class ForgetMore(Mitigation):
    """Forget more and insert less; the fields are those of `Forgetting`. Nothing becomes slower.

    decay: factor on log-decays, at least 1.   fade: log-decay added per token, at least 0.
    amount: factor on what is written, in (0, 1].
    """

    decay: float = 1.0
    fade: float = 0.0
    amount: float = 1.0

    def __post_init__(self) -> None:
        """Check the values. Raises: ConfigError."""
        if self.decay < 1 or self.fade < 0 or not 0 < self.amount <= 1:
            raise ConfigError(
                f"ForgetMore got decay = {self.decay}, fade = {self.fade}, amount = {self.amount}; expected at least "
                "1, at least 0, and above 0 up to 1."
            )

    def install(self, mixer: Mixer) -> None:
        """See `Mitigation.install`."""
        mixer.forgetting = Forgetting(self.decay, self.fade, self.amount)


@dataclass(frozen=True, kw_only=True)
class NormaliseState(Mitigation):
    """Scale the memory of a head down to a norm where it is larger.

    limit: p, the largest Frobenius norm.   every: tokens between two checks; 1 is as published and reads token by
    token, since what is scaled is no longer a linear recurrence. A piece that is read ends with a check.
    """

    limit: float
    every: int = 1

    def __post_init__(self) -> None:
        """Check the values. Raises: ConfigError."""
        if self.limit <= 0 or self.every < 1:
            raise ConfigError(
                f"NormaliseState got limit = {self.limit}, every = {self.every}; expected above 0 and at least 1."
            )

    def install(self, mixer: Mixer) -> None:
        """See `Mitigation.install`."""
        read = mixer.forward

        def forward(
            x: Tensor, state: State | None = None, context: SequenceContext | None = None
        ) -> MixerOutput:
            context = _checked(x, context)
            outputs = []
            for start in range(0, x.shape[1], self.every):
                part = slice(start, start + self.every)
                output = read(x[:, part], state, _part(context, part))
                state = {**output.state, "memory": self._limited(output.state["memory"])}
                outputs.append(output.y)
            return MixerOutput(torch.cat(outputs, 1), state or {})

        mixer.forward = forward  # type: ignore[method-assign]

    def _limited(self, memory: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(memory, dim=(-2, -1), keepdim=True)
        return memory * (self.limit / norm.clamp(min=self.limit))


@dataclass(frozen=True, kw_only=True)
class SlidingState(Mitigation):
    """Remember the last `window` tokens alone, by the difference of two states.

    S_t - M S_{t-w} is what the last w tokens write into an empty memory. It is computed so, which loses no digits to
    the difference: the maps of the last `window / hop` hops of the text are kept in the state and composed.

    window: w, tokens.   hop: tokens by which the window moves; a token sees between window - hop + 1 and window tokens.
    1 is as published. The state holds `window / hop` maps, and a hop costs as many compositions.
    """

    window: int
    hop: int

    def __post_init__(self) -> None:
        """Check the values. Raises: ConfigError."""
        if self.hop < 1 or self.window < self.hop or self.window % self.hop:
            raise ConfigError(
                f"SlidingState got window = {self.window}, hop = {self.hop}; expected a hop of at least 1 and a window "
                "of a whole number of hops."
            )

    def install(self, mixer: Mixer) -> None:
        """See `Mitigation.install`. State: that of the mixer, `window_maps_*`, and `window_read`, tokens of the hop."""
        read = mixer.forward

        def forward(
            x: Tensor, state: State | None = None, context: SequenceContext | None = None
        ) -> MixerOutput:
            context = _checked(x, context)
            own = {name: u for name, u in (state or {}).items() if not name.startswith("window_")}
            maps, in_hop = self._kept(state)
            outputs, start = [], 0
            while start < x.shape[1]:
                part = slice(start, min(start + self.hop - in_hop, x.shape[1]))
                shard = _Recorder()
                output = read(x[:, part], own or None, _part(context, part, shard))
                start, in_hop, own = part.stop, in_hop + part.stop - part.start, output.state
                maps[-1] = shard.map if maps[-1] is None else maps[-1].then(shard.map)
                outputs.append(output.y)
                if in_hop == self.hop:
                    # The oldest hop leaves the window; the next one begins.
                    maps, in_hop = [*maps[1:], None], 0
                    own = {**own, "memory": _written(maps, own["memory"])}
            return MixerOutput(torch.cat(outputs, 1), own | self._to_keep(maps, in_hop, own["memory"]))

        mixer.forward = forward  # type: ignore[method-assign]

    def _kept(self, state: State | None) -> tuple[list[SegmentMap | None], int]:
        """Maps of the hops in the window, oldest first, the last unfinished, None: not yet; tokens of the last."""
        num = self.window // self.hop
        if state is None:
            return [None] * num, 0
        if "window_read" not in state or state["window_maps_added"].shape[1] != num:
            raise ConfigError(
                "SlidingState got a state that was not read with this window; expected an empty cache, or one that "
                f"was read with window = {self.window}, hop = {self.hop}."
            )
        parts = {
            name: [None] * num if u is None else list(u.unbind(1))
            for name in ("added", "matrix", "log_decay")
            for u in [state.get(f"window_maps_{name}")]
        }
        kept = zip(parts["added"], parts["matrix"], parts["log_decay"], strict=True)
        return [SegmentMap(*one) for one in kept], int(state["window_read"][0])  # type: ignore[arg-type]

    def _to_keep(self, maps: list[SegmentMap | None], in_hop: int, memory: Tensor) -> State:
        """State entries of maps; hops that have not been read do nothing."""
        like = next(one for one in reversed(maps) if one is not None) if any(maps) else SegmentMap(memory)
        idle = SegmentMap(
            torch.zeros_like(like.added),
            None if like.matrix is None else _identity(like.matrix),
            None if like.log_decay is None else torch.zeros_like(like.log_decay),
        )
        full = [idle if one is None else one for one in maps]
        kept = {
            f"window_maps_{name}": torch.stack([getattr(one, name) for one in full], dim=1)
            for name in ("added", "matrix", "log_decay")
            if getattr(idle, name) is not None
        }
        read = torch.full((memory.shape[0],), in_hop, dtype=torch.int64, device=memory.device)
        return {**kept, "window_read": read}


def _identity(matrix: Tensor) -> Tensor:
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return eye.expand_as(matrix)


def _written(maps: list[SegmentMap | None], memory: Tensor) -> Tensor:
    """Return what the hops write into an empty memory."""
    state: Tensor | None = None
    for one in maps:
        if one is not None:
            state = one(state)
    return torch.zeros_like(memory) if state is None else state


class _Recorder(SequenceShard):
    """The whole sequence, whose mixer shows the map of what it reads."""

    map: SegmentMap

    def begin_fold(
        self, make_map: Callable[[], SegmentMap], first: Tensor | None
    ) -> Callable[[], Tensor | None]:
        """See `SequenceShard.begin_fold`."""
        self.map = make_map()
        return lambda: first


def _checked(x: Tensor, context: SequenceContext | None) -> SequenceContext:
    """Return the context, if it can be cut into parts. Raises: ConfigError."""
    context = context or SequenceContext.of(x)
    if context.cu_seqlens is not None or context.shard.num_ranks > 1:
        raise ConfigError(
            "A mitigation got packed documents or a part of a sequence; expected one whole document per row."
        )
    return context


def _part(context: SequenceContext, part: slice, shard: SequenceShard | None = None) -> SequenceContext:
    """Return the context of some tokens, whose state is kept."""
    start, stop, _ = part.indices(context.num_tokens)
    return SequenceContext(
        context.num_rows,
        stop - start,
        context.device,
        mask=None if context.mask is None else context.mask[:, part],
        shard=shard,
    )
