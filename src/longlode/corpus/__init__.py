"""corpus: documents in and out. Finds files, cuts them into units of work, reads, writes, tokenizes.

Every input row gives a `Document` or an `Unreadable` with its status and reason: nothing is lost silently,
and a bad row, file or archive never takes a good one with it.

May import: core; no torch, no transformers.
Start reading: `document.py` (what comes out), `read.py` (how), `units.py` (how work is cut), `tokens.py`.
    inputs.py, stores.py, formats.py   from names, folders, globs and URLs to files
    streams.py, lines.py, parquet.py   bytes, lines and rows, bounded and torn-proof
    records.py                         one record to one document, or why not
    encoding.py, encoded_pieces.py     tokens of texts of any length; what was encoded before
    words.py                           the words of a text, whatever the tokenizer
    controls.py, generated.py          documents made on purpose, without dependency: of real text, and of none
    planted.py                         the same with known ones
"""

from longlode.corpus.document import Document, Unreadable, id_hash, in_heldout
from longlode.corpus.inputs import InputFile, Inputs, find_files
from longlode.corpus.read import read, read_unit
from longlode.corpus.tokens import Tokenizer, train_bpe
from longlode.corpus.units import Unit, UnitFile, plan
from longlode.corpus.write import check_output_path, write_documents

__all__ = [
    "Document",
    "InputFile",
    "Inputs",
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
