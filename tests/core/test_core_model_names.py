"""Names accepted for a model, and immediate errors for typing errors."""

import pytest

from longlode.core.errors import InputError
from longlode.core.model_names import model_source, starter_folder
from longlode.core.records import write_record


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


def test_the_starter_comes_with_the_package():
    assert model_source("starter") == str(starter_folder())


def test_a_run_stands_for_its_model(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    assert model_source("run") == str(tmp_path / "run" / "model")
    assert model_source(tmp_path / "run") == str(tmp_path / "run" / "model")


def test_hub_ids_with_an_owner_pass():
    assert model_source("facebook/opt-125m") == "facebook/opt-125m"


def test_a_single_word_that_is_nothing_here_is_a_slip(tmp_path):
    (tmp_path / "my-model").mkdir()
    with pytest.raises(InputError, match="starter"):
        model_source("startr")
    with pytest.raises(InputError, match="my-model"):
        model_source("my-modle")
    with pytest.raises(InputError, match="owner"):
        model_source("nope")


def test_a_demo_folder_names_the_runs_inside(tmp_path):
    write_record(tmp_path / "demo-out", "demo")
    write_record(tmp_path / "demo-out" / "runs" / "selected", "run")
    with pytest.raises(InputError, match="runs/selected"):
        model_source("demo-out")
