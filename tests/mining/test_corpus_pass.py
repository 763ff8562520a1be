"""A pass over the corpus before scoring: killed at any point, with any number of workers, it gives one state."""

import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import longlode
from benchmarks import corpus_background
from longlode.api.dependency_maps import explain_ends
from longlode.api.results import read_result
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record, write_jsonl
from longlode.corpus import Document
from longlode.corpus.words import shared_vocabulary, split_words
from longlode.mining import DocumentScore, RaceRule, Scorer, ScoreSettings, check_raceable, make_scorer, score
from longlode.mining.distance_profile.control import WINDOW, count_windows
from longlode.mining.distance_profile.corpus_text import (
    SAMPLE_PER_UNIT,
    CorpusText,
    fit_corpus_text,
    tally_documents,
    windows_of,
)
from longlode.mining.requests import Words

LENGTHS = (10, 30, 20, 50, 40, 15, 25)
SETTINGS = ScoreSettings(rows_per_unit=2)


class LengthScorer(Scorer):
    """Words of a text in standard deviations from the mean of the corpus. Every tally leaves a line in a log, and a
    process dies in the unit that KILL_IN names, or at the first text of the second pass for "apply".
    """

    name = "length"
    min_segments = 0
    asks = (Words,)
    fits = True

    def tally(self, documents):
        counts = [len(document.text.split()) for document in documents]
        if os.environ.get("KILL_IN") == str(counts):
            os.kill(os.getpid(), signal.SIGKILL)
        if "FAIL" in os.environ:
            raise ValueError("no such unit")
        with Path(os.environ["TALLY_LOG"]).open("a") as log:
            log.write(f"{counts}\n")
        return counts

    def fit(self, tallies):
        counts = np.concatenate(list(tallies))
        return {"mean": counts.mean(), "spread": counts.std()}

    def text_requests(self, text):
        if os.environ.get("KILL_IN") == "apply":
            os.kill(os.getpid(), signal.SIGKILL)
        return [Words(text)]

    def finish(self, doc, readings):
        return DocumentScore((len(doc.of_text[0].kept) - self.state["mean"]) / self.state["spread"])


def write_lengths(path, lengths=LENGTHS):
    write_jsonl(path, [{"id": str(n), "text": "word " * length} for n, length in enumerate(lengths)])


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TALLY_LOG", str(tmp_path / "log"))
    write_lengths(tmp_path / "in.jsonl")
    return tmp_path / "log"


def contents(out):
    """Bytes of all that a run leaves besides its record, by name."""
    return {
        path.relative_to(out): path.read_bytes()
        for folder in ("fit", "parts")
        for path in (out / folder).iterdir()
    }


def run(tmp_path, name="out", workers=1, **options):
    out = tmp_path / name
    return score(
        tmp_path / "in.jsonl", out, scorer=LengthScorer(), settings=SETTINGS, num_workers=workers, **options
    )


def killed(tmp_path, where, workers=1):
    """The same run in another process, which dies."""
    program = (
        "import test_corpus_pass, sys; from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    test_corpus_pass.run(Path(sys.argv[1]))"
    )
    environment = os.environ | {"KILL_IN": where, "PYTHONPATH": os.pathsep.join([*sys.path])}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def test_scores_are_made_with_what_the_whole_corpus_says(log, tmp_path):
    assert run(tmp_path).counts == {"ok": 7}
    rows = read_result(tmp_path / "out").table().sort_by("id").to_pylist()
    expected = (np.array(LENGTHS) - np.mean(LENGTHS)) / np.std(LENGTHS)
    assert [row["score"] for row in rows] == pytest.approx(expected)
    assert len(log.read_text().splitlines()) == 4
    assert run(tmp_path).num_reused == 4
    assert len(log.read_text().splitlines()) == 4


def test_any_number_of_workers_gives_the_same_bytes(log, tmp_path):
    run(tmp_path, "one")
    run(tmp_path, "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("where", "before", "after"),
    [("[20, 50]", 1, 3), ("[25]", 3, 1), ("apply", 4, 0)],
    ids=["in the pass", "at its end", "between the pass and the scores"],
)
def test_a_run_that_was_killed_goes_on_where_it_was(log, tmp_path, where, before, after):
    killed(tmp_path, where)
    assert len(log.read_text().splitlines()) == before
    run(tmp_path)
    assert len(log.read_text().splitlines()) == before + after
    run(tmp_path, "straight")
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_file_that_was_changed_is_made_again(log, tmp_path):
    run(tmp_path)
    whole = contents(tmp_path / "out")
    (state,) = (tmp_path / "out" / "fit").glob("*.state")
    tally = sorted((tmp_path / "out" / "fit").glob("*.tally"))[0]
    for path in (state, tally):
        path.write_bytes(path.read_bytes()[:-3])
    run(tmp_path)
    assert contents(tmp_path / "out") == whole
    assert len(log.read_text().splitlines()) == 5


def test_more_documents_are_another_state_and_other_parts(log, tmp_path):
    run(tmp_path)
    first = {part["part"] for part in read_record(tmp_path / "out", "scores")["parts"]}
    write_lengths(tmp_path / "more.jsonl", (100, 200))
    more = [tmp_path / "in.jsonl", tmp_path / "more.jsonl"]
    score(more, tmp_path / "out", scorer=LengthScorer(), settings=SETTINGS)
    record = read_record(tmp_path / "out", "scores")
    assert not first & {part["part"] for part in record["parts"]}
    assert len(log.read_text().splitlines()) == 5  # only the new unit was tallied
    every = np.array([*LENGTHS, 100, 200])
    scores = read_result(tmp_path / "out").table().column("score").to_pylist()
    assert sorted(scores) == pytest.approx(sorted((every - every.mean()) / every.std()))


def test_a_unit_that_fails_leaves_no_scores_and_is_tried_again(log, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIL", "1")
    summary = run(tmp_path)
    assert not summary.complete
    assert (summary.num_documents, len(summary.failed_units)) == (0, 4)
    assert "no such unit" in summary.failed_units[0]["error"]
    monkeypatch.delenv("FAIL")
    assert run(tmp_path).counts == {"ok": 7}


def test_a_race_has_no_pass():
    with pytest.raises(ConfigError, match="pass over the corpus"):
        check_raceable(LengthScorer(), RaceRule(top=0.5))


# The pass of `profile`: background of the corpus itself.


def text_of(seed, num_words, vocabulary):
    """Words by Zipf's law, half of them common to all documents, half of a vocabulary of its own."""
    rng = random.Random(seed)
    letters = ["".join(three) for three in itertools.product("abcdefgh", repeat=3)]
    own, common = [vocabulary + word for word in letters], letters
    return " ".join(
        (common if rng.random() < 0.5 else own)[int(rng.paretovariate(0.8)) % 400] for _ in range(num_words)
    )


@pytest.fixture(scope="module")
def documents():
    texts = [text_of(n, 3000 + 700 * n, "own" + "uvwxyz"[n]) for n in range(6)]
    return [Document(str(n), text, "s", "f", n) for n, text in enumerate(texts)]


def test_windows_are_those_of_the_tables(documents):
    for document in documents:
        for num_words in (0, 1, WINDOW // 2, WINDOW // 2 + 1, WINDOW, 2600):
            text = " ".join(document.text.split()[:num_words])
            kinds, words = shared_vocabulary().read(text)
            held, count = windows_of(kinds, len(words))
            expected, windows = count_windows([split_words(text)])
            found = {word: n for word, n in zip(words, held.tolist(), strict=True) if n}
            assert (found, count) == (dict(expected), windows)


def test_tallies_of_any_cut_count_the_same(documents):
    whole = tally_documents(documents)
    parts = [tally_documents(documents[:1]), tally_documents(documents[1:4]), tally_documents(documents[4:])]
    states = [fit_corpus_text([whole]), fit_corpus_text(parts), fit_corpus_text(parts[::-1])]
    assert states[0] == states[1] == states[2]
    assert len(tally_documents([*documents, *documents])["sample"]) == len(documents) < SAMPLE_PER_UNIT


def test_a_document_is_not_in_the_counts_that_it_is_judged_by(documents):
    text = CorpusText(fit_corpus_text([tally_documents(documents)]))
    kinds, words = shared_vocabulary().read(documents[0].text)
    control = text.control(kinds, words)
    others, windows = count_windows([split_words(one.text) for one in documents[1:]])
    everything, _ = count_windows([split_words(one.text) for one in documents])
    for word, weight in zip(words, control.pair_weights, strict=True):
        count = others[word] if everything[word] > 1 else 0
        share = (count + 0.5) / (windows + 1)
        assert weight == pytest.approx(-np.log(share) if share < 0.3 else 0.0)
    assert any(others[word] == 0 for word in words)
    assert any(others[word] > 0 for word in words)


@pytest.mark.parametrize("workers", [1, 2])
def test_profile_by_the_corpus(documents, tmp_path, workers):
    rows = [{"id": one.id, "text": one.text} for one in documents]
    write_jsonl(tmp_path / "in.jsonl", rows)
    scorer = make_scorer("profile", options={"background": "corpus"})
    score(tmp_path / "in.jsonl", tmp_path / "out", scorer=scorer, settings=SETTINGS, num_workers=workers)
    found = read_result(tmp_path / "out").table().sort_by("id")
    for end in explain_ends(tmp_path / "out", scorer, SETTINGS):
        assert end["explanation"]["score"] == end["score"]
        assert end["explanation"]["profile"]["control"] == "foreign:corpus"
    assert set(found.column("extras.control").to_pylist()) == {"foreign:corpus"}
    plain = longlode.score_texts([one.text for one in documents], scorer="profile")
    assert set(plain.column("extras.control").to_pylist()) == {"own"}
    gains = [table.column("extras.far_1k").to_pylist() for table in (found, plain)]
    # Half of each text are words that no other has: by the corpus that is worth more than by the text's own rate.
    assert all(by_corpus > own for by_corpus, own in zip(*gains, strict=True))


def test_a_corpus_of_few_documents_is_refused(documents, tmp_path):
    texts = [one.text for one in documents[:3]]
    options = {"background": "corpus"}
    with pytest.raises(InputError, match="3 documents of different text; expected at least 4"):
        longlode.score_texts([*texts, texts[0]], scorer="profile", scorer_options=options)
    with pytest.raises(ConfigError, match="a pass over the corpus"):
        make_scorer("profile", options=options).text_requests(texts[0])


def test_the_benchmark_of_the_background(documents, tmp_path, capsys):
    for one in documents:
        (tmp_path / f"{one.id}.txt").write_text(one.text)
    corpus_background.main([str(tmp_path), "--characters", "15000", "--glued", "3"])
    told = capsys.readouterr().out
    assert told.startswith("6 documents, 3 glued")
    gains, background = {}, ""
    for line in told.splitlines()[1:]:
        if line.startswith(" "):
            gains[background, line.split()[0]] = float(line.split()[1])
        else:
            background = line.partition(":")[0]
    assert set(gains) == {(b, g) for b in ("packaged", "corpus", "own") for g in ("documents", "glued")}
    assert gains["corpus", "documents"] > max(0.1, abs(gains["corpus", "glued"]))
