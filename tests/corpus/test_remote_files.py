"""Input from stores: web servers, a real S3 server, retries, credentials. Outside packages may be absent."""

import gzip
import json
import os
import random
import shutil
import ssl
import subprocess
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus.s3_server import s3_server
from corpus.web_server import Site, serving

from longlode.core.errors import BackendError, InputError
from longlode.corpus import Document, plan, read, read_unit, remote_files, stores
from longlode.mining import ScoreSettings, make_scorer, score

pytest.importorskip("aiohttp", reason="needs longlode[http]")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote_files, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(remote_files, "BLOCK_BYTES", 1 << 16)  # several requests per file
    yield
    fsspec.config.conf.clear()


def corpus_lines(rows=400):
    noise = random.Random()
    texts = ["".join(noise.choices("abcdefgh ", k=noise.randrange(200, 2000))) for _ in range(rows)]
    return texts, b"".join(
        json.dumps({"id": str(n), "text": t}).encode() + b"\n" for n, t in enumerate(texts)
    )


def texts_by_units(url):
    rows = [row for unit in plan(url, bytes_per_unit=100_000) for row in read_unit(unit)]
    assert not [row for row in rows if not isinstance(row, Document)]
    return [row.text for row in rows]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of connections that were cut
def test_web_files_are_read_whole_through_failures(ranges):
    texts, data = corpus_lines()
    files = {"/c/a.jsonl": data, "/c/b.jsonl.gz": gzip.compress(data)}
    with serving(Site(files, ranges=ranges, failures=2, cut_after=70_000)) as site:
        assert texts_by_units(f"{site.address}/c/a.jsonl") == texts
        site.failures = 2
        assert [row.text for row in read(f"{site.address}/c/b.jsonl.gz")] == texts
        assert site.failures < 0, "the server failed as often as it was to"


@pytest.mark.parametrize("workers", [1, 2])
def test_lines_from_the_web_are_fetched_once_and_parts_are_those_of_local_files(tmp_path, workers):
    texts, data = corpus_lines(300)
    files = {"a.jsonl": data, "b.jsonl.gz": gzip.compress(data)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    settings = ScoreSettings(bytes_per_unit=100_000)
    found = []
    with serving(Site({f"/{name}": content for name, content in files.items()})) as site:
        inputs = {"web": [f"{site.address}/{name}" for name in files], "here": [tmp_path / n for n in files]}
        for out, listed in inputs.items():
            gzips = make_scorer("gzip")
            summary = score(listed, tmp_path / out, scorer=gzips, settings=settings, num_workers=workers)
            assert summary.counts == {"ok": 2 * len(texts)}
            parts = sorted((tmp_path / out / "parts").iterdir())
            found.append({path.name: path.read_bytes() for path in parts})
        assert site.sent == sum(map(len, files.values()))
    assert found[0] == found[1]


def test_parquet_from_the_web_needs_ranges(tmp_path):
    texts, _ = corpus_lines()
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="none")
    files = {"/a.parquet": (tmp_path / "a.parquet").read_bytes()}
    with serving(Site(files)) as site:
        assert texts_by_units(f"{site.address}/a.parquet") == texts
    with serving(Site(files, ranges=False)) as site:
        rows = list(read(f"{site.address}/a.parquet"))
        assert all(row.status == "failed" and "download" in row.reason for row in rows)


def test_retries_end(caplog):
    with serving(Site({"/a.jsonl": b"{}\n"}, failures=10**6)) as site:
        (row,) = read(f"{site.address}/a.jsonl")
        assert row.status == "failed"
        assert site.asked["GET"] == remote_files.ATTEMPTS
        assert "try 4 of 4" in caplog.text
        with pytest.raises(InputError, match="does not exist"):
            read(f"{site.address}/none.jsonl")


def test_a_changed_web_file_of_the_same_size_is_noticed():
    files = {"/a.jsonl": b'{"text": "one"}\n'}
    with serving(Site(files)) as site:
        (unit,) = plan(f"{site.address}/a.jsonl")
        before = unit.fingerprint
        files["/a.jsonl"] = b'{"text": "two"}\n'
        (again,) = plan(f"{site.address}/a.jsonl")
        assert again.fingerprint != before
        rows = list(read_unit(unit))
        assert rows[-1].transient
        assert "changed" in rows[-1].reason


def test_https(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run(
        [*make, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    code = "import sys; from longlode.corpus import read; print([row.text for row in read(sys.argv[1])])"
    with serving(Site({"/a.jsonl": b'{"text": "one"}\n'}), context) as site:
        command = [sys.executable, "-c", code, f"{site.address}/a.jsonl"]
        trusting = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "cert")}
        done = subprocess.run(command, env=trusting, capture_output=True, text=True, timeout=60)
        assert done.stdout == "['one']\n", done.stderr
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://ann:hunter2@host.org/a.jsonl", "before the @"),
        ("s3://AKIA:hunter2@bucket/a.jsonl", "before the @"),
        ("https://host.org/a.jsonl?X-Amz-Credential=hunter2&X-Amz-Date=1", "X-Amz-Credential"),
        ("https://host.org/a.jsonl?sig=hunter2", "sig"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url, named):
    with pytest.raises(InputError) as caught:
        read(url)
    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)
    stores.check_no_secrets("https://host.org/a.jsonl?version=3")


@pytest.mark.parametrize(("protocol", "extra"), [("s3", "s3"), ("https", "http"), ("gs", "gcs")])
def test_a_missing_package_names_its_extra(monkeypatch, protocol, extra):
    def absent(url):
        raise ImportError("no such package")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(BackendError, match=rf"pip install 'longlode\[{extra}\]'"):
        read(f"{protocol}://bucket/a.jsonl")


def test_s3(monkeypatch, tmp_path):
    texts, data = corpus_lines()
    with s3_server(monkeypatch) as store:
        store.pipe("corpus/a.jsonl", data)
        store.pipe("corpus/d/b.jsonl.gz", gzip.compress(data))
        pq.write_table(pa.table({"text": texts}), tmp_path / "p.parquet", row_group_size=100)
        store.put(str(tmp_path / "p.parquet"), "corpus/d/p.parquet")
        for name in ("a.jsonl", "d/b.jsonl.gz", "d/p.parquet"):
            assert texts_by_units(f"s3://corpus/{name}") == texts
        assert [row.id for row in read("s3://corpus/d/*.gz")] == [str(n) for n in range(len(texts))]
        assert len(list(read("s3://corpus"))) == 3 * len(texts)
        units = plan("s3://corpus/a.jsonl", bytes_per_unit=100_000)
        store.pipe("corpus/a.jsonl", data[::-1])
        assert "changed" in list(read_unit(units[0]))[-1].reason
        with pytest.raises(InputError, match="does not exist"):
            read("s3://corpus/none.jsonl")
        with pytest.raises(InputError) as caught:
            read("s3://other/none.jsonl")
        assert "hunter2" not in str(caught.value)
