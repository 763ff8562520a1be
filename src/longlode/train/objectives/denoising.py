"""Objectives that change what the model reads: prefixes read in both directions, masked tokens."""

import itertools
import zlib
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.models import LonglodeForCausalLM
from longlode.models.loss import IGNORED
from longlode.train.objectives.base import Losses, Objective
from longlode.train.objectives.inputs import Asked, asked_logits, device_of, model_inputs
from longlode.train.objectives.next_token import with_sides


@dataclass(frozen=True, kw_only=True)
class PrefixLM(Objective):
    """Next-token loss after a prefix, which mixers with a prefix read in both directions (`prefix_linear_attention`).

    Of each document a part between `least` and `most` is the prefix, drawn anew by its tokens; a row without cu_seqlens
    is one document. Labels within the prefix are not asked: their tokens have been seen.

    least, most: smallest and largest part of a document that is its prefix.
    """

    name: ClassVar[str] = "prefix_lm"
    least: Annotated[float, Field(ge=0, lt=1)] = 0.1
    most: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def __post_init__(self) -> None:
        """Check the parts. Raises: ConfigError if the smallest is above the largest."""
        if self.least > self.most:
            raise ConfigError(f"prefix_lm got least = {self.least} above most = {self.most}; swap them.")

    def weight(self, batch: Batch) -> float:
        """Return the sum of the weights of the labels after the prefixes."""
        return self._cut(batch)[0].total_weight or 1.0  # documents too short to leave a label

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses of the labels after the prefixes. Raises: ConfigError for a model of transformers."""
        if not isinstance(model, LonglodeForCausalLM):
            raise ConfigError(
                "prefix_lm needs a longlode model, with mixers that read a prefix in both directions."
            )
        cut, prefixes = self._cut(batch)
        device = device_of(model)
        output = model(
            **model_inputs(model, cut),
            prefix_lengths=torch.from_numpy(prefixes).to(device),
            use_cache=False,
            shift_labels=torch.from_numpy(cut.labels).to(device),
            label_weights=None if cut.weights is None else torch.from_numpy(cut.weights).to(device),
            num_items_in_batch=1,
            adds_aux_loss=False,
            logits_to_keep=1,
        )
        return with_sides(output.loss, cut, output)

    def _cut(self, batch: Batch) -> tuple[Batch, np.ndarray]:
        """Return the batch without the labels of prefixes, and the prefix of each document in tokens, int64."""
        labels = batch.labels.copy()
        if batch.cu_seqlens is None:
            spans = [(row, 0, batch.tokens.shape[1]) for row in range(len(batch.tokens))]
        else:
            edges = batch.cu_seqlens.tolist()
            spans = [(0, start, end) for start, end in itertools.pairwise(edges)]
        prefixes = []
        for row, start, end in spans:
            share = _generator(batch.tokens[row, start:end], 0).uniform(self.least, self.most)
            prefix = int(share * (end - start))
            # The label of the prefix's last token is the first token after it.
            labels[row, start : start + max(0, prefix - 1)] = IGNORED
            prefixes.append(prefix)
        return replace(batch, labels=labels), np.array(prefixes, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class MaskedLM(Objective):
    """Cross entropy of masked tokens at their own positions (BERT, arXiv 1810.04805), for stacks that read both ways.

    A part `share` of the tokens is chosen by their text and `seed`; of these 80 % become `mask_token`, 10 % a random
    token, 10 % stay. In a causal stack a masked token is guessed from what stands before it alone.

    mask_token: id of the token that stands for a masked one. share: part of the tokens. seed: of the choice.
    """

    name: ClassVar[str] = "masked_lm"
    mask_token: Annotated[int, Field(ge=0)]
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    seed: int = 0

    def weight(self, batch: Batch) -> float:
        """Return the number of chosen tokens, weighed as the packer says."""
        return self._masked(batch, 1).total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses of the chosen tokens."""
        embeddings: Any = model.get_input_embeddings().num_embeddings
        if self.mask_token >= embeddings:
            raise ConfigError(
                f"mask_token is {self.mask_token}; expected below {embeddings}, the model's vocabulary."
            )
        masked = self._masked(batch, embeddings)
        asked = Asked.of(model, masked)
        logits, output = asked_logits(model, asked)
        nats = functional.cross_entropy(logits, asked.labels, reduction="none") * asked.weights
        return with_sides(nats.sum(), masked, output)

    def _masked(self, batch: Batch, vocabulary: int) -> Batch:
        """Return the batch with masked tokens, and its original ones as labels. Rows are chosen from one by one."""
        tokens, labels = batch.tokens.copy(), np.full_like(batch.labels, IGNORED)
        edges = [0, tokens.shape[1]] if batch.cu_seqlens is None else batch.cu_seqlens.tolist()
        for row in range(len(tokens)):
            for start, end in itertools.pairwise(edges):
                text = batch.tokens[row, start:end]
                draw = _generator(text, self.seed)
                chosen = draw.random(len(text)) < self.share
                chosen[draw.integers(len(text))] = True  # a text without any would have no loss
                fate, others = draw.random(len(text)), draw.integers(0, vocabulary, len(text))
                replaced = np.where(fate < 0.8, self.mask_token, np.where(fate < 0.9, others, text))
                tokens[row, start:end] = np.where(chosen, replaced, text)
                labels[row, start:end] = np.where(chosen, text, IGNORED)
        return replace(batch, tokens=tokens, labels=labels)


def _generator(tokens: np.ndarray, seed: int) -> np.random.Generator:
    """Return a generator that is a function of a text: the same however a batch is cut, and in a resumed run."""
    return np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(tokens, dtype="<i8").tobytes())])
