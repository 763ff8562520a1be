"""Transforms, tracers, forward-mode derivatives and odd tensors around the ops: right numbers, or a clear error.

What depends on which call of a process comes first runs in a fresh interpreter.
"""

import subprocess
import sys
import textwrap

import pytest
import torch
from ops_cases import make_inputs, relative_error
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from longlode.core.errors import BackendError, ConfigError
from longlode.ops import used_backends
from longlode.ops.backends import SelfCheck
from longlode.ops.delta_rule import available_backends, delta_rule, delta_rule_step
from longlode.ops.linear_attention import linear_attention
from longlode.ops.surroundings import neutral_surroundings, why_not_neutral

no_native = available_backends()["native"]
needs_native = pytest.mark.skipif(bool(no_native), reason=f"native: {no_native}")
UNIT = 2**-24
STEP_NAMES = ("q", "k", "v", "beta", "g", "state")


def sequence(**options):
    return make_inputs(1, 20, 2, 16, 16, gated=True, dtype=torch.float32, **options)


def token(**options):
    x = sequence(**options)
    return {name: y if name == "state" else y[:, 0].clone() for name, y in x.items()}


def run_step(*tensors):
    q, k, v, beta, g, state = tensors
    return delta_rule_step(q, k, v, beta, g=g, state=state)


def run_whole(*tensors, backend="auto"):
    q, k, v, beta, g, state = tensors
    return delta_rule(q, k, v, beta, g=g, state=state, backend=backend)


def assert_close(found, expected):
    for got, want in zip(found, expected, strict=True):
        assert relative_error(got, want) < 64 * UNIT


WAYS = [(run_step, token), (run_whole, sequence)]


@pytest.mark.parametrize(("run", "make"), WAYS)
@pytest.mark.parametrize("tracer", ["real", "fake", "jit"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit:DeprecationWarning")
def test_a_traced_call_computes_with_new_numbers(run, make, tracer):
    first, second = tuple(make(seed=1).values()), tuple(make(seed=2).values())
    if tracer == "jit":
        traced = torch.jit.trace(run, first, check_trace=False)
    else:
        traced = make_fx(run, tracing_mode=tracer)(*first)
    assert_close(traced(*second), run(*second))
    assert max(relative_error(a, b) for a, b in zip(run(*first), run(*second), strict=True)) > 0.1


@pytest.mark.parametrize("op", [delta_rule, linear_attention])
def test_symbolic_lengths_are_refused(op):
    q, k, v, beta, _, _ = sequence().values()
    arguments = (q, k, v) if op is linear_attention else (q, k, v, beta)
    with pytest.raises(ConfigError, match=r"symbolic shape"):
        make_fx(lambda *x: op(*x), tracing_mode="symbolic")(*arguments)


@pytest.mark.parametrize(("run", "make"), WAYS)
def test_functionalized_calls(run, make):
    tensors = tuple(make().values())
    assert_close(torch.func.functionalize(run)(*tensors), run(*tensors))


@pytest.mark.parametrize(("run", "make"), WAYS)
@pytest.mark.parametrize("name", STEP_NAMES)
@pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning"
)  # torch's own, at its first such derivative
def test_forward_mode_derivatives_are_those_of_finite_differences(run, make, name):
    inputs = {n: x.double() for n, x in make().items()}
    tangent = torch.randn(inputs[name].shape, dtype=torch.float64)
    ahead, behind = (run(*{**inputs, name: inputs[name] + step * tangent}.values()) for step in (1e-5, -1e-5))
    narrow = {n: x.float() for n, x in inputs.items()}
    with forward_ad.dual_level():
        narrow[name] = forward_ad.make_dual(narrow[name], tangent.float())
        found = [forward_ad.unpack_dual(y).tangent for y in run(*narrow.values())]
    for got, a, b in zip(found, ahead, behind, strict=True):
        if got is None:  # the state does not hang on the query
            assert torch.equal(a, b)
        else:
            assert relative_error(got, (a - b) / 2e-5) < 1e-3


@pytest.mark.parametrize(("run", "make"), WAYS)
def test_transforms_of_torch_func(run, make):
    inputs = make()
    tensors = tuple(inputs.values())

    def loss(*args):
        o, final = run(*args)
        return (o**2).sum() + (final**3).sum()

    leaves = [x.detach().requires_grad_() for x in tensors]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    assert_close(torch.func.grad(loss, argnums=tuple(range(6)))(*tensors), expected)
    batch = tuple(torch.stack((x, x.roll(1, 0).flip(-1) if x.dim() > 3 else x)) for x in tensors)
    found = torch.func.vmap(run)(*batch)
    for i in range(2):
        assert_close([x[i] for x in found], run(*(x[i] for x in batch)))


@pytest.mark.parametrize(("run", "make"), WAYS)
@pytest.mark.parametrize("name", STEP_NAMES)
def test_lazily_negated_and_zero_tensors_are_read_as_what_they_are(run, make, name):
    inputs = make()
    negated = torch.complex(torch.zeros_like(inputs[name]), -inputs[name]).conj().imag
    assert negated.is_neg()
    assert torch.equal(negated, inputs[name])
    assert_close(run(*{**inputs, name: negated}.values()), run(*inputs.values()))
    zero = torch._efficientzerotensor(inputs[name].shape)
    assert zero._is_zerotensor()
    expected = run(*{**inputs, name: torch.zeros_like(inputs[name])}.values())
    for got, want in zip(run(*{**inputs, name: zero}.values()), expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("run", "make"), WAYS)
def test_fake_tensors_give_fake_results(run, make):
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in make().values()]
        o, final = run(*fakes)
    assert (o.shape, final.shape) == tuple(x.shape for x in run(*make().values()))


@needs_native
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit:DeprecationWarning")
def test_native_by_name_refuses_what_has_no_memory_and_says_what_to_use():
    tensors = tuple(sequence().values())

    def native(*args):
        return run_whole(*args, backend="native")

    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) for x in tensors]
    with pytest.raises(BackendError, match=r"FakeTensor"):
        native(*fakes)
    for position in range(6):
        one_fake = [
            fake if i == position else x for i, (x, fake) in enumerate(zip(tensors, fakes, strict=True))
        ]
        with pytest.raises(BackendError, match="FakeTensor"):
            native(*one_fake)
    with pytest.raises(BackendError, match=r"being traced.*Use backend='chunkwise'"):
        make_fx(native)(*tensors)
    with pytest.raises(BackendError, match=r"torch\.jit\.trace.*Use backend='chunkwise'"):
        torch.jit.trace(native, tensors)
    with pytest.raises(BackendError, match=r"torch\.func.*Use backend='reference'"):
        torch.func.functionalize(native)(*tensors)
    with forward_ad.dual_level(), pytest.raises(BackendError, match=r"forward-mode.*Use backend='reference'"):
        native(*tensors[:5], forward_ad.make_dual(tensors[5], tensors[5]))


@pytest.mark.parametrize("op", [delta_rule, linear_attention])
def test_chunkwise_by_name_refuses_transforms(op):
    q, k, v, beta, _, _ = sequence().values()
    arguments = (q, k, v) if op is linear_attention else (q, k, v, beta)
    with pytest.raises(BackendError, match=r"torch\.func.*Use backend='reference'"):
        torch.func.grad(lambda x: op(x, *arguments[1:], backend="chunkwise")[0].sum())(q)
    torch.func.grad(lambda x: op(x, *arguments[1:])[0].sum())(q)


def test_the_log_says_why_auto_left_the_kernels(caplog):
    from longlode.ops.delta_rule.backends import BACKENDS

    BACKENDS.forget()
    caplog.set_level("INFO", logger="longlode.ops.backends")
    tensors = tuple(sequence().values())
    for _ in range(2):
        torch.func.functionalize(run_whole)(*tensors)
    said = [
        r.getMessage() for r in caplog.records if "'reference'" in r.getMessage() and "not" in r.getMessage()
    ]
    assert len(said) == 2  # one line each for native and chunkwise, once
    assert all("a transform of torch.func" in line for line in said)


def test_used_backends_are_recorded_and_self_checks_are_not():
    found = fresh(
        """
        from longlode.ops import used_backends
        from longlode.ops.delta_rule import delta_rule, delta_rule_step
        from longlode.ops.linear_attention import linear_attention
        assert used_backends() == {}
        x = torch.rand(1, 8, 2, 16)
        o, state = delta_rule(x, x, x, x[..., 0])
        once = used_backends()
        delta_rule(x, x, x, x[..., 0], backend="reference")
        delta_rule(x, x, x, x[..., 0], backend="reference")
        t = x[:, 0]
        delta_rule_step(t, t, t, t[..., 0], state=state)
        linear_attention(x, x, x)
        print(once, used_backends(), sep="|")
        """
    )
    kernels = ("chunkwise", "torch") if no_native else ("native", "native")
    once, later = (eval(part) for part in found.split("|"))
    assert once == {"delta_rule": [kernels[0]]}
    assert later == {
        "delta_rule": [kernels[0], "reference"],
        "delta_rule_step": [kernels[1]],
        "linear_attention": ["chunkwise"],
    }


def test_what_is_returned_of_the_record_is_a_copy():
    run_whole(*sequence().values())
    used_backends()["delta_rule"].append("nonsense")
    assert "nonsense" not in used_backends()["delta_rule"]


def fresh(program):
    """Standard output of a program in a new interpreter, where no op has been called."""
    text = "import torch\ntorch.manual_seed(0)\n" + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FIRST_CALLS = {
    "checkpoint": """
        from torch.utils.checkpoint import checkpoint
        checkpoint(lambda q: run(q)[0].sum(), q.requires_grad_(), use_reentrant=False).backward()
        """,
    "reentrant checkpoint": """
        from torch.utils.checkpoint import checkpoint
        checkpoint(lambda q: run(q)[0].sum(), q.requires_grad_(), use_reentrant=True).backward()
        """,
    "func.grad": "torch.func.grad(lambda q: run(q)[0].sum())(q)",
    "func.vmap": "torch.func.vmap(run)(q[None])",
    "jit.trace": "torch.jit.trace(run, (q,), check_trace=False)",
    "make_fx": "from torch.fx.experimental.proxy_tensor import make_fx\nmake_fx(run)(q)",
    "inference mode": "with torch.inference_mode(): run(q)",
    "no_grad": "with torch.no_grad(): run(q)",
    "autocast": "with torch.autocast('cpu', torch.bfloat16): run(q)",
    "forward mode": """
        import torch.autograd.forward_ad as forward
        with forward.dual_level(): run(forward.make_dual(q, q))
        """,
    "forbidden hooks": """
        with torch.autograd.graph.disable_saved_tensors_hooks("no hooks here"): run(q.requires_grad_())
        """,
    "hooks that refuse": """
        def refuse(x): raise RuntimeError("a hook saw a tensor of the self-check")
        with torch.autograd.graph.saved_tensors_hooks(refuse, refuse): run(q)
        """,
    "flop counter": """
        from torch.utils.flop_counter import FlopCounterMode
        with FlopCounterMode(display=False): run(q)
        """,
    "default device": "with torch.device('meta'): run(q)",
}


@needs_native
@pytest.mark.parametrize("first", FIRST_CALLS)
def test_the_first_call_of_a_process_does_not_decide_about_the_later_ones(first):
    program = """
        import logging
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        from longlode.ops import used_backends
        from longlode.ops.delta_rule import delta_rule
        from longlode.ops.delta_rule.backends import native_fault
        q = torch.rand(1, 8, 2, 16)
        def run(q): return delta_rule(q, q.detach(), q.detach(), q.detach()[..., 0])
        """
    after = """
        native_fault._verdicts and print("checked")
        run(q.detach())
        assert used_backends()["delta_rule"][-1] == "native", used_backends()
        assert list(native_fault._verdicts.values()) == [""]
        """
    fresh(textwrap.dedent(program) + textwrap.dedent(FIRST_CALLS[first]) + textwrap.dedent(after))


@needs_native
def test_gradient_checkpointing_from_the_first_step_gives_the_gradients_of_none():
    found = fresh(
        """
        from torch.utils.checkpoint import checkpoint
        from longlode.ops.delta_rule import delta_rule
        x = [torch.randn(2, 70, 2, 16, requires_grad=True) for _ in range(3)]
        beta = torch.rand(2, 70, 2, requires_grad=True)
        def loss(*args):
            o, final = delta_rule(*args)
            return (o ** 2).sum() + final.sum()
        saved = torch.autograd.grad(checkpoint(loss, *x, beta, use_reentrant=False), (*x, beta))
        kept = torch.autograd.grad(loss(*x, beta), (*x, beta))
        print(all(torch.equal(a, b) for a, b in zip(saved, kept)))
        """
    )
    assert found == "True"


def test_a_self_check_keeps_no_verdict_where_the_surroundings_cannot_be_left():
    calls = []

    def compare(device, size):
        calls.append((device, size))
        return ""

    check = SelfCheck(compare)
    cpu = torch.device("cpu")

    def inside(x):
        assert "cannot run here: a transform of torch.func is active" in check(cpu, 1)
        return x.sum()

    torch.func.grad(inside)(torch.ones(2))
    assert not calls
    assert [check(cpu, 1), check(cpu, 1), check(cpu, 2)] == [""] * 3
    assert calls == [(cpu, 1), (cpu, 2)]


def test_neutral_surroundings_are_neutral_and_temporary():
    seen = []

    def hook(x):
        seen.append(x)
        return x

    x = torch.ones(2, requires_grad=True)
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.no_grad(),
        torch.autograd.graph.saved_tensors_hooks(hook, hook),
        torch.device("meta"),
    ):
        with neutral_surroundings("cpu"):
            assert why_not_neutral() == ""
            y = torch.ones(2, 2, requires_grad=True)
            assert y.device.type == "cpu"
            product = (y @ y) * x
            assert product.dtype == torch.float32
            assert product.requires_grad
            assert not seen
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.ones(1).device.type == "meta"
