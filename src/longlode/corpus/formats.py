"""File formats by suffix."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from longlode.corpus.saved_datasets import DESCRIPTIONS

LINES, PARQUET, ARROW, WARC, TEXT = "lines", "parquet", "arrow", "warc", "text"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
EXPECTED = ".txt, .md, source files, .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow, .warc or .wet"

_PROSE = "txt text md markdown rst adoc org tex bib log srt vtt html htm xml po"
_CODE = """
py pyi pyx pxd ipy c h cc hh cpp hpp cxx hxx cu cuh m mm rs go java kt kts scala groovy clj cs fs vb swift
dart js mjs cjs jsx ts tsx vue svelte css scss less php rb pl pm lua r jl hs ml mli erl ex exs elm nim zig d
f f90 f95 for pas ada adb ads lisp el scm rkt v sv vhd vhdl asm s sh bash zsh fish ps1 bat sql graphql proto
thrift toml yaml yml ini cfg conf cmake mk gradle bzl nix tf patch diff tcl awk sed y l g4 sol glsl wgsl lean
thy agda coq idr
"""
_NAMES = """
readme license licence copying authors contributors changelog changes news history install todo notice
makefile dockerfile rakefile gemfile jenkinsfile
"""
TEXT_SUFFIXES = frozenset("." + word for word in f"{_PROSE} {_CODE}".split())
TEXT_NAMES = frozenset(_NAMES.split())
_JSON_REASON = "a .json file is one value, not one record per line; write its records as .jsonl"
_PACKED_JSON_REASON = (
    "compressed .json may be one value; name it, or a glob of such files, if it holds JSON lines"
)


@dataclass(frozen=True)
class Format:
    """Format of a file. kind: "lines", "parquet", "arrow", "warc", "text", or "" when it is left out for `reason`."""

    kind: str
    compression: str = ""
    reason: str = ""


def stem(name: str) -> str:
    """Return the file's base name without its format and compression suffixes: `a/b.jsonl.zst` gives `b`."""
    path = PurePosixPath(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return path.stem


def classify(name: str, *, explicit: bool) -> Format:
    """Determine a file's format from its name.

    A file that the user named (`explicit`, alone or by a glob) is read as text when its suffix says nothing, and
    as JSON lines when it is `.json.gz` or `.json.zst`, as published corpora name them; in a folder such files are
    left out. A bare `.json` is always left out.
    """
    path = PurePosixPath(name)
    compression = COMPRESSIONS.get(path.suffix.lower(), "")
    if compression:
        path = path.with_suffix("")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson") or (suffix == ".json" and compression and explicit):
        return Format(LINES, compression)
    if path.name in DESCRIPTIONS and not compression:
        return Format("", reason="it describes a saved dataset and holds no record")
    if suffix == ".json":
        return Format("", reason=_PACKED_JSON_REASON if compression else _JSON_REASON)
    if suffix == ".parquet" and not compression:
        return Format(PARQUET)
    if suffix == ".arrow" and not compression:
        return Format(ARROW)
    if suffix in (".warc", ".wet") and compression in (
        "",
        "gzip",
    ):  # also .warc.wet.gz, as Common Crawl names them
        return Format(WARC, compression)
    if explicit or suffix in TEXT_SUFFIXES or path.name.lower() in TEXT_NAMES:
        return Format(TEXT, compression)
    what = (
        f"suffix {PurePosixPath(name).suffix!r}" if PurePosixPath(name).suffix else "a name without a suffix"
    )
    return Format(
        "", reason=f"{what} is not one of text, source or records; name the file itself to read it as text"
    )
