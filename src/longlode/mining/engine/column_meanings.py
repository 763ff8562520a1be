"""Meaning of every column that all scorers share: unit, content, and the meaning of zero.

The columns that only one scorer has say so themselves (`ExtraColumn.doc`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnMeaning:
    """Description of a column of the score results.

    unit: "tokens", "nats per token" ...; "" for text and pure numbers. about: its content.
    zero: the meaning of 0; "" where 0 is an ordinary value or cannot occur.
    """

    unit: str
    about: str
    zero: str = ""


COLUMN_MEANINGS = {
    "id": ColumnMeaning("", "name of the document: the field `id` of a record, else the path and the row"),
    "source": ColumnMeaning(
        "",
        "group of the document: the field `source` of a record, else the file; for a whole file its folder",
    ),
    "file": ColumnMeaning("", "path of the file it was read from"),
    "row": ColumnMeaning("", "place of the record in that file", "the first record, or the whole file"),
    "num_bytes": ColumnMeaning("bytes", "length of the text in UTF-8", "an empty text"),
    "num_tokens": ColumnMeaning(
        "tokens", "length of the text: of the scorer's tokenizer, else 4 bytes per token", "an empty text"
    ),
    "num_segments": ColumnMeaning(
        "segments",
        "whole segments of the document, read or not; null where no tokenizer was read",
        "shorter than a segment",
    ),
    "num_pairs": ColumnMeaning(
        "pairs", "pairs of segments that a model read; null where no model was read", "none was read"
    ),
    "score": ColumnMeaning(
        "of the scorer",
        "rank of the document: higher means that later text depends more on earlier text",
        "for `profile` and `coherence`: as likely one text in its order as not; others: no dependency found",
    ),
    "strength_mean": ColumnMeaning(
        "share of perplexity",
        "mean over pairs of the share of a segment's perplexity that an earlier segment removes",
        "earlier segments do not help",
    ),
    "strength_max_mean": ColumnMeaning(
        "share of perplexity",
        "the same for the most helpful earlier segment of each segment, averaged",
        "the most helpful earlier segment does not help",
    ),
    "gain_nats": ColumnMeaning(
        "nats per token",
        "`profile`: mean gain per octave of distance; others: mean loss that earlier text saves",
        "far context adds no more than unrelated text would (`profile`); earlier text saves nothing (the others)",
    ),
    "specificity_mean": ColumnMeaning(
        "share",
        "concentration of the help on few earlier segments, mean over segments; 1: one segment alone helps",
        "all earlier segments help alike",
    ),
    "repetition": ColumnMeaning(
        "share",
        "windows of 8 tokens that occurred earlier in the document; null where no tokenizer was read",
        "no window occurs twice",
    ),
    "gzip_ratio": ColumnMeaning(
        "ratio",
        "compressed bytes divided by raw bytes; about 0.3 to 0.45 for prose, lower for repetitive text",
    ),
    "status": ColumnMeaning("", "`ok`, `too_short`, `skipped` or `failed`; only `ok` has a score"),
    "reason": ColumnMeaning("", "explanation of a missing score, or of one in doubt; empty otherwise"),
    "score_se": ColumnMeaning(
        "of the score",
        "standard error of the score; scores closer than two errors are not ranked; null where the scorer gives none",
    ),
    "pairs": ColumnMeaning(
        "",
        "with `--keep-pairs`: places `i` > `j` of two segments, loss of segment i alone and after segment j, "
        "in nats per token",
    ),
}
"""Every column of a part that all scorers share, `pairs` included, in the order of the parts."""
