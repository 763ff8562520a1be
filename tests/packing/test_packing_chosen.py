"""`pack` with a mixture: which documents are packed, against plain loops; their order does not matter."""

import json
import random

import pytest

import longlode
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record
from longlode.packing import open_shards
from longlode.packing.shards import KIND


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents of three sources and a number each; the random sizes are fresh in every run."""
    folder, rng = tmp_path_factory.mktemp("mix"), random.Random()
    sources = ["books"] * 40 + ["code"] * 50 + ["web"] * 30
    rng.shuffle(sources)
    rows = [
        {
            "id": f"d{number}",
            "source": source,
            "year": rng.randrange(1900, 2000),
            "text": f"{source} {number} " + "word " * rng.randrange(1, 60),
        }
        for number, source in enumerate(sources)
    ]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    longlode.pack(folder / "docs.jsonl", folder / "all", length=32)
    return folder


def table(shards):
    names = ("id", "source", "year", "num_tokens", "content_hash")
    columns = [shards.column(name).to_pylist() for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def expected(rows, groups):
    """Ids by the rule. Args: groups, name -> (test of a row, share)."""
    members, free = {}, list(rows)
    for name, (fits, _) in groups.items():
        members[name] = [row for row in free if fits(row)]
        free = [row for row in free if not fits(row)]
    totals = {name: sum(row["num_tokens"] for row in found) for name, found in members.items()}
    whole = min(totals[name] / share for name, (_, share) in groups.items() if share)
    ids = set()
    for name, (_, share) in groups.items():
        order = sorted(members[name], key=lambda row: row["content_hash"])
        best = min(
            range(len(order) + 1),
            key=lambda count: abs(sum(row["num_tokens"] for row in order[:count]) - share * whole),
        )
        ids |= {row["id"] for row in order[:best]}
    return ids


@pytest.mark.parametrize(
    ("mix", "groups"),
    [
        (
            "books=0.3,code=0.5,rest=0.2",
            {
                "books": (lambda row: row["source"] == "books", 0.3),
                "code": (lambda row: row["source"] == "code", 0.5),
                "rest": (lambda row: True, 0.2),
            },
        ),
        (
            {"year:1950..": 3, "num_tokens:..30": 1},
            {
                "late": (lambda row: row["year"] >= 1950, 0.75),
                "short": (lambda row: row["num_tokens"] < 30, 0.25),
            },
        ),
        (
            "books=1,web=0",
            {
                "books": (lambda row: row["source"] == "books", 1.0),
                "web": (lambda row: row["source"] == "web", 0.0),
            },
        ),
    ],
)
def test_the_documents_that_are_packed(folder, tmp_path, mix, groups):
    rows = table(open_shards(folder / "all"))
    summary = longlode.pack(folder / "docs.jsonl", tmp_path / "out", length=32, mix=mix)
    shards = open_shards(tmp_path / "out", verify=True)
    wanted = expected(rows, groups)
    assert shards.column("id").to_pylist() == [row["id"] for row in rows if row["id"] in wanted]
    by_id = {row["id"]: row for row in rows}
    for number, name in enumerate(shards.column("id").to_pylist()):
        assert len(shards.tokens(number)) == by_id[name]["num_tokens"]
    kept = sum(by_id[name]["num_tokens"] for name in wanted)
    assert (summary["num_documents"], summary["num_tokens"]) == (len(wanted), kept)
    assert read_record(tmp_path / "out", KIND)["mix"] == summary["mix"]
    most = max(row["num_tokens"] for row in rows)
    for group, (_, share) in zip(summary["mix"], groups.values(), strict=True):
        assert abs(group["kept_tokens"] - share * kept) < 2 * most


def test_the_order_of_documents_does_not_matter(folder, tmp_path):
    lines = (folder / "docs.jsonl").read_text().splitlines()
    how = {"length": 32, "mix": "books=0.4,code=0.6"}
    longlode.pack(folder / "docs.jsonl", tmp_path / "one", **how)
    random.Random(1).shuffle(lines)
    for name, part in (("a", lines[:70]), ("b", lines[70:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part))
    longlode.pack([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "two", **how)
    found = [sorted(open_shards(tmp_path / name).column("id").to_pylist()) for name in ("one", "two")]
    assert found[0] == found[1]


def test_mixtures_that_cannot_be(folder, tmp_path):
    how = {"length": 32}
    with pytest.raises(InputError, match="poems"):
        longlode.pack(folder / "docs.jsonl", tmp_path / "out", mix="books=1,poems=1", **how)
    with pytest.raises(ConfigError, match="colour"):
        longlode.pack(folder / "docs.jsonl", tmp_path / "out", mix="colour:red=1,rest=1", **how)
    with pytest.raises(ConfigError, match="books"):
        longlode.pack(folder / "docs.jsonl", tmp_path / "out", mix="books", **how)
    with pytest.raises(InputError, match="one row needs 3,000"):
        longlode.pack(folder / "docs.jsonl", tmp_path / "out", length=3000, mix="books=0.99,web=0.01")
    assert not (tmp_path / "out").exists()
