"""A causal language model as mining uses it: surprisal of a segment alone, and after another one.

Three facts make it fast and keep it exact:

1. The pass that scores s_j alone also gives its prefix state (a KV cache, or one constant-size state per
   layer). In the pair [s_j; s_i] the segment s_j has the same positions, so this state equals that of a new
   pass: s_j is never read twice.
2. Only scored positions reach the LM head, in slices that fit the processor's cache. The last token of
   s_i predicts no scored token, so it is not read.
3. Every segment has the same length, so batches are full and nothing is padded.

As in the released ProLong code, no BOS is put in front and the first token of a segment is scored neither
alone nor given: a segment of L tokens has L - 1 scores.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from longlode.core.errors import ConfigError, ModelError
from longlode.corpus.encoding import TextEncoder
from longlode.mining.reader import AttendingReader
from longlode.models.keywords import CACHE_KEYWORD
from longlode.ops.fused import cross_entropy_
from longlode.ops.host_memory import keep_freed_memory
from longlode.readers.attention import attention_shares
from longlode.readers.prefix import SegmentStates, cache_bytes, select
from longlode.readers.source import check_fit, context_tokens, load_parts, reader_fingerprint
from longlode.readers.tokens import backend_of

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# On a CPU the speed of passes of 1,024 to 8,192 tokens differs by at most a tenth; small ones need less memory.
_BATCH_TOKENS = {"cpu": 2048, "cuda": 65536}
_LOGIT_BYTES = {
    "cpu": 4 << 20,
    "cuda": 256 << 20,
}  # one slice of logits; on a CPU it should fit the L3 cache
_CPU_STATE_BYTES = 4 << 30
_CPU_KEPT_BYTES = 256 << 20  # freed memory that a process which only reads keeps
_PROBE_TOKENS = 16


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _reading(
    method: Callable[Concatenate["LMReader", _P], _T],
) -> Callable[Concatenate["LMReader", _P], _T]:
    """Decorate a method to run without gradients and in the reader's number of threads."""

    @wraps(method)
    def run(self: "LMReader", *args: _P.args, **kwargs: _P.kwargs) -> _T:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return method(self, *args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return run


class LMReader:
    """Reader of segments with a causal LM, by mining's `Reader` protocol: numpy in, numpy out.

    It uses one thread unless `use_threads` sets another number, with which sums are rounded differently.

    Args:
      model: any transformers causal LM that returns a cache it can continue from exactly, or one of ours.
      tokenizer: its fast tokenizer.
      segment: L, tokens per segment; the model must be able to read 2 L.
      batch_tokens: most tokens per forward pass (default 2,048 on a CPU, 65,536 on a GPU). Halved permanently
        when a GPU runs out of memory, which is logged.
      state_bytes: memory for the states of one `alone` call (default 4 GiB on a CPU, half of what is free on
        a GPU). An attention model keeps 2 x layers x KV heads x head_dim numbers per token: 256 segments of
        128 tokens take 6.4 GB in float32 for OPT-350M. Blocks over the budget are dropped and read again in
        `given`, with the same results; a recurrent model hardly ever reaches it.
    Raises: ModelError when the model cannot be used: no LM head, no cache, a cache that is not exact
      (checked here on a few random tokens), a context too short, another model's tokenizer. ConfigError on a
      setting out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        segment: int = 128,
        batch_tokens: int | None = None,
        state_bytes: int | None = None,
    ) -> None:
        """Prepare and check the model; for the arguments see the class."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.threads = 1
        self.segment = segment
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        kind = "cuda" if self.device.type == "cuda" else "cpu"
        self.batch_tokens = _BATCH_TOKENS[kind] if batch_tokens is None else batch_tokens
        self.state_bytes = _state_budget(self.device) if state_bytes is None else state_bytes
        for name, least in (("segment", 2), ("batch_tokens", 1), ("state_bytes", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"The reader's {name} is {getattr(self, name)}; expected at least {least}.")
        self._encoder = TextEncoder(backend_of(tokenizer))
        head = model.get_output_embeddings()
        check_fit(model, head, self._encoder, segment)
        self._num_tokens: int = head.weight.shape[0]
        self._score_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._slice_rows = max(64, _LOGIT_BYTES[kind] // (self._num_tokens * self._score_dtype.itemsize))
        # The backbone, and the head that makes logits of its output.
        self._reader: Any = model.get_decoder()
        self._to_logits: Any = head
        self._probe()

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        segment: int = 128,
        dtype: str = "float32",
        device: str = "auto",
        batch_tokens: int | None = None,
        state_bytes: int | None = None,
    ) -> "LMReader":
        """Load model and tokenizer from a folder or the Hugging Face hub; safetensors only, no remote code.

        Args: dtype, a key of `DTYPES`; device, "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1"; the
          rest as for the class.
        Raises: ConfigError on an unknown dtype, BackendError on an absent device, ModelError that says what
          is missing and what to do.
        """
        if dtype not in DTYPES:
            raise ConfigError(f"The reader's dtype is {dtype!r}; expected one of {', '.join(DTYPES)}.")
        model, tokenizer = load_parts(path_or_id, DTYPES[dtype], device)
        return cls(model, tokenizer, segment=segment, batch_tokens=batch_tokens, state_bytes=state_bytes)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, config, tokenizer and dtype; the same on every machine. Reads the weights once."""
        return reader_fingerprint(self.model, self._encoder)

    def use_threads(self, count: int) -> None:
        """Read in `count` threads on a CPU from now on. Raises: ConfigError below 1."""
        if count < 1:
            raise ConfigError(f"The reader's threads are {count}; expected at least 1.")
        self.threads = count

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode texts of any length to tokens, without special tokens; see `TextEncoder.encode`."""
        return self._encoder.encode(texts)

    @_reading
    def alone(self, segments: np.ndarray) -> tuple[np.ndarray, SegmentStates]:
        """Read each segment on its own.

        Args: segments int64 `[n, L]`.
        Returns: nll `[n, L - 1]` nats of tokens 1 to L - 1, float32 (float64 from a float64 model); the
          states that `given` starts from, on the model's device until dropped.
        Raises: ConfigError on a shape or token out of range.
        """
        tokens = self._as_tokens("segments", segments)
        return self._read_and_keep(tokens, tokens, [len(tokens)], lambda first, stop: None)

    @_reading
    def continued(
        self, states: SegmentStates, sources: np.ndarray, segments: np.ndarray
    ) -> tuple[np.ndarray, SegmentStates]:
        """Read each segment after the text of its state, and keep the new state.

        Args: states, from `alone` or `continued`; sources int `[n]`, rows of that call; segments int64 `[n, L]`.
        Returns: as `alone`; `given` and `continued` can continue from the new states.
        Raises: ConfigError on a shape, token or source out of range; ModelError when the text so far and the
          segment are more than the model can read.
        """
        tokens = self._as_tokens("segments", segments)
        rows = self._as_rows(states, sources, tokens)
        blocks = np.searchsorted(states.starts, rows, side="right") - 1
        edges = [*(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(tokens)]  # runs of one block of states
        held: dict[int, Any] = {}

        def prefix(first: int, stop: int) -> Any:
            block = int(blocks[first])
            if block not in held:
                held.clear()
                held[block] = self._stored(states, block)
            chosen = torch.from_numpy(rows[first:stop] - states.starts[block]).to(self.device)
            return select(held[block], chosen, keep=True)

        history = states.tokens[torch.from_numpy(rows).to(self.device)]
        return self._read_and_keep(tokens, torch.cat([history, tokens], dim=1), edges, prefix)

    def _read_and_keep(
        self,
        tokens: torch.Tensor,
        history: torch.Tensor,
        edges: Sequence[int],
        prefix: Callable[[int, int], Any],
    ) -> tuple[np.ndarray, SegmentStates]:
        """Read whole segments, in batches within the given edges, and keep their states.

        Args: tokens `[n, L]`; history `[n, L']`, the text that each state will cover; prefix, a function that returns
          the cache from which the rows [first, stop) start.
        """
        nll, caches, starts, spent = [], [], [0], 0
        # The cache of an attention model grows with the text: read fewer rows at a time once it is four segments long.
        length = max(tokens.shape[1], history.shape[1] // 4)
        for edge in edges:
            while starts[-1] < edge:
                first = starts[-1]
                stop = first + self._next_rows(edge - first, length)
                block = tokens[first:stop]
                outcome = self._read(block, block[:, 1:], partial(prefix, first, stop))
                if outcome is None:
                    continue
                nll.append(outcome[0])
                spent += cache_bytes(outcome[1])
                caches.append(outcome[1] if spent <= self.state_bytes else None)
                starts.append(stop)
        if None in caches:
            logger.info(
                "%d of %d state blocks exceed state_bytes and are read again", caches.count(None), len(caches)
            )
        return _joined(nll, tokens.shape[1]), SegmentStates(np.array(starts), history, caches)

    @_reading
    def given(self, states: SegmentStates, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Read each target after the text of its state.

        Args: states, from `alone` or `continued`; sources int `[p]`, rows of that call; targets int64 `[p, L]`.
        Returns: nll `[p, L - 1]` nats of tokens 1 to L - 1 of each target; dtype as from `alone`.
        Raises: ConfigError on a shape, token or source out of range.
        """
        tokens = self._as_tokens("targets", targets)
        rows = self._as_rows(states, sources, tokens)
        # Sorted by source, the pairs of a block of states come together: a dropped block is read again once.
        order = np.argsort(rows, kind="stable")
        edges = np.searchsorted(rows[order], states.starts)
        nll = np.empty((len(tokens), tokens.shape[1] - 1), str(self._score_dtype).removeprefix("torch."))
        for block in np.flatnonzero(np.diff(edges)):
            pairs = order[edges[block] : edges[block + 1]]
            for batch, scores in self._read_pairs(states, int(block), rows, tokens, pairs):
                nll[batch] = scores
        return nll

    def _read_pairs(
        self, states: SegmentStates, block: int, sources: np.ndarray, tokens: torch.Tensor, pairs: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (pair numbers, nll) of the pairs whose sources are in one block of states."""
        first = states.starts[block]
        stored = self._stored(states, block)
        while len(pairs):
            batch = pairs[: self._next_rows(len(pairs), tokens.shape[1])]
            prefix = torch.from_numpy(sources[batch] - first).to(self.device)
            target = tokens[torch.from_numpy(batch).to(self.device)]
            outcome = self._read(target[:, :-1], target[:, 1:], partial(select, stored, prefix))
            if outcome is not None:
                yield batch, outcome[0]
                pairs = pairs[len(batch) :]

    def _stored(self, states: SegmentStates, block: int) -> Any:
        """Return the cache of a block of states; one that was dropped is computed again."""
        stored = states.caches[block]
        if stored is None:
            text = states.tokens[states.starts[block] : states.starts[block + 1]]
            stored = self._forward(text, None)[1]
        return stored

    def _read(
        self, inputs: torch.Tensor, labels: torch.Tensor, make_cache: Callable[[], Any]
    ) -> tuple[np.ndarray, Any] | None:
        """Read one batch; return (nll, cache after it), or None when memory ran out and batches were halved."""
        try:
            output, cache = self._forward(inputs, make_cache())
            return self._nll(output, labels).cpu().numpy(), cache
        except torch.OutOfMemoryError:
            if len(inputs) == 1:
                raise ModelError(
                    f"One segment of {labels.shape[1] + 1} tokens does not fit into the memory of "
                    f"{self.device}. Use a smaller model, dtype bfloat16, or a smaller state_bytes."
                ) from None
            self.batch_tokens = (len(inputs) // 2) * (labels.shape[1] + 1)
            logger.warning(
                "out of memory on %s: batches of %d tokens from now on", self.device, self.batch_tokens
            )
            return None

    def _forward(self, inputs: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """Run the backbone on inputs `[r, T]` after `cache`: output `[r, T, width]`, and the new cache."""
        output = self._reader(input_ids=inputs, use_cache=True, **{CACHE_KEYWORD: cache})
        return output[0], output.get(CACHE_KEYWORD)

    def _nll(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the NLL `[r, T]` of labels `[r, T]` from the first T positions of `output`, slice by slice."""
        flat = output[:, : labels.shape[1]].reshape(-1, output.shape[-1])
        wanted = labels.reshape(-1)
        nll = torch.empty(len(flat), dtype=self._score_dtype, device=flat.device)
        for start in range(0, len(flat), self._slice_rows):
            part = slice(start, start + self._slice_rows)
            nll[part] = cross_entropy_(self._to_logits(flat[part]), wanted[part], None, slope=False)
        return nll.view(labels.shape)

    @_reading
    def attention(self, texts: np.ndarray) -> np.ndarray:
        """Compute the share of its attention that each segment pays to each segment, in one pass per text.

        Args: texts int64 `[n, S L]`, S segments each.
        Returns: float32 `[n, S, S]`, see `attention_shares`.
        Raises: ConfigError on a shape or token out of range; ModelError when the model has no full attention or
          cannot read so much.
        """
        array = np.asarray(texts)
        if array.ndim != 2 or not array.shape[1] or array.shape[1] % self.segment:
            raise ConfigError(
                f"texts has shape {list(array.shape)}; expected [n, S L] with L = {self.segment}, the segment length "
                "this reader was made for."
            )
        tokens = self._as_tokens("texts", array.reshape(-1, self.segment)).view(array.shape)
        return attention_shares(self.model, self._reader, tokens, self.segment).cpu().numpy()

    @_reading
    def whole(self, tokens: np.ndarray) -> np.ndarray:
        """Read one text, `batch_tokens` at a time, continuing from its cache, up to the model's longest context.

        Args: tokens int64 `[n]`, n >= 1.
        Returns: nll `[n - 1]` nats of tokens 1 to n - 1, each after all before it; dtype as from `alone`.
        Raises: ConfigError on a shape or token out of range; ModelError for more than the model can read.
        """
        text = self._in_vocabulary("tokens", np.ascontiguousarray(tokens, dtype=np.int64).reshape(1, -1))
        context = context_tokens(self.model)
        if context is not None and text.shape[1] > context:
            raise ModelError(
                f"The model reads at most {context} tokens; the text has {text.shape[1]}. Use a model with a longer "
                "context."
            )
        nll, cache = [np.empty(0, str(self._score_dtype).removeprefix("torch."))], None
        for start in range(0, text.shape[1] - 1, self.batch_tokens):
            stop = min(start + self.batch_tokens, text.shape[1] - 1)
            output, cache = self._forward(text[:, start:stop], cache)
            nll.append(self._nll(output, text[:, start + 1 : stop + 1])[0].cpu().numpy())
        return np.concatenate(nll)

    @_reading
    def lacks(self, protocol: type) -> str:
        """Return the reason why this model lacks a capability, or "" if it has it; see `SelectiveReader`."""
        if protocol is not AttendingReader:
            return ""
        text = torch.zeros(1, 2 * self.segment, dtype=torch.int64, device=self.device)
        try:
            attention_shares(self.model, self._reader, text, self.segment)
        except ModelError as error:
            return str(error)
        return ""

    def _next_rows(self, left: int, length: int) -> int:
        """Return the rows of the next batch: as few batches within `batch_tokens` as possible, evenly filled."""
        num_batches = -(-left // max(1, self.batch_tokens // length))
        return -(-left // num_batches)

    def _as_tokens(self, name: str, rows: np.ndarray) -> torch.Tensor:
        """Check token rows and put them on the device."""
        array = np.ascontiguousarray(rows, dtype=np.int64)
        if array.ndim != 2 or not 2 <= array.shape[1] <= self.segment:
            raise ConfigError(
                f"{name} has shape {list(array.shape)}; expected [n, L] with L from 2 to {self.segment}, the "
                "segment length this reader was made for."
            )
        return self._in_vocabulary(name, array)

    def _in_vocabulary(self, name: str, array: np.ndarray) -> torch.Tensor:
        """Check that all tokens are in the model's vocabulary and put them on the device."""
        if array.size and not 0 <= array.min() <= array.max() < self._num_tokens:
            raise ConfigError(
                f"{name} holds tokens from {array.min()} to {array.max()}; the model knows 0 to "
                f"{self._num_tokens - 1}."
            )
        return torch.from_numpy(array).to(self.device)

    def _as_rows(self, states: SegmentStates, sources: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        """Check that there is one source per row of `tokens`, and that both fit the model's context."""
        rows = np.asarray(sources, dtype=np.int64)
        most = int(states.starts[-1]) - 1
        if rows.shape != (len(tokens),) or (rows.size and not 0 <= rows.min() <= rows.max() <= most):
            raise ConfigError(
                f"sources has shape {list(rows.shape)}; expected [{len(tokens)}], one per target, each from "
                f"0 to {most}, a row of the call that made the states."
            )
        num_tokens = states.tokens.shape[1] + tokens.shape[1]
        context = context_tokens(self.model)
        if context is not None and num_tokens > context:
            raise ModelError(
                f"The model reads at most {context} tokens; {states.tokens.shape[1]} were read and "
                f"{tokens.shape[1]} are to follow. Use shorter segments or a model with a longer context."
            )
        return rows

    @_reading
    def _probe(self) -> None:
        """Check on random tokens that only the head follows the backbone and that continuing from a cache is exact."""
        name, length = type(self.model).__name__, min(self.segment, _PROBE_TOKENS)
        pair = torch.randint(self._num_tokens, (1, 2 * length), generator=torch.Generator().manual_seed(0))
        pair = pair.to(self.device)
        logits, into_head, from_head = _watch_head(self.model, self._to_logits, pair)
        hidden, cache = self._forward(pair, None)
        if cache is None:
            raise ModelError(f"{name} returns no cache to continue from. Use another causal language model.")
        if not (_close(hidden, into_head) and from_head is not None and torch.equal(from_head, logits)):
            # This model scales or caps its logits, so the whole model must compute them.
            self._reader, self._to_logits = self.model, torch.nn.Identity()
            self.batch_tokens = min(self.batch_tokens, 16 * self._slice_rows)
        numbers = pair.cpu().numpy()
        reused = self.given(self.alone(numbers[:, :length])[1], np.array([0]), numbers[:, length:])
        fresh = torch.nn.functional.cross_entropy(
            logits[0, length:-1].to(self._score_dtype), pair[0, length + 1 :], reduction="none"
        )
        error = float(np.abs(reused[0] - fresh.cpu().numpy()).mean())
        allowed = 2e-4 if self.dtype.itemsize >= 4 else 0.25
        if not error <= allowed:
            raise ModelError(
                f"{name} does not continue exactly from its own cache: after a stored state its scores "
                f"differ from a fresh read by {error:.3g} nats per token; at most {allowed} is accepted. "
                "Use another model."
            )


@dataclass(frozen=True)
class ReaderSpec:
    """Arguments to load a reader; picklable, so that each worker process can load its own.

    path_or_id: folder or hub id. The other fields are the options of `LMReader.load`.
    """

    path_or_id: str
    segment: int = 128
    dtype: str = "float32"
    device: str = "auto"
    batch_tokens: int | None = None
    state_bytes: int | None = None

    def __call__(self) -> LMReader:
        """Load the reader; on a CPU the process keeps the memory of a pass for the next one from now on."""
        reader = LMReader.load(
            self.path_or_id,
            segment=self.segment,
            dtype=self.dtype,
            device=self.device,
            batch_tokens=self.batch_tokens,
            state_bytes=self.state_bytes,
        )
        if reader.device.type == "cpu":
            keep_freed_memory(_CPU_KEPT_BYTES)
        return reader


def _joined(nll: list[np.ndarray], length: int) -> np.ndarray:
    return np.concatenate(nll) if nll else np.empty((0, length - 1), np.float32)


def _watch_head(
    model: Any, head: torch.nn.Module, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Read tokens with the whole model; return its logits, and the input and output of the head."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output.clone())))
    try:
        logits = model(input_ids=tokens, use_cache=False).logits
    finally:
        handle.remove()
    return (logits, seen[-1][0], seen[-1][1].to(logits.dtype)) if seen else (logits, None, None)


def _close(hidden: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Return True if both are equal up to rounding of their dtype."""
    if other is None or hidden.shape != other.shape:
        return False
    return bool((hidden - other).norm() <= (1e-3 if hidden.dtype.itemsize >= 4 else 0.05) * other.norm())


def _state_budget(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) // 2 if device.type == "cuda" else _CPU_STATE_BYTES
