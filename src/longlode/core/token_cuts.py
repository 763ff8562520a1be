"""Cutting of long texts such that the tokens of the pieces, concatenated, are those of the whole text."""

import json
import re
from collections.abc import Iterator
from typing import Any

# Split patterns under which a run of letters or digits is known to end a piece, and so is a line end between two
# characters that are not white space. None looks behind, and none looks further than the end of a run of spaces.
# In this order: ours, GPT-2 (written out), Llama 3, Qwen 2.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PATTERNS = {
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    *(
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        for digits in (r"\p{N}{1,3}", r"\p{N}")
    ),
}
_CUT = re.compile(r"(?<=[A-Za-z0-9])(?=[ \t\r\n])|(?<=\S\n)(?=\S)")


def splits_at_runs(tokenizer: dict[str, Any]) -> bool:
    """Return True if a tokenizer (the content of its `tokenizer.json`) is a byte-level BPE that first splits a text by
    one of the patterns known here, so that the tokens of a piece depend on that piece alone.
    """
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    if tokenizer.get("normalizer") is not None or model.get("type") != "BPE" or model.get("dropout"):
        return False
    if any(one["lstrip"] or one["rstrip"] or one["single_word"] for one in added):
        return False
    step = tokenizer.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", []) if step.get("type") == "Sequence" else [step]
    kinds = [one.get("type") for one in steps]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]) or steps[-1].get("add_prefix_space"):
        return False
    if kinds == ["ByteLevel"]:
        return bool(steps[0].get("use_regex", True))
    split = steps[0]
    return (
        split["pattern"].get("Regex") in _PATTERNS
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and not steps[1].get("use_regex", True)
    )


def can_be_cut(tokenizer_json: str) -> bool:
    """Return True if `cut_text` is exact for a tokenizer, given as JSON; False also if that is not known."""
    tokenizer = json.loads(tokenizer_json)
    # Added tokens are found before the text is split, so none may lie across a cut.
    added = tokenizer.get("added_tokens") or []
    return splits_at_runs(tokenizer) and not any(_CUT.search(one["content"]) for one in added)


def cut_text(text: str, num_characters: int) -> Iterator[str]:
    """Yield the pieces of a text, each (except the last) at least `num_characters` long.

    A piece ends at the next place after a word and before white space, or after a single line end between two lines.
    """
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + num_characters) if start + num_characters < len(text) else None
        stop = len(text) if cut is None else cut.start()
        yield text[start:stop]
        start = stop
