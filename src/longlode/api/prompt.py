"""Read a prompt into a model's memory piece by piece, from and to a state file."""

from pathlib import Path
from typing import Any

from longlode.api.watch import SILENT, Watch
from longlode.core.errors import ConfigError

_PIECE_TOKENS = 2048


def read_prompt(
    network: Any,
    tokens: Any,
    *,
    state: Path | None = None,
    save_state: Path | None = None,
    watch: Watch = SILENT,
    transport: Any = None,
) -> dict[str, Any]:
    """Read all but the last token of `tokens [1, T]`, after the text of `state`; the state that `generate` starts from.

    The last token stays unread, since `generate` has to predict what follows it. The state that is saved has
    read it.
    Args: watch, receives notes on what is read and written. transport, of ranks that read the prompt together; on
      the last the state is whole, and that one saves it. None: this process alone.
    Returns: the keywords for `network.generate`; on several ranks good on the last.
    Raises: ConfigError for a model without such a memory; InputError on a state file that does not fit.
    """
    import torch

    from longlode.models import LonglodeCache, LonglodeForCausalLM

    if not isinstance(network, LonglodeForCausalLM):
        if transport is not None:
            raise ConfigError(
                f"{transport.num_ranks} ranks were started and the model is a {type(network).__name__}; only models of "
                "longlode read a prompt on several ranks. Start one process."
            )
        if state is not None or save_state is not None:
            raise ConfigError(
                f"--state and --save-state got a {type(network).__name__}; expected a longlode model, whose "
                "memory is small enough to keep. Leave them out for this one."
            )
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if state is not None:
        cache = LonglodeCache.load(state, model=network)
        watch.note(f"Going on after {cache.num_positions:,} tokens from {state}")
    else:
        cache = LonglodeCache(len(network.model.layers))
    if transport is None:
        _read(network, tokens[:, :-1], cache, watch)
    else:
        from longlode.parallel.reading import read_prompt as read_on_ranks

        read_on_ranks(network.eval(), tokens[:, :-1], transport, cache)
    is_last = transport is None or transport.rank == transport.num_ranks - 1
    if save_state is not None and is_last:
        whole = cache.copy()
        _read(network, tokens[:, -1:], whole, SILENT)
        whole.save(save_state, model=network)
        watch.note(
            f"State after {whole.num_positions:,} tokens: {save_state} ({save_state.stat().st_size:,} bytes)"
        )
    mask = torch.ones(1, cache.num_positions + 1, dtype=torch.int64, device=tokens.device)
    return {"input_ids": tokens[:, -1:], "attention_mask": mask, "past_key_values": cache}


def _read(network: Any, tokens: Any, cache: Any, watch: Watch) -> None:
    import torch

    total = tokens.shape[1]
    with torch.inference_mode(), watch.progress("reading") as update:
        for start in range(0, total, _PIECE_TOKENS):
            network.model(tokens[:, start : start + _PIECE_TOKENS], past_key_values=cache, use_cache=True)
            update(min(start + _PIECE_TOKENS, total), total, "tokens")
