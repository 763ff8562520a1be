"""A task of one's own: an object that `evaluate` takes as it is, whose results are read without its class."""

import sys
import types

import pytest
from evaluate_stand_ins import Copier, tokenizer

from longlode.core.errors import ConfigError
from longlode.core.records import read_json, write_json
from longlode.evaluate import TASKS, Curve, Example, Metric, Task, compare, evaluate
from longlode.report import build


class Echo(Task):
    """The last of some words again; how many words, is a setting."""

    name = "echo"
    about = "the last word comes again"
    key_columns = ("half",)
    group_column = "example"
    curve = Curve("from_token", "to_token", "loudness")
    metrics = (
        Metric(
            "loudness",
            "surprisal of the echo",
            "nats/token",
            "lower",
            words="loudness of the echo",
            headline=True,
            baseline=1e9,
            at_baseline="no echo is heard",
        ),
    )

    def __init__(self, num_words: int = 6) -> None:
        self.num_words = num_words

    def options(self):
        return {"num_words": self.num_words}

    def make(self, length, seed):
        words = [("wind", "road", "field", "mind")[(seed + k) % 4] for k in range(self.num_words)]
        prompt, target = " ".join(words), f" {words[-1]}"
        return Example(prompt, target, ((len(prompt) + 1, len(prompt + target)),), {"depth": None})

    def rows(self, example, scores):
        (score,) = scores[""]
        return [
            {"half": half, "from_token": 1 + 8 * half, "to_token": 9 + 8 * half, "loudness": score.mean_nats}
            for half in (0, 1)
        ]


@pytest.fixture
def tok():
    return tokenizer()


def run(tok, out, tasks, window=None):
    model = Copier(len(tok), window)
    return evaluate(model, tok, tasks=tasks, lengths=[96], out=out, num_examples=4, name=out.name)


def test_an_instance_is_taken_with_its_settings(tok, tmp_path):
    record = run(tok, tmp_path / "a", [Echo(num_words=9)])
    info = record["task_info"]["echo"]
    assert info["options"] == {"num_words": 9}
    assert info["provider"] == __name__.partition(".")[0]
    assert [row["n"] for row in record["summary"]] == [4]
    assert {(row["start"], row["stop"]) for row in record["curves"]["echo"]} == {(1, 9), (9, 17)}


def test_classes_names_and_addresses_are_taken_too(tok, tmp_path, monkeypatch):
    module = types.ModuleType("an_outside_package")
    module.Echo = Echo
    monkeypatch.setitem(sys.modules, "an_outside_package", module)
    for name, task in (("class", Echo), ("address", "an_outside_package:Echo")):
        assert run(tok, tmp_path / name, [task])["tasks"] == ["echo"]
    assert run(tok, tmp_path / "name", ["passkey", Echo()])["tasks"] == ["passkey", "echo"]


def test_other_settings_of_a_task_are_another_evaluation(tok, tmp_path):
    from longlode.core.errors import InputError

    run(tok, tmp_path / "a", [Echo(num_words=9)])
    with pytest.raises(InputError, match="num_words"):
        run(tok, tmp_path / "a", [Echo(num_words=7)])


def test_results_are_compared_and_reported_without_the_class(tok, tmp_path):
    for name, window in (("a", None), ("b", 2)):
        run(tok, tmp_path / name, [Echo()], window)
    assert "echo" not in TASKS.names()
    found = compare(tmp_path / "a", str(tmp_path / "b"))
    (row,) = found["rows"]
    assert (row["task"], row["metric"], row["n"]) == ("echo", "loudness", 4)
    assert len(found["curves"]["echo"]) == 2
    text = build([tmp_path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "loudness of the echo" in text.lower()
    assert "echo: surprisal of the echo" in text


def test_tasks_that_cannot_be(tok, tmp_path):
    with pytest.raises(ConfigError, match="passkey"):
        run(tok, tmp_path / "a", ["paskey"])
    with pytest.raises(ConfigError, match="none twice"):
        run(tok, tmp_path / "a", ["passkey", "passkey"])
    with pytest.raises(ConfigError, match="at least one"):
        run(tok, tmp_path / "a", [])


def test_a_record_of_another_form_is_refused(tok, tmp_path):
    run(tok, tmp_path / "a", [Echo()])
    record = read_json(tmp_path / "a" / "record.json")
    record["task_info"]["echo"]["metrics"][0]["colour"] = "red"
    write_json(tmp_path / "a" / "record.json", record)
    with pytest.raises(ConfigError, match="Evaluate again"):
        compare(tmp_path / "a", tmp_path / "a")
