"""docs/parallel.md: its code runs, its table of mixers is that of their traits, its bytes are those of the formulas."""

import importlib.util
import re
from pathlib import Path

import torch
from sharded_steps import SHARED

from longlode.mixers import MIXERS
from longlode.parallel import ATTENTION_SCHEMES, AttentionSizes, SequencePlan

PAGE = (Path(__file__).resolve().parents[2] / "docs/parallel.md").read_text(encoding="utf-8")


def rows_of(header):
    """Cells of the table that begins with this header."""
    lines = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_code_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    if importlib.util.find_spec("scipy") is None:
        blocks = [block for block in blocks if "planner" not in block]
    names = {}
    for block in blocks:
        exec(compile(block, "parallel.md", "exec"), names)
    assert names["model"].is_gradient_checkpointing
    assert "fold backward" in capsys.readouterr().out
    whole = names["model"](
        input_ids=names["tokens"], shift_labels=names["labels"], cu_seqlens=names["documents"]
    ).loss
    torch.testing.assert_close(sum(loss for loss, *_ in names["results"]), whole, rtol=1e-6, atol=0)


def test_every_mixer_stands_in_the_row_of_its_trait():
    kinds = {
        "map": ("fold",),
        "gather": ("a scheme below", "gather"),
        None: ("refused: their state has no map",),
    }
    found = {}
    for names, how in rows_of("| mixers |"):
        for name in re.findall(r"`(\w+)`", names):
            found[name] = how
    assert sorted(found) == sorted(MIXERS.names())
    for name, how in found.items():
        shards = MIXERS.get(name).from_settings({}, SHARED).build(24).traits.shards
        assert how.startswith(kinds[shards]), name


def test_the_bytes_of_the_schemes_are_those_of_the_formulas():
    plan, sizes = SequencePlan.even(4, (1, 4096)), AttentionSizes(8, 8, 64, 4)
    rows = {cells[0].strip("`"): cells[1:3] for cells in rows_of("| scheme |")}
    assert list(rows) == list(ATTENTION_SCHEMES)
    for name, told in rows.items():
        received = [ATTENTION_SCHEMES[name]().received_bytes(plan, rank, sizes, None) for rank in range(4)]
        for passed, words in zip(zip(*received, strict=True), told, strict=True):
            units = [count / (1024 * sizes.kv_bytes) for count in passed]
            assert words == f"{sum(units) / 4:.2g} ({max(units):.2g})"
