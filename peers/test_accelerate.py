"""accelerate: two gloo processes by torchrun take the steps of one; layers on disk and a head on disk."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from peers import tiny
from peers.processes import fresh, run

PACKAGES = ("accelerate", "transformers", "torch")


@pytest.mark.parametrize("mixers", ["DS", "GA"])
def test_two_processes_take_the_steps_of_one(mixers, tmp_path):
    one = fresh("data_parallel", mixers, tmp_path / "one")
    printed = run(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "peers.fresh.data_parallel", mixers, tmp_path / "two"),
    )
    two = json.loads(next(line for line in printed.splitlines() if line.startswith('{"')))
    assert (one["processes"], two["processes"]) == (1, 2)
    for loop in ("accelerate", "trainer"):
        assert len(two[loop]) == 3
        np.testing.assert_allclose(two[loop], one[loop], rtol=1e-3, err_msg=loop)


@pytest.mark.parametrize("on_disk", ["lm_head", "model.layers.1"])
def test_what_lies_on_disk_is_in_the_loss(on_disk, model_folder, tmp_path):
    ids = tiny.token_rows()
    places = {"model.embeddings": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "cpu" for i in range(2)} | {on_disk: "disk"}
    dispatched = AutoModelForCausalLM.from_pretrained(
        model_folder, device_map=places, offload_folder=str(tmp_path)
    )
    plain = AutoModelForCausalLM.from_pretrained(model_folder)
    with torch.no_grad():
        got, right = dispatched(input_ids=ids, labels=ids), plain(input_ids=ids, labels=ids)
        torch.testing.assert_close(got.logits, right.logits)
        torch.testing.assert_close(got.loss, right.loss)
        training = dispatched.train()(input_ids=ids, labels=ids)
    torch.testing.assert_close(training.loss, right.loss)
