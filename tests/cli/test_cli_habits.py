"""What every command does alike: -h, shell completion, --quiet, --json, and command lines that can be copied."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from longlode.cli import app, console

COMMANDS = {name: one for name, one in typer.main.get_command(app).commands.items() if not one.hidden}
MAIN = "import sys; from longlode.cli import main; sys.argv = ['longlode', *sys.argv[1:]]; main()"


def invoke(*arguments, status=0):
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == status, done.output
    return done


@pytest.mark.parametrize("name", COMMANDS)
def test_h_is_help(name):
    shown = invoke(name, "-h").stdout
    assert shown == invoke(name, "--help").stdout
    assert "--json" in shown
    assert "--quiet" in shown


def test_no_command_is_help_and_no_error():
    assert "score" in invoke().stdout


def test_help_and_version_work_as_words():
    assert invoke("version").stdout == invoke("--version").stdout == invoke("-V").stdout
    for words in ([], ["select"]):
        assert invoke("help", *words).stdout == invoke(*words, "--help").stdout


def completed(shell, **environment):
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env={**os.environ, "_LONGLODE_COMPLETE": shell, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_the_shell_completes_commands_and_options():
    assert completed("complete_bash", COMP_WORDS="longlode sc", COMP_CWORD="1").split() == ["score"]
    found = completed("complete_bash", COMP_WORDS="longlode select --o", COMP_CWORD="2").split()
    assert {"--out", "--overwrite"} <= set(found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_can_be_shown(shell):
    assert "_LONGLODE_COMPLETE" in completed(f"source_{shell}")


@pytest.fixture(scope="module")
def scored(tmp_path_factory, corpus):
    """A folder of scores whose name a shell would cut in three."""
    out = tmp_path_factory.mktemp("with space") / "my scores; ls"
    done = invoke("score", corpus, "-o", out, "--scorer", "gzip", "--json")
    return out, done


def test_json_is_one_object_and_nothing_else(scored, tmp_path):
    out, done = scored
    found = json.loads(done.stdout)
    assert found["counts"] == {"ok": found["num_documents"]}
    assert found["out"] == str(out)
    kept = json.loads(invoke("select", out, "-o", tmp_path / "kept.jsonl", "--top", "1", "--json").stdout)
    assert kept["num_selected"] == found["num_documents"]
    packed = json.loads(
        invoke("pack", tmp_path / "kept.jsonl", "-o", tmp_path / "s", "--length", "32", "--json").stdout
    )
    assert packed["num_documents"] == found["num_documents"]
    page = json.loads(invoke("report", out, "-o", tmp_path / "page.html", "--json").stdout)
    assert (tmp_path / "page.html").stat().st_size == page["num_bytes"]
    assert "torch" in json.loads(invoke("doctor", "--json").stdout)
    assert {key["name"] for key in json.loads(invoke("train", "--list-keys", "--json").stdout)["keys"]} > {
        "data.shards"
    }


def test_select_says_what_each_group_keeps(scored, tmp_path):
    out, done = scored
    told = invoke("select", out, "-o", tmp_path / "k.jsonl", "--top", "0.5", "--by", "source", "--dry-run")
    (group,) = json.loads(
        invoke(
            "select", out, "-o", tmp_path / "k.jsonl", "--top", "0.5", "--by", "source", "--dry-run", "--json"
        ).stdout
    )["groups"]
    assert group["documents"] == json.loads(done.stdout)["num_documents"]
    assert "Groups, the largest first" in told.stdout
    assert f"{group['cut']:.4g}" in told.stdout
    assert not (tmp_path / "k.jsonl").exists()


def test_json_comes_with_a_bad_exit_status_too(tmp_path):
    (tmp_path / "broken.jsonl").write_text("{\n")
    found = json.loads(
        invoke(
            "score", tmp_path / "broken.jsonl", "-o", tmp_path / "s", "--scorer", "gzip", "--json", status=1
        ).stdout
    )
    assert found["counts"] == {"failed": 1}


def test_quiet_says_nothing_but_errors(corpus, tmp_path):
    done = invoke("score", corpus, "-o", tmp_path / "s", "--scorer", "gzip", "-q")
    assert done.stdout == ""
    assert done.stderr == ""
    refused = invoke("score", tmp_path / "none", "-o", tmp_path / "t", "--scorer", "gzip", "-q", status=2)
    assert "does not exist" in refused.stderr
    (tmp_path / "broken.jsonl").write_text("{\n")
    failed = invoke(
        "score", tmp_path / "broken.jsonl", "-o", tmp_path / "u", "--scorer", "gzip", "-q", status=1
    )
    assert "not valid JSON" in failed.stderr
    assert failed.stdout == ""


def test_quiet_leaves_what_a_command_is_asked_to_show():
    shown = invoke("doctor", "-q")
    assert "torch" in shown.stdout
    assert "Next:" not in shown.stdout


def test_one_command_does_not_hush_the_next(corpus, tmp_path):
    invoke("score", corpus, "-o", tmp_path / "s", "--scorer", "gzip", "-q")
    assert "Done." in invoke("score", corpus, "-o", tmp_path / "s", "--scorer", "gzip").stdout


def test_the_next_commands_can_be_copied(scored, tmp_path):
    out, _ = scored
    shown = invoke("score", out.parent / "no", "-o", out, "--scorer", "gzip", status=2)
    assert "Next:" not in shown.stdout
    kept = tmp_path / "kept (best).jsonl"
    shown = invoke("select", out, "-o", kept, "--top", "1").stdout
    line = next(line for line in shown.splitlines() if line.startswith("Next:"))
    words = shlex.split(line.removeprefix("Next:"))
    assert words[:3] == ["longlode", "pack", str(kept)]


@pytest.mark.parametrize(("given", "near"), [("runs/smal", "runs/small"), ("starte", "starter")])
def test_a_misspelt_model_name_is_refused_at_once(tmp_path, monkeypatch, given, near):
    (tmp_path / "runs/small/model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    told = " ".join(invoke("generate", given, "--prompt", "x", status=2).stderr.replace("│", " ").split())
    assert f"Did you mean {near}?" in told


@pytest.mark.parametrize("fits", [True, False])
def test_a_table_breaks_no_word_where_all_have_room(monkeypatch, capsys, fits):
    monkeypatch.setattr(console, "_WIDTH_WITHOUT_TERMINAL", 60 if fits else 30)
    text = "several short words that are wrapped at spaces, however long the whole is"
    console.table("Title", ("difference", "about"), [(0.25, text), ("a_name_of_18_chars", text)])
    shown = capsys.readouterr().out
    assert ("a_name_of_18_chars" in shown) == fits
    assert max(map(len, shown.splitlines())) <= (60 if fits else 30)
