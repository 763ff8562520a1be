"""Surprisal and greedy hits of chosen tokens, for any Hugging Face causal LM.

Texts are read in right-padded batches: a causal model cannot see what stands to the right, so the padding
changes nothing and no mask is needed. Where it is safe, only the positions asked for reach the LM head, because the
logits of whole texts use up memory first (4096 tokens, vocabulary of 32000: 0.5 GB per text).
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longlode.core.errors import ConfigError, ModelError
from longlode.evaluate.tasks.base import Encode, Tokens
from longlode.models.load import check_token_ids

if TYPE_CHECKING:
    from longlode.evaluate.ranks import Ranks

_LOGIT_NUMBERS = 1 << 25  # logits made at a time: 128 MiB in fp32


class SurprisalMeter:
    """Surprisal of asked tokens of token rows, by a model."""

    def __init__(self, model: Any, *, batch_tokens: int = 16384, ranks: "Ranks | None" = None) -> None:
        """Prepare a model.

        Args:
          model: a PreTrainedModel with a causal LM head; it is put into eval mode while it reads.
          batch_tokens: tokens read in one forward call, padding included; one text is always read whole.
          ranks: that read texts together; None: this process alone.
        """
        self.ranks = ranks
        self.model = model
        self.batch_tokens = batch_tokens
        self._body: Any = None
        with reading(model):
            if _head_is_all(model):
                self._body = model.base_model

    def read(
        self, rows: Sequence[Sequence[int]], asked: Sequence[np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Score tokens.

        Args:
          rows: token ids of each text.
          asked: for each text the positions (>= 1) of the tokens to score.
        Returns: for each text (nats float64 [n], hits bool [n]).
        Raises: ModelError when the model gives a surprisal that is not finite; InputError for a token that it has no
          embedding for.
        """
        results: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0, dtype=bool))] * len(rows)
        with reading(self.model):
            for batch in _batches(rows, self.batch_tokens):
                for index, scored in zip(
                    batch, self._read([rows[i] for i in batch], [asked[i] for i in batch]), strict=True
                ):
                    results[index] = scored
        return results

    def _read(
        self, rows: Sequence[Sequence[int]], asked: Sequence[np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        width = max(len(row) for row in rows)
        device = self.model.device
        tokens = torch.zeros(len(rows), width, dtype=torch.int64)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.as_tensor(row)
        check_token_ids(self.model, tokens)
        counts = [len(positions) for positions in asked]
        row_of = torch.as_tensor(np.repeat(np.arange(len(rows)), counts))
        position = torch.as_tensor(np.concatenate(asked))
        if self.ranks is not None:
            nats, hits = self.ranks.score(tokens, [len(row) for row in rows], row_of, position)
            return self._split(nats, hits, counts)
        wanted = tokens[row_of, position].to(device)
        where = (row_of.to(device), (position - 1).to(device))
        tokens = tokens.to(device)
        if self._body is not None:
            hidden = self._body(input_ids=tokens, use_cache=False).last_hidden_state[where]
            nats, hits = self._head(hidden, wanted)
        else:
            nats, hits = _surprisal(self.model(input_ids=tokens, use_cache=False).logits[where], wanted)
        return self._split(nats, hits, counts)

    def _split(
        self, nats: np.ndarray, hits: np.ndarray, counts: Sequence[int]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Check the scores, and give each text its own."""
        if not bool(np.isfinite(nats).all()):
            raise ModelError(
                f"{type(self.model).__name__} gives a surprisal that is not a finite number on "
                "ordinary text. Check its weights and its dtype (fp16 overflows in many models; try float32 "
                "or bfloat16)."
            )
        edges = np.cumsum([0, *counts])
        return [(nats[a:b], hits[a:b]) for a, b in itertools.pairwise(edges)]

    def _head(self, hidden: torch.Tensor, wanted: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        head = self.model.get_output_embeddings()
        step = max(1, _LOGIT_NUMBERS // head.weight.shape[0])
        parts = [
            _surprisal(head(hidden[start : start + step]), wanted[start : start + step])
            for start in range(0, len(wanted), step)
        ]
        return np.concatenate([nats for nats, _ in parts]), np.concatenate([hits for _, hits in parts])


def losses_after(
    meter: SurprisalMeter, rows: Sequence[Sequence[int]], contexts: Sequence[int], targets: int
) -> np.ndarray:
    """Mean loss of the last `targets` tokens of each row, after so many tokens of context right before them.

    Args:
      rows: token ids, each of `max(contexts) + targets` tokens or more.
      contexts: numbers of tokens, at least 1 each.
    Returns: nats per token, float64 `[len(rows), len(contexts)]`; a row's values are of the same targets.
    Raises: ConfigError for rows that are too short, or no targets.
    """
    needed, shortest = max(contexts) + targets, min(map(len, rows))
    if targets < 1 or min(contexts) < 1 or shortest < needed:
        raise ConfigError(
            f"contexts {list(contexts)} and {targets} targets need rows of {needed} tokens; the shortest has "
            f"{shortest}. Give at least one token of context and one target, and rows that hold both."
        )
    pairs = [(row[len(row) - targets - context :], context) for context in contexts for row in rows]
    asked = [np.arange(context, context + targets) for _, context in pairs]
    nats = [part.mean() for part, _ in meter.read([cut for cut, _ in pairs], asked)]
    return np.array(nats, dtype=np.float64).reshape(len(contexts), len(rows)).T


@contextlib.contextmanager
def reading(model: Any) -> Iterator[None]:
    """Set eval mode and no gradients inside; restore the model's mode afterwards."""
    was_training = bool(model.training)
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _surprisal(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    logits = logits.float()
    nats = torch.logsumexp(logits, -1) - logits.gather(-1, wanted[:, None])[:, 0]
    hits = logits.argmax(-1) == wanted
    return nats.double().cpu().numpy(), hits.cpu().numpy()


def _head_is_all(model: Any) -> bool:
    """Tell if a row of logits is exactly the head applied to the body's last hidden state.

    It is not for models that cap or scale their logits (Gemma, Cohere, Granite). Found by running the model on a
    short probe, since no setting covers all of them.
    """
    body, head = getattr(model, "base_model", None), model.get_output_embeddings()
    if body is None or body is model or getattr(head, "weight", None) is None:
        return False
    probe = torch.arange(1, 9, device=model.device)[None] % head.weight.shape[0]
    hidden = getattr(body(input_ids=probe, use_cache=False), "last_hidden_state", None)
    if hidden is None or hidden.shape[-1] != head.weight.shape[-1]:
        return False
    return torch.allclose(
        head(hidden).float(), model(input_ids=probe, use_cache=False).logits.float(), rtol=1e-5, atol=1e-6
    )


def _batches(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, as many as fit into `batch_tokens` padded tokens and at least one."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, len(rows[order[start]])))
        yield order[start : start + size]
        start += size


def make_encode(tokenizer: Any) -> Encode:
    """Adapt a tokenizer to tasks: text -> ids and character offsets, with the special tokens that it adds itself.

    Raises: ConfigError for a tokenizer that cannot give offsets (a slow, pure Python one).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{type(tokenizer).__name__} does not give the characters of each token, so answers cannot be "
            "located. Use a fast tokenizer (one with a tokenizer.json)."
        )

    def encode(text: str) -> Tokens:
        got = tokenizer(text, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
        return Tokens(list(got["input_ids"]), [tuple(pair) for pair in got["offset_mapping"]])

    return encode


def context_limit(model: Any) -> int | None:
    """Greatest number of tokens that a model can read, from its configuration; None if that names no limit."""
    config = model.config
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None
