"""Inputs and comparisons that the tests of the delta rule share."""

import torch

from longlode.ops.delta_rule import delta_rule

NAMES = ("q", "k", "v", "beta", "g", "state")


def make_inputs(
    B, T, H, K, V, *, gated=False, N=None, dtype=torch.float64, keys="random", beta_max=2.0, seed=0
):
    """Arguments of `delta_rule` as a dict; keys: "random", "equal" or "near" (equal up to 1e-3)."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    k = normal(B, T, H, K)
    if keys != "random":
        k = normal(B, 1, H, K).expand(B, T, H, K) + (1e-3 if keys == "near" else 0.0) * k
    k = k / k.norm(dim=-1, keepdim=True)
    uniform = torch.rand(B, T, H, generator=rng, dtype=torch.float64)
    inputs = {
        "q": normal(B, T, H, K),
        "k": k,
        "v": normal(B, T, H, V),
        "beta": beta_max * (uniform if keys == "random" else torch.ones_like(uniform)),
        "g": -torch.rand(B, T, H, generator=rng, dtype=torch.float64) if gated else None,
        "state": normal(N or B, H, K, V),
    }
    # Through the dtype and back, so that every dtype starts from the same numbers.
    return {name: None if x is None else x.to(dtype) for name, x in inputs.items()}


def results(inputs, run=delta_rule, **options):
    """Outputs, final state and all gradients of a fixed random functional of both: a dict of tensors."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items() if x is not None}
    g, state = leaves.get("g"), leaves.get("state")
    o, final = run(leaves["q"], leaves["k"], leaves["v"], leaves["beta"], g=g, state=state, **options)
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=rng, dtype=torch.float64).to(x.dtype) for x in (o, final)]
    loss = (o * weights[0]).sum() + (final * weights[1]).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    found = {"o": o, "final_state": final}
    found |= {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: x.detach() for name, x in found.items()}


def largest_difference(got, expected):
    """Largest difference of any entry of any tensor, relative to the largest entry of the expected tensor."""
    assert got.keys() == expected.keys()
    return max(relative_error(got[name], expected[name]) for name in expected)


def relative_error(got, expected):
    """Largest difference relative to the largest entry; NaN counts as infinite."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    error = (got.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30)
    return float(error) if error.isfinite() else float("inf")
