"""Stronger forgetting of a recurrent memory, as inference settings of a mixer (`Mixer.forgetting`).

Stuffed Mamba (arXiv 2410.07145, version 1) lets a model that was trained on short texts forget more and insert less:
the decay of every token is increased, the amount that it writes is reduced, both by constants.
"""

from typing import NamedTuple

from torch import Tensor


class Forgetting(NamedTuple):
    """Changes to every write of a memory. The default changes nothing, bit for bit."""

    decay: float = 1.0
    """Factor on log-decays, for memories that have a decay."""
    fade: float = 0.0
    """Subtracted from the log-decay of every token; a memory without decay gets one."""
    amount: float = 1.0
    """Factor on what is written; for the delta rule on beta, so that it also removes less."""

    def decayed(self, g: Tensor, mask: Tensor | None) -> Tensor:
        """Change log-decays g `[B, T, ...]`; nothing fades at padding, where mask `[B, T]` is False."""
        if self.decay != 1:
            g = self.decay * g
        if not self.fade:
            return g
        g = g - self.fade
        return g if mask is None else g.masked_fill(~mask.reshape(*mask.shape, *[1] * (g.dim() - 2)), 0)

    def written(self, u: Tensor) -> Tensor:
        """Change the factor u of what is written."""
        return u if self.amount == 1 else self.amount * u


PLAIN = Forgetting()
"""No change."""
