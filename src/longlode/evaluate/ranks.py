"""Evaluation on several ranks: rank 0 asks, all ranks read what it asks for, each a piece of every row.

Examples, scores and files are rank 0's; the other ranks follow until it ends. They share the numbers of asked tokens
and the text of answers, never the hidden states of whole rows.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList

from longlode.core import errors
from longlode.core.errors import ConfigError, LonglodeError
from longlode.evaluate.writing import StopAt
from longlode.models import LonglodeForCausalLM
from longlode.parallel import GroupTransport
from longlode.parallel.reading import asked_scores, continue_prompt
from longlode.parallel.world import World

T = TypeVar("T")


class Ranks:
    """The ranks of an evaluation, each with the whole model."""

    def __init__(self, model: Any, tokenizer: Any, world: World) -> None:
        """Prepare. Raises: ConfigError for a model that is none of longlode."""
        if not isinstance(model, LonglodeForCausalLM):
            raise ConfigError(
                f"{world.size} ranks were started to evaluate a {type(model).__name__}; only models of longlode read a "
                "text on several ranks. Start one process."
            )
        self.model, self.tokenizer, self.world = model, tokenizer, world
        self.transport = GroupTransport(world.group, world.timeout_seconds)

    def score(self, tokens: Tensor, lengths: Sequence[int], rows: Tensor, places: Tensor) -> tuple[Any, Any]:
        """Read rows `[B, T]` of so many tokens; return nats and hits of the tokens at (rows, places), numpy `[n]`."""
        return self._ask("_score", tokens, list(lengths), rows, places)

    def write(self, rows: Tensor, config: GenerationConfig, stop: tuple[str, ...]) -> Tensor:
        """Continue rows of equal length `[B, T]`; return them with what the last rank wrote."""
        return self._ask("_write", rows, config.to_dict(), stop, _random_state(self.model.device))

    def run(self, lead: Callable[["Ranks"], T]) -> T:
        """Call `lead(ranks)` on rank 0, and follow it on the others; return its result, plain data, on all.

        Raises: on the others too, the error that it ended with, in name.
        """
        if not self.world.is_main:
            return self._follow()
        try:
            found = lead(self)
        except Exception as error:
            self.world.share(("_failed", (type(error).__name__, str(error))))
            raise
        self.world.share(("_end", (found,)))
        return found

    def _follow(self) -> Any:
        """Read with rank 0 until it ends; return its result."""
        while True:
            name, given = self.world.share(None)
            if name == "_end":
                return given[0]
            if name == "_failed":
                kind, message = given
                raise getattr(errors, kind, LonglodeError)(f"On rank 0: {message}")
            with torch.inference_mode():
                getattr(self, name)(*given)

    def _ask(self, name: str, *given: Any) -> Any:
        """Run a method on all ranks, with these arguments."""
        self.world.share((name, given))
        return getattr(self, name)(*given)

    def _score(self, tokens: Tensor, lengths: list[int], rows: Tensor, places: Tensor) -> tuple[Any, Any]:
        self.model.eval()
        device = self.model.device
        nats, hits = asked_scores(
            self.model, tokens.to(device), lengths, rows.to(device), places.to(device), self.transport
        )
        return nats.double().cpu().numpy().astype(np.float64), hits.cpu().numpy()

    def _write(self, rows: Tensor, config: dict[str, Any], stop: tuple[str, ...], state: Tensor) -> Tensor:
        self.model.eval()
        rows = rows.to(self.model.device)
        criteria = StoppingCriteriaList([StopAt(self.tokenizer, stop, rows.shape[1])] if stop else [])
        _set_random_state(self.model.device, state)
        options: dict[str, Any] = {
            "generation_config": GenerationConfig.from_dict(config),
            "stopping_criteria": criteria,
        }
        written = continue_prompt(self.model, rows, self.transport, **options)
        last = self.world.size - 1
        found = None if written is None else (written.cpu(), _random_state(self.model.device))
        out, state = self.world.share(found, last)
        _set_random_state(self.model.device, state)
        return out


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that draws on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
