"""The whole way of a `release` score (file, reader, engine, part) against the formulas, written out here with loops.

The model is a small randomly initialised OPT. The check reads every pair afresh, takes full logits, and computes
ProLong's score as the released program does; nothing of longlode takes part in it but the tokenizer.
"""

import json
import math

import pyarrow.parquet as pq
import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from longlode.corpus import train_bpe
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.readers.lm import ReaderSpec

SEGMENT, MAX_SEGMENTS = 16, 64


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opt")
    tokenizer = train_bpe(["the quick brown fox jumps over the lazy dog " * 20], 300)
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.3, dropout=0.0,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder, tokenizer


def perplexities(model, rows):
    """Perplexity of the last SEGMENT - 1 tokens of each row, from full logits."""
    values = []
    for row in rows:
        tokens = torch.tensor([row])
        logits = model(tokens).logits[0, -SEGMENT:-1].double()
        targets = tokens[0, -SEGMENT + 1 :]
        values.append(math.exp(torch.nn.functional.cross_entropy(logits, targets).item()))
    return values


def released_score(model, tokens):
    """LDS over all pairs by the released arithmetic (threshold 0.1, distance by the window, log(0) kept away)."""
    chunks = [tokens[n : n + SEGMENT] for n in range(0, len(tokens) - SEGMENT + 1, SEGMENT)]
    alone = perplexities(model, chunks)
    total = 0.0
    for i in range(1, len(chunks)):
        given = perplexities(model, [chunks[j] + chunks[i] for j in range(i)])
        gains = [alone[i] - value for value in given]
        top = max(gains)
        weights = [math.exp(gain - top) for gain in gains]
        shares = [weight / sum(weights) for weight in weights]
        entropy = -sum(share * math.log(share + 1e-12) for share in shares)
        special = 1.0 if i == 1 else (math.log(i) - entropy) / math.log(i)
        for j in range(i):
            strength = gains[j] / alone[i]
            far = min(max((i - j) / (MAX_SEGMENTS - 1), 0.0), 1.0)
            if strength > 0.1:
                total += (strength + far) * special
    return total


def test_release_equals_the_formulas_on_opt(reader_folder, tmp_path):
    folder, tokenizer = reader_folder
    texts = ["the quick brown fox " * 30, "lazy dogs jump over the brown fox and " * 20, "abc def " * 60]
    source = tmp_path / "documents.jsonl"
    source.write_text("\n".join(json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)))
    spec = ReaderSpec(str(folder), segment=SEGMENT)
    score(
        source,
        tmp_path / "scores",
        scorer=make_scorer("release", pairs=None, options={"max_segments": MAX_SEGMENTS}),
        make_reader=spec,
        reader_fingerprint=spec().fingerprint,
        settings=ScoreSettings(segment=SEGMENT),
    )
    got = pq.read_table(sorted((tmp_path / "scores" / "parts").glob("*.parquet"))).to_pylist()
    assert [row["status"] for row in got] == ["ok"] * 3
    with torch.inference_mode():
        model = OPTForCausalLM.from_pretrained(folder).eval()
        expected = [released_score(model, tokenizer.encode([text])[0]) for text in texts]
    assert max(expected) > 1.0, "a score of nothing would agree with anything"
    for row, value in zip(got, expected, strict=True):
        assert row["score"] == pytest.approx(value, rel=1e-4)
