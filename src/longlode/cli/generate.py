"""longlode generate: let a model continue a text, streamed as it is written."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import ConsoleWatch, echo, note, results_shown
from longlode.cli.options import Device, Model, Overwrite, Seed
from longlode.core.errors import ConfigError, InputError
from longlode.core.model_names import model_source
from longlode.core.processes import started_rank

EXAMPLES = (
    'longlode generate runs/small --prompt "def main(" --max-new-tokens 200',
    "longlode generate starter --prompt-file chapter.txt --temperature 0.8 --seed 7",
    "longlode generate runs/small --prompt-file book.txt --save-state book.state --max-new-tokens 0",
    "longlode generate runs/small --prompt-file book.txt --probe-states states.json --max-new-tokens 0",
    'longlode generate runs/small --state book.state --prompt "The end of it was"',
    "cat notes.txt | longlode generate runs/small --prompt-file -",
)


def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="The text to continue.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="A file with the text; - reads standard input.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Go on from this state: the prompt follows the text it has read.")
    ] = None,
    save_state: Annotated[
        Path | None, typer.Option(help="Write the state after the prompt to this file.")
    ] = None,
    probe_states: Annotated[
        Path | None,
        typer.Option(help="Write the memory of every layer and head over positions of the prompt (JSON)."),
    ] = None,
    overwrite: Overwrite = False,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            min=0, help="Tokens to write at most; 0 only reads, for --save-state and --probe-states."
        ),
    ] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
) -> dict[str, Any]:
    """Continue a text with a model and print it as it is written.

    The continuation goes to standard output, the speed to standard error. A DeltaNet keeps a state of
    constant size: a long prompt takes time to read, but no more memory than a short one. With --save-state that state
    is kept in a file, and a long text read once can be asked about many times with --state. With --probe-states, JSON
    says how it grows: norm, effective rank and drift of every head at 16, 32, 64 ... tokens, and the loss there.
    """
    if (prompt is None) == (prompt_file is None):
        raise ConfigError("generate needs one prompt: give either --prompt TEXT or --prompt-file FILE.")
    model_source(model)  # a slip in a name should not wait for torch
    from longlode.api.generation import generate as run_generation

    done = run_generation(
        model,
        # Of several ranks the first reads standard input, and gives the others its prompt.
        prompt if prompt is not None else _read(prompt_file or Path("-")),
        state=state,
        save_state=save_state,
        probe_states=probe_states,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        overwrite=overwrite,
        make_streamer=_streamer,
        watch=ConsoleWatch(),
    )
    told = f"{done.num_prompt:,} tokens read in {done.seconds_prompt:.1f} s"
    if max_new_tokens:
        speed = f"{done.num_new / done.seconds_new:.1f} tokens/s"
        told += f"; {done.num_new} tokens after them in {done.seconds_new:.1f} s ({speed})"
    note(told)
    return {**vars(done), "save_state": save_state, "probe_states": probe_states}


def _read(path: Path) -> str:
    try:
        if str(path) == "-":
            return sys.stdin.read() if started_rank() == 0 else "the prompt of rank 0"
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prompt file {path} cannot be read: {error}.") from None


def _streamer(tokenizer: Any) -> Any:
    """Prints whole words as they come, without the prompt."""
    from transformers import TextStreamer

    class _Printer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if results_shown() and not echo(text, end="\n" if stream_end else ""):
                raise typer.Exit  # nobody reads what would still be written

    return _Printer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: the state may be on disk, as it is written before the text."""
    save_state = options.get("save_state")
    if save_state is None:
        return ""
    return f"The state {save_state} is written as a whole, before the first new token, or not at all."
