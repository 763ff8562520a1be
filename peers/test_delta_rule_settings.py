"""fla's op settings: those of its tests/ops (test_delta.py, test_gdn.py), against a float64 recurrence of our own.

Sizes, gates, scales, packed offsets and limits are fla's; where T is above 256, rows and heads are cut to at most two
(one where T * D is largest), since each is computed apart from the others. What fla can do
inside its kernel (l2norm, sigmoid, the gate from its logits) and states with V first are not part of the op and stay
out; q and k are normalised before it.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from longlode.ops.delta_rule import available_backends, delta_rule

PACKAGES = ("torch",)
_MAX_COPIES = 2
_LARGE = 1024 * 100


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One case of fla's; `offsets` are those of packed documents."""

    num_rows: int = 1
    num_tokens: int
    num_heads: int
    value_heads_per_head: int = 1
    dim: int
    scale: float
    gated: bool
    normalizer: float = 1
    masked: float = 0
    uniform: bool = False
    has_state: bool = True
    offsets: tuple[int, ...] | None = None
    chunk_size: int | None = None
    max_beta: float = 1

    def __str__(self) -> str:
        kind = "gated" if self.gated else "plain"
        packed = f"-packed{len(self.offsets) - 1}" if self.offsets else ""
        chunk = f"-chunk{self.chunk_size}" if self.chunk_size else ""
        gate = f"-norm{self.normalizer}-mask{self.masked}" if self.gated else ""
        beta = "-beta2" if self.max_beta == 2 else ""
        heads = f"H{self.num_heads}" + (
            f"x{self.value_heads_per_head}" if self.value_heads_per_head > 1 else ""
        )
        return f"{kind}-B{self.num_rows}-T{self.num_tokens}-{heads}-D{self.dim}{packed}{chunk}{gate}{beta}"


def _plain() -> list[Setting]:
    rows = [(56, 60), (211, 110), (400, 200)]
    chunk = [
        Setting(num_rows=2, num_tokens=t, num_heads=3, dim=d, scale=d**-0.5, gated=False) for t, d in rows
    ]
    older = [
        Setting(num_rows=2, num_tokens=t, num_heads=2, dim=d, scale=1, gated=False)
        for t, d in ((15, 64), (63, 32), (300, 100), (512, 64), (63, 256))
    ]
    packed = Setting(
        num_tokens=2000, num_heads=2, dim=64, scale=1, gated=False, offsets=(0, 15, 100, 300, 1203, 2000)
    )
    return [*chunk, *older, packed]


def _gated() -> list[Setting]:
    def rows(cases: list[tuple[float, ...]], **same: bool) -> list[Setting]:
        return [
            Setting(
                num_rows=int(b),
                num_tokens=int(t),
                num_heads=int(h),
                value_heads_per_head=int(hv // h),
                dim=int(d),
                scale=scale,
                gated=True,
                normalizer=norm,
                masked=masked,
                **same,
            )
            for b, t, h, hv, d, scale, norm, masked in cases
        ]

    recurrent = rows(
        [
            (1, 63, 1, 1, 64, 1, 1, 0),
            (2, 500, 4, 4, 60, 1, 1, 0),
            (2, 1000, 2, 8, 128, 1, 0.1, 0),
            (3, 1024, 2, 2, 128, 0.1, 1, 0),
            (4, 1024, 3, 3, 128, 1, 10, 0),
            (4, 2048, 4, 4, 64, 0.1, 1, 0),
            (2, 1024, 4, 8, 128, 1, 10, 0),
        ]
    )
    chunk = rows(
        [
            (4, 1024, 4, 4, 128, 0.1, 1, 1.0),
            (2, 75, 4, 4, 64, 1, 0.01, 0),
            (2, 500, 3, 3, 60, 1, 1, 0),
            (2, 1000, 3, 3, 64, 0.1, 1, 0.5),
            (3, 1024, 4, 4, 100, 1, 0.1, 0),
            (2, 1500, 4, 4, 128, 0.1, 10, 0),
            (2, 256, 2, 4, 64, 1, 1, 0),
            (2, 512, 2, 8, 64, 1, 0.1, 0),
        ],
        uniform=True,
        has_state=False,
    )
    sized = [
        Setting(
            num_rows=1,
            num_tokens=64,
            num_heads=2,
            value_heads_per_head=2,
            dim=32,
            scale=0.1,
            gated=True,
            uniform=True,
            has_state=False,
            chunk_size=size,
        )
        for size in (16, 32, 64)
    ]
    packed = [
        Setting(
            num_tokens=offsets[-1],
            num_heads=num_heads,
            value_heads_per_head=group,
            dim=dim,
            scale=dim**-0.5,
            gated=True,
            masked=masked,
            offsets=offsets,
        )
        for num_heads, group, dim, masked, offsets in (
            (4, 1, 60, 0, (0, 15)),
            (4, 1, 64, 0, (0, 256, 500, 1000)),
            (4, 1, 64, 0.5, (0, 256, 500, 1000)),
            (4, 1, 100, 0, (0, 15, 100, 300, 1200, 2000)),
            (2, 2, 64, 0, (0, 256, 500, 1000)),
            (2, 4, 64, 0, (0, 256, 500, 1000)),
        )
    ]
    negative = Setting(
        num_rows=3, num_tokens=1024, num_heads=4, dim=128, scale=0.1, gated=True, uniform=True, max_beta=2
    )
    return [*recurrent, *chunk, *sized, *packed, negative]


SETTINGS = [*_plain(), *_gated()]
# name -> largest error over root mean square of the right value: fla's own for half precision
_HALF = {
    "o": 0.005,
    "state": 0.005,
    "q": 0.008,
    "k": 0.008,
    "v": 0.008,
    "beta": 0.02,
    "g": 0.02,
    "state_0": 0.008,
}
_SINGLE = {
    "o": 1e-5,
    "state": 1e-5,
    "q": 1e-4,
    "k": 1e-4,
    "v": 1e-4,
    "beta": 1e-4,
    "g": 1e-3,
    "state_0": 1e-4,
}
LIMITS = {torch.float32: _SINGLE, torch.bfloat16: _HALF, torch.float16: _HALF}


def recurrence(q, k, v, beta, g, state, scale):
    """The delta rule on `[rows, heads, tokens, dim]`, a token at a time: decay, write the error, read."""
    read = []
    for t in range(q.shape[2]):
        state = state * g[:, :, t, None, None].exp()
        error = v[:, :, t] - torch.einsum("bhk,bhkv->bhv", k[:, :, t], state)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, :, t], beta[:, :, t, None] * error)
        read.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], state) * scale)
    return torch.stack(read, 2), state


def material(setting: Setting, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Inputs and the two outputs' cotangents, rounded to `dtype`; gates, beta and states stay float32."""
    torch.manual_seed(42)
    num_rows, num_heads = setting.num_rows, setting.num_heads
    if setting.num_tokens > 256:
        large = setting.num_tokens * setting.dim * setting.value_heads_per_head > _LARGE
        copies = 1 if large else _MAX_COPIES
        num_rows, num_heads = min(num_rows, copies), min(num_heads, copies)
    shape = (num_rows, setting.num_tokens, num_heads * setting.value_heads_per_head)
    draw = torch.rand if setting.uniform else torch.randn
    q, k = (draw(num_rows, setting.num_tokens, num_heads, setting.dim) for _ in range(2))
    v = draw(*shape, setting.dim)
    num_states = len(setting.offsets) - 1 if setting.offsets else num_rows
    states = (num_states, shape[2], setting.dim, setting.dim)
    made = {
        "q": functional.normalize(q, dim=-1).to(dtype),
        "k": functional.normalize(k, dim=-1).to(dtype),
        "v": v.to(dtype),
        "beta": torch.rand(shape).sigmoid() * setting.max_beta,
        "state_0": torch.randn(states) if setting.has_state else torch.zeros(states),
        "d_o": torch.randn(*shape, setting.dim).to(dtype),
        "d_state": torch.randn(states),
    }
    if setting.gated:
        gate = functional.logsigmoid(torch.rand(shape)) / setting.normalizer
        made["g"] = gate * (torch.rand(shape) > setting.masked)
    return made


def answers(made, outputs, names):
    """Outputs and the gradient of each named input."""
    o, state = outputs
    total = (o * made["d_o"]).sum() + (state * made["d_state"]).sum()
    gradients = torch.autograd.grad(total, [made[name] for name in names])
    return {"o": o.detach(), "state": state.detach(), **dict(zip(names, gradients, strict=True))}


def leaves(made, dtype=None):
    """The inputs as leaves of a graph, and the names of those that get gradients."""
    names = [name for name in made if not name.startswith("d_")]
    taken = {name: value.to(dtype or value.dtype) for name, value in made.items()}
    for name in names:
        taken[name] = taken[name].detach().clone().requires_grad_()
    return taken, names


@cache
def expected(setting: Setting, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The recurrence in float64 on the rounded inputs, document by document."""
    made, names = leaves(material(setting, dtype), torch.float64)
    heads_first = {name: made[name].transpose(1, 2) for name in ("q", "k", "v", "beta")}
    for name in ("q", "k"):  # one head of them serves several heads of v, side by side
        heads_first[name] = heads_first[name].repeat_interleave(setting.value_heads_per_head, 1)
    heads_first["g"] = made["g"].transpose(1, 2) if setting.gated else torch.zeros_like(heads_first["beta"])
    offsets = setting.offsets or (0, setting.num_tokens)
    read, states = [], []
    for i, (start, end) in enumerate(pairwise(offsets)):
        document = {name: value[:, :, start:end] for name, value in heads_first.items()}
        before = made["state_0"][i : i + 1] if setting.offsets else made["state_0"]
        o, state = recurrence(**document, state=before, scale=setting.scale)
        read.append(o)
        states.append(state)
    return answers(made, (torch.cat(read, 2).transpose(1, 2), torch.cat(states)), names)


def computed(setting: Setting, dtype: torch.dtype, backend: str) -> dict[str, torch.Tensor]:
    """The op on the rounded inputs."""
    made, names = leaves(material(setting, dtype))
    outputs = delta_rule(
        *(made[name] for name in ("q", "k", "v", "beta")),
        g=made.get("g"),
        scale=setting.scale,
        state=made["state_0"],
        cu_seqlens=torch.tensor(setting.offsets, dtype=torch.int32) if setting.offsets else None,
        chunk_size=setting.chunk_size,
        backend=backend,
    )
    return answers(made, outputs, names)


def errors(got, right):
    """Per name, the root mean square of the error over that of the right value."""
    found = {}
    for name, value in right.items():
        size = value.square().mean().sqrt()
        error = (got[name].double() - value).square().mean().sqrt()
        found[name] = float(error / size) if size > 0 else float(error)
    return found


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("backend", ["chunkwise", "native", "auto"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_setting_of_fla(setting, backend, dtype):
    if backend not in {*available_backends(), "auto"}:
        pytest.skip(f"the {backend} backend is not usable on this machine")
    if backend == "native" and setting.dim % 16:
        pytest.skip("native kernels need K and V in multiples of 16; auto takes chunkwise there")
    found = errors(computed(setting, dtype, backend), expected(setting, dtype))
    limits = LIMITS[dtype]
    assert {name: error for name, error in found.items() if not error <= limits[name]} == {}, found


def test_the_comparison_sees_a_wrong_decay():
    setting = SETTINGS[-1]
    wrong = computed(Setting(**{**vars(setting), "normalizer": 2}), torch.bfloat16, "chunkwise")
    found = errors(wrong, expected(setting, torch.bfloat16))
    assert all(found[name] > _HALF[name] for name in ("o", "state", "q", "k"))
