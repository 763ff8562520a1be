"""Damaged corpora and recipes, and what must come of them.

For every corpus: `read` gives what `plan` and `read_unit` give, row for row; nothing but a LonglodeError is raised.
Lines, cut archives, whole texts and tables that pyarrow can read have an oracle beside: each good row gives its text
once, each bad one a row that says why.
"""

import datetime
import gzip
import io
import json
import random
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from benchmarks.fuzz_mutate import cut, damage, odd_record
from longlode.core.errors import LonglodeError
from longlode.corpus import Document, Unreadable, plan, read, read_unit

_MARK = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNREADABLE = object()
_ANYTHING = object()
_RECIPE = """[model]
mixers = "DSA"
hidden_size = 16
num_heads = 2
num_kv_heads = 1
window = 8
norm_eps = 1e-6
use_output_gate = true

[data]
length = 24
batch_size = 2
heldout_fraction = 0.2

[optim]
lr = 0.01
schedule = "cosine"
betas = [0.9, 0.95]
clip_norm = 1.0

[run]
steps = 8
seed = 3
dtype = "float32"
checkpoint_every = 2
checkpoint_seconds = "none"
"""


class Kind(ABC):
    """A kind of input. limit: seconds that one mutant may take."""

    name: str
    limit = 20.0

    @abstractmethod
    def prepare(self, template: Path) -> None:
        """Make what is needed once, in a folder that all kinds share."""

    @abstractmethod
    def try_one(self, draw: random.Random, template: Path, place: Path) -> str:
        """Make a mutant in the empty folder `place` and try it. Returns: what is wrong; "" for nothing."""


class Corpus(Kind):
    """One damaged file, read whole and in units."""

    suffix: str

    def prepare(self, template: Path) -> None:
        """Nothing: the base is made in memory."""

    @abstractmethod
    def mutant(self, draw: random.Random) -> tuple[bytes, Any]:
        """The bytes of a file, and what the oracle needs to know of them."""

    def oracle(self, data: bytes, known: Any, path: Path, rows: Sequence[Document | Unreadable]) -> str:
        """What is wrong with rows that were read strictly."""
        return ""

    def try_one(self, draw: random.Random, template: Path, place: Path) -> str:
        """See `Kind.try_one`."""
        data, known = self.mutant(draw)
        path = place / f"file{self.suffix}"
        path.write_bytes(data)
        strict = draw.random() < 0.8
        options: dict[str, Any] = (
            {} if strict else {"errors": "replace", "max_line_bytes": draw.choice((10, 200))}
        )
        cuts = {
            "rows_per_unit": draw.choice((1, 2, 5, 256)),
            "bytes_per_unit": draw.choice((1, 100, 4096, 8 << 20)),
        }
        whole, refused = _attempt(lambda: list(read([str(path)], **options)))
        units, refused_units = _attempt(
            lambda: [row for unit in plan([str(path)], **cuts) for row in read_unit(unit, **options)]
        )
        if refused != refused_units:
            return f"read: {refused or 'fine'}; in units: {refused_units or 'fine'}"
        if repr(whole) != repr(units):
            return (
                f"read gives {len(whole)} rows, units {len(units)} {cuts}: {_first_difference(whole, units)}"
            )
        return "" if refused or not strict else self.oracle(data, known, path, whole)


def _attempt(call: Any) -> tuple[list[Any], str]:
    try:
        return call(), ""
    except LonglodeError as error:
        return [], type(error).__name__


def _first_difference(a: Sequence[Any], b: Sequence[Any]) -> str:
    for one, other in zip(a, b, strict=False):
        if repr(one) != repr(other):
            return f"{one!r:.150} and {other!r:.150}"
    return "one is the other's beginning"


def _base_lines(draw: random.Random) -> list[bytes]:
    lines = []
    for number in range(draw.randint(1, 12)):
        record: dict[str, Any] = {"id": f"d{number}", "text": "wörter " * draw.randint(1, 12), "n": number}
        if draw.random() < 0.3:
            record["source"] = draw.choice(("a", "b"))
        lines.append(json.dumps(record, ensure_ascii=draw.random() < 0.5).encode())
    return lines


def expected_text(line: bytes) -> Any:
    """The text of a line by Python's own json; _UNREADABLE, or _ANYTHING where json is of no help (deep nesting)."""
    try:
        record = json.loads(line.decode("utf-8"), parse_int=float)
    except RecursionError:
        return _ANYTHING
    except ValueError:
        return _UNREADABLE
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str) or not text or _SURROGATE.search(text):
        return _UNREADABLE
    return text


def check_lines(data: bytes, rows: Sequence[Document | Unreadable], *, whole: bool = True) -> str:
    """Compare rows with the lines of the data, one by one. Args: whole, False if the file goes bad after `data`."""
    lines = data.removeprefix(_MARK).split(b"\n")
    if not whole:
        lines = lines[:-1]  # the line that the damage broke
    wanted = {number: expected_text(line) for number, line in enumerate(lines) if line.strip()}
    numbers = [row.row for row in rows]
    if len(set(numbers)) != len(numbers):
        return f"a row came twice: {numbers}"
    if not wanted and whole:
        return "" if len(rows) == 1 and isinstance(rows[0], Unreadable) else f"no lines, yet {len(rows)} rows"
    found = {row.row: row for row in rows}
    extra = set(found) - set(wanted)
    if extra and (whole or extra - {len(lines)}):
        return f"rows that no line gave: {sorted(extra)[:5]}"
    for number, text in wanted.items():
        row = found.get(number)
        if row is None:
            return f"line {number} gave no row: {lines[number]!r:.150}"
        if text is _ANYTHING:
            continue
        if text is _UNREADABLE and isinstance(row, Document):
            return f"line {number} became a document: {lines[number]!r:.150}"
        if text is not _UNREADABLE and getattr(row, "text", None) != text:
            return f"line {number} was lost or changed: {lines[number]!r:.150} gave {row!r:.150}"
    return ""


class Lines(Corpus):
    """.jsonl: every line is judged by itself."""

    name, suffix = "jsonl", ".jsonl"

    def mutant(self, draw: random.Random) -> tuple[bytes, Any]:
        """See `Corpus.mutant`."""
        lines = _base_lines(draw)
        for _ in range(draw.choice((0, 1, 1, 3))):
            lines.insert(draw.randrange(len(lines) + 1), odd_record(draw))
        data = draw.choice((b"\n", b"\n", b"\r\n")).join(lines) + draw.choice((b"\n", b""))
        return (damage(data, draw) if draw.random() < 0.85 else data), None

    def oracle(self, data: bytes, known: Any, path: Path, rows: Sequence[Document | Unreadable]) -> str:
        """See `Corpus.oracle`."""
        return check_lines(data, rows)


class Packed(Corpus):
    """Compressed lines; of an archive that was only cut, all lines before the cut are there."""

    def __init__(self, name: str) -> None:
        """Args: name, gz or zst."""
        self.name, self.suffix = name, f".jsonl.{name}"

    def mutant(self, draw: random.Random) -> tuple[bytes, Any]:
        """See `Corpus.mutant`; known is whether the archive was only cut."""
        members = [b"\n".join(_base_lines(draw)) + b"\n" for _ in range(draw.choice((1, 1, 2)))]
        data = b"".join(self._pack(member, draw) for member in members)
        if draw.random() < 0.3:
            return cut(data, draw), True
        return damage(data, draw), False

    def oracle(self, data: bytes, known: Any, path: Path, rows: Sequence[Document | Unreadable]) -> str:
        """See `Corpus.oracle`."""
        if not known:
            return ""
        plain, whole = self._unpack(data)
        return (
            check_lines(plain, [row for row in rows if row.num_bytes or whole], whole=whole) if plain else ""
        )

    def _pack(self, data: bytes, draw: random.Random) -> bytes:
        if self.name == "gz":
            return gzip.compress(data, draw.choice((1, 9)), mtime=0)
        settings = {"write_checksum": draw.random() < 0.5, "write_content_size": draw.random() < 0.5}
        return zstandard.ZstdCompressor(level=draw.choice((1, 9)), **settings).compress(data)

    def _unpack(self, data: bytes) -> tuple[bytes, bool]:
        """All that can be had of a cut archive, and whether it ends where a member ends."""
        plain, whole = b"", True
        while data:
            stream: Any = (
                zlib.decompressobj(31) if self.name == "gz" else zstandard.ZstdDecompressor().decompressobj()
            )
            plain += stream.decompress(data)
            data, whole = stream.unused_data, stream.eof
            if not whole:
                break
        return plain, whole


class Text(Corpus):
    """A whole file as one text."""

    name, suffix = "txt", ".txt"

    def mutant(self, draw: random.Random) -> tuple[bytes, Any]:
        """See `Corpus.mutant`."""
        text = "Wörter in a row, 山 and more.\r\n" * draw.randint(0, 6)
        encoding = draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
        return damage(text.encode(encoding, "replace"), draw), None

    def oracle(self, data: bytes, known: Any, path: Path, rows: Sequence[Document | Unreadable]) -> str:
        """See `Corpus.oracle`."""
        if len(rows) != 1:
            return f"{len(rows)} rows of one text"
        try:
            text = data.removeprefix(_MARK).decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        good = bool(text) and b"\x00" not in data and not data.startswith((b"\xff\xfe", b"\xfe\xff"))
        if good != isinstance(rows[0], Document):
            return f"{data!r:.100} gave {rows[0]!r:.150}"
        return "" if not good or getattr(rows[0], "text", "") == text else "the text is another"


def _base_table(draw: random.Random) -> pa.Table:
    number = draw.randint(1, 20)
    texts = ["some words " * draw.randint(1, 9) if draw.random() < 0.9 else None for _ in range(number)]
    columns: dict[str, pa.Array] = {"text": pa.array(texts, draw.choice((pa.string(), pa.large_string())))}
    when = [datetime.datetime(2020, 1, 1 + i, tzinfo=datetime.UTC) for i in range(number)]
    extra: dict[str, pa.Array] = {
        "id": pa.array([f"r{i}" for i in range(number)]),
        "when": pa.array(when, pa.timestamp(draw.choice(("s", "us", "ns")), "UTC")),
        "list": pa.array([[i, None] for i in range(number)], pa.list_(pa.int32())),
        "struct": pa.array([{"a": i, "b": "x"} for i in range(number)]),
        "kind": pa.array([draw.choice("ab") for _ in range(number)]).dictionary_encode(),
        "bytes": pa.array([draw.randbytes(3) for _ in range(number)]),
        "nano": pa.array([2**60 + i for i in range(number)], pa.timestamp("ns")),
        "far": pa.array([2**62 - i for i in range(number)], pa.date64()),
        "span": pa.array(list(range(number)), pa.duration("us")),
    }
    columns |= {name: extra[name] for name in draw.sample(sorted(extra), draw.randint(0, 4))}
    return pa.table(columns)


class Table(Corpus):
    """A file of Parquet or Arrow; where pyarrow reads all of it, its texts are the rows."""

    def __init__(self, name: str) -> None:
        """Args: name, parquet or arrow."""
        self.name, self.suffix = name, f".{name}"

    def mutant(self, draw: random.Random) -> tuple[bytes, Any]:
        """See `Corpus.mutant`; known is the schema."""
        table, sink = _base_table(draw), io.BytesIO()
        rows = draw.choice((3, 7, 100))
        if self.name == "parquet":
            settings: dict[str, Any] = {"compression": draw.choice(("zstd", "snappy", "none"))}
            settings |= {"row_group_size": rows, "write_page_checksum": draw.random() < 0.5}
            pq.write_table(table, sink, use_dictionary=draw.random() < 0.5, **settings)
        else:
            new = draw.choice((pa.ipc.new_file, pa.ipc.new_stream))
            with new(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=rows)
        return (damage(sink.getvalue(), draw) if draw.random() < 0.97 else sink.getvalue()), table.schema

    def oracle(self, data: bytes, known: Any, path: Path, rows: Sequence[Document | Unreadable]) -> str:
        """See `Corpus.oracle`."""
        texts = self._texts(path, known)
        if texts is None:
            return ""
        wanted = [text for text in texts if isinstance(text, str) and text]
        found = [row.text for row in rows if isinstance(row, Document)]
        if found != wanted:
            return f"pyarrow reads {len(wanted)} texts, we {len(found)}: {_first_difference(wanted, found)}"
        if len(rows) < len(texts):
            return f"pyarrow reads {len(texts)} rows, we {len(rows)}"
        return ""

    def _texts(self, path: Path, schema: pa.Schema) -> list[Any] | None:
        """The texts by pyarrow's own reader; None where it refuses, or the file is not whole or of another schema."""
        try:
            read_table = _read_parquet if self.name == "parquet" else _read_arrow
            table = read_table(path)
            table.validate(
                full=True
            )  # Arrow's reader checks nothing; a row whose other columns are damaged may fail
            texts: list[Any] = table.column("text").to_pylist()
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError, ValueError):
            return None
        return texts


def _read_parquet(path: Path) -> pa.Table:
    pq.ParquetFile(path).close()  # refuses names of columns that are no UTF-8, which read_table lets pass
    return pq.read_table(path, partitioning=None, use_threads=False)


def _read_arrow(path: Path) -> pa.Table:
    data = path.read_bytes()
    if data.startswith(b"ARROW1"):
        return pa.ipc.open_file(pa.py_buffer(data)).read_all()
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


class Recipes(Kind):
    """A damaged recipe, with damaged overrides; a small one that is accepted must also give a model."""

    name = "recipe"

    def prepare(self, template: Path) -> None:
        """Import what recipes need: in a child, on a busy machine, that alone may take longer than a mutant may."""
        import longlode.train  # noqa: F401

    def try_one(self, draw: random.Random, template: Path, place: Path) -> str:
        """See `Kind.try_one`."""
        from longlode.train import Recipe, build_model

        path = place / "recipe.toml"
        path.write_bytes(
            damage(_RECIPE.encode(), draw) if draw.random() < 0.7 else _other_values(draw).encode()
        )
        keys = (
            "model.window",
            "optim.lr",
            "run.steps",
            "run.seed",
            "data.length",
            "model.mixers",
            "x",
            "run.x",
        )
        values = (
            "-1",
            "0",
            "1e400",
            "nan",
            "99999999999999999999",
            "true",
            "[1]",
            "",
            "'",
            "{a=1}",
            "2024-01-01",
            "none",
        )
        overrides = [f"{draw.choice(keys)}={draw.choice(values)}" for _ in range(draw.choice((0, 0, 1, 2)))]
        try:
            recipe = Recipe.load(path, overrides)
            sizes = recipe.model.model_dump()
            numbers = [value for value in sizes.values() if isinstance(value, int)]
            if max(numbers) <= 1024 and len(sizes["mixers"]) <= 8:
                build_model(recipe, 40)
        except LonglodeError:
            pass
        return ""


def _other_values(draw: random.Random) -> str:
    """The recipe with the values of a line or two replaced by odd ones."""
    lines = _RECIPE.splitlines()
    odd = (
        "-1",
        "0",
        "1",
        "7",
        "1e309",
        "nan",
        "inf",
        "18446744073709551616",
        '"D*3"',
        '"X"',
        '"D*999999999"',
        "[]",
    )
    odd += (
        "[0.9]",
        "{}",
        "true",
        '"none"',
        '""',
        "1979-05-27",
        "0.5",
        '"D A"',
        '"*"',
        "0x10",
        "3000",
        "[1, 2, 3]",
    )
    for _ in range(draw.randint(1, 2)):
        at = draw.choice([number for number, line in enumerate(lines) if "=" in line])
        lines[at] = f"{lines[at].split('=')[0]}= {draw.choice(odd)}"
    return "\n".join(lines)


READERS: tuple[Kind, ...] = (
    Lines(),
    Packed("gz"),
    Packed("zst"),
    Text(),
    Table("parquet"),
    Table("arrow"),
    Recipes(),
)
