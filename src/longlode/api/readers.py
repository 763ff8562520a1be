"""Readers for mining by the name of a model: its tokenizer alone, or the model in the best dtype here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.api.watch import SILENT, Watch
from longlode.core.errors import ConfigError
from longlode.core.kinds import RECORD_NAME
from longlode.core.model_names import model_source
from longlode.core.records import read_record

if TYPE_CHECKING:
    from longlode.mining import Reader, ScoreSettings
    from longlode.mining.scorers import Scorer
    from longlode.readers.lm import LMReader
    from longlode.readers.tokens import TokenReader

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Source:
    """Source of a scorer's tokens and readings.

    reader: in this process, None for a scorer that needs none. lm: the same if it is a model, else None. make:
    function that makes the reader in a worker. notes: fields of the record on the model.
    """

    reader: "TokenReader | LMReader | None" = None
    lm: "LMReader | None" = None
    make: "Callable[[], Reader] | None" = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the reader, "" without one."""
        return "" if self.reader is None else self.reader.fingerprint


def open_source(
    scorer: "Scorer",
    model: str,
    settings: "ScoreSettings",
    *,
    dtype: str = "auto",
    workers: int = 1,
    out: Path | None = None,
    watch: Watch = SILENT,
) -> Source:
    """Load only the parts of a model that a scorer needs. Args: dtype, out, as of `pick_dtype`. Raises: as
    that; ModelError for a model that lacks what the scorer needs."""
    from longlode.mining.requests import check_reader

    check_dtype(dtype)
    if scorer.reads_model:
        precision, why = pick_dtype(dtype, out)
        if why:
            watch.note(f"--dtype auto: {precision}, {why}")
        lm, make = load_reader(model, settings.segment, workers, precision, watch=watch)
        check_reader(scorer.name, scorer.asks, lm)
        return Source(lm, lm, make, {"model": {"name": model, "dtype": precision, "why": why}})
    if scorer.reads_tokens:
        tokens, make_tokens = _load_tokens(model, workers, watch)
        return Source(tokens, None, make_tokens)
    return Source()


def check_dtype(dtype: str) -> None:
    """Raises: ConfigError for a name that is none of DTYPES."""
    if dtype not in DTYPES:
        raise ConfigError(f"dtype got {dtype!r}; expected one of {', '.join(DTYPES)}.")


def pick_dtype(dtype: str, out: Path | None = None) -> tuple[str, str]:
    """The dtype for a name, and the reason.

    "auto" is the dtype of the scores in the folder `out`, which this run continues, else the faster of float32 and
    bfloat16 here. Raises: ConfigError.
    """
    check_dtype(dtype)
    if dtype != "auto":
        return dtype, ""
    if out is not None and (out / RECORD_NAME).is_file():
        recorded = (read_record(out).get("model") or {}).get("dtype")
        if recorded in DTYPES:
            return recorded, f"as of the scores in {out}"
    from longlode.readers.dtype import fastest_dtype

    return fastest_dtype()


def load_reader(
    model: str, segment: int, workers: int = 1, dtype: str = "float32", *, watch: Watch = SILENT
) -> "tuple[LMReader, Callable[[], LMReader]]":
    """The reader, and the function that gives workers theirs: this one, or a copy in each other process."""
    from longlode.readers.lm import ReaderSpec

    source = model_source(model)
    watch.note(f"loading the model: {model} in {dtype}")
    spec = ReaderSpec(source, segment=segment, dtype=dtype)
    reader = spec()
    return reader, spec if workers > 1 else lambda: reader


def _load_tokens(model: str, workers: int, watch: Watch) -> "tuple[TokenReader, Callable[[], TokenReader]]":
    """Reader that only tokenizes, as the model does, and the function that makes it in workers; loads no weights."""
    from longlode.readers.tokens import TokenReaderSpec

    source = model_source(model)
    watch.note(f"loading the tokenizer of the model: {model}; no pass of the model is needed")
    spec = TokenReaderSpec(source)
    tokens = spec()
    return tokens, spec if workers > 1 else lambda: tokens
