"""The commands that benchmarks.kill disturbs, and the small corpus, model and folders that they work on."""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_WORDS = (
    *(
        "river",
        "captain",
        "letter",
        "garden",
        "winter",
        "window",
        "answer",
        "village",
        "stone",
        "evening",
        "morning",
    ),
    *(
        "question",
        "table",
        "water",
        "light",
        "house",
        "road",
        "summer",
        "the",
        "a",
        "of",
        "and",
        "to",
        "in",
        "was",
    ),
)
_RECIPE = """[model]
mixers = "DS"
hidden_size = 16
num_heads = 2
intermediate_size = 32
window = 8

[data]
shards = "shards"
length = 24
batch_size = 2
heldout_fraction = 0.2

[optim]
lr = 0.01

[run]
steps = 8
checkpoint_every = 2
eval_every = 4
eval_batches = 1
threads = 1
"""


_STAGES = (
    _RECIPE.replace("steps = 8\n", "").replace("lr = 0.01", 'lr = 0.01\nschedule = "constant"')
    + """
[[stages]]
name = "short"
steps = 3

[[stages]]
name = "long"
steps = 4
length = 48
batch_size = 1
rope_theta = 500000.0
freeze = ["*.mlp.*"]
fresh_moments = true
"""
)

# Every packer once; with `truncate` an epoch ends within the stage, and one stage mixes.
_PACKERS = _RECIPE.replace("steps = 8\n", "").replace("heldout_fraction = 0.2\n", "") + "".join(
    f'\n[[stages]]\nsteps = 3\npacker = "{name}"\nbatch_size = 8\n{more}'
    for name, more in (
        ("concat", ""),
        ("truncate", ""),
        ("best_fit", ""),
        ("decompose", "length = 32\npacker_options = { min_length = 4 }\n"),
        ("masked", 'mix = "docs=0.3,rest=0.7"\n'),
        ("related", "packed = false\n"),
    )
)
_SKILL_IT = _RECIPE.replace(
    "heldout_fraction = 0.2",
    'heldout_fraction = 0.5\nmix = "num_tokens:..250=1,rest=1"\nskill_it = { every = 2, batches = 1 }',
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command to disturb, run in a copy of the template folder.

    first: the arguments. again: what a person would run after it was killed, one after the other until one is done.
    needs: folders of the template that it reads. scores: the folder of scores that it writes. by_time: only kills at a
    random moment (the command has processes of its own, whose operations are not counted).
    """

    name: str
    first: tuple[str, ...]
    again: tuple[tuple[str, ...], ...] = ()
    needs: tuple[str, ...] = ()
    scores: str = ""
    by_time: bool = False

    @property
    def command(self) -> str:
        """The command's name."""
        return self.first[0]

    @property
    def retries(self) -> tuple[tuple[str, ...], ...]:
        """What to run after a disturbance."""
        return self.again or (self.first,)


def _cases() -> tuple[Case, ...]:
    score = ("score", "docs.jsonl", "more.jsonl.gz", "notes", "-o", "out/scores", "--rows-per-unit", "4")
    plain = (*score, "--scorer", "coherence", "--model", "model", "--pairs", "0", "--segment", "16")
    read = (
        *score,
        "--model",
        "model",
        "--scorer",
        "strength",
        "--pairs",
        "4",
        "--segment",
        "16",
        "--keep-pairs",
        "--dtype",  # by itself it measures the machine, and the record says what it measured
        "float32",
    )
    quick = (*score, "--scorer", "gzip")
    two = (*quick, "--workers", "2")
    merged = ("--rows-per-unit", "1", "--units-per-part", "3")
    pack = ("pack", "docs.jsonl", "notes", "--tokenizer", "model", "--length", "24")
    train = ("train", "recipe.toml", "-o", "out/run")
    stages, packers, skill_it = (
        ("train", f"{name}.toml", "-o", "out/run") for name in ("stages", "packers", "skill_it")
    )
    evaluate = ("evaluate", "model", "-o", "out/eval", "--num-examples", "2", "--lengths", "64,96")
    loss = ("--tasks", "loss_by_position", "--texts", "notes")
    kept, read_back = ("select", "scores", "-o"), ("scores", "run", "eval")
    state = ("--save-state", "out/state", "--max-new-tokens", "0")
    return (
        Case(name="score", first=plain, needs=("model",), scores="out/scores"),
        Case(name="score with a model", first=read, needs=("model",), scores="out/scores"),
        Case(name="score, then 2 workers", first=quick, again=(two,), scores="out/scores"),
        Case(name="score, merged", first=(*quick, *merged), again=((*two, *merged),), scores="out/scores"),
        Case(name="score by 2 workers, then 1", first=two, again=(quick,), scores="out/scores", by_time=True),
        Case(name="pack", first=(*pack, "-o", "out/shards"), needs=("model",)),
        Case(
            name="pack --overwrite", first=(*pack, "-o", "old/shards", "--overwrite"), needs=("old/shards",)
        ),
        Case(name="train", first=train, again=((*train, "--resume"), train), needs=("shards",)),
        Case(name="train stages", first=stages, again=((*stages, "--resume"), stages), needs=("shards",)),
        Case(name="train packers", first=packers, again=((*packers, "--resume"), packers), needs=("shards",)),
        Case(
            name="train skill-it",
            first=skill_it,
            again=((*skill_it, "--resume"), skill_it),
            needs=("shards",),
        ),
        Case(name="evaluate", first=(*evaluate, "--tasks", "recall"), needs=("model",)),
        Case(name="evaluate texts", first=(*evaluate, *loss), needs=("model",)),
        Case(
            name="select",
            first=(*kept, "out/kept.jsonl.zst", "--top", "0.5", "--by", "length"),
            needs=("scores",),
        ),
        Case(
            name="select parquet", first=(*kept, "out/kept.parquet", "--min-score", "0.1"), needs=("scores",)
        ),
        Case(name="report", first=("report", *read_back, "-o", "out/page.html"), needs=read_back),
        Case(
            name="generate --save-state",
            first=("generate", "model", "--prompt", "the river", *state),
            needs=("model",),
        ),
        Case(name="convert", first=("convert", "model", "out/fla", "--to", "fla"), needs=("model",)),
    )


CASES = _cases()
COMMANDS = tuple(dict.fromkeys(case.command for case in CASES))


def write_corpus(folder: Path) -> None:
    """Three inputs with what a real corpus has: bad lines, empty texts, an id that occurs twice."""
    draw = random.Random(0)
    lines: list[bytes] = [
        json.dumps({"id": f"doc-{i}", "text": _text(draw, 40 + 15 * (i % 5))}).encode() for i in range(14)
    ]
    lines[3:3] = [b'{"id": "torn", "text": "no end', b"", json.dumps({"id": "doc-1", "text": ""}).encode()]
    (folder / "docs.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    more = [
        json.dumps({"id": f"more-{i}", "text": _text(draw, 90), "year": 1900 + i}).encode() for i in range(6)
    ]
    (folder / "more.jsonl.gz").write_bytes(gzip.compress(b"\n".join(more), mtime=0))
    (folder / "notes").mkdir()
    for i in range(3):
        (folder / "notes" / f"note-{i}.txt").write_text(_text(draw, 150), encoding="utf-8")
    recipes = {"recipe": _RECIPE, "stages": _STAGES, "packers": _PACKERS, "skill_it": _SKILL_IT}
    for name, recipe in recipes.items():
        (folder / f"{name}.toml").write_text(recipe, encoding="utf-8")
    (folder / "old").mkdir()


def _text(draw: random.Random, num_words: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(num_words)) + "."


def write_model(folder: Path) -> None:
    """A tokenizer of 300 entries and an untrained DeltaNet of two layers."""
    import torch

    from longlode.corpus import train_bpe
    from longlode.models import LonglodeConfig, LonglodeForCausalLM

    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("notes/*.txt"))]
    tokenizer = train_bpe(texts, 300)
    tokenizer.save(folder / "model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "initializer_range": 0.2}
    config = LonglodeConfig(vocab_size=tokenizer.vocab_size, mixers="D*2", **sizes)
    LonglodeForCausalLM(config).save_pretrained(folder / "model")


PREPARE: dict[str, tuple[str, ...]] = {
    "scores": ("score", "docs.jsonl", "notes", "-o", "scores", "--scorer", "gzip", "--rows-per-unit", "8"),
    "shards": ("pack", "docs.jsonl", "notes", "-o", "shards", "--tokenizer", "model", "--length", "24"),
    "old/shards": ("pack", "more.jsonl.gz", "-o", "old/shards", "--tokenizer", "model", "--length", "24"),
    "run": ("train", "recipe.toml", "-o", "run", "--set", "run.steps=2"),
    "eval": (
        "evaluate",
        "model",
        "-o",
        "eval",
        "--num-examples",
        "2",
        "--lengths",
        "64",
        "--tasks",
        "recall",
    ),
}
"""What some commands read, by folder, and the command that makes it; all but the scores need the model."""


def needed(cases: Sequence[Case]) -> list[str]:
    """Folders of the template that these cases need, in the order in which they can be made."""
    wanted = {name for case in cases for name in case.needs}
    if wanted - {"model", "scores"}:
        wanted.add("model")
    if "run" in wanted:
        wanted.add("shards")
    return [name for name in ("model", *PREPARE) if name in wanted]


def rows_of_scores(folder: Path) -> list[tuple[str, str, int]]:
    """(file, id, row) of every row of a scores folder; for a child, since it starts threads of pyarrow."""
    import pyarrow.parquet as pq

    rows: list[tuple[str, str, int]] = []
    for part in sorted((folder / "parts").glob("*.parquet")):
        table = pq.read_table(part, columns=["file", "id", "row"], partitioning=None)
        rows += [(row["file"], row["id"], row["row"]) for row in table.to_pylist()]
    return rows


def rows_of_inputs() -> int:
    """Input rows of the score cases: 14 documents, a torn line, an empty text; 6 more; 3 files."""
    return 14 + 2 + 6 + 3


def named(names: Sequence[str]) -> list[Case]:
    """The cases of these commands, or of these names."""
    wanted = [case for case in CASES if case.name in names or case.command in names]
    known = {case.name for case in CASES} | set(COMMANDS)
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    return wanted
