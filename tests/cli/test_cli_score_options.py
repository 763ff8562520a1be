"""`longlode score`: the scorer's dtype, and a score without a pass of the model."""

import pytest

from longlode.core.records import read_record


@pytest.fixture
def options(corpus, model_folder):
    return (corpus, "--scorer", model_folder, "--segment", 32, "--pairs", 10, "--no-explain")


def test_dtype_is_part_of_the_name_and_is_shown(run, tmp_path, options):
    names = {}
    for dtype in ("float32", "bfloat16"):
        shown = run("score", *options, "-o", tmp_path / dtype, "--dtype", dtype)
        assert f", {dtype}" in shown
        names[dtype] = read_record(tmp_path / dtype, "scores")["scorer"]
    assert names["float32"] != names["bfloat16"]
    shown = run("score", *options, "-o", tmp_path / "auto", "--dtype", "auto")
    assert "--dtype auto: " in shown
    assert read_record(tmp_path / "auto", "scores")["scorer"] in names.values()


def test_no_pairs_no_model(run, tmp_path, corpus, model_folder, options):
    both = {}
    for pairs in (0, 10):
        out = tmp_path / str(pairs)
        shown = run("score", corpus, "--scorer", model_folder, "--segment", 32, "--pairs", pairs, "-o", out)
        both[pairs] = read_record(out, "scores")
        assert ("its tokens only; the model was not run" in shown) == (pairs == 0)
        assert ("loading the tokenizer" in shown) == (pairs == 0)
        assert (out / "explain.json").exists() == (pairs > 0)
    assert both[0]["cost"]["tokens_read_per_token"] == 0 < both[10]["cost"]["tokens_read_per_token"]
    assert both[0]["score_quantiles"] == both[10]["score_quantiles"]
    assert both[0]["scorer"] != both[10]["scorer"]


def test_refusals_say_what_is_expected(run, tmp_path, corpus):
    out = tmp_path / "scores"
    assert "float32, bfloat16" in run("score", corpus, "-o", out, "--dtype", "int8", status=2)
    shown = run("score", corpus, "-o", out, "--estimator", "paper", "--pairs", 0, status=2)
    assert "made of pairs" in shown
    assert not out.exists()
