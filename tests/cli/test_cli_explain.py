"""longlode explain: what it shows is what the score is made of, for any one document of any input."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from longlode.api.announced_words import token_texts
from longlode.api.dependency_maps import NUM_SHOWN, map_ends
from longlode.api.readers import load_reader
from longlode.cli import app
from longlode.core.records import read_json
from longlode.corpus import write_documents

SEGMENT = 32
NAME = "Quelibrand"


@pytest.fixture(scope="module")
def records(tmp_path_factory, sources):
    """Two documents of source code; a name comes back in the second."""
    text = sources[0].read_text(encoding="utf-8")[:30_000]
    words = text.split(" ")
    for place in (500, 900, 1500, 1900):
        words[place] += f" {NAME}"
    path = tmp_path_factory.mktemp("explain") / "two.jsonl"
    write_documents(path, [{"id": "plain", "text": text}, {"id": "named", "text": " ".join(words)}])
    return path


@pytest.fixture(scope="module")
def as_json(model_folder):
    """Run `longlode explain ARGS --json`; gives what it printed, which must be JSON and nothing else."""

    def _run(*arguments):
        options = (
            "--scorer",
            "coherence",
            "--model",
            model_folder,
            "--segment",
            SEGMENT,
            "--segments",
            6,
            "--json",
        )
        result = CliRunner().invoke(app, ["explain", *map(str, (*arguments, *options))])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return _run


@pytest.fixture(scope="module")
def named(as_json, records):
    return as_json(records, "--row", 1, "--top", 40)


@pytest.fixture(scope="module")
def scores(tmp_path_factory, run, records, model_folder):
    """The two documents scored with the coherence scorer."""
    out = tmp_path_factory.mktemp("explain-scores") / "scores"
    run(
        "score",
        records,
        "-o",
        out,
        "--scorer",
        "coherence",
        "--model",
        model_folder,
        "--segment",
        SEGMENT,
        "--no-explain",
    )
    return out


def test_the_score_is_that_of_longlode_score(named, scores):
    import pyarrow.parquet as pq

    (part,) = (scores / "parts").glob("*.parquet")
    row = pq.read_table(part).to_pylist()[1]
    for name in ("id", "file", "row", "num_tokens", "num_segments", "score", "score_se"):
        assert named[name] == row[name]
    assert named["score_se"] > 0


def test_the_name_is_among_the_words_with_both_places(named):
    (entry,) = (one for one in named["announcements"] if one["word"] == NAME)
    for place in (entry["announced"], entry["used"]):
        assert NAME in place["before"] + place["text"] + place["after"]
        assert place["segment"] == place["token"] // SEGMENT
    assert entry["tokens"]
    assert (
        named["near"] < entry["used"]["token"] - entry["announced"]["token"] <= named["near"] + named["span"]
    )
    gains = [one["contribution_nats"] for one in named["announcements"]]
    assert gains == sorted(gains, reverse=True)


def test_pairs_are_the_strongest_and_their_tokens_add_up(named, model_folder, records):
    reader, _ = load_reader(str(model_folder), SEGMENT, workers=1)
    text = json.loads(records.read_text().splitlines()[1])["text"]
    segments = np.array(reader.encode([text])[0][: 6 * SEGMENT]).reshape(6, SEGMENT)
    assert named["segments_read"] == [0, 6]
    assert len(named["pairs"]) == 15
    strengths = [pair["strength"] for pair in named["pairs"]]
    assert strengths == sorted(strengths, reverse=True)
    for pair in named["pairs"]:
        assert pair["source"] < pair["target"] < 6
        gains = [gain for _, gain in pair["target_tokens"][1:]]
        assert np.mean(gains) == pytest.approx(pair["gain_nats"], abs=1e-4)
        assert pair["target_tokens"][0][1] is None
        shown = "".join(piece for piece, _ in pair["target_tokens"])
        assert shown == reader.tokenizer.decode(segments[pair["target"]])


def test_the_report_is_given_the_same(as_json, scores, records, model_folder):
    from longlode.mining import ScoreSettings

    reader, _ = load_reader(str(model_folder), SEGMENT, workers=1)
    maps = map_ends(scores, reader, ScoreSettings(segment=SEGMENT), model=reader, max_segments=6)
    assert {one["id"] for one in maps} == {"plain", "named"}
    for one in maps:
        shown = as_json(records, "--id", one["id"], "--top", NUM_SHOWN)
        assert one["order"] == {name: shown[name] for name in one["order"]}
        assert shown["score"] == one["score"]
        assert one["order"]["announcements"]
        assert one["strongest"] == shown["pairs"]
        for pair in one["strongest"]:
            assert "".join(text for text, _ in pair["target_tokens"]) == one["segments"][pair["target"]]


def test_start_moves_the_pairs(as_json, records):
    found = as_json(records, "--id", "plain", "--start", 10, "--top", 3)
    assert found["segments_read"] == [10, 16]
    assert len(found["pairs"]) == 3
    assert all(10 <= pair["source"] < pair["target"] < 16 for pair in found["pairs"])
    beyond = as_json(records, "--id", "plain", "--start", 10**6)
    assert beyond["segments_read"] == [found["num_segments"] - 2, found["num_segments"]]


def test_on_a_terminal(run, records, model_folder):
    options = ("--model", model_folder, "--segment", SEGMENT, "--segments", 6, "--top", 3)
    shown = run("explain", records, "--id", "named", "--scorer", "coherence", *options)
    for words in (
        "coherence score",
        "rare words link both sides",
        "Weakest boundary",
        "Words announced",
        "announced at",
        "Strongest pairs",
        "gained most (nats)",
    ):
        assert words in shown
    assert shown.count("tokens back") == 1


def test_a_short_document_says_why_it_has_no_score(run, corpus, tmp_path, model_folder):
    (tmp_path / "short.txt").write_text("def main(): \x1b[31m pass")
    options = ("--scorer", "coherence", "--model", model_folder, "--segment", SEGMENT)
    shown = run("explain", tmp_path / "short.txt", *options)
    assert "the coherence score and its words need 256 (8 segments)" in shown
    assert "No pair of segments" in shown
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("{records}",),
            "several documents; expected one. Say which with --id ID or --row N. Ids: plain, named",
        ),
        (("{records}", "--row", 7), "no document of row 7"),
        (("{records}", "--id", "nobody"), "no document of id 'nobody'"),
        (("{records}", "--id", "plain", "--row", 0), "expected one of them"),
        (("{records}", "--row", 0, "--text-field", "body"), "no field 'body'"),
        (("{tmp}/nowhere.txt",), "does not exist"),
        (("{tmp}/empty.txt",), "empty"),
        (("{tmp}/bytes.txt",), "UTF-8"),
        (("{tmp}/zeros.txt",), "holds no document: binary"),
        (("{records}", "--row", 0, "--model", "{tmp}"), "no config.json"),
    ],
)
def test_what_cannot_be_explained_is_refused(run, records, tmp_path, model_folder, arguments, expected):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bytes.txt").write_bytes(b"good \xff bad")
    (tmp_path / "zeros.txt").write_bytes(bytes(9))
    places = {"records": records, "tmp": tmp_path}
    given = [str(argument).format(**places) for argument in arguments]
    if "--model" not in given:
        given += ["--model", str(model_folder)]
    assert expected in run("explain", *given, status=2)


def test_the_profile_is_explained_by_default(run, records):
    shown = run("explain", records, "--id", "named", "--top", 20)
    for words in (
        "profile score",
        "one text in its order",
        "most likely else",
        "beside usual text",
        "Weakest boundary",
        "What context adds, nats per token",
        "4k to 8k",
        "What carries the far gain",
        "again at",
    ):
        assert words in shown
    assert "Strongest pairs" not in shown


def test_a_model_adds_pairs_to_the_profile(run, records, model_folder):
    result = CliRunner().invoke(
        app,
        [
            *("explain", str(records), "--id", "named", "--model", str(model_folder)),
            *("--segment", str(SEGMENT), "--segments", "4", "--json"),
        ],
    )
    found = json.loads(result.stdout)
    assert found["explanation"]["kind"] == "profile"
    assert len(found["pairs"]) == 5
    assert found["segments_read"] == [0, 4]


def test_the_explanation_of_a_run_is_that_of_the_command(run, records, tmp_path):
    run("score", records, "-o", tmp_path / "scores")
    result = CliRunner().invoke(app, ["explain", str(records), "--row", "1", "--json"])
    (entry,) = (one for one in read_json(tmp_path / "scores" / "explain.json") if one["id"] == "named")
    assert entry["label"] in ("best", "worst")
    assert entry["explanation"] == json.loads(result.stdout)["explanation"]
    assert entry["score"] == entry["explanation"]["score"]
    run("score", records, "-o", tmp_path / "none", "--no-explain")
    assert not (tmp_path / "none" / "explain.json").exists()


def test_a_short_document_has_no_profile_and_says_so(run, tmp_path):
    (tmp_path / "short.txt").write_text("def main(): \x1b[31m pass")
    shown = run("explain", tmp_path / "short.txt")
    assert "none: fewer than 1,280 tokens" in shown
    assert "\x1b[31m" not in shown


def test_a_scorer_that_cannot_be_explained_is_refused(run, records):
    shown = run("explain", records, "--row", 0, "--scorer", "gzip", status=2)
    assert "'gzip' does not explain its score" in shown


def test_a_folder_and_an_id(as_json, corpus):
    name = sorted(path.name for path in corpus.iterdir())[1]
    assert as_json(corpus, "--id", name)["file"] == name


def test_the_only_document_of_a_folder_needs_no_name(as_json, tmp_path, sources):
    (tmp_path / "only.py").write_text(sources[0].read_text(encoding="utf-8")[:2000], encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("hidden")
    assert as_json(tmp_path)["id"] == "only.py"


def test_pieces_of_characters_add_up(model_folder):
    reader, _ = load_reader(str(model_folder), SEGMENT, workers=1)
    text = "caf\u00e9 \u4e2d\u6587 \U0001f600 end"
    tokens = np.array(reader.encode([text])[0])
    pieces = token_texts(tokens, reader.tokenizer)
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == text
