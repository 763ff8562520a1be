"""The C library by itself: no warnings, limits that hold without Python, failing memory, sanitizers.

Builds of its own need a C compiler and skip themselves, visibly, without one.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from ops_cases import make_inputs, relative_error, results

from longlode.core.errors import BackendError
from longlode.ops.delta_rule import available_backends, delta_rule, native

ROOT = Path(__file__).resolve().parent.parent.parent
COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
no_native = available_backends()["native"]
needs_native = pytest.mark.skipif(bool(no_native), reason=f"native: {no_native}")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def settings():
    """What setup.py says of the sources and their flags."""
    found = {}
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    exec(compile(text.split("class BuildLibrary")[0], "setup.py", "exec"), found)
    return found


def build(target, *flags, sources=()):
    """Compile the library with more flags and sources than usual."""
    setup, objects = settings(), []
    target.parent.mkdir(exist_ok=True)
    for source, own in [*setup["SETS"].items(), *((str(path), []) for path in sources)]:
        path = source if source.startswith("/") else str(ROOT / setup["SOURCE"] / source)
        objects.append(str(target.parent / f"{Path(source).stem}.o"))
        command = [COMPILER, *setup["COMMON"], *own, *flags, "-c", path, "-o", objects[-1]]
        subprocess.run(command, check=True, capture_output=True, text=True)
    command = [COMPILER, "-shared", "-pthread", *flags, *objects, "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


@needs_compiler
def test_the_sources_compile_without_a_warning(tmp_path):
    build(tmp_path / "strict.so", "-O1", "-Wall", "-Wextra", "-Werror")


def call_of(T=40, H=2, K=16, V=32, g=False):
    """A right call of the forward, as the binding would make it, and the tensors that it points into."""
    x = make_inputs(1, T, H, K, V, gated=g, dtype=torch.float32)
    table = native.make_document_table(None, 1, T, 32, 4)
    o, final = torch.empty(1, T, H, V), torch.empty(1, H, K, V)
    tensors = {name: x[name] for name in ("q", "k", "v", "beta", "g")} | {"o": o}
    call = native._Call(
        **{name: native._described(y) for name, y in tensors.items()},
        final_state=final.data_ptr(),
        documents=table.documents.data_ptr(),
        num_documents=1,
        H=H,
        K=K,
        V=V,
        chunk=32,
        interval=4,
        scale=1.0,
    )
    return call, (x, table, o, final)


def status(function, call):
    return getattr(native._load(native.LIBRARY), function)(ctypes.byref(call), b"baseline", 2)


WRONG = [
    ("K", 8),
    ("K", 24),
    ("K", 272),
    ("K", 0),
    ("V", 40),
    ("V", -16),
    ("V", 512),
    ("chunk", 8),
    ("chunk", 48),
    ("chunk", 128),
    ("interval", 0),
    ("interval", 17),
    ("H", 0),
    ("num_documents", 0),
    ("documents", None),
    ("final_state", None),
    *((name, native._Tensor(None, 0, 0, 0)) for name in ("q", "k", "v", "beta", "o")),
]


@needs_native
@pytest.mark.parametrize(
    ("field", "value"), WRONG, ids=[f"{field} {i}" for i, (field, _) in enumerate(WRONG)]
)
def test_a_call_beyond_the_limits_is_refused_in_c(field, value):
    call, alive = call_of()
    assert status("longlode_forward", call) == 0
    setattr(call, field, value)
    assert status("longlode_forward", call) == 3
    assert alive


@needs_native
def test_documents_and_gradients_that_are_not_there_are_refused_in_c():
    call, alive = call_of()
    assert status("longlode_backward", call) == 3  # no gradients, no kept states
    for column, wrong in enumerate((-1, -1, 0, -1)):
        documents = alive[1].documents.clone()
        documents[0, column] = wrong
        call.documents = documents.data_ptr()
        assert status("longlode_forward", call) == 3
    token = native._Token(*[None] * 8, 1, 16, 16, 1.0)
    assert native._load(native.LIBRARY).longlode_token(ctypes.byref(token), b"baseline") == 3
    with pytest.raises(BackendError, match="size"):
        native._check(3, "baseline")


@needs_native
@pytest.mark.parametrize(("K", "V"), [(32, 256), (64, 80), (128, 48)])
@pytest.mark.parametrize("gated", [False, True])
def test_one_head_on_many_threads_gives_the_bits_of_one(K, V, gated, monkeypatch):
    inputs = make_inputs(1, 1500, 1, K, V, gated=gated, dtype=torch.float32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    first = results(inputs, backend="native")
    for num_threads in (2, 3, 8, 100):
        monkeypatch.setattr(torch, "get_num_threads", lambda num=num_threads: num)
        again = results(inputs, backend="native")
        assert all(torch.equal(again[name], first[name]) for name in first), num_threads


@needs_native
@pytest.mark.parametrize("gated", [False, True])
def test_one_long_document_among_short_ones_is_shared_out_with_the_same_bits(gated, monkeypatch):
    offsets = torch.tensor([0, 1, 40, 2300, 2301, 2400])
    inputs = make_inputs(1, 2400, 1, 32, 128, gated=gated, N=5, dtype=torch.float32)

    def on(num_threads, index):
        """Gradients of one result alone: the other's gradient is missing in C."""
        monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)

        def one_result(*args, **options):
            both = list(delta_rule(*args, **options, backend="native"))
            both[1 - index] = both[1 - index].detach()
            return both

        return results(inputs, run=one_result, cu_seqlens=offsets)

    for index in (0, 1):
        first = on(1, index)
        for num_threads in (2, 5, 16):
            again = on(num_threads, index)
            assert all(torch.equal(again[name], first[name]) for name in first), (num_threads, index)


@needs_native
@pytest.mark.parametrize("keys", ["random", "near", "equal"])
@pytest.mark.parametrize("gated", [False, True])
def test_one_head_on_many_threads_is_as_exact_as_the_recurrence(keys, gated, monkeypatch):
    T = 700
    inputs = make_inputs(1, T, 1, 48, 96, gated=gated, keys=keys, dtype=torch.float32)
    wide = {name: x if x is None else x.double() for name, x in inputs.items()}
    exact = results(wide, backend="reference")
    plain = results(inputs, backend="reference")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    ours = results(inputs, backend="native")
    for name in exact:
        factor = 3 if name.startswith("d") else 2
        # Repeated keys: errors of one sign add up over the tokens (test_ops_delta_rule_keys.py).
        least = (24 if keys == "random" else T / 4) * 2**-24
        allowed = max(factor * relative_error(plain[name], exact[name]), least)
        assert relative_error(ours[name], exact[name]) <= allowed, name


SHIM = """
#include <stdatomic.h>
#include <stdlib.h>
static atomic_int first_failure, end_of_failures, calls;
void set_failures(int first, int count) {
    atomic_store(&first_failure, first);
    atomic_store(&end_of_failures, first + count);
    atomic_store(&calls, 0);
}
int count_calls(void) { return atomic_load(&calls); }
int counted_memalign(void **result, size_t alignment, size_t size) {
    int call = atomic_fetch_add(&calls, 1);
    if (call >= atomic_load(&first_failure) && call < atomic_load(&end_of_failures)) return 12;
    *result = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    return *result ? 0 : 12;
}
"""


@needs_native
@needs_compiler
def test_a_thread_without_memory_leaves_its_work_to_the_others(tmp_path, monkeypatch):
    shim = tmp_path / "shim.c"
    shim.write_text(SHIM, encoding="utf-8")
    define = ["-Dposix_memalign=counted_memalign", "-Wno-implicit-function-declaration"]
    declared = tmp_path / "declared.h"
    declared.write_text(
        "#include <stdlib.h>\nint counted_memalign(void **, size_t, size_t);\n", encoding="utf-8"
    )
    library = build(tmp_path / "build" / "shim.so", *define, "-include", str(declared), sources=[shim])
    inputs = make_inputs(1, 1500, 1, 32, 128, dtype=torch.float32)
    k = inputs["k"].requires_grad_()
    expected = delta_rule(**inputs, backend="native")
    (expected_gradient,) = torch.autograd.grad(expected[0].sum(), k)
    monkeypatch.setattr(native, "LIBRARY", library)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    counting = native._load(library)
    for failures in (0, 1, 2):
        counting.set_failures(0, failures)
        found = delta_rule(**inputs, backend="native")
        assert all(torch.equal(got, want) for got, want in zip(found, expected, strict=True))
        assert counting.count_calls() > 1  # one head, several threads: the columns of values were shared out
    # A backward that several threads share asks for their common memory first. Without it one thread does it all.
    for first, failures, least_calls in ((0, 0, 3), (1, 1, 3), (0, 1, 2)):
        counting.set_failures(first, failures)
        (gradient,) = torch.autograd.grad(found[0].sum(), k, retain_graph=True)
        assert torch.equal(gradient, expected_gradient)
        assert counting.count_calls() >= least_calls
    for first in (0, 1):
        counting.set_failures(first, 1000)
        with pytest.raises(BackendError, match="out of memory"):
            torch.autograd.grad(found[0].sum(), k, retain_graph=True)
    counting.set_failures(0, 1000)
    with pytest.raises(BackendError, match="out of memory"):
        delta_rule(**inputs, backend="native")


SANITIZED = """
    import sys
    from pathlib import Path
    import torch
    from longlode.ops.delta_rule import native
    native.LIBRARY = Path(sys.argv[1])
    generator = torch.Generator().manual_seed(0)
    def normal(*shape):
        return torch.randn(*shape, generator=generator)
    def run(B, T, H, K, V, offsets, gated, chunk, instruction_set, threads):
        torch.get_num_threads = lambda: threads
        N = B if offsets is None else len(offsets) - 1
        # Every second entry of a larger tensor: rows that do not follow one another.
        q, k, v = (normal(B, T, 2 * H, size)[:, :, ::2].requires_grad_() for size in (K, K, V))
        beta, state = torch.rand(B, T, H, generator=generator).requires_grad_(), normal(N, H, K, V).requires_grad_()
        g = (-torch.rand(B, T, H, generator=generator)).requires_grad_() if gated else None
        o, final = native.delta_rule_native(q, 0.1 * k, v, beta, g, 1.0, state, offsets, chunk, instruction_set)
        leaves = [x for x in (q, k, v, beta, g, state) if x is not None]
        grads = torch.autograd.grad(o.sum() + final.sum(), leaves)
        assert all(bool(x.isfinite().all()) for x in (o, final, *grads))
        token = [x.detach()[:, 0].contiguous() for x in (q, k, v, beta)]
        native.step_native(*token, None if g is None else g.detach()[:, 0].contiguous(), 1.0, normal(B, H, K, V))
    for instruction_set in native.instruction_sets():
        for chunk in (16, 32, 64):
            for K, V in ((16, 16), (48, 80), (256, 256), (16, 256)):
                gated = K != V
                run(2, 3 * chunk + 5, 1, K, V, None, gated, chunk, instruction_set, 3)
                run(1, chunk + 3, 2, K, V, (0, 1, chunk, chunk + 3), not gated, chunk, instruction_set, 2)
        run(1, 1500, 1, 32, 128, None, True, None, instruction_set, 4)
        run(1, 1500, 1, 16, 80, (0, 3, 1400, 1500), False, None, instruction_set, 5)
    print("done")
"""


@pytest.mark.slow
@needs_native
@needs_compiler
@pytest.mark.skipif(platform.system() != "Linux", reason="sanitizers are loaded as on Linux")
def test_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    runtime = []
    for name in ("libasan.so", "libubsan.so"):
        path = subprocess.run(
            [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        runtime.append(path.stdout.strip())
    if not all(Path(path).is_absolute() for path in runtime):
        pytest.skip("the compiler has no sanitizer libraries")
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"]
    library = build(tmp_path / "build" / "sanitized.so", *flags)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SANITIZED), str(library)],
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(runtime),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == "done"
