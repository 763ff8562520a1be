"""The compiled CPU kernels, with every instruction set that this CPU has: exact, lawful, the same on every thread.

float32 only, so no gradcheck: gradients are compared with the float64 recurrence, and may be off by at most three
times what the recurrence is off in float32 (outputs and states twice), or by some units of rounding. How they fare
with repeated keys and strong decay stands in `test_ops_delta_rule_keys.py`, beside the chunkwise path.
"""

import dataclasses
import functools
import logging
import multiprocessing
import threading

import pytest
import torch
from ops_cases import largest_difference, make_inputs, relative_error, results

from longlode.core.errors import BackendError
from longlode.ops.delta_rule import available_backends, backends, delta_rule, delta_rule_step, native
from longlode.ops.delta_rule.step import fused_step

no_native = available_backends()["native"]
needs_native = pytest.mark.skipif(bool(no_native), reason=f"native: {no_native}")
SETS = () if no_native else native.instruction_sets()
UNIT = 2**-24
CPU = torch.device("cpu")
run_native = functools.partial(delta_rule, backend="native")


def exactly(inputs, **options):
    return results({n: x if x is None else x.double() for n, x in inputs.items()}, **options)


def assert_as_exact_as_the_recurrence(inputs, C=None, run=run_native, **options):
    exact = exactly(inputs, backend="reference", **options)
    plain = results(inputs, backend="reference", **options)
    ours = results(inputs, run=run, chunk_size=C, **options)
    assert ours.keys() == exact.keys()
    for name in exact:
        factor = 3 if name.startswith("d") else 2
        allowed = max(factor * relative_error(plain[name], exact[name]), (16 + (C or 32) / 4) * UNIT)
        assert relative_error(ours[name], exact[name]) <= allowed, (name, allowed)


def with_set(instruction_set):
    """`delta_rule` on the kernels of one instruction set."""

    def run(q, k, v, beta, *, g=None, state=None, cu_seqlens=None, chunk_size=None):
        offsets = None if cu_seqlens is None else tuple(cu_seqlens.tolist())
        scale = q.shape[-1] ** -0.5
        return native.delta_rule_native(q, k, v, beta, g, scale, state, offsets, chunk_size, instruction_set)

    return run


@needs_native
@pytest.mark.parametrize("instruction_set", SETS or ["none"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("C", native.CHUNK_SIZES)
def test_lengths_around_the_chunk(C, gated, instruction_set):
    for T in (1, 2, C - 1, C, C + 1, 2 * C + 19):
        inputs = make_inputs(2, T, 2, 16, 48, gated=gated, seed=T, dtype=torch.float32)
        assert_as_exact_as_the_recurrence(inputs, C, with_set(instruction_set))


@needs_native
@pytest.mark.parametrize("instruction_set", SETS or ["none"])
@pytest.mark.parametrize(
    ("K", "V"), [(16, 16), (32, 16), (16, 80), (64, 64), (112, 96), (256, 48), (48, 256)]
)
def test_key_and_value_sizes(K, V, instruction_set):
    inputs = make_inputs(1, 70, 1, K, V, gated=True, dtype=torch.float32)
    assert_as_exact_as_the_recurrence(inputs, run=with_set(instruction_set))


@needs_native
@pytest.mark.parametrize("gated", [False, True])
def test_more_chunks_than_between_kept_states(gated):
    T = 2 * native.interval_chunks(32, 16, 16) * 16 + 21
    inputs = make_inputs(1, T, 2, 32, 16, gated=gated, beta_max=1.0, dtype=torch.float32)
    assert_as_exact_as_the_recurrence(inputs, 16)


@needs_native
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("C", native.CHUNK_SIZES)
def test_packed_documents_around_the_chunk(C, gated):
    offsets = torch.tensor([0, 1, C, 2 * C, 3 * C + 1, 6 * C + 3, 6 * C + 4])
    inputs = make_inputs(1, int(offsets[-1]), 2, 16, 32, gated=gated, N=6, dtype=torch.float32)
    assert_as_exact_as_the_recurrence(inputs, C, cu_seqlens=offsets)
    ours = results(inputs, run=run_native, chunk_size=C, cu_seqlens=offsets)
    for n in range(6):
        tokens = slice(int(offsets[n]), int(offsets[n + 1]))
        part = {m: None if x is None else x[:, tokens] for m, x in inputs.items() if m != "state"}
        o, final = delta_rule(**part, state=inputs["state"][n : n + 1], chunk_size=C, backend="native")
        assert torch.equal(o, ours["o"][:, tokens])
        assert torch.equal(final, ours["final_state"][n : n + 1])


@needs_native
@pytest.mark.parametrize("cut", [1, 32, 50, 128])
def test_pieces_equal_whole(cut):
    inputs = make_inputs(2, 130, 2, 32, 32, gated=True, dtype=torch.float32)
    o, final = run_native(**inputs)
    first = {n: x if n == "state" else x[:, :cut] for n, x in inputs.items()}
    o_1, middle = run_native(**first)
    o_2, end = run_native(**{n: middle if n == "state" else x[:, cut:] for n, x in inputs.items()})
    assert relative_error(torch.cat((o_1, o_2), 1), o) < 32 * UNIT
    assert relative_error(end, final) < 32 * UNIT


@needs_native
def test_zero_beta_leaves_the_state():
    inputs = make_inputs(2, 70, 2, 32, 16, dtype=torch.float32)
    inputs["beta"].zero_()
    assert torch.equal(run_native(**inputs)[1], inputs["state"])


@needs_native
def test_future_tokens_and_other_documents_change_nothing():
    offsets = torch.tensor([0, 33, 50, 100])
    inputs = make_inputs(1, 100, 2, 16, 16, gated=True, N=3, dtype=torch.float32)
    clean = results(inputs, run=run_native, cu_seqlens=offsets)
    poisoned = {name: x.clone() for name, x in inputs.items()}
    for name in ("q", "k", "v", "beta", "g"):
        poisoned[name][:, 33:50] = float("nan")
    found = results(poisoned, run=run_native, cu_seqlens=offsets)
    for name in ("o", "dq", "dk", "dv", "dbeta", "dg"):
        assert torch.equal(found[name][:, :33], clean[name][:, :33]), name
        assert torch.equal(found[name][:, 50:], clean[name][:, 50:]), name
        assert bool(found[name][:, 33:50].isnan().all()), name
    assert torch.equal(found["final_state"][[0, 2]], clean["final_state"][[0, 2]])
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in ("q", "k", "v", "beta", "g"):
        changed[name][:, 91:] = -0.5
    assert torch.equal(run_native(**changed, cu_seqlens=offsets)[0][:, :91], clean["o"][:, :91])


@needs_native
def test_infinite_values_come_through():
    inputs = make_inputs(1, 40, 1, 16, 16, dtype=torch.float32)
    inputs["v"][0, 20, 0, 3] = float("inf")
    o, final = run_native(**inputs)
    assert bool(o[0, :16].isfinite().all())
    assert not bool(o[0, 20:, 0, 3].isfinite().any())
    assert not bool(final[0, 0, :, 3].isfinite().all())
    assert bool(o[0, :, 0, 4:].isfinite().all())


@needs_native
def test_strides_expanded_inputs_and_missing_parts():
    inputs = make_inputs(2, 45, 3, 16, 32, gated=True, dtype=torch.float32)
    expected = results(inputs, run=run_native)
    for strided in (
        {name: x.transpose(0, -1).contiguous().transpose(0, -1) for name, x in inputs.items()},
        {name: x.transpose(1, 2).contiguous().transpose(1, 2) for name, x in inputs.items()},
    ):
        assert not strided["q"].is_contiguous()
        assert largest_difference(results(strided, run=run_native), expected) == 0.0
    expanded = {**inputs, "k": inputs["k"][:, :1].expand_as(inputs["k"]), "state": None}
    expanded["beta"] = torch.tensor(0.5).expand_as(inputs["beta"])
    assert_as_exact_as_the_recurrence(expanded)
    for index in (0, 1):

        def one_result(*args, _index=index, **options):
            o, final = delta_rule(*args, **options)
            return (o, final.detach()) if _index == 0 else (o.detach(), final)

        exact = exactly(inputs, run=one_result, backend="reference")
        found = results(inputs, run=one_result, backend="native")
        assert largest_difference(found, exact) < 64 * UNIT


@needs_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes_of_results(dtype):
    inputs = make_inputs(1, 40, 2, 16, 16, gated=True, dtype=dtype)
    inputs["beta"], inputs["state"] = inputs["beta"].float(), inputs["state"].double()
    found = results(inputs, run=run_native)
    assert (found["o"].dtype, found["final_state"].dtype) == (dtype, torch.float32)
    for name, x in inputs.items():
        assert found[f"d{name}"].dtype == x.dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert largest_difference(results(inputs, run=run_native), found) == 0.0


@needs_native
@pytest.mark.parametrize("instruction_set", SETS or ["none"])
def test_bfloat16_has_the_bits_of_float32_rounded(instruction_set, monkeypatch):
    offsets = torch.tensor([0, 1, 90, 300])
    wide = make_inputs(1, 300, 2, 48, 32, gated=True, N=3, dtype=torch.float32)
    leaves = {
        name: x.detach().bfloat16() if name in ("q", "k", "v") else x.detach() for name, x in wide.items()
    }
    # Neighbours in memory that belong to no head: steps of rows are not their widths.
    leaves["v"] = torch.cat((leaves["v"], leaves["v"]), dim=3)[..., :32]
    do = torch.randn(1, 300, 2, 32).bfloat16()

    def run(inputs, do):
        inputs = {name: x.requires_grad_() for name, x in inputs.items()}
        o, final = with_set(instruction_set)(**inputs, cu_seqlens=offsets)
        return [o, final, *torch.autograd.grad((o, final), list(inputs.values()), (do, 2 * final.detach()))]

    expected = run({name: x.float() for name, x in leaves.items()}, do.float())
    for num_threads in (1, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
        found = run({name: x.detach() for name, x in leaves.items()}, do)
        assert [x.dtype for x in found[:5]] == [torch.bfloat16, torch.float32, *[torch.bfloat16] * 3]
        assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(found, expected, strict=True)), num_threads


@needs_native
def test_same_bits_on_repeat_and_on_any_number_of_threads(monkeypatch):
    offsets = torch.tensor([0, 1, 90, 130, 700, 1000])
    inputs = make_inputs(1, 1000, 4, 32, 32, gated=True, N=5, dtype=torch.float32)
    first = results(inputs, run=run_native, cu_seqlens=offsets)
    for num_threads in (1, 2, 4):
        # Ours alone: torch's own threads, once started, are none of this test's business.
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
        for _ in range(2):
            again = results(inputs, run=run_native, cu_seqlens=offsets)
            assert all(torch.equal(again[name], first[name]) for name in first), num_threads


def _child(queue):
    queue.put(float(run_native(**make_inputs(1, 100, 4, 16, 16, dtype=torch.float32))[0].sum()))


@needs_native
def test_calls_from_several_threads_and_from_a_forked_process():
    inputs = make_inputs(1, 100, 4, 16, 16, dtype=torch.float32)
    expected = results(inputs, run=run_native)
    found = [None] * 4

    def call(i):
        found[i] = results(inputs, run=run_native)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(largest_difference(one, expected) == 0.0 for one in found)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=30) == float(expected["o"].sum())
    child.join()


@needs_native
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("K", "V"), [(16, 16), (48, 80), (256, 64)])
def test_step_by_step_equals_whole(K, V, gated, monkeypatch):
    torch_step = []
    torch_backend = backends.STEP_BACKENDS._backends[-1]

    def spy(*args):
        torch_step.append(args)
        return fused_step(*args)

    monkeypatch.setattr(
        backends.STEP_BACKENDS,
        "_backends",
        (*backends.STEP_BACKENDS._backends[:-1], dataclasses.replace(torch_backend, run=spy)),
    )
    x = make_inputs(2, 20, 3, K, V, gated=gated, dtype=torch.float32)
    if gated:
        x["g"][:, 5] = float("-inf")
    wide = {name: None if y is None else y.double() for name, y in x.items()}
    exact, final = delta_rule(**wide, backend="reference")
    S = x["state"].transpose(2, 3).contiguous().transpose(2, 3)
    for t in range(20):
        token = {name: x[name][:, t] for name in ("q", "k", "v", "beta")}
        before = S.clone()
        o, after = delta_rule_step(**token, g=x["g"][:, t] if gated else None, state=S)
        assert torch.equal(S, before)
        assert relative_error(o, exact[:, t]) < 64 * UNIT
        S = after
    assert relative_error(S, final) < 64 * UNIT
    assert not torch_step
    delta_rule_step(**{**token, "q": token["q"].requires_grad_()}, state=S)
    delta_rule_step(**{n: y.bfloat16() for n, y in token.items()}, state=S)
    assert len(torch_step) == 2


@needs_native
def test_comparison_rejects_a_lost_gradient():
    def detached_key(q, k, v, *rest, **options):
        return run_native(q, 0.99 * k + 0.01 * k.detach(), v, *rest, **options)

    inputs = make_inputs(1, 40, 1, 16, 16, dtype=torch.float32)
    with pytest.raises(AssertionError, match="dk"):
        assert_as_exact_as_the_recurrence(inputs, run=detached_key)


@needs_native
def test_auto_takes_native_where_it_can_and_says_where_not(caplog):
    caplog.set_level(logging.INFO, logger="longlode.ops.backends")
    backends.BACKENDS.forget()
    inputs = make_inputs(1, 40, 2, 16, 16, dtype=torch.float32)
    assert torch.equal(delta_rule(**inputs)[0], run_native(**inputs)[0])
    assert not [r for r in caplog.records if r.levelno > logging.INFO]
    wide = {name: x if x is None else x.double() for name, x in inputs.items()}
    for _ in range(2):
        delta_rule(**wide)
        delta_rule(**make_inputs(1, 40, 2, 16, 24, dtype=torch.float32))
    said = [r.getMessage() for r in caplog.records if "not 'native'" in r.getMessage()]
    assert len(said) == 2
    assert "q is torch.float64 and the kernels compute in float32" in said[0]
    assert "K is 16 and V is 24; expected multiples of 16" in said[1]


@needs_native
def test_auto_leaves_native_when_the_self_check_fails(monkeypatch, caplog):
    right = native.delta_rule_native

    def wrong_key_gradient(q, k, *rest):
        return right(q, 0.999 * k + 0.001 * k.detach(), *rest)

    check = backends.native_fault
    assert check.run(CPU) == ""
    monkeypatch.setattr(native, "delta_rule_native", wrong_key_gradient)
    fault = check.run(CPU)
    assert "the compiled kernels failed their self-check on cpu: the gradient of k is off by 1.0e-03" in fault
    monkeypatch.setitem(check._verdicts, (CPU,), fault)
    backends.BACKENDS.forget()
    inputs = make_inputs(1, 40, 2, 16, 16, dtype=torch.float32)
    assert torch.equal(delta_rule(**inputs)[0], delta_rule(**inputs, backend="chunkwise")[0])
    assert [(r.levelname, fault in r.getMessage()) for r in caplog.records] == [("WARNING", True)]


@needs_native
@pytest.mark.parametrize(
    "surroundings",
    [lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta"), torch.no_grad],
)
def test_the_self_check_and_a_call_do_not_depend_on_what_stands_around(surroundings):
    inputs = make_inputs(1, 40, 2, 16, 16, dtype=torch.float32)
    expected = run_native(**inputs)[0]
    native.make_document_table.cache_clear()
    with surroundings():
        assert backends.native_fault.run(CPU) == ""
        assert torch.equal(run_native(**inputs)[0], expected)


def chosen(q, v):
    request = backends.Request(q.device, q.dtype, q.shape[-1], v.shape[-1], False, None)
    return backends.BACKENDS.pick("auto", (q, v), q.device, request).name


def test_tensors_without_memory_go_to_chunkwise():
    class Stand(torch.Tensor):
        pass

    plain = torch.zeros(1, 4, 1, 16)
    assert chosen(plain.as_subclass(Stand), plain) == "chunkwise"
    assert chosen(plain, plain.as_subclass(Stand)) == "chunkwise"
    assert chosen(plain.to("meta"), plain) == "chunkwise"


@needs_native
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dtype": torch.float64},
            r"q is torch\.float64",
        ),
        ({"K": 24}, "K is 24 and V is 16"),
        ({"K": 272}, "K is 272 and V is 16"),
        ({"chunk_size": 128}, "chunk_size is 128"),
    ],
)
def test_refused_calls(changes, message):
    inputs = make_inputs(1, 3, 1, changes.get("K", 16), 16, dtype=changes.get("dtype", torch.float32))
    with pytest.raises(BackendError, match=message):
        run_native(**inputs, chunk_size=changes.get("chunk_size"))


@needs_native
def test_second_derivative_is_refused():
    inputs = make_inputs(1, 3, 1, 16, 16, dtype=torch.float32)
    q = inputs.pop("q").requires_grad_()
    o, _ = run_native(q, **inputs)
    (dq,) = torch.autograd.grad(o.sum() + (q**2).sum(), q, create_graph=True)
    with pytest.raises(BackendError, match="'native' has no second derivative"):
        torch.autograd.grad(dq.sum(), q)


@needs_native
def test_an_instruction_set_that_is_not_there_is_refused():
    inputs = make_inputs(1, 3, 1, 16, 16, dtype=torch.float32)
    with pytest.raises(BackendError, match="avx9000"):
        with_set("avx9000")(**inputs)


@pytest.mark.parametrize("kind", ["missing", "failed", "broken", "empty"])
def test_a_library_that_is_not_right_is_named_with_what_to_do(monkeypatch, tmp_path, kind):
    library = tmp_path / "libdelta_rule.so"
    monkeypatch.setattr(native, "LIBRARY", library)
    monkeypatch.setattr(native, "BUILD_FAILURE", tmp_path / "build-failure.txt")
    monkeypatch.delenv(native.SWITCH, raising=False)
    if kind == "failed":
        native.BUILD_FAILURE.write_text("building it with cc failed: no such file\n")
    if kind in ("broken", "empty"):
        library.write_bytes(b"not a library" if kind == "broken" else b"")
    expected = {
        "missing": "is missing (this installation was made without it); install a C compiler",
        "failed": "is missing (building it with cc failed: no such file); install a C compiler",
        "broken": "does not load",
        "empty": "does not load",
    }
    reason = available_backends()["native"]
    assert expected[kind] in reason
    assert "backend='chunkwise'" in reason
    backends.BACKENDS.forget()
    inputs = make_inputs(1, 3, 1, 16, 16, dtype=torch.float32)
    assert torch.equal(delta_rule(**inputs)[0], delta_rule(**inputs, backend="chunkwise")[0])
    with pytest.raises(BackendError, match="'native' is not available"):
        run_native(**inputs)


@needs_native
def test_an_older_library_is_named(monkeypatch, tmp_path):
    there = native._ABI
    monkeypatch.setattr(native, "_ABI", 0)
    monkeypatch.setattr(native, "LIBRARY", native.LIBRARY.parent / ".." / "native" / native.LIBRARY.name)
    assert f"has interface {there} and this code needs 0" in available_backends()["native"]


def test_the_switch_turns_it_off(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "off")
    x = torch.zeros(1, 4, 1, 16)
    assert "the environment variable LONGLODE_NATIVE is 'off'" in available_backends()["native"]
    assert chosen(x, x) == "chunkwise"
