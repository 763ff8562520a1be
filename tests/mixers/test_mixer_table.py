"""The table of traits in docs/models.md says what the code says."""

from pathlib import Path

from longlode.mixers import MIXERS

SHARED = {"num_heads": 2, "num_kv_heads": 1, "head_dim": 4, "window": 4}
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = "| mixer | causal | state | packed documents | token by token | over several ranks | token ids |"


def row(name, **settings):
    mixer = MIXERS.get(name).from_settings(settings, SHARED).build(8)
    t = mixer.traits
    cells = [
        f"`{name}`" + "".join(f", {key} = {value}" for key, value in settings.items()),
        t.causal,
        "constant" if t.constant_state else "grows",
        "yes" if t.packs else "no",
        "yes" if t.steps else "no",
        {"map": "by its map", "gather": "by its keys", None: "no"}[t.shards],
        "needed" if t.reads_token_ids else "",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_table_of_traits_is_that_of_the_code():
    wanted = [row(name) for name in MIXERS.names()]
    for name, settings in (
        ("routing", {"mode": "published"}),
        ("mixture_of_memories", {"inner": "gated_delta_net"}),
    ):
        wanted.insert(1 + wanted.index(row(name)), row(name, **settings))
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    assert lines.count(HEAD) == 1
    start = lines.index(HEAD) + 2
    found = lines[start : lines.index("", start)]
    assert found == wanted, "\n".join(["write in docs/models.md:", *wanted])
