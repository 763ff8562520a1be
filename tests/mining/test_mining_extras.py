"""Columns of a scorer's own: typed, told in the record, readable, selectable, and absent where none are declared."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from mining_fakes import CacheReader, make_reader, records

from longlode.api.results import read_result
from longlode.core.errors import ConfigError
from longlode.core.records import read_json, read_jsonl, write_jsonl
from longlode.mining import (
    DocumentScore,
    ExtraColumn,
    RaceRule,
    ScoreSettings,
    make_scorer,
    race,
    score,
    select,
)
from longlode.mining.engine.parts import COLUMNS, PAIRS_FIELD
from longlode.mining.requests import Words
from longlode.mining.scorers.gzip import GzipScorer
from longlode.mining.scorers.strength import StrengthScorer
from longlode.report import build

EXTRAS = (
    ExtraColumn("gate", "float", "nats", "how sure; 0: as likely as not"),
    ExtraColumn("words", "int", "words", "words of the text; 0: none"),
    ExtraColumn("kind", "str", "", "what it is"),
    ExtraColumn("gate_se", "float", "nats", "error of gate", in_report=False),
)


class WordsScorer(GzipScorer):
    """Counts words; what it gives besides can be set."""

    name = "words"
    extra_columns = EXTRAS
    given: dict = {}  # noqa: RUF012 - replaced as a whole by tests

    asks = (Words,)

    def text_requests(self, text):
        return [Words(text)]

    def finish(self, doc, readings):
        count = len(doc.of_text[0].kept)
        extras = {"gate": np.float32(count / 4), "words": np.int64(count), "kind": "a\ud800"}
        return DocumentScore(1.0, extras=extras | self.given)


@pytest.fixture
def scored(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(6))
    score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=WordsScorer())
    return tmp_path


def test_they_are_flat_typed_columns_of_parts_and_of_the_table(scored):
    table = read_result(scored / "scores").table()
    assert table.column_names == [*COLUMNS.names, *(column.column for column in EXTRAS)]
    types = {name: str(table.schema.field(name).type) for name in table.column_names[-4:]}
    assert types == {
        "extras.gate": "double",
        "extras.words": "int64",
        "extras.kind": "string",
        "extras.gate_se": "double",
    }
    first = table.to_pylist()[0]
    assert (first["extras.words"], first["extras.gate"], first["extras.gate_se"]) == (120, 30.0, None)
    assert first["extras.kind"] == "a\\ud800"


def test_the_record_says_unit_and_meaning(scored):
    record = read_json(scored / "scores/record.json")
    assert list(record["extras"]) == ["gate", "words", "kind", "gate_se"]
    assert record["extras"]["words"]["unit"] == "words"
    assert "0: none" in record["extras"]["words"]["doc"]
    assert record["scorer"]["extras"] == {column.name: column.dtype for column in EXTRAS}


def test_documents_are_selected_by_them(scored):
    kept = select(scored / "scores", scored / "best.jsonl", top=0.5, column="extras.words")
    assert {row["id"] for row in read_jsonl(kept.out)} == {"doc-003", "doc-004", "doc-005"}
    over = select(scored / "scores", scored / "over.jsonl", min_score=38.0, column="extras.gate")
    assert {row["id"] for row in read_jsonl(over.out)} == {"doc-005"}


@pytest.mark.parametrize("column", ["extras.kind", "extras.nothing", "kind"])
def test_there_is_no_best_of_names_nor_of_columns_that_are_not_there(scored, column):
    with pytest.raises(ConfigError, match=rf"{column}.*extras\.words"):
        select(scored / "scores", scored / "best.jsonl", top=0.5, column=column)


def test_the_report_lists_the_numbers_that_are_for_it(scored):
    build([scored / "scores"], scored / "report.html")
    page = (scored / "report.html").read_text(encoding="utf-8")
    assert "words of the text; 0: none (words)" in page
    assert "error of gate" not in page


@pytest.mark.parametrize(
    "wrong",
    [{"surprise": 1.0}, {"gate": "high"}, {"gate": True}, {"words": 1.5}, {"words": 1 << 63}, {"kind": 3}],
)
def test_what_is_not_declared_so_fails_the_document_and_names_scorer_and_key(tmp_path, wrong):
    write_jsonl(tmp_path / "in.jsonl", records(2))
    scorer = WordsScorer()
    scorer.given = wrong
    summary = score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=scorer)
    assert summary.counts == {"failed": 2}
    for row in read_result(tmp_path / "scores").table().to_pylist():
        assert "'words'" in row["reason"]
        assert repr(next(iter(wrong))) in row["reason"]
        assert row["extras.words"] is None


def test_a_number_that_is_not_finite_is_null(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(2))
    scorer = WordsScorer()
    scorer.given = {"gate": math.nan}
    assert score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=scorer).counts == {"ok": 2}
    assert read_result(tmp_path / "scores").table().column("extras.gate").null_count == 2


def test_other_columns_are_another_run(scored, monkeypatch):
    name = next((scored / "scores/parts").iterdir()).name
    monkeypatch.setattr(WordsScorer, "extra_columns", EXTRAS[:3])
    score(scored / "in.jsonl", scored / "other", scorer=WordsScorer())
    assert next((scored / "other/parts").iterdir()).name != name


def test_without_them_the_record_does_not_mention_them(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(2))
    score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=make_scorer("gzip"))
    record = read_json(tmp_path / "scores/record.json")
    assert "extras" not in record
    assert record["scorer"] == {"name": "gzip", "version": 2, "options": {}}
    part = next((tmp_path / "scores/parts").iterdir())
    assert pq.read_schema(part).names == COLUMNS.names


@pytest.mark.parametrize("wrong", [("Gate", "float"), ("gate.x", "float"), ("gate", "bool")])
def test_declarations_without_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="extra column"):
        ExtraColumn(*wrong, "", "")


def test_a_name_declared_twice_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "in.jsonl", records(2))
    monkeypatch.setattr(WordsScorer, "extra_columns", (EXTRAS[0], EXTRAS[0]))
    with pytest.raises(ConfigError, match="'gate' is declared twice"):
        score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=WordsScorer())
    assert not (tmp_path / "scores").exists()


class RacedScorer(StrengthScorer):
    """A mean over pairs that also counts them."""

    name = "raced"
    extra_columns = (ExtraColumn("pairs_read", "int", "pairs", "pairs that were read"),)

    def finish(self, doc, readings):
        return _counted(super().finish(doc, readings))

    def finish_pairs(self, *pairs):
        return _counted(super().finish_pairs(*pairs))


def _counted(found):
    return DocumentScore(found.score, num_pairs=found.num_pairs, extras={"pairs_read": found.num_pairs})


def test_races_keep_them_and_pairs_come_last(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(6))
    race(
        tmp_path / "in.jsonl",
        tmp_path / "scores",
        scorer=RacedScorer(pairs=40),
        rule=RaceRule(top=0.5),
        make_reader=make_reader,
        reader_fingerprint=CacheReader.fingerprint,
        settings=ScoreSettings(segment=8, rows_per_unit=3, keep_pairs=True),
    )
    table = read_result(tmp_path / "scores").table()
    assert table.column_names == [*COLUMNS.names, "extras.pairs_read", PAIRS_FIELD.name]
    for row in table.to_pylist():
        assert row["extras.pairs_read"] == row["num_pairs"] == len(row["pairs"])
