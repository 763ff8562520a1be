"""Attention: equal to a softmax over an explicit mask, whole, windowed, cached, padded and packed."""

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.ops.attention import attention, blocks

TOLERANCE = 1e-12


def make(B, T, J, H, G, K=4, V=4):
    rng = torch.Generator().manual_seed(0)
    shapes = ((B, T, H, K), (B, J, G, K), (B, J, G, V))
    return [torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes]


def by_definition(q, k, v, *, window=None, q_offset=0, key_mask=None, cu_seqlens=None, scale=None, ahead=0):
    """Softmax over explicitly masked scores; `ahead` = 1 lets a token see its successor: a wrong variant.

    The q_offset keys before packed queries belong to the first document.
    """
    B, T, H, K = q.shape
    k, v = (x.repeat_interleave(H // x.shape[2], dim=2) for x in (k, v))
    position = torch.arange(T)[:, None] + q_offset
    key = torch.arange(k.shape[1])
    seen = (key <= position + ahead).expand(B, 1, T, -1)
    if window is not None:
        seen = seen & (key > position - window)
    if key_mask is not None:
        seen = seen & key_mask[:, None, None]
    if cu_seqlens is not None:
        document = torch.bucketize(key - q_offset, cu_seqlens[1:], right=True)
        seen = seen & (document[q_offset : q_offset + T, None] == document)
    scores = torch.einsum("bthk,bjhk->bhtj", q, k) * (K**-0.5 if scale is None else scale)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bhtj,bjhv->bthv", weights, v)


def check(tensors, **options):
    leaves = [t.detach().requires_grad_() for t in tensors]
    got, expected = attention(*leaves, **options), by_definition(*leaves, **options)
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)
    grads = (torch.autograd.grad((o * weight).sum(), leaves) for o in (got, expected))
    for grad, expected_grad in zip(*grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=0, atol=TOLERANCE)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 8)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("window", [None, 1, 3, 8, 20, 100])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (3, 1)])
def test_windows_and_grouped_heads(window, heads):
    check(make(2, 30, 30, *heads), window=window)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("T", [1, 4, 20])
def test_queries_on_a_cache(T, window):
    check(make(2, T, 30, 4, 2), q_offset=30 - T, window=window)
    check(make(2, T, 30, 4, 2), q_offset=2, window=window)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("window", [None, 5])
def test_left_padding(window):
    key_mask = torch.ones(2, 20, dtype=torch.bool)
    key_mask[0, :7] = False
    tensors = make(2, 20, 20, 4, 2)
    check(tensors, key_mask=key_mask, window=window)
    assert float(attention(*tensors, key_mask=key_mask, window=window)[0, :7].abs().max()) == 0.0
    check([tensors[0][:, -1:], *tensors[1:]], key_mask=key_mask, window=window, q_offset=19)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("window", [None, 5])
def test_packed_documents(window):
    check(make(1, 30, 30, 4, 2), cu_seqlens=torch.tensor([0, 1, 9, 10, 30]), window=window)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_packed_documents_of_which_the_first_continues(window, padded):
    key_mask = torch.ones(1, 41, dtype=torch.bool)
    key_mask[0, [0, 3, 12, 20]] = False
    for offsets in ([0, 1, 9, 10, 30], [0, 12, 30], [0, 30]):
        options = {"key_mask": key_mask} if padded else {}
        check(make(1, 30, 41, 4, 2), q_offset=11, cu_seqlens=torch.tensor(offsets), window=window, **options)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 20])
def test_a_packed_row_cut_anywhere_equals_the_whole(cut):
    """As two ranks read it that share a sequence: the right one has the keys of the document across the cut."""
    q, k, v = make(1, 30, 30, 4, 2)
    edges = [0, 8, 9, 30]
    whole = attention(q, k, v, cu_seqlens=torch.tensor(edges))
    begun = max(edge for edge in edges if edge <= cut)
    left = torch.tensor([edge for edge in edges if edge < cut] + [cut])
    right = torch.tensor([0] + [edge - cut for edge in edges if edge > cut])
    parts = [
        attention(q[:, :cut], k[:, :cut], v[:, :cut], cu_seqlens=left),
        attention(q[:, cut:], k[:, begun:], v[:, begun:], cu_seqlens=right, q_offset=cut - begun),
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=TOLERANCE)


def test_scale_and_value_size():
    check(make(1, 9, 9, 2, 2, K=4, V=6), scale=0.1)


def test_comparison_rejects_seeing_the_future():
    tensors = make(1, 9, 9, 2, 2)
    assert float((attention(*tensors) - by_definition(*tensors, ahead=1)).abs().max()) > 1e-2


def test_a_window_never_builds_a_whole_mask(monkeypatch):
    sizes = []

    def spy(*args, _visible=blocks._visible, **kwargs):
        mask = _visible(*args, **kwargs)
        sizes.append(mask.numel())
        return mask

    monkeypatch.setattr(blocks, "_visible", spy)
    attention(*make(1, 2000, 2000, 1, 1), window=16)
    assert sum(sizes) < 2000 * 2000 / 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window is 0; expected None or at least 1"),
        ({"q_offset": 3}, "queries stand at positions 3 to 8 with 6 keys"),
        ({"key_mask": torch.ones(1, 6)}, "key_mask is torch.float32; expected torch.bool"),
        ({"q_offset": 1, "cu_seqlens": torch.tensor([0, 6])}, "positions 1 to 6"),
        ({"cu_seqlens": torch.tensor([0, 2, 2, 6])}, "document 1 empty"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ConfigError, match=message):
        attention(*make(1, 6, 6, 2, 2), **options)


def test_refused_heads():
    with pytest.raises(ConfigError, match="q has 3 heads and k has 2"):
        attention(*make(1, 6, 6, 3, 2))
