"""Scores on a real Ray cluster of several nodes, one of them killed midway.

Not part of the default suite, as clusters take long to start:

    pip install 'longlode[ray]' && LONGLODE_TEST_RAY=1 RAY_AUTH_MODE=disabled pytest tests/mining/test_ray.py
"""

import os
import random
import sys
import threading

import pytest

from longlode.core.errors import BackendError, ConfigError
from longlode.core.records import read_record, write_jsonl
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.engine import ray_cluster

needs_cluster = pytest.mark.skipif(
    os.environ.get("LONGLODE_TEST_RAY") != "1", reason="starts clusters; set LONGLODE_TEST_RAY=1"
)
SETTINGS = {"rows_per_unit": 2, "units_per_part": 1}


def write_corpus(path):
    draw = random.Random()
    rows = []
    for number in range(60):
        words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(300)]
        rows.append({"id": f"d{number}", "text": " ".join(draw.choices(words, k=4000))})
    write_jsonl(path, rows)


def parts(folder):
    return {path.name: path.read_bytes() for path in (folder / "parts").glob("*.parquet")}


@needs_cluster
@pytest.mark.filterwarnings("ignore")
def test_a_node_is_lost_and_nothing_else(tmp_path):
    pytest.importorskip("ray", reason="needs longlode[ray]")
    import ray
    from ray.cluster_utils import Cluster

    write_corpus(tmp_path / "in.jsonl")
    alone = score(
        tmp_path / "in.jsonl",
        tmp_path / "alone",
        scorer=make_scorer("profile"),
        settings=ScoreSettings(**SETTINGS),
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=2)
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    lost = threading.Event()

    def progress(done):
        if done.units >= 5 and not lost.is_set():
            lost.set()
            cluster.remove_node(node, allow_graceful=False)

    try:
        summary = score(
            tmp_path / "in.jsonl",
            tmp_path / "cluster",
            scorer=make_scorer("profile"),
            settings=ScoreSettings(**SETTINGS, engine="ray"),
            num_workers=4,
            progress=progress,
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost.is_set()
    assert summary.complete
    assert summary.counts == alone.counts
    assert parts(tmp_path / "cluster") == parts(tmp_path / "alone"), "byte for byte"
    assert read_record(tmp_path / "cluster", "scores")["num_documents"] == 60


@needs_cluster
@pytest.mark.filterwarnings("ignore")
def test_a_job_that_kills_its_workers_fails_alone(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs longlode[ray]")
    import ray

    write_corpus(tmp_path / "in.jsonl")
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "from longlode.mining.scorers.gzip import GzipScorer\n"
        "class Deadly(GzipScorer):\n"
        "    def finish(self, doc, readings):\n"
        "        if doc.document.id == 'd7':\n"
        "            os._exit(1)\n"
        "        return super().finish(doc, readings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    ray.init(num_cpus=2, log_to_driver=False)
    try:
        summary = score(
            tmp_path / "in.jsonl",
            tmp_path / "out",
            scorer=make_scorer("deadly:Deadly"),
            settings=ScoreSettings(**SETTINGS, engine="ray"),
            num_workers=2,
        )
    finally:
        ray.shutdown()
    assert len(summary.failed_units) == 1
    assert f"died {ray_cluster.MOST_DEATHS} times" in summary.failed_units[0]["error"]
    assert summary.num_documents == 58


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(BackendError, match=r"longlode\[ray\]"):
        score(
            tmp_path / "a.txt",
            tmp_path / "out",
            scorer=make_scorer("gzip"),
            settings=ScoreSettings(engine="ray"),
        )
    with pytest.raises(ConfigError, match="processes, ray"):
        ScoreSettings(engine="dask")
