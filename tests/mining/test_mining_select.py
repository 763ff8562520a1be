"""Select: counts add up, groups are fair, ties and duplicates are settled, inputs are never overwritten."""

import math
import sys
from dataclasses import replace

import duckdb
import orjson
import pyarrow.parquet as pq
import pytest
from mining_fakes import CacheReader, corpus_rows, make_reader, random_text

from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_json, read_jsonl, write_jsonl
from longlode.corpus import Document, read
from longlode.mining import ScoreSettings, make_scorer, score, select
from longlode.mining.engine.parts import read_info, write_part
from longlode.mining.selection_files import check_selection, dropped_path, read_selection

select_module = sys.modules[select.__module__]
SETTINGS = ScoreSettings(segment=8, rows_per_unit=5)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("select")
    docs = corpus_rows()
    (folder / "in").mkdir()
    write_jsonl(folder / "in/a.jsonl", docs[:9])
    write_jsonl(folder / "in/b.jsonl", docs[9:])
    run(folder / "in", folder / "scores")
    return folder


def run(inputs, out, **changes):
    return score(
        inputs,
        out,
        scorer=make_scorer("strength", pairs=20),
        make_reader=make_reader,
        reader_fingerprint=CacheReader.fingerprint,
        settings=replace(SETTINGS, **changes),
    )


def all_rows(folder):
    names = [part["part"] for part in read_json(folder / "scores/record.json")["parts"]]
    return [row for name in names for row in pq.read_table(folder / "scores/parts" / name).to_pylist()]


def best(rows, top):
    ranked = sorted(rows, key=lambda row: (-row["score"], row["id"]))
    return {row["id"] for row in ranked[: max(1, math.floor(top * len(rows) + 0.5))]}


def candidates(folder):
    seen, found = set(), []
    for row in all_rows(folder):
        if row["status"] == "ok" and row["id"] not in seen:
            found.append(row)
            seen.add(row["id"])
    return found


@pytest.mark.parametrize("top", [0.01, 0.3, 0.5, 1.0])
def test_top_keeps_the_best_share_in_input_order_with_all_fields(scored, tmp_path, top):
    summary = select(scored / "scores", tmp_path / "best.jsonl", top=top)
    kept = read_jsonl(tmp_path / "best.jsonl")
    assert {row["id"] for row in kept} == best(candidates(scored), top)
    originals = {row["id"]: row for row in reversed(corpus_rows())}
    scores = {row["id"]: row["score"] for row in reversed(all_rows(scored))}
    for row in kept:
        assert row == originals[row["id"]] | {"score": scores[row["id"]]}
    order = [row["id"] for row in corpus_rows()]
    assert [row["id"] for row in kept] == sorted((row["id"] for row in kept), key=order.index)
    assert summary.num_selected == len(kept)
    assert summary.num_documents == 21 == summary.num_selected + sum(summary.dropped.values())
    assert summary.lowest_selected == min(row["score"] for row in kept)


@pytest.mark.parametrize("by", [("length",), ("source",), ("length", "source")])
def test_groups_are_cut_one_by_one(scored, tmp_path, by):
    summary = select(scored / "scores", tmp_path / "best.jsonl", top=0.4, by=by)
    kept = {row["id"] for row in read_jsonl(tmp_path / "best.jsonl")}
    groups = {}
    for row in candidates(scored):
        keys = {"length": 2 ** int(math.log2(row["num_tokens"])), "source": row["source"]}
        groups.setdefault(tuple(keys[name] for name in by), []).append(row)
    assert len(groups) == summary.num_groups > 1
    assert kept == set().union(*(best(group, 0.4) for group in groups.values()))
    assert kept != best(candidates(scored), 0.4)


def test_everything_dropped_has_its_reason(scored, tmp_path):
    summary = select(scored / "scores", tmp_path / "best.parquet", top=0.5)
    dropped = pq.read_table(summary.dropped_path).to_pylist()
    assert len(dropped) == sum(summary.dropped.values())
    assert summary.dropped == {"below the cut": 9, "duplicate id": 1, "failed": 1, "too_short": 1}
    reasons = {(row["id"], row["kind"]): row["why"] for row in dropped}
    assert reasons["tiny", "too_short"] == "3 tokens; needed 16 (2 segments of 8)"
    assert reasons["doc-04", "duplicate id"] == "duplicate id of a.jsonl#4"
    assert "no field 'text'" in reasons["mute", "failed"]
    ranks = sorted(why for (_, kind), why in reasons.items() if kind == "below the cut")
    assert "rank 10 of 18 in its group" in ranks
    assert pq.read_table(tmp_path / "best.parquet").num_rows == summary.num_selected
    record = read_selection(tmp_path / "best.parquet")
    assert record["kind"] == "selection"
    assert record["rule"] == {"top": 0.5, "min_score": None, "by": [], "column": "score"}


def test_selection_by_the_lower_bound_of_the_score(scored, tmp_path):
    rows = [row for row in candidates(scored) if row["score_se"] is not None]
    low = {row["id"]: row["score"] - 2 * row["score_se"] for row in rows}
    cut = sorted(low.values())[len(low) // 2]
    summary = select(scored / "scores", tmp_path / "sure.jsonl", min_score=cut, column="score_low")
    assert summary.lowest_selected == pytest.approx(cut)
    kept = {row["id"] for row in read_jsonl(tmp_path / "sure.jsonl")}
    assert kept == {name for name, value in low.items() if value >= cut}
    by_score = sorted(rows, key=lambda row: -row["score"])[: len(kept)]
    assert kept != {row["id"] for row in by_score}


def test_min_score_and_another_column(scored, tmp_path):
    threshold = sorted(row["gzip_ratio"] for row in candidates(scored))[-3]
    summary = select(scored / "scores", tmp_path / "best.jsonl.zst", min_score=threshold, column="gzip_ratio")
    expected = {row["id"] for row in candidates(scored) if row["gzip_ratio"] >= threshold}
    assert {doc.id for doc in read(tmp_path / "best.jsonl.zst")} == expected
    assert summary.lowest_selected == threshold


def test_whole_numbers_can_be_selected_by(scored, tmp_path):
    select(scored / "scores", tmp_path / "long.jsonl", top=0.3, column="num_tokens")
    assert {row["id"] for row in read_jsonl(tmp_path / "long.jsonl")} == {
        f"doc-{n:02d}" for n in (5, 8, 11, 14, 17)
    }


def test_the_same_selection_gives_the_same_bytes(scored, tmp_path):
    for name in ("one", "two"):
        select(scored / "scores", tmp_path / name / "best.jsonl", top=0.5)
    for path in (lambda documents: documents, dropped_path):
        one, two = (path(tmp_path / name / "best.jsonl") for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_ties_go_by_id(tmp_path):
    texts = [random_text("same", 40)] * 6
    write_jsonl(tmp_path / "in.jsonl", [{"id": f"d{9 - n}", "text": text} for n, text in enumerate(texts)])
    score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=make_scorer("gzip"), settings=SETTINGS)
    select(tmp_path / "scores", tmp_path / "best.jsonl", top=0.5, by=("length",))
    assert [row["id"] for row in read_jsonl(tmp_path / "best.jsonl")] == ["d6", "d5", "d4"]


def test_a_duplicate_whose_first_failed_still_counts(tmp_path):
    docs = [{"id": "a"}, {"id": "a", "text": random_text("a", 40)}, {"id": "b", "text": random_text("b", 40)}]
    write_jsonl(tmp_path / "in.jsonl", docs)
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    select(tmp_path / "scores", tmp_path / "best.jsonl", top=1.0)
    assert [row["id"] for row in read_jsonl(tmp_path / "best.jsonl")] == ["a", "b"]


def test_files_of_a_folder_can_be_selected(tmp_path):
    for name in "abc":
        path = tmp_path / f"in/{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(random_text(name, 50))
    (tmp_path / "in/empty.txt").touch()
    run(tmp_path / "in", tmp_path / "scores")
    select(tmp_path / "scores", tmp_path / "out/best.jsonl", top=0.5, by=("length",))
    kept = read_jsonl(tmp_path / "out/best.jsonl")
    assert len(kept) == 2
    assert all(row["text"] == random_text(row["id"][0], 50) for row in kept)


def test_nothing_selected_says_why(scored, tmp_path):
    with pytest.raises(
        InputError, match=r"min_score is 99, the best document has .* \(18 below the cut, 1 dup"
    ):
        select(scored / "scores", tmp_path / "best.jsonl", min_score=99)
    assert list(tmp_path.iterdir()) == []
    write_jsonl(tmp_path / "in.jsonl", [{"id": "a", "text": "1 2"}])
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    with pytest.raises(InputError, match=r"no document has a value in column 'score' \(1 too_short\)"):
        select(tmp_path / "scores", tmp_path / "best.jsonl", top=0.5)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "what to keep"),
        ({"top": 0.5, "tokens": 9}, "either top"),
        ({"min_score": 1, "max_score": 0}, "above max_score"),
        ({"tokens": "many"}, "'many'"),
        ({"where": "scored > 1"}, "'scored > 1'.*num_tokens"),
        ({"where": "score > AND"}, "cannot be used"),
        ({"top": 0}, "top is 0"),
        ({"top": 50}, "top is 50"),
        ({"top": 0.5, "by": ("file",)}, "cannot group by 'file'"),
        ({"min_score": 1, "by": ("length",)}, "go with top"),
        ({"top": 0.5, "column": "score_se"}, "how sure a score is, not how good.*'score_low'"),
        ({"top": 0.5, "column": "score; DROP TABLE rows"}, "no column 'score; DROP"),
    ],
)
def test_rules_without_sense_are_refused(scored, tmp_path, rule, message):
    with pytest.raises(ConfigError, match=message):
        select(scored / "scores", tmp_path / "best.jsonl", **rule)


def test_out_never_lies_over_or_inside_what_it_comes_from(scored, tmp_path):
    for out, message in (
        ("scores/best.jsonl", "inside the scores folder"),
        ("in/best.jsonl", "inside the input folder"),
    ):
        with pytest.raises(InputError, match=message):
            select(scored / "scores", scored / out, top=0.5)
    write_jsonl(tmp_path / "in.jsonl", corpus_rows())
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    with pytest.raises(InputError, match="one of the inputs"):
        select(tmp_path / "scores", tmp_path / "in.jsonl", top=0.5)
    with pytest.raises(InputError, match="suffix must be one of"):
        select(tmp_path / "scores", tmp_path / "best.csv", top=0.5)
    with pytest.raises(InputError, match="not a longlode output folder"):
        select(tmp_path, tmp_path / "best.jsonl", top=0.5)


def test_an_input_that_changed_since_is_not_selected_from(tmp_path):
    path = tmp_path / "in.jsonl"
    write_jsonl(path, corpus_rows())
    run(path, tmp_path / "scores")
    text = path.read_bytes()
    docs = corpus_rows()
    docs[0], docs[3] = docs[3], docs[0]  # the same size in all, other rows
    path.write_bytes(b"".join(orjson.dumps(doc) + b"\n" for doc in docs))
    with pytest.raises(InputError, match="is not what was scored any more"):
        select(tmp_path / "scores", tmp_path / "best.jsonl", top=1.0)
    assert not (tmp_path / "best.jsonl").exists()
    path.write_bytes(text + b'{"id": "later", "text": "1"}\n')  # after the rows that were scored
    assert select(tmp_path / "scores", tmp_path / "best.jsonl", top=1.0).num_selected == 18


def test_an_unfinished_run_is_refused(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", corpus_rows())
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    part = next((tmp_path / "scores/parts").iterdir())
    part.rename(tmp_path / "away")
    with pytest.raises(InputError, match="lacks 1 of its parts"):
        select(tmp_path / "scores", tmp_path / "best.jsonl", top=0.5)
    damaged = bytearray((tmp_path / "away").read_bytes())
    damaged[damaged.rindex(b"score")] ^= 1  # the name of a column, which no page's checksum covers
    part.write_bytes(damaged)
    with pytest.raises(InputError, match=f"damaged, first {part.name}"):
        select(tmp_path / "scores", tmp_path / "best.jsonl", top=0.5)
    record = read_json(tmp_path / "scores/record.json") | {"complete": False, "failed_units": [{}]}
    (tmp_path / "scores/record.json").write_bytes(orjson.dumps(record))
    with pytest.raises(InputError, match="is not complete: 1 of 5 units failed"):
        select(tmp_path / "scores", tmp_path / "best.jsonl", top=0.5)


def test_a_damaged_record_is_said(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", corpus_rows())
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    path = tmp_path / "scores/record.json"
    sound = path.read_bytes()
    for word in (b'"content"', b'"unit"', b'"part"', b'"parts"', b'"inputs"', b'"text_field"', b'"files"'):
        assert word in sound
        path.write_bytes(sound.replace(word, b'"damaged"', 1))
        with pytest.raises(InputError, match=r"the record of .* is damaged"):
            select(tmp_path / "scores", tmp_path / "best.jsonl", top=0.5)


def test_small_groups_are_counted_and_a_share_that_is_missed_is_said(scored, tmp_path):
    whole = select(scored / "scores", tmp_path / "whole.jsonl", top=0.5)
    assert (whole.num_candidates, whole.num_groups, whole.num_small_groups) == (18, 1, 0)
    tokens = {row["id"]: row["num_tokens"] for row in candidates(scored)}
    kept = {row["id"] for row in read_jsonl(tmp_path / "whole.jsonl")}
    assert whole.kept_tokens == sum(tokens[name] for name in kept)
    assert whole.kept_tokens + whole.cut_tokens == sum(tokens.values())
    assert whole.remark == ""
    assert "remark" not in read_selection(tmp_path / "whole.jsonl")

    docs = [{"id": f"d{n}", "source": f"s{n}", "text": random_text(str(n), 40)} for n in range(12)]
    write_jsonl(tmp_path / "in.jsonl", docs + [{**docs[0], "id": f"e{n}"} for n in range(10)])
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    alone = select(tmp_path / "scores", tmp_path / "alone.jsonl", top=0.2, by=("source",))
    assert (alone.num_selected, alone.num_candidates) == (13, 22)
    assert (alone.num_groups, alone.num_small_groups) == (12, 11)
    for fact in ("13 of 22", "59%", "20%", "11 of 12 groups"):
        assert fact in alone.remark
    record = read_selection(tmp_path / "alone.jsonl")
    assert record["remark"] == alone.remark
    assert (record["num_groups"], record["num_small_groups"]) == (12, 11)
    assert (record["kept_tokens"], record["cut_tokens"]) == (alone.kept_tokens, alone.cut_tokens)


def test_what_was_dropped_is_no_data_of_its_folder(scored, tmp_path):
    folder = tmp_path / "kept"
    for suffix in (".jsonl", ".parquet"):
        select(scored / "scores", folder / f"best{suffix}", top=0.5)
    data = [
        path for path in folder.rglob("*") if not path.is_dir() and "__" not in str(path.relative_to(folder))
    ]
    assert sorted(path.name for path in data) == ["best.jsonl", "best.parquet"]
    found = [item for item in read(folder) if isinstance(item, Document)]
    assert len(found) == 2 * len(read_jsonl(folder / "best.jsonl"))


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may catch it."""


@pytest.mark.parametrize("point", ["write_documents", "_write_dropped", "_summarize"])
def test_files_of_two_selections_never_pass_for_one(scored, tmp_path, monkeypatch, point):
    def kill(*arguments, **options):
        raise Killed

    out, other = tmp_path / "best.jsonl", tmp_path / "other/best.jsonl"
    select(scored / "scores", out, top=0.5)
    check_selection(out)
    with monkeypatch.context() as patched:
        patched.setattr(select_module, point, kill)
        with pytest.raises(Killed):
            select(scored / "scores", out, top=0.2, overwrite=True)
    with pytest.raises(InputError, match="not finished"):
        check_selection(out)
    for place in (out, other):  # the same again is no other's file that would need overwrite
        select(scored / "scores", place, top=0.2)
        check_selection(place)
    assert out.read_bytes() == other.read_bytes()
    assert dropped_path(out).read_bytes() == dropped_path(other).read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_that_changed_after_it_was_selected_is_noticed(scored, tmp_path):
    out = tmp_path / "best.jsonl"
    select(scored / "scores", out, top=0.5)
    out.write_bytes(out.read_bytes() + b"{}\n")
    with pytest.raises(InputError, match=r"best\.jsonl is not what was selected"):
        check_selection(out)
    check_selection(tmp_path / "never.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_one_document_that_cannot_be_written_stops_no_other(tmp_path, suffix):
    nested = "1"
    for _ in range(400):
        nested = f'{{"a": {nested}}}'
    lines = [f'{{"id": "d{n}", "text": "{random_text(str(n), 40)}"}}' for n in range(4)]
    lines.append(f'{{"id": "deep", "text": "{random_text("4", 40)}", "meta": {nested}}}')
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run(tmp_path / "in.jsonl", tmp_path / "scores")
    out = tmp_path / f"best{suffix}"
    summary = select(tmp_path / "scores", out, top=1.0)
    kept = {document.id for document in read(out)}
    if suffix == ".jsonl":
        assert kept == {"d0", "d1", "d2", "d3", "deep"}
        assert out.read_text().count('{"a":') == 400
    else:
        assert kept == {"d0", "d1", "d2", "d3"}
        assert summary.dropped == {"failed": 1}
        assert summary.num_selected == 4
        (row,) = pq.read_table(summary.dropped_path).to_pylist()
        assert (row["id"], row["kind"]) == ("deep", "failed")
        assert "nested" in row["why"]
    check_selection(out)


def test_a_second_select_of_one_file_is_refused_while_the_first_runs(scored, tmp_path, monkeypatch):
    out = tmp_path / "best.jsonl"
    real = select_module.write_documents

    def meanwhile(path, rows, **options):
        with monkeypatch.context() as patched:
            patched.setattr(select_module, "write_documents", real)
            with pytest.raises(InputError, match="is being written by process"):
                select(scored / "scores", out, top=0.2, overwrite=True)
        return real(path, rows, **options)

    monkeypatch.setattr(select_module, "write_documents", meanwhile)
    select(scored / "scores", out, top=0.5)
    check_selection(out)


def test_a_full_disk_is_said(scored, tmp_path, monkeypatch):
    def full(base, path):
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr(select_module, "_write_dropped", full)
    with pytest.raises(InputError, match="No space left"):
        select(scored / "scores", tmp_path / "best.jsonl", top=0.5)


def by_value(rows, column="score"):
    return sorted(rows, key=lambda row: (-row[column], row["id"]))


def ids(path):
    return {row["id"] for row in read_jsonl(path)}


@pytest.mark.parametrize("budget", [150, "400", "0.7k", 10**9])
def test_a_budget_of_tokens_is_filled_from_the_best(scored, tmp_path, budget):
    summary = select(scored / "scores", tmp_path / "best.jsonl", tokens=budget)
    limit = {"400": 400, "0.7k": 700}.get(budget, budget)
    kept, spent = [], 0
    for row in by_value(candidates(scored)):
        if spent + row["num_tokens"] > limit:
            break
        kept.append(row["id"])
        spent += row["num_tokens"]
    assert ids(tmp_path / "best.jsonl") == set(kept)
    assert summary.kept_tokens == spent <= limit
    assert ("asked for" in summary.remark) == (spent < 0.75 * limit)
    assert read_selection(tmp_path / "best.jsonl")["rule"]["tokens"] == limit


def test_a_budget_cuts_every_group_at_the_same_depth(scored, tmp_path):
    rows = candidates(scored)
    summary = select(scored / "scores", tmp_path / "best.jsonl", tokens=800, by=("source",))
    kept = ids(tmp_path / "best.jsonl")
    total = sum(row["num_tokens"] for row in rows)
    assert 800 - max(row["num_tokens"] for row in rows) < summary.kept_tokens <= 800
    assert len(summary.groups) == 2
    for group in summary.groups:
        inside = by_value([row for row in rows if [row["source"]] == group["group"]])
        chosen = [row for row in inside if row["id"] in kept]
        assert chosen == inside[: len(chosen)]  # from the best
        assert (group["documents"], group["kept"]) == (len(inside), len(chosen))
        assert group["cut"] == chosen[-1]["score"]
        share = sum(row["num_tokens"] for row in inside) / total
        longest = max(row["num_tokens"] for row in inside)
        assert abs(group["kept_tokens"] - 800 * share) <= longest


def test_a_budget_that_holds_no_document_is_refused(scored, tmp_path):
    with pytest.raises(InputError, match=r"tokens is 2, and the best document has"):
        select(scored / "scores", tmp_path / "best.jsonl", tokens=2)


def test_a_budget_needs_numbers_of_tokens(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"id": "a", "text": random_text("a", 40)}])
    score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=make_scorer("gzip"), settings=SETTINGS)
    (part,) = (tmp_path / "scores/parts").iterdir()
    rows = [row | {"num_tokens": None} for row in pq.read_table(part).to_pylist()]
    write_part(part, rows, read_info(part), keep_pairs=False)  # as parts of scorers without tokens were
    with pytest.raises(ConfigError, match="no number of tokens"):
        select(tmp_path / "scores", tmp_path / "best.jsonl", tokens=100)


def test_a_band_leaves_out_both_ends(scored, tmp_path):
    values = sorted(row["score"] for row in candidates(scored))
    low, high = values[4], values[-4]
    summary = select(scored / "scores", tmp_path / "band.jsonl", min_score=low, max_score=high)
    assert ids(tmp_path / "band.jsonl") == {
        row["id"] for row in candidates(scored) if low <= row["score"] <= high
    }
    assert (summary.dropped["below the cut"], summary.dropped["above the band"]) == (4, 3)
    half = select(scored / "scores", tmp_path / "half.jsonl", max_score=high, top=0.5)
    inside = [row for row in candidates(scored) if row["score"] <= high]
    assert ids(tmp_path / "half.jsonl") == best(inside, 0.5)
    assert half.remark == ""


def test_where_is_a_condition_on_any_column(scored, tmp_path):
    where = "num_tokens >= 100 AND source = 'even' -- odd ones out"
    summary = select(scored / "scores", tmp_path / "w.jsonl", where=where, top=0.5, by=("length",))
    wanted = [row for row in candidates(scored) if row["num_tokens"] >= 100 and row["source"] == "even"]
    groups = {}
    for row in wanted:
        groups.setdefault(int(math.log2(row["num_tokens"])), []).append(row)
    assert ids(tmp_path / "w.jsonl") == set().union(*(best(group, 0.5) for group in groups.values()))
    assert summary.dropped["not where"] == 18 - len(wanted)
    assert [group["group"] for group in summary.groups] == [["128"]]
    alone = select(scored / "scores", tmp_path / "alone.jsonl", where="score_low > -1")
    assert alone.num_selected == sum(
        row["score"] - 2 * row["score_se"] > -1 for row in candidates(scored) if row["score_se"] is not None
    )


def test_a_dry_run_writes_nothing_and_says_the_same(scored, tmp_path):
    tried = select(scored / "scores", tmp_path / "best.jsonl", top=0.5, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert tried == select(scored / "scores", tmp_path / "best.jsonl", top=0.5)
