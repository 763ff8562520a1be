"""Pack by the names of inputs and of a tokenizer: what the command `pack` does, and `longlode.pack(...)`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longlode.core.model_names import model_source
from longlode.corpus import Inputs, Tokenizer, find_files, read
from longlode.mining.selection_files import check_selection
from longlode.packing.writer import pack as write_shards


def pack(
    inputs: Inputs,
    out: str | Path,
    *,
    tokenizer: str | Path = "starter",
    length: int = 4096,
    overwrite: bool = False,
    text_field: str = "text",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Tokenize the documents behind `inputs` into shards.

    Args:
      inputs: files, folders, globs or URLs; what select wrote.
      out: the folder to write.
      tokenizer: "starter", or a folder that holds tokenizer.json.
      length, overwrite, progress: as in `packing.pack`.
      text_field: the field that holds the text of a record.
    Returns: as `packing.pack`.
    Raises: as `packing.pack`; InputError for an input that is not there, or a selection that is not finished.
    """
    for file in find_files(inputs):
        check_selection(Path(file.path))
    words = Tokenizer.load(model_source(str(tokenizer)))
    documents = read(inputs, text_field=text_field)
    return write_shards(documents, words, out, length=length, overwrite=overwrite, progress=progress)
