"""corpus: documents in and out. Finds files, cuts them into units of work, reads, writes, tokenizes.

Every input row gives a `Document` or an `Unreadable` with its status and reason: nothing is lost silently, and a bad
row, file or archive does not affect the others.

May import: core; no torch, no transformers.
Start reading: `document.py` (the result of reading), `read.py`, `units.py`, `planning.py` (units of work), `tokens.py`.
    inputs.py, stores.py, formats.py   from names, folders, globs and URLs to files
    remote_files.py, mirror.py         files of remote stores, with retries; output in stores
    spans.py                           where the rows of a file can be cut
    warc.py                            documents of web archives
    streams.py, lines.py, parquet.py   bytes, lines and rows, in bounded memory, also of damaged files
    records.py                         one record to one document, or to the reason why not
    encoding.py, encoded_pieces.py     tokens of texts of any length; a cache of encoded pieces
    short_spans.py                     numbers for short stretches of bytes, for that cache
    words.py                           the words of a text, independent of any tokenizer
    tables.py, arrow.py                rows of Arrow tables, and of Arrow files
"""

from longlode.corpus.document import Document, Unreadable, id_hash, in_heldout
from longlode.corpus.inputs import InputFile, Inputs, find_files
from longlode.corpus.planning import CorpusPlan, PlanStore, Shard, plan
from longlode.corpus.read import read, read_unit
from longlode.corpus.tokens import Tokenizer, train_bpe
from longlode.corpus.units import Unit, UnitFile
from longlode.corpus.write import check_output_path, write_documents

__all__ = [
    "CorpusPlan",
    "Document",
    "InputFile",
    "Inputs",
    "PlanStore",
    "Shard",
    "Tokenizer",
    "Unit",
    "UnitFile",
    "Unreadable",
    "check_output_path",
    "find_files",
    "id_hash",
    "in_heldout",
    "plan",
    "read",
    "read_unit",
    "train_bpe",
    "write_documents",
]
