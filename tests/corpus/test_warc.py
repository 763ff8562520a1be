"""Web archives: WET and WARC, whole and damaged."""

import gzip
import random

import pytest
from corpus.archives import http_answer, packed, warc_record

from longlode.core.errors import BackendError
from longlode.corpus import Document, plan, read, read_unit, warc

pytest.importorskip("fastwarc", reason="needs longlode[warc]")


def both_ways(path, **cuts):
    rows = list(read(path))
    units = plan(path, **cuts)
    assert [row for unit in units for row in read_unit(unit)] == rows
    for unit in reversed(units):  # each alone, and not in order
        assert list(read_unit(unit)) == rows[unit.start : unit.stop]
    return rows


def random_texts(count):
    draw = random.Random()
    letters = "abc déñ\n文\U0001f30b"
    return ["".join(draw.choices(letters, k=draw.randrange(1, 4000))) for _ in range(count)]


@pytest.mark.parametrize("name", ["a.warc.wet.gz", "a.wet", "a.warc.gz"])
def test_every_text_of_a_wet_file_is_a_document(tmp_path, name):
    texts = random_texts(60)
    records, names = [warc_record("warcinfo", b"software: test")[0]], []
    for number, text in enumerate(texts):
        headers = [f"WARC-Target-URI: https://host.org/{number}"]
        record, record_id = warc_record("conversion", text.encode(), headers=headers)
        records += [record, warc_record("metadata", b"languages: x")[0]]
        names.append(record_id)
    path = tmp_path / name
    path.write_bytes(packed(records) if name.endswith("gz") else b"".join(records))
    rows = both_ways(path, rows_per_unit=7, bytes_per_unit=20_000)
    assert [(row.id, row.text, row.row) for row in rows] == list(
        zip(names, texts, range(len(texts)), strict=True)
    )
    assert rows[3].metadata == {"url": "https://host.org/3", "date": "2026-11-28T00:00:00Z"}


def test_pages_of_other_kinds_are_rows_with_a_reason(tmp_path):
    http = "application/http; msgtype=response"
    latin = http_answer("naïve".encode("latin-1"), "text/plain; charset=iso-8859-1")
    zipped = http_answer(gzip.compress(b"zipped"), extra="Content-Encoding: gzip\r\n")
    bomb = http_answer(gzip.compress(b"x" * (80 << 20)), extra="Content-Encoding: gzip\r\n")
    answers = [
        latin,
        zipped,
        http_answer(b"<p>page</p>", "text/html"),
        http_answer(b"\x89PNG", "image/png"),
        http_answer(b"?", "text/plain; charset=klingon"),
        http_answer(b"\xff\xfe"),
        http_answer(b""),
        bomb,
    ]
    records = [warc_record("response", answer, content_type=http)[0] for answer in answers]
    records.insert(0, warc_record("request", b"GET / HTTP/1.1\r\n\r\n", content_type="application/http")[0])
    path = tmp_path / "a.warc.gz"
    path.write_bytes(packed(records))
    rows = both_ways(path)
    assert [row.text for row in rows[:2]] == ["naïve", "zipped"]
    told = [(row.status, row.reason) for row in rows[2:]]
    assert [status for status, _ in told] == ["skipped", "skipped", "failed", "failed", "too_short", "failed"]
    for (_, reason), fact in zip(
        told, ["text/html", "image/png", "klingon", "UTF-8", "empty", "expand"], strict=True
    ):
        assert fact in reason


def test_damage_ends_an_archive_with_a_failed_row(tmp_path):
    texts = random_texts(20)
    records = [warc_record("conversion", text.encode())[0] for text in texts]
    data = packed(records)
    path = tmp_path / "a.wet.gz"
    path.write_bytes(data[: len(packed(records[:10])) + 30])
    rows = both_ways(path, rows_per_unit=3)
    assert [row.text for row in rows[:10]] == texts[:10]
    assert [row.status for row in rows[10:]] == ["failed"]
    path.write_bytes(b"no archive at all\n" * 50)
    assert not [row for row in both_ways(path) if isinstance(row, Document)]
    path.write_bytes(gzip.compress(b"\0" * (100 << 20)))
    assert not [row for row in both_ways(path) if isinstance(row, Document)]


def test_without_fastwarc_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(warc, "_fastwarc", warc._fastwarc)
    monkeypatch.setitem(__import__("sys").modules, "fastwarc", None)
    (tmp_path / "a.wet").write_bytes(warc_record("conversion", b"text")[0])
    with pytest.raises(BackendError, match=r"longlode\[warc\]"):
        list(read(tmp_path / "a.wet"))
