"""Typed options of scorers: checked, told when wrong, part of the name of what they shape, and of effect."""

import pytest
from mining_fakes import CacheReader, ReadingOnReader, make_reader, records

import longlode
from longlode.core.errors import ConfigError
from longlode.core.options import parse_options
from longlode.core.records import write_jsonl
from longlode.mining import ScoreSettings, make_scorer, score

SETTINGS = ScoreSettings(segment=8)


def parts(folder):
    return {path.name for path in (folder / "parts").iterdir()}


def run(tmp_path, name, options, make=make_reader):
    write_jsonl(tmp_path / "in.jsonl", records(4, num_tokens=90))
    out = tmp_path / str(len(list(tmp_path.iterdir())))
    scorer = make_scorer(name, options=options)
    summary = score(
        *(tmp_path / "in.jsonl", out),
        scorer=scorer,
        make_reader=make,
        reader_fingerprint=CacheReader.fingerprint,
        settings=SETTINGS,
    )
    return summary, out, longlode.read_result(out).table().column("score").to_pylist()


@pytest.mark.parametrize(
    ("name", "options", "make"),
    [
        ("overlap", {"num_tokens": 1}, make_reader),
        ("context_gain", {"stride": 3}, ReadingOnReader),
        ("strength", {"max_segments": 5}, make_reader),
    ],
)
def test_an_option_changes_scores_and_names_and_its_default_changes_neither(tmp_path, name, options, make):
    _, plain, scores = run(tmp_path, name, None, make)
    _, changed, others = run(tmp_path, name, options, make)
    assert not parts(plain) & parts(changed)
    assert scores != others
    key = next(iter(options))
    default = getattr(make_scorer(name).own, key)
    _, same, again = run(tmp_path, name, {key: default}, make)
    assert (parts(same), again) == (parts(plain), scores)


def test_what_an_option_asks_for_decides_who_is_too_short(tmp_path):
    assert run(tmp_path, "overlap", {"min_distance": 10})[0].counts == {"ok": 4}
    assert run(tmp_path, "overlap", {"min_distance": 12})[0].counts == {"ok": 2, "too_short": 2}


@pytest.mark.parametrize(
    ("name", "options", "facts"),
    [
        ("attention_mass", {"windw": 3}, "'windw'.*'window'.*far .int, default 4."),
        ("attention_mass", {"window": "wide"}, "'attention_mass': window is 'wide'"),
        ("attention_mass", {"window": 5}, "window is 5.*above far"),
        ("overlap", {"rare_share": 2}, "rare_share is 2"),
        ("gzip", {"level": 9}, "no option 'level'.*none"),
    ],
)
def test_wrong_options_are_refused(name, options, facts):
    with pytest.raises(ConfigError, match=facts):
        make_scorer(name, options=options)


def test_options_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        make_scorer("overlap").own.num_tokens = 3


def test_options_of_a_command_line():
    given = ["stride=4", " rare_share = 0.2", "words=a b", "exact=true"]
    assert parse_options(given, "--x") == {"stride": 4, "rare_share": 0.2, "words": "a b", "exact": True}
    for wrong in (["stride"], ["=4"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError, match="--x"):
            parse_options(wrong, "--x")


def test_python_takes_them_by_name_only():
    text = " ".join(f"word{n % 40} and" for n in range(900))
    options = {"min_distance": 3}
    assert longlode.score_texts([text], scorer="overlap", scorer_options=options).num_rows == 1
    with pytest.raises(ConfigError, match="scorer_options"):
        longlode.score_texts([text], scorer=make_scorer("overlap"), scorer_options=options)
