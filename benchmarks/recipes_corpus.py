"""What `benchmarks.recipes` trains on: shards of documents of all lengths, and of short chats."""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import longlode
from benchmarks.works import Work
from longlode.corpus import Tokenizer
from longlode.evaluate.tasks import TASKS
from longlode.evaluate.tasks.base import Encode
from longlode.models import starter_folder

SHORTEST, LONGEST = 128, 16_384
"""Tokens of a document; lengths are drawn so that each octave has as many documents."""
SHORT = 512
"""Tokens that a document of `OTHER` has at most: good short text."""
MOST_OF_A_WORK = 60_000
BOOKS, CODE, LISTS, OTHER = "books", "code", "lists", "other"
_SOURCE = {"book": BOOKS, "code": CODE, "package": CODE, "module": CODE, "list": LISTS}
CHAT_TASK, CHAT_TOKENS = "recall", 256
_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
_FIRST_CHAT = 100_000  # number of the first question asked in training; the measured ones are the first few


def write_texts(works: Sequence[Work], tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Cut works into documents, score them, and pack them with their scores; a finished folder is left as it is.

    Books, code and lists (text without far dependency) give documents of all lengths, other works short ones.
    Returns: documents and tokens by source, and the share of tokens by octave of the length.
    """
    facts = folder / "texts.json"
    if not facts.is_file():
        draw = random.Random(0)
        rows = [row for work in works for row in _documents(work, tokenizer, draw)]
        lines = (json.dumps({name: row[name] for name in ("id", "source", "text")}) for row in rows)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        longlode.score(folder / "texts.jsonl", folder / "scores")
        longlode.pack(folder / "scores", folder / "texts", tokenizer="starter", overwrite=True)
        documents, tokens, octaves = Counter[str](), Counter[str](), Counter[int]()
        for row in rows:
            documents[row["source"]] += 1
            tokens[row["source"]] += row["size"]
            octaves[1 << int(math.log2(row["size"]))] += row["size"]
        found = {"documents": documents, "tokens": tokens, "tokens_by_octave": dict(sorted(octaves.items()))}
        facts.write_text(json.dumps(found), encoding="utf-8")
    return dict(json.loads(facts.read_text(encoding="utf-8")))


def _documents(work: Work, tokenizer: Tokenizer, draw: random.Random) -> Iterator[dict[str, Any]]:
    ids = tokenizer.encode_long(work.text)[:MOST_OF_A_WORK]
    source = _SOURCE.get(work.domain, OTHER)
    longest = SHORT if source == OTHER else LONGEST
    start, number = 0, 0
    while len(ids) - start >= SHORTEST:
        size = round(SHORTEST * (longest / SHORTEST) ** draw.random())
        part = ids[start : start + size]
        yield {
            "id": f"{work.id}#{number}",
            "source": source,
            "text": tokenizer.decode(part.tolist()),
            "size": len(part),
        }
        start, number = start + len(part), number + 1


def write_chats(folder: Path, encode: Encode, *, count: int = 800) -> Path:
    """Pack short questions with a loss on the answers alone (supervised fine-tuning, SFT); return the shards."""
    shards = folder / "chats"
    if not (shards / "record.json").is_file():
        task = TASKS.get(CHAT_TASK)().bound_to(encode, ())
        rows = []
        for number in range(_FIRST_CHAT, _FIRST_CHAT + count):
            example = task.make(CHAT_TOKENS, number)
            messages = [
                {"role": "user", "content": example.prompt},
                {"role": "assistant", "content": example.target},
            ]
            rows.append(json.dumps({"id": f"{CHAT_TASK}-{number}", "messages": messages}))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chats.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / "template.jinja").write_text(_TEMPLATE, encoding="utf-8")
        longlode.pack(
            folder / "chats.jsonl",
            shards,
            tokenizer=starter_folder(),
            length=2 * CHAT_TOKENS,
            chat="messages",
            chat_template=folder / "template.jinja",
            overwrite=True,
        )
    return shards
