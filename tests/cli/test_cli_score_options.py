"""`longlode score`: the reader's dtype, and a score without a pass of the model."""

import pytest

from longlode.core.records import read_json, read_record


@pytest.fixture
def options(corpus, model_folder):
    return (
        corpus,
        "--model",
        model_folder,
        "--scorer",
        "coherence",
        "--segment",
        32,
        "--pairs",
        10,
        "--no-explain",
    )


def test_dtype_is_part_of_the_name_and_is_shown(run, tmp_path, options):
    names = {}
    for dtype in ("float32", "bfloat16"):
        shown = run("score", *options, "-o", tmp_path / dtype, "--dtype", dtype)
        assert f", {dtype}" in shown
        names[dtype] = read_record(tmp_path / dtype, "scores")["reader"]
    assert names["float32"] != names["bfloat16"]
    shown = run("score", *options, "-o", tmp_path / "auto", "--dtype", "auto")
    assert "--dtype auto: " in shown
    assert read_record(tmp_path / "auto", "scores")["reader"] in names.values()


def test_no_pairs_no_model(run, tmp_path, corpus, model_folder, options):
    both = {}
    for pairs in (0, 10):
        out = tmp_path / str(pairs)
        given = ("--pairs", pairs) if pairs else ()  # none is the default of a score that needs none
        shown = run(
            "score",
            corpus,
            "--scorer",
            "coherence",
            "--model",
            model_folder,
            "--segment",
            32,
            *given,
            "-o",
            out,
        )
        both[pairs] = read_record(out, "scores")
        assert ("its tokens only; the model was not run" in shown) == (pairs == 0)
        assert ("loading the tokenizer" in shown) == (pairs == 0)
        explained = read_json(out / "explain.json")
        assert len(explained) == 4
        assert all(bool(one["pairs"]) == (pairs > 0) for one in explained)
        assert all(one["segments"] and one["order"]["order_contrast"] is not None for one in explained)
    assert both[0]["cost"]["tokens_read_per_token"] == 0 < both[10]["cost"]["tokens_read_per_token"]
    assert both[0]["score_quantiles"] == both[10]["score_quantiles"]
    assert both[0]["reader"] != both[10]["reader"]


def test_refusals_say_what_is_expected(run, tmp_path, corpus):
    out = tmp_path / "scores"
    assert "float32, bfloat16" in run("score", corpus, "-o", out, "--dtype", "int8", status=2)
    shown = run("score", corpus, "-o", out, "--scorer", "paper", "--pairs", 0, status=2)
    assert "made of pairs" in shown
    assert not out.exists()


def test_a_race_says_what_it_did_and_select_says_when_it_was_for_another_cut(run, tmp_path, corpus, options):
    out = tmp_path / "raced"
    raced = (*options, "--scorer", "strength", "--race", 0.4, "--pairs", 40)
    shown = run("score", *raced, "-o", out)
    assert "Race for the best 40%" in shown
    assert "decided before the most pairs; the model read" in shown
    assert "--top 0.4" in shown
    race = read_record(out, "scores")["race"]
    num_documents = len(list(corpus.iterdir()))
    assert (race["top"], race["by"], race["rounds"][0]["documents"]) == (0.4, [], num_documents)
    assert "coarse" not in run("select", out, "-o", tmp_path / "kept.jsonl", "--top", 0.4)
    shown = run("select", out, "-o", tmp_path / "other.jsonl", "--top", 0.2)
    assert "These scores were raced for top 0.4: elsewhere they are coarse" in " ".join(shown.split())
    run("report", out, "-o", tmp_path / "report.html")
    assert "race.top" in (tmp_path / "report.html").read_text(encoding="utf-8")
    by_length = run("score", *raced, "-o", tmp_path / "by", "--race-by", "length")
    assert "Race for the best 40% by length" in by_length
    assert "--top 0.4 --by length" in by_length


def test_races_that_cannot_be_are_refused(run, tmp_path, corpus):
    def refused(*options):
        shown = run("score", corpus, "-o", tmp_path / "scores", *options, status=2)
        assert not (tmp_path / "scores").exists()
        return " ".join(shown.replace("\u2502", " ").split())

    assert "'profile' cannot be raced: its score is not made of sampled pairs" in refused("--race", 0.5)
    assert "a sum that grows with the pairs read" in refused("--race", 0.5, "--scorer", "paper")
    assert "a race for the top 1.5 decides nothing" in refused("--race", 1.5, "--scorer", "strength")
    few = refused("--race", 0.5, "--scorer", "strength", "--pairs", 32)
    assert "a race that begins with 32 pairs of every document saves nothing when 32 are the most" in few
    assert "expected --race FRACTION with it" in refused("--race-by", "length")
    assert "cannot group by 'topic'" in refused("--race", 0.5, "--race-by", "topic", "--scorer", "strength")


def test_a_shard_without_documents_is_done_and_no_failure(run, tmp_path):
    (tmp_path / "one.jsonl").write_text(
        '{"text": "the river and the stone"}\n'
    )  # a small file is one shard's
    shards = [
        run("score", tmp_path / "one.jsonl", "-o", tmp_path / "out", "--scorer", "gzip", "--shard", f"{n}/3")
        for n in (1, 2, 3)
    ]
    assert sum("No document falls into this shard" in text for text in shards) == 2
    assert read_record(tmp_path / "out", "scores")["complete"]
