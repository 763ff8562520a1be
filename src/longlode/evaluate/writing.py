"""Answers that a model writes after a prompt, for any Hugging Face causal LM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from longlode.core.errors import ConfigError
from longlode.evaluate.surprisal import reading
from longlode.models.load import check_token_ids

if TYPE_CHECKING:
    from longlode.evaluate.ranks import Ranks

_TAIL = 16  # tokens decoded to look for a stop text after each new one


@dataclass(frozen=True)
class Sampling:
    """Settings of written answers.

    samples: number of answers per prompt.   temperature: 0 always takes the most probable token.
    Raises: ConfigError for several samples at temperature 0, which would all be the same.
    """

    samples: int = 1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.samples < 1 or self.temperature < 0.0 or (self.samples > 1 and not self.temperature):
            raise ConfigError(
                f"samples is {self.samples} and temperature {self.temperature:g}; expected one sample or more, and a "
                "temperature above 0 for more than one (without it they are all the same)."
            )


class Writer:
    """Writes answers with a model."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: Sampling,
        *,
        batch_tokens: int = 16384,
        ranks: "Ranks | None" = None,
    ) -> None:
        """Prepare a model.

        Args: batch_tokens, tokens of the prompts of one batch; one prompt is always read whole. ranks, that read
          prompts together; None: this process alone.
        """
        self.ranks = ranks
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.batch_tokens = batch_tokens

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        stops: Sequence[tuple[str, ...]],
        seed: int,
    ) -> list[list[str]]:
        """Continue each prompt.

        Args:
          prompts: token ids.   max_new_tokens: at most so many, for each.   stops: for each the texts that end it.
          seed: of the sampling.
        Returns: for each prompt its samples, without special tokens, cut before the first stop text.
        """
        found: list[list[str]] = [[] for _ in prompts]
        torch.manual_seed(seed)
        with reading(self.model):
            for batch in self._batches(prompts, max_new_tokens, stops):
                first = batch[0]
                rows = torch.tensor([prompts[index] for index in batch], device=self.model.device)
                written = self._continue(rows, max_new_tokens[first], stops[first])
                for place, index in enumerate(batch):
                    found[index] = written[
                        place * self.sampling.samples : (place + 1) * self.sampling.samples
                    ]
        return found

    def _batches(
        self, prompts: Sequence[Sequence[int]], limits: Sequence[int], stops: Sequence[tuple[str, ...]]
    ) -> list[list[int]]:
        """Indices of prompts that are written together.

        They are equally long, so that no padding stands before any: many recurrent models cannot skip it.
        """
        alike: dict[tuple[int, int, tuple[str, ...]], list[int]] = {}
        for index, prompt in enumerate(prompts):
            alike.setdefault((len(prompt), limits[index], stops[index]), []).append(index)
        batches = []
        for (length, limit, _), indices in sorted(alike.items()):
            size = max(1, self.batch_tokens // ((length + limit) * self.sampling.samples))
            batches += [indices[start : start + size] for start in range(0, len(indices), size)]
        return batches

    def _continue(self, rows: torch.Tensor, max_new_tokens: int, stop: tuple[str, ...]) -> list[str]:
        check_token_ids(self.model, rows)
        known = getattr(self.model, "generation_config", None)
        end = getattr(known, "eos_token_id", None)
        last = end[0] if isinstance(end, list) else end
        sampled = (
            {"do_sample": True, "temperature": self.sampling.temperature, "top_k": 0, "top_p": 1.0}
            if self.sampling.temperature
            else {"do_sample": False}
        )
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            num_return_sequences=self.sampling.samples,
            eos_token_id=end,
            pad_token_id=last if last is not None else 0,
            bos_token_id=getattr(known, "bos_token_id", None),
            **sampled,
        )
        if self.ranks is not None:
            out = self.ranks.write(rows, config, stop)
        else:
            criteria = StoppingCriteriaList([StopAt(self.tokenizer, stop, rows.shape[1])] if stop else [])
            out = self.model.generate(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                generation_config=config,
                stopping_criteria=criteria,
            )
        texts = self.tokenizer.batch_decode(out[:, rows.shape[1] :], skip_special_tokens=True)
        return [_before(text, stop) for text in texts]


class StopAt(StoppingCriteria):
    """Ends each row whose new tokens hold one of some texts."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], start: int) -> None:
        """start: number of tokens of the prompts."""
        self.tokenizer, self.stop, self.start = tokenizer, stop, start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Return True for rows that have ended, bool `[B]`."""
        new = input_ids[:, max(self.start, input_ids.shape[1] - _TAIL) :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        ended = [any(one in text for one in self.stop) for text in texts]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


def _before(text: str, stop: tuple[str, ...]) -> str:
    places = [text.index(one) for one in stop if one in text]
    return text[: min(places)] if places else text
