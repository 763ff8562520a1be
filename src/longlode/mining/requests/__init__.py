"""mining/requests: requests of scorers for readings, one type per kind of reading.

Each type names the capability of the reader that it needs, and reads the requests of many documents together. May
import: core, corpus, `mining.reader`, `mining.engine.pulse`. Start with `base.py`, then `pairs.py`.
    text.py             Tokens, Words, WholeText: of the text itself
    pairs.py            Segments, Pairs: segments alone and after one other
    chains.py           Chains: several segments in a row
    windows.py          Windows: attention over several segments
"""

from longlode.mining.requests.base import (
    BatchSize,
    Reading,
    Request,
    check_reader,
    is_out_of_memory,
    reads_model,
    reads_tokens,
)
from longlode.mining.requests.chains import ChainReading, Chains
from longlode.mining.requests.pairs import PairReading, Pairs, SegmentReading, Segments
from longlode.mining.requests.text import (
    TokenReading,
    Tokens,
    WholeText,
    WholeTextReading,
    WordReading,
    Words,
)
from longlode.mining.requests.windows import WindowReading, Windows

__all__ = [
    "BatchSize",
    "ChainReading",
    "Chains",
    "PairReading",
    "Pairs",
    "Reading",
    "Request",
    "SegmentReading",
    "Segments",
    "TokenReading",
    "Tokens",
    "WholeText",
    "WholeTextReading",
    "WindowReading",
    "Windows",
    "WordReading",
    "Words",
    "check_reader",
    "is_out_of_memory",
    "reads_model",
    "reads_tokens",
]
