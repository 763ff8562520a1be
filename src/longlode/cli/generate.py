"""longlode generate: let a model continue a text, streamed as it is written."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import note, plain
from longlode.cli.sources import model_source
from longlode.core.errors import ConfigError, InputError

EXAMPLES = (
    'longlode generate runs/small --prompt "def main(" --max-new-tokens 200',
    "longlode generate starter --prompt-file chapter.txt --temperature 0.8 --seed 7",
    "cat notes.txt | longlode generate runs/small --prompt-file -",
)


def generate(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, a hub id, or: starter.")],
    prompt: Annotated[str | None, typer.Option(help="The text to continue.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="A file with the text; - reads standard input.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Continue a text with a model and print it as it is written.

    The continuation goes to standard output, the speed to standard error. A DeltaNet keeps a state of
    constant size: a long prompt costs time to read but no memory to remember.
    """
    if (prompt is None) == (prompt_file is None):
        raise ConfigError("generate needs one prompt: give either --prompt TEXT or --prompt-file FILE.")
    text = prompt if prompt is not None else _read(prompt_file or Path("-"))
    if not text:
        raise InputError("The prompt is empty; expected some text to continue.")
    import torch

    from longlode.models import load

    source = model_source(model)
    network, tokenizer = load(source, device=_device(device))
    torch.manual_seed(seed)
    tokens = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(network.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    started = time.perf_counter()
    written = network.generate(
        **tokens, max_new_tokens=max_new_tokens, streamer=_streamer(tokenizer), use_cache=True, **sampling
    )
    seconds = time.perf_counter() - started
    num_read = tokens["input_ids"].shape[1]
    num_new = written.shape[1] - num_read
    note(f"{num_new} tokens after {num_read:,} in {seconds:.1f} s ({num_new / seconds:.1f} tokens/s)")


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prompt file {path} cannot be read: {error}.") from None


def _device(name: str) -> str:
    from longlode.train.build import pick_device

    return str(pick_device(name))


def _streamer(tokenizer: Any) -> Any:
    """Prints whole words as they come, without the prompt."""
    from transformers import TextStreamer

    class _Printer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            typer.echo(plain(text), nl=stream_end)
            sys.stdout.flush()

    return _Printer(tokenizer, skip_prompt=True, skip_special_tokens=True)
