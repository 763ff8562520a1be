"""The compiled row-wise kernels: equal to plain loops in float64, the same bits on any number of threads, refusals."""

import itertools
import math
import os
import platform
import subprocess
import sys

import pytest
import torch

from longlode.core.errors import BackendError
from longlode.ops import rowwise
from longlode.ops.delta_rule import native
from longlode.ops.fused import cross_entropy_, rms_norm, swiglu
from longlode.ops.fused.cross_entropy import BACKENDS as ENTROPY_BACKENDS
from longlode.ops.fused.cross_entropy import cross_entropy_native_
from longlode.ops.fused.rms_norm import BACKENDS as NORM_BACKENDS
from longlode.ops.fused.rms_norm import rms_norm_native, rms_norm_torch
from longlode.ops.fused.swiglu import BACKENDS as SWIGLU_BACKENDS
from longlode.ops.fused.swiglu import swiglu_native, swiglu_torch
from longlode.ops.host_memory import keep_freed_memory
from longlode.ops.ngram_means import SortedNgrams, ngram_means
from longlode.ops.ngram_means.native import BACKENDS as MEANS_BACKENDS
from longlode.ops.ngram_means.native import ngram_means_native
from longlode.ops.ngram_means.plain import ngram_means_torch
from longlode.ops.short_conv import native as conv
from longlode.ops.short_conv import short_conv
from longlode.ops.short_conv.native import conv_native, conv_torch

WHY_NOT = rowwise.why_no_rowwise()
SETS = () if WHY_NOT else native.instruction_sets()
DTYPES = (torch.float32, torch.bfloat16)
needs_kernels = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "there are kernels")


def normal(*shape, dtype=torch.float32, seed=None):
    """Fresh numbers at each call unless a seed is given, rounded to the dtype, so that float64 starts from the same."""
    draw = torch.Generator().manual_seed(int.from_bytes(os.urandom(4)) if seed is None else seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)


def in_loops(x, weight, state, offsets, activation, unit_norm, eps):
    """The definition, a token and a document at a time, in the dtype of x."""
    rows = []
    for n, (start, end) in enumerate(itertools.pairwise(offsets)):
        inputs = torch.cat((state[n].T, x[0, start:end]))
        for t in range(end - start):
            y = sum(inputs[t + i] * weight[:, i] for i in range(weight.shape[1]))
            y = y / (1 + torch.exp(-y)) if activation else y
            if unit_norm:
                heads = [head / (head @ head + eps).sqrt() for head in y.split(unit_norm)]
                y = torch.cat(heads)
            rows.append(y)
    return torch.stack(rows)[None]


def outputs(run, inputs, dy, **options):
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = run(*leaves, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


def error(got, exact):
    return float((got.double() - exact).norm() / exact.norm())


def assert_as_exact_as_torch(ours, plain, exact, dtype):
    """Design: twice the error of plain torch in the dtype, three times for gradients; a floor of a few roundings."""
    floor = {torch.float32: 3e-7, torch.bfloat16: 3e-3}[dtype]
    for i, (a, b, e) in enumerate(zip(ours, plain, exact, strict=True)):
        assert a.dtype == b.dtype
        assert error(a, e) <= max((3 if i else 2) * error(b, e), floor), i


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("D", "W", "unit_norm", "activation"),
    [
        (48, 4, 16, "silu"),
        (40, 3, 20, "silu"),
        (33, 2, None, "silu"),
        (70, 4, None, None),
        (24, 8, 24, "silu"),
    ],
)
def test_convolution_equals_the_loop_in_float64(D, W, unit_norm, activation, dtype):
    offsets = (0, 1, 3, 40, 97)
    inputs = [normal(*shape, dtype=dtype) for shape in ((1, 97, D), (D, W), (4, D, W - 1))]
    dy = normal(1, 97, D, dtype=dtype)
    options = {"offsets": offsets, "activation": activation, "unit_norm": unit_norm, "eps": 1e-6}
    exact = outputs(in_loops, [x.double() for x in inputs], dy, **options)
    plain = outputs(conv_torch, inputs, dy, **options)
    for instruction_set in SETS:
        ours = outputs(conv_native, inputs, dy, **options, instruction_set=instruction_set)
        assert_as_exact_as_torch(ours, plain, exact, dtype)
    # The next document's first token seen by the last one: a wrong variant that must not pass.
    wrong = outputs(conv_native, inputs, dy, **options | {"offsets": (0, 1, 3, 41, 97)})
    assert error(wrong[0], exact[0]) > 1e-2


@needs_kernels
@pytest.mark.parametrize("W", [1, 4])
def test_convolution_of_a_slice_and_of_rows(W):
    whole, weight = normal(2, 700, 3, 64), normal(64, W)
    x = whole[:, :, 1]  # rows that do not follow one another
    dy = normal(2, 700, 64)
    options = {"state": None, "offsets": None, "activation": "silu", "unit_norm": 32, "eps": 1e-6}
    ours = outputs(lambda x, w: conv_native(x, w, **options), [x, weight], dy)
    exact = outputs(lambda x, w: conv_torch(x, w, **options), [x.double(), weight.double()], dy)
    assert max(map(error, ours, exact)) < 1e-6


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_documents_have_the_bits_of_separate_ones(dtype):
    offsets = [0, 2, 600, 1300]
    x, weight, state = (normal(*s, dtype=dtype) for s in ((1, 1300, 40), (40, 4), (3, 40, 3)))
    y, _ = short_conv(x, weight, state=state, cu_seqlens=torch.tensor(offsets), unit_norm=20)
    for n, start in enumerate(offsets[:-1]):
        part = slice(start, offsets[n + 1])
        assert torch.equal(
            y[:, part], short_conv(x[:, part], weight, state=state[n : n + 1], unit_norm=20)[0]
        )


@needs_kernels
def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    x, weight, dy = normal(2, 1700, 80), normal(80, 4), normal(2, 1700, 80)
    scale, logits, targets = normal(80), normal(900, 203), torch.randint(203, (900,))

    ngrams = by_token(torch.randint(90, (2, 1700)))

    def all_of_them():
        found = outputs(lambda x, w: conv_native(x, w, None, None, "silu", 40, 1e-6), [x, weight], dy)
        found += outputs(lambda x, w: rms_norm_native(x, w, 1e-6), [x, scale], dy)
        found += outputs(swiglu_native, [x, dy], dy)
        found += outputs(
            lambda x: ngram_means_native(x, ngrams, 1700, None), [x.repeat(1, 1, 2)], dy.repeat(1, 1, 4)
        )
        slopes = logits.clone()
        return [*found, cross_entropy_native_(slopes, targets, None, True), slopes]

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    first = all_of_them()
    for num_threads in (2, 3, 50):
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
        assert all(map(torch.equal, all_of_them(), first)), num_threads


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_swiglu_equal_the_definition_in_float64(dtype):
    x, up, dy = (normal(3, 131, 40, dtype=dtype) for _ in range(3))
    weight = normal(40)
    wide = [x.double(), weight.double()]

    def by_rows(x, weight):
        return torch.stack([r / (sum(r * r) / len(r) + 1e-5).sqrt() * weight for r in x.flatten(0, 1)]).view(
            x.shape
        )

    exact = outputs(by_rows, wide, dy)
    plain = outputs(lambda *x: rms_norm_torch(*x, 1e-5), [x, weight], dy)
    gate = 6 * x
    exact_2 = outputs(lambda g, u: g / (1 + torch.exp(-g)) * u, [gate.double(), up.double()], dy)
    plain_2 = outputs(swiglu_torch, [gate, up], dy)
    for name in SETS:
        ours = outputs(lambda x, w, name=name: rms_norm_native(x, w, 1e-5, None, name), [x, weight], dy)
        assert_as_exact_as_torch(ours, plain, exact, dtype)
        ours = outputs(lambda g, u, name=name: swiglu_native(g, u, name), [gate, up], dy)
        assert_as_exact_as_torch(ours, plain_2, exact_2, dtype)


@needs_kernels
@pytest.mark.parametrize("num_columns", [40, 64])  # 64: rows of whole vectors, in every instruction set
def test_a_norm_rounds_its_result_once_to_the_dtype_asked_for(num_columns):
    x, weight, dy = normal(90, num_columns), normal(num_columns), normal(90, num_columns)
    wide = outputs(lambda x, w: rms_norm_torch(x, w, 1e-5), [x.double(), weight.double()], dy.bfloat16())
    for run in [rms_norm_torch, *(lambda *a, name=name: rms_norm_native(*a, name) for name in SETS)]:
        y, dx, dweight = outputs(lambda x, w, run=run: run(x, w, 1e-5, torch.bfloat16), [x, weight], dy)
        assert (y.dtype, dx.dtype) == (torch.bfloat16, torch.float32)
        assert error(y, wide[0]) < 2.0**-8
        assert max(error(dx, wide[1]), error(dweight, wide[2])) < 1e-6


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_equals_the_sum_over_the_vocabulary(dtype):
    logits, targets = (5 * normal(30, 77)).to(dtype), torch.randint(77, (30,))
    weights = torch.rand(30)
    expected, slopes = [], torch.zeros(30, 77, dtype=torch.float64)
    for row, (numbers, target) in enumerate(zip(logits.double().tolist(), targets.tolist(), strict=True)):
        total = math.fsum(math.exp(x) for x in numbers)
        expected.append(float(weights[row]) * (math.log(total) - numbers[target]))
        slopes[row] = torch.tensor([math.exp(x) / total for x in numbers], dtype=torch.float64)
        slopes[row, target] -= 1
        slopes[row] *= weights[row].double()
    for name in SETS:
        found = logits.clone()
        losses = cross_entropy_native_(found, targets, weights, True, name)
        assert error(losses, torch.tensor(expected, dtype=torch.float64)) < 1e-6
        assert error(found, slopes) < (1e-6 if dtype == torch.float32 else 3e-3)
        untouched = logits.clone()
        assert torch.equal(cross_entropy_native_(untouched, targets, weights, False, name), losses)
        assert torch.equal(untouched, logits)


@needs_kernels
def test_cross_entropy_of_any_layout_and_integer_type():
    logits, targets = normal(80, 300).t(), torch.randint(80, (300,))
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    for given in (logits, logits.contiguous()):
        for kind in (torch.int64, torch.int32):
            losses = cross_entropy_(given.clone(), targets.to(kind), None, False)
            assert error(losses, expected) < 1e-6
    with pytest.raises((RuntimeError, IndexError)):
        cross_entropy_(logits[:5].clone(), torch.full((5,), -1), None, False)


def by_token(ids):
    """The 1-grams of each row of ids, sorted, and the 1-grams of ids in twos: two lists for one call."""
    rows = 100 * torch.arange(len(ids))[:, None]
    keys = [(rows + one).flatten().sort(stable=True) for one in (ids, ids // 2)]
    return [SortedNgrams(order, group) for group, order in keys]


def means_in_loops(values, ids, num_asked, matches):
    """The definition: a pair of tokens of a row at a time, in the dtype of values."""
    B, S, D = values.shape
    rows = []
    for b, t in itertools.product(range(B), range(S - num_asked, S)):
        for one in (ids, ids // 2):
            found = [values[b, s + 1] for s in range(t - 1) if one[b, s] == one[b, t]]
            found = found[-matches:] if matches else found
            rows.append(sum(found) / len(found) if found else torch.zeros_like(values[0, 0]))
    return torch.stack(rows).view(B, num_asked, 2 * D)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("matches", [None, 1, 3])
def test_means_after_ngrams_equal_the_loop_in_float64(matches, dtype):
    values, ids = normal(2, 40, 150, dtype=dtype), torch.randint(6, (2, 40))
    ids[0, 10:16] = 4  # a run: the token right before is no match
    dy = normal(2, 30, 300, dtype=dtype)
    ngrams, options = by_token(ids), {"num_asked": 30, "matches": matches}
    exact = outputs(lambda x: means_in_loops(x, ids, **options), [values.double()], dy)
    plain = outputs(lambda x: ngram_means_torch(x, ngrams, **options), [values], dy)
    for name in SETS:
        ours = outputs(
            lambda x, n=name: ngram_means_native(x, ngrams, **options, instruction_set=n), [values], dy
        )
        assert_as_exact_as_torch(ours, plain, exact, dtype)
        assert torch.equal(ours[0] == 0, exact[0] == 0)  # 0 where there is no match, and nowhere else


@needs_kernels
def test_numbers_that_are_none_come_through_and_extremes_do_not_overflow():
    x = torch.full((4, 32), 1e4)
    x[1, 3], x[2, 5], x[3] = math.nan, math.inf, -1e4
    y = swiglu_native(x, torch.ones_like(x))
    assert y[0].tolist() == [1e4] * 32
    assert y[1].isnan().nonzero().flatten().tolist() == [3]
    assert y[2, 5] == math.inf
    assert float(y[3].abs().max()) < 1e-30
    lowest, none = torch.finfo(torch.float32).min, -math.inf
    logits = torch.tensor(
        [[1e4, 0.0, -1e4], [0.0, math.nan, 0.0], [0.0, none, 0.0], [none, none, none], [lowest, none, none]]
    )
    losses = cross_entropy_native_(logits, torch.zeros(5, dtype=torch.int64), None, True)
    assert losses[[0, 4]].tolist() == [0, 0]
    assert losses[[1, 3]].isnan().all()
    assert logits[3].isnan().all()
    assert math.isclose(float(losses[2]), math.log(2), rel_tol=1e-6)
    assert float(logits[0].abs().max()) < 1e-30
    normed = rms_norm_native(x, torch.ones(32), 1e-6)
    assert normed.isnan().any(1).tolist() == [False, True, True, False]


@needs_kernels
def test_second_derivatives_are_those_of_torch():
    x, weight, ngrams = normal(1, 12, 16), normal(16, 4), by_token(torch.randint(3, (1, 12)))
    settings = (None, None, "silu", 8, 1e-6)

    def second(run, leaves):
        leaves = [y.detach().requires_grad_() for y in leaves]
        (slope,) = torch.autograd.grad(run(*leaves).pow(3).sum(), leaves[:1], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), leaves)

    cases = [
        (lambda x, w: conv_native(x, w, *settings), lambda x, w: conv_torch(x, w, *settings), (x, weight)),
        (
            lambda x, w: rms_norm_native(x, w, 1e-6),
            lambda x, w: rms_norm_torch(x, w, 1e-6),
            (x, weight[:, 0]),
        ),
        (swiglu_native, swiglu_torch, (x, 2 * x)),
        (
            lambda x: ngram_means_native(x.sin(), ngrams, 12, None),
            lambda x: ngram_means_torch(x.sin(), ngrams, 12, None),
            (x,),
        ),
    ]
    for ours, plain, leaves in cases:
        exact = second(plain, [y.double() for y in leaves])
        assert max(map(error, second(ours, leaves), exact)) < 1e-5


@needs_kernels
def test_large_tensors_take_the_kernels_and_small_ones_torch(monkeypatch):
    calls = []
    large, small = normal(300, 64), normal(2, 64)
    rms_norm(large, torch.ones(64), 1e-6)  # the self-checks, which call the kernels too
    swiglu(large, large)
    cross_entropy_(large.clone(), torch.zeros(300, dtype=torch.int64), None, False)
    ngram_means(large[None], by_token(torch.zeros(1, 300)), 300, None)
    run = rowwise.run
    monkeypatch.setattr(rowwise, "run", lambda kernel, *rest: (calls.append(kernel), run(kernel, *rest)))
    for x in (large, small, large.double()):
        rms_norm(x, torch.ones(64), 1e-6)
        swiglu(x, x)
        cross_entropy_(x.clone(), torch.zeros(len(x), dtype=torch.int64), None, False)
        ngram_means(x[None], by_token(torch.zeros(1, len(x)))[:1], len(x), None)
    assert calls == ["norm_forward", "swiglu_forward", "cross_entropy", "match_forward"]


@needs_kernels
def test_calls_that_would_leave_their_memory_are_refused_in_c():
    with pytest.raises(BackendError, match="size or pointer"):
        cross_entropy_native_(normal(2, 5), torch.tensor([0, 5]), None, False)
    with pytest.raises(BackendError, match="no 'avx9000'"):
        swiglu_native(normal(2, 5), normal(2, 5), "avx9000")
    x, weight = normal(1, 5, 16), normal(16, 9)
    for taps, group in ((9, None), (4, 1024)):
        with pytest.raises(BackendError, match="size or pointer"):
            conv_native(x, weight[:, :taps], None, None, "silu", group, 1e-6)
    assert short_conv(x, weight)[0].shape == x.shape  # by torch
    for shape, order in (((1, 2, 16), [0, 5]), ((1, 2, 16), [1, 0]), ((2, 1, 16), [0, 1])):
        beyond = [SortedNgrams(torch.tensor(order), torch.tensor([0, 0]))]
        with pytest.raises(BackendError, match="size or pointer"):
            ngram_means_native(normal(*shape), beyond, 1, None)
    for kernel, call in (("norm_forward", rowwise.NormCall()), ("conv_backward", rowwise.ConvCall())):
        with pytest.raises(BackendError, match=kernel):
            rowwise.run(kernel, call)


@needs_kernels
def test_kernels_that_fail_their_self_check_are_not_used(caplog):
    def wrong(x, weight, eps):
        return rms_norm_native(x, weight, eps) * 1.001

    def inputs(dtype):
        return {"x": normal(9, 40, dtype=dtype), "weight": normal(40).requires_grad_(), "eps": 1e-6}

    made = rowwise.backends("rms_norm", wrong, rms_norm_torch, inputs)
    x = normal(20, 40)
    with caplog.at_level("WARNING"):
        chosen = made.pick("auto", (x,), x.device, rowwise.Request((x.dtype,)))
    assert chosen.name == "torch"
    assert "failed its self-check" in caplog.text
    for own in (conv.BACKENDS, ENTROPY_BACKENDS, MEANS_BACKENDS, NORM_BACKENDS, SWIGLU_BACKENDS):
        assert own.pick("auto", (x,), x.device, rowwise.Request((x.dtype,))).name == "native"


@needs_kernels
def test_without_the_library_torch_runs_and_the_reason_is_logged(monkeypatch, tmp_path, caplog):
    x, weight = normal(1, 9, 16), normal(16, 4)
    expected = conv_torch(x, weight, None, None, "silu", None, 1e-6)
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libdelta_rule.so")
    conv.BACKENDS.forget()
    with caplog.at_level("WARNING"):
        assert torch.equal(short_conv(x, weight)[0], expected)
    assert "the compiled library is missing" in caplog.text


@needs_kernels
def test_a_library_of_another_version_is_named(monkeypatch):
    monkeypatch.setattr(rowwise, "_ABI", 99)
    # A path of its own, since loaded libraries are cached by path.
    folder = native.LIBRARY.parent
    monkeypatch.setattr(
        native, "LIBRARY", folder / ".." / ".." / folder.parent.name / "native" / native.LIBRARY.name
    )
    assert "row-wise interface 2 and this code needs 99" in rowwise.why_no_rowwise()


def test_the_switch_turns_them_off(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "off")
    x = normal(1, 9, 16)
    assert conv.BACKENDS.pick("auto", (x,), x.device, rowwise.Request((x.dtype,))).name == "torch"


KEPT = """
import resource
from pathlib import Path
import torch
from longlode.ops.host_memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

assert keep_freed_memory()
size = 64 << 20  # malloc by itself would return so large a block to the system
x = torch.ones(size // 4)
before = resident()
del x
assert resident() > before - size / 2, (before, resident())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="malloc is set on Linux only")  # noqa: PTH110
def test_freed_memory_is_kept_unless_the_environment_sets_malloc(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another malloc")
    # In a process of its own: the heap of one that has run many tests has holes, and its top may be in use.
    subprocess.run([sys.executable, "-c", KEPT], check=True)
