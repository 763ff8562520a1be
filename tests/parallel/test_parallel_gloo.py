"""The same with real processes over gloo: equality with one rank, and ranks that die or hang."""

import gloo_rank
import pytest
import torch
from sharded_steps import Case, assert_same_step, model_of

from longlode.parallel import ATTENTION_SCHEMES


def test_processes_over_gloo_give_the_step_of_one_rank(tmp_path):
    model = model_of("delta_net", "sliding_window_attention", "attention", num_heads=6)
    cases = [
        ("gather", Case(1, 37, [6, 14], [0, 5, 6, 30, 37])),
        *[(scheme, Case(2, 29, 3)) for scheme in ATTENTION_SCHEMES],
    ]
    facts = {
        "config": model.config.to_dict(),
        "weights": model.state_dict(),
        "cases": [(scheme, case.plan, case.tokens, case.labels) for scheme, case in cases],
    }
    torch.save(facts, tmp_path / "cases.pt")
    for process in gloo_rank.start(3, tmp_path, gloo_rank.steps):
        process.join(120)
        assert process.exitcode == 0
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(3)]
    for number, (scheme, case) in enumerate(cases):
        want = case.one_rank(model)
        for results in ranks:
            assert_same_step(results[number][:2], want)
        _, _, traffic = case.several_ranks(model, scheme)
        assert [results[number][2] for results in ranks] == [dict(one.num_bytes) for one in traffic]


@pytest.mark.parametrize("failure", [gloo_rank.dies, gloo_rank.hangs])
def test_a_rank_that_fails_ends_the_others_with_a_message(tmp_path, failure):
    processes = gloo_rank.start(3, tmp_path, failure)
    try:
        for rank in (0, 2):
            processes[rank].join(60)
            assert processes[rank].exitcode == 7
            seconds, message = (tmp_path / f"rank{rank}.txt").read_text().split("|", 1)
            assert "lost another rank" in message
            assert float(seconds) < 15
    finally:
        for process in processes:
            process.kill()
            process.join()
