"""Evaluation and generation on several ranks give what one process gives."""

import pytest
import torch
from evaluate_stand_ins import tokenizer
from forked_ranks import run_ranks, values

import longlode
from longlode.core.errors import ConfigError
from longlode.core.records import read_record
from longlode.core.rows import read_rows
from longlode.evaluate.by_name import evaluate_harness, write_tasks
from longlode.models import LonglodeConfig, LonglodeForCausalLM

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch.distributed is not available"
)
TEXT = "The gate stands open at noon, and the keeper of the gate writes down who passes. " * 3


class Streamer:
    """What a streamer was given, less the prompt."""

    def __init__(self, tokenizer):
        self.tokens, self.ended = [], False

    def put(self, tokens):
        self.tokens.append(tokens.flatten().tolist())

    def end(self):
        self.ended = True


def everything(model, folder):
    """Evaluate and generate; return the rows, the summary, and the texts."""
    tasks = {"tasks": ["copy", "loss_by_position"], "texts": [str(folder / "texts.txt")], "lengths": [120]}
    tasks |= {"num_examples": 3, "write": True, "samples": 2, "temperature": 0.7}
    record = longlode.evaluate(model, folder / "out", **tasks)
    streamers = []

    def make_streamer(tokenizer):
        streamers.append(Streamer(tokenizer))
        return streamers[-1]

    state = folder / "text.state"
    read = longlode.generate(model, TEXT, save_state=state, max_new_tokens=0)
    texts = [
        longlode.generate(model, "of", max_new_tokens=12, make_streamer=make_streamer),
        longlode.generate(model, " " + TEXT, state=state, max_new_tokens=12, temperature=0.9, seed=3),
    ]
    with pytest.raises(ConfigError):
        longlode.evaluate(model, folder / "wrong", lengths=[1])
    told = [(one.text, one.num_prompt, one.num_new) for one in (read, *texts)]
    return record["summary"], told, [(one.tokens[1:], one.ended) for one in streamers]


def assert_same(found, expected):
    """Numbers to 1e-6, all else equal."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        assert found[name] == same, name


def test_two_ranks_read_what_one_reads(tmp_path):
    torch.manual_seed(0)
    tok, names = tokenizer(), ("one", "two")
    settings = {"hidden_size": 32, "mixers": "DSA", "num_heads": 2, "head_dim": 16, "window": 24}
    model = LonglodeForCausalLM(LonglodeConfig(vocab_size=len(tok), **settings)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)  # answers that depend on what was read
    model.save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "texts.txt").write_text(TEXT * 8)
    one = everything(tmp_path / "model", tmp_path / "one")
    two = values(run_ranks(2, lambda rank: everything(tmp_path / "model", tmp_path / "two"), tmp_path))
    for summary, told, _ in two:
        assert told == one[1]
        assert len(summary) == len(one[0])
        for found, expected in zip(summary, one[0], strict=True):
            assert_same(found, expected)
    # Rank 0 prints, all at once.
    [(tokens, ended)], [(expected, _)] = two[0][2], one[2]
    assert two[1][2] == []
    assert ended
    assert tokens == expected
    rows = [list(read_rows(tmp_path / name / "out" / "examples.parquet")) for name in names]
    assert [row.get("written") for row in rows[1]] == [row.get("written") for row in rows[0]]
    assert any(row.get("written") for row in rows[0])
    for found, expected in zip(rows[1], rows[0], strict=True):
        assert_same(found, expected)
    records = [read_record(tmp_path / name / "out", "evaluation") for name in names]
    assert records[0]["examples_fingerprint"] == records[1]["examples_fingerprint"]


def test_what_runs_in_one_process_is_refused_on_several(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for one in (
        lambda: write_tasks("starter", tmp_path),
        lambda: evaluate_harness("starter", tmp_path, tasks=["piqa"]),
    ):
        with pytest.raises(ConfigError, match="torchrun"):
            one()
