"""Continue a text with a model, from and to a state that can be saved in a file."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.api.prompt import read_prompt
from longlode.api.watch import SILENT, Watch
from longlode.core.errors import ConfigError, InputError
from longlode.core.model_names import model_source
from longlode.core.outputs import claim_file
from longlode.core.records import write_json

if TYPE_CHECKING:
    from longlode.parallel.world import World

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Written:
    """Continuation written by a model. text: without the prompt; num_prompt, num_new: tokens; seconds: of both."""

    text: str
    num_prompt: int
    num_new: int
    seconds_prompt: float
    seconds_new: float


def generate(
    model: PathLike,
    prompt: str,
    *,
    state: PathLike | None = None,
    save_state: PathLike | None = None,
    probe_states: PathLike | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    make_streamer: Callable[[Any], Any] | None = None,
    watch: Watch = SILENT,
) -> Written:
    """Continue a text, as `longlode generate` does.

    Args:
      model: a run folder, a model folder, a hub id, or "starter".   prompt: the text to continue.
      state: continue from this state: the prompt follows the text it has read.
      save_state: write the state after the prompt to this file; `overwrite` replaces an existing one.
      probe_states: write to this JSON file how the memory of each layer and head develops over the positions of the
        prompt (`longlode.models.state_probe`).
      max_new_tokens: at most; 0 only reads, for `save_state` and `probe_states`.
      temperature: 0 always takes the likeliest token.
      make_streamer: makes a transformers streamer of the tokenizer.   watch: receives notes and progress.
    Under torchrun every rank calls this: all read the prompt, the last continues it. The text is that of one process.
    Raises: ConfigError for settings that ask for nothing; InputError for a prompt or a state that cannot be used.
    """
    _check(prompt, state, save_state, probe_states, max_new_tokens)
    source = model_source(model)
    came_from = None if state is None else Path(state)
    goes_to = None if save_state is None else _claim_state(save_state, came_from, overwrite)
    probed = None if probe_states is None else claim_file(probe_states, "a probe", overwrite=overwrite)
    from longlode.parallel.world import joined

    read = _Reading(source, came_from, goes_to, probed, seed, device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    options = {"max_new_tokens": max_new_tokens, "use_cache": True, **sampling}
    with joined() as world:
        return _continue(world, read, world.on_main(lambda: prompt), options, make_streamer, watch)


@dataclass(frozen=True)
class _Reading:
    """Model that reads a prompt, and the files of its states."""

    source: str
    state: Path | None
    save_state: Path | None
    probe_states: Path | None
    seed: int
    device: str


def _continue(
    world: "World",
    reading: _Reading,
    prompt: str,
    options: dict[str, Any],
    make_streamer: Callable[[Any], Any] | None,
    watch: Watch,
) -> Written:
    """Read the prompt, on several ranks together, and continue it, on the last of them."""
    import torch

    from longlode.models.load import check_token_ids, load
    from longlode.parallel import GroupTransport
    from longlode.parallel.world import device_of_rank

    network, tokenizer = load(reading.source, device=device_of_rank(reading.device))
    torch.manual_seed(reading.seed)
    # What goes on from a state is the middle of a text: nothing may be put in front of it.
    encoded = tokenizer(prompt, return_tensors="pt", add_special_tokens=reading.state is None)
    check_token_ids(network, encoded["input_ids"])
    tokens = encoded["input_ids"].to(network.device)
    transport = None if world.size == 1 else GroupTransport(world.group, world.timeout_seconds)
    started = time.perf_counter()
    if reading.probe_states is not None:
        if transport is not None:
            raise ConfigError("--probe-states came with several ranks; a probe is of one. Start one process.")
        _probe(network, tokens, reading.probe_states, watch)
    files = {"state": reading.state, "save_state": reading.save_state}
    inputs = read_prompt(network, tokens, watch=watch, transport=transport, **files)
    read_seconds, started = time.perf_counter() - started, time.perf_counter()
    if not options["max_new_tokens"]:
        world.agree([0.0])  # a rank that leaves would end those that still read
        return Written("", tokens.shape[1], 0, read_seconds, 0.0)
    new, last = None, world.size - 1
    if world.rank == last:
        # Of several ranks the first prints, so that nothing is streamed.
        streamer = None if make_streamer is None or last else make_streamer(tokenizer)
        written = network.generate(**inputs, streamer=streamer, **options)
        new = written[0, inputs["input_ids"].shape[1] :].tolist()
    new = world.share(new, last)
    if make_streamer is not None and last and world.is_main:
        _print_whole(make_streamer(tokenizer), tokens, new)
    text = tokenizer.decode(new, skip_special_tokens=True)
    return Written(text, tokens.shape[1], len(new), read_seconds, time.perf_counter() - started)


def _print_whole(streamer: Any, tokens: Any, new: list[int]) -> None:
    """Give a streamer the prompt, which it skips, and all new tokens."""
    import torch

    streamer.put(tokens.cpu())
    for token in new:
        streamer.put(torch.tensor([token]))
    streamer.end()


def _check(
    prompt: str,
    state: PathLike | None,
    save_state: PathLike | None,
    probe_states: PathLike | None,
    max_new_tokens: int,
) -> None:
    """Check what is asked. Raises: as `generate`."""
    if not max_new_tokens and save_state is None and probe_states is None:
        raise ConfigError(
            "max_new_tokens got 0; expected at least 1, or a file for the state (--save-state) or the probe "
            "(--probe-states) as well."
        )
    if state is not None and probe_states is not None:
        raise ConfigError(
            "--probe-states came with --state; a probe reads a text from its beginning. Give the whole text instead."
        )
    if not prompt:
        raise InputError("The prompt is empty; expected some text to continue.")


def _probe(network: Any, tokens: Any, path: Path, watch: Watch) -> None:
    """Read the prompt once more, and write what its states look like. Raises: ConfigError for a model without any."""
    from longlode.models import LonglodeForCausalLM
    from longlode.models.state_probe import probe_states

    if not isinstance(network, LonglodeForCausalLM):
        raise ConfigError(f"--probe-states got a {type(network).__name__}; expected a longlode model.")
    found = probe_states(network, tokens)
    write_json(path, found)
    watch.note(f"States of {len(found['states'])} heads at {len(found['positions'])} positions: {path}")


def _claim_state(save_state: PathLike, state: Path | None, overwrite: bool) -> Path:
    """Check that the state may be written; the file that the run continues from may always be replaced."""
    return claim_file(
        save_state,
        "a state",
        replaceable=lambda path: state is not None and state.exists() and path.samefile(state),
        overwrite=overwrite,
    )
