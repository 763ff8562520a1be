"""Steps in datatrove's pipelines give the numbers of `longlode score`; its local executor runs them."""

import json
import random
import subprocess
import sys

import pytest

import longlode
from longlode.core.errors import BackendError, ConfigError

PIPELINE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from longlode.integrations.datatrove import LonglodeFilter

if __name__ == "__main__":
    place, minimum = sys.argv[1], float(sys.argv[2])
    dropped = JsonlWriter(f"{place}/dropped", compression=None)
    keep = LonglodeFilter("gzip", minimum=minimum, exclusion_writer=dropped, batch_documents=3)
    steps = [JsonlReader(f"{place}/in"), keep, JsonlWriter(f"{place}/kept", compression=None)]
    LocalPipelineExecutor(steps, tasks=2, workers=2, logging_dir=f"{place}/logs").run()
"""


@pytest.fixture
def documents():
    pytest.importorskip("datatrove", reason="needs longlode[datatrove]")
    draw = random.Random()
    rows = []
    for number in range(10):
        words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(3 + 10 * number)]
        rows.append({"id": f"d{number}", "text": " ".join(draw.choices(words, k=900))})
    return [*rows, {"id": "empty?", "text": "\ud800"}]


def scores(documents, folder, scorer):
    folder.mkdir()
    path = folder / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in documents))
    return {
        row["id"]: row for row in longlode.score(path, folder / "scores", scorer=scorer).table().to_pylist()
    }


@pytest.mark.parametrize("scorer", ["gzip", "profile", "overlap"])
def test_annotations_are_those_of_score(documents, tmp_path, scorer):
    from datatrove.data import Document

    from longlode.integrations.datatrove import LonglodeScores

    step = LonglodeScores(scorer, batch_documents=4)
    found = list(step.run(Document(**row, metadata={"url": "x"}) for row in documents))
    assert [one.id for one in found] == [row["id"] for row in documents]
    expected = scores(documents, tmp_path / "alone", scorer)
    for one in found:
        assert one.metadata["url"] == "x"
        assert one.metadata["longlode"].items() <= expected[one.id].items()
        assert {"score", "status", "reason"} <= one.metadata["longlode"].keys()
    assert found[-1].metadata["longlode"]["status"] == "failed"


def test_the_local_executor_filters_as_select_would(documents, tmp_path):
    expected = scores(documents, tmp_path / "alone", "gzip")
    cut = sorted(row["score"] for row in expected.values() if row["score"] is not None)[4]
    (tmp_path / "in").mkdir()
    for half in range(2):
        lines = "".join(json.dumps(row) + "\n" for row in documents[half:-1:2])
        (tmp_path / "in" / f"{half}.jsonl").write_text(lines)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    command = [sys.executable, tmp_path / "pipeline.py", tmp_path, repr(cut)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    def ids(name):
        paths = (tmp_path / name).glob("*.jsonl")
        return {json.loads(line)["id"] for path in paths for line in path.read_text().splitlines()}

    above = {name for name, row in expected.items() if row["score"] is not None and row["score"] >= cut}
    assert ids("kept") == above
    assert ids("dropped") == {row["id"] for row in documents[:-1]} - above


def test_wrong_arguments_are_named(documents):
    from datatrove.data import Document

    from longlode.integrations.datatrove import LonglodeFilter

    with pytest.raises(ConfigError, match="no_such"):
        LonglodeFilter("no_such")
    with pytest.raises(ConfigError, match="pass over the corpus"):
        LonglodeFilter(scorer_options={"background": "corpus"})
    step = LonglodeFilter("gzip", column="nothing")
    with pytest.raises(ConfigError, match="nothing"):
        step.filter(Document(**documents[0]))


def test_without_datatrove_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove", None)
    monkeypatch.setitem(sys.modules, "datatrove.data", None)
    monkeypatch.delitem(sys.modules, "longlode.integrations.datatrove", raising=False)
    with pytest.raises(BackendError, match=r"longlode\[datatrove\]"):
        __import__("longlode.integrations.datatrove")
