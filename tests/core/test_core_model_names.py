"""Names accepted for a model, and immediate errors for typing errors."""

import socket
import time

import pytest
from huggingface_hub import constants

from longlode.core.errors import InputError
from longlode.core.model_names import model_source, starter_folder
from longlode.core.records import write_record


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_the_starter_comes_with_the_package():
    assert model_source("starter") == str(starter_folder())


def test_a_run_stands_for_its_model(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    assert model_source("run") == str(tmp_path / "run" / "model")
    assert model_source(tmp_path / "run") == str(tmp_path / "run" / "model")


def reach(monkeypatch, endpoint):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)


def test_hub_ids_with_an_owner_pass_where_the_hub_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        assert model_source("facebook/opt-125m") == "facebook/opt-125m"


def test_a_hub_that_does_not_answer_is_not_asked_for_long(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reach(monkeypatch, f"http://127.0.0.1:{port}")  # closed again: nobody listens
    (tmp_path / "cache" / "models--facebook--opt-125m").mkdir(parents=True)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached.*Did you mean facebook/opt-125m"):
        model_source("facebok/opt-125")
    assert time.monotonic() - began < 5
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        model_source("facebok/opt-125")


def test_models_in_the_cache_and_behind_a_proxy_are_not_asked_about(monkeypatch, tmp_path):
    reach(monkeypatch, "http://127.0.0.1:9")
    snapshot = tmp_path / "cache" / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert model_source("some/model") == "some/model"
    with pytest.raises(InputError, match="reached"):
        model_source("some/other")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert model_source("some/other") == "some/other"


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
