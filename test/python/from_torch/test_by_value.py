"""Blocks that bring rows to experts in ways that no rule describes: what they compute is read from
what they do with numbers. Each against itself, in PyTorch."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import einsum
from torch.nn.functional import one_hot, silu

import moe

H, I, E, K = 16, 24, 6, 2


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


class Block(torch.nn.Module):
    def __init__(self, combine):
        super().__init__()
        torch.manual_seed(0)
        self.combine = combine
        self.router = torch.nn.Linear(H, E, bias=False)
        self.gate, self.up, self.down = (torch.nn.Parameter(torch.randn(E, *shape) * 0.2)
                                         for shape in ((I, H), (I, H), (H, I)))

    def choose(self, x):
        w, ids = self.router(x).softmax(-1).topk(K)
        return w / w.sum(-1, keepdim=True), ids

    def batched(self, rows):
        """Rows [E, C, H] of all experts."""
        return torch.bmm(silu(torch.bmm(rows, self.gate.mT)) * torch.bmm(rows, self.up.mT),
                         self.down.mT)

    def gathered(self, rows, ids):
        """A row [R, H] of each of the experts [R]."""
        rows = rows.unsqueeze(1)
        hidden = silu(torch.bmm(rows, self.gate[ids].mT)) * torch.bmm(rows, self.up[ids].mT)
        return torch.bmm(hidden, self.down[ids].mT).squeeze(1)

    def forward(self, x):
        return self.combine(self, x)


def places_in_a_buffer(m, x):
    """Tutel's: places by the number of choices before, first choices first."""
    w, ids = m.choose(x)
    tokens = x.shape[0]
    marks = one_hot(ids.t().reshape(-1), E)
    place = ids.t().reshape(-1) * tokens + ((marks.cumsum(0) - 1) * marks).sum(-1)
    rows = torch.zeros(E * tokens, H).index_copy(0, place, x.repeat(K, 1))
    y = m.batched(rows.view(E, tokens, -1)).reshape(E * tokens, -1)[place]
    return einsum("kth,tk->th", y.view(K, tokens, -1), w)


def places_below_a_capacity(m, x, most=4):
    w, ids = m.choose(x)
    tokens = x.shape[0]
    marks = one_hot(ids.t().reshape(-1), E)
    place = ((marks.cumsum(0) - 1) * marks).sum(-1)
    kept = place < most
    slot = torch.where(kept, ids.t().reshape(-1) * most + place, E * most)
    rows = torch.zeros(E * most + 1, H).index_add(0, slot, x.repeat(K, 1))
    y = m.batched(rows[:-1].view(E, most, -1)).reshape(E * most, -1)
    y = torch.cat([y, y.new_zeros(1, H)])[slot]
    return (y * (w.t().reshape(-1) * kept)[:, None]).view(K, tokens, -1).sum(0)


def marks_of_choices(m, x):
    w, ids = m.choose(x)
    marks = one_hot(ids, E).to(x.dtype)
    rows = einsum("tke,th->ekth", marks, x).reshape(E, -1, H)
    return einsum("ekth,tke,tk->th", m.batched(rows).view(E, K, x.shape[0], -1), marks, w)


def keys_of_choices(m, x):
    """Sorted by a number that has the expert and the place of a choice."""
    w, ids = m.choose(x)
    count = x.shape[0] * K
    order = (ids.reshape(-1) * count + torch.arange(count)).sort()[0] % count
    token = order // K
    y = m.gathered(x[token], ids.reshape(-1)[order]) * w.reshape(-1)[order][:, None]
    return torch.zeros_like(x).scatter_add(0, token[:, None].expand_as(y), y)


def two_maxima(m, x):
    """GShard's: the second choice is the best of the others; combined by one tensor [T, E, C]."""
    p = m.router(x).softmax(-1)
    first = one_hot(p.argmax(-1), E)
    second = one_hot(p.masked_fill(first.bool(), -torch.inf).argmax(-1), E)
    g1, g2 = (p * first).sum(-1), (p * second).sum(-1)
    p1 = (first.cumsum(0) - 1) * first
    p2 = (second.cumsum(0) - 1 + first.sum(0, keepdim=True)) * second
    places = 2 * x.shape[0]
    c1 = one_hot(p1.sum(-1), places)[:, None, :] * first[:, :, None]
    c2 = one_hot(p2.sum(-1), places)[:, None, :] * second[:, :, None]
    weights = (g1 / (g1 + g2))[:, None, None] * c1 + (g2 / (g1 + g2))[:, None, None] * c2
    rows = einsum("tec,th->ech", (c1 + c2).to(x.dtype), x)
    return einsum("tec,ech->th", weights, m.batched(rows))


def a_sort_for_each_choice(m, x):
    w, ids = m.choose(x)
    out = torch.zeros_like(x)
    for k in range(K):
        order = ids[:, k].argsort(stable=True)
        y = m.gathered(x[order], ids[order, k])
        out = out.index_add(0, order, y * w[order, k][:, None])
    return out


def weights_before_the_last_product(m, x):
    w, ids = m.choose(x)
    order = ids.reshape(-1).argsort(stable=True)
    e, rows = ids.reshape(-1)[order], x[order // K].unsqueeze(1)
    hidden = silu(torch.bmm(rows, m.gate[e].mT)) * torch.bmm(rows, m.up[e].mT)
    y = torch.bmm(hidden * w.reshape(-1)[order][:, None, None], m.down[e].mT).squeeze(1)
    return y[order.argsort()].view(-1, K, H).sum(1)


def tables_of_choices(m, x):
    """Padded tables of the choices of each expert; the last row is nobody's."""
    w, ids = m.choose(x)
    tokens, flat = x.shape[0], ids.reshape(-1)
    order, counts = flat.argsort(stable=True), one_hot(flat, E).sum(0)
    place = torch.arange(tokens * K) - (counts.cumsum(0) - counts)[flat[order]]
    table = torch.full((E, tokens), tokens * K).index_put((flat[order], place), order)
    rows = torch.cat([x.repeat_interleave(K, 0), x.new_zeros(1, H)])[table]
    y = m.batched(rows) * torch.cat([w.reshape(-1), w.new_zeros(1)])[table][..., None]
    return torch.zeros(tokens + 1, H).index_add(
        0, (table // K).reshape(-1), y.reshape(E * tokens, -1))[:tokens]


def scaled_rows(m, x):
    v, ids = m.router(x).sigmoid().max(-1)
    order = ids.argsort(stable=True)
    return torch.zeros_like(x).index_copy(0, order, m.gathered((x * v[:, None])[order], ids[order]))


def run(combine):
    block = Block(combine).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = moe.from_torch(block, example=torch.zeros(13, H))
        layer = imported.layer()
    for tokens in (1, 37):
        x = torch.randn(tokens, H)
        with torch.no_grad():
            expected = block(x)
        actual = torch.as_tensor(layer(x))
        assert torch.allclose(actual, expected, rtol=0, atol=float(expected.abs().max()) * 2e-6)
    return imported.mlir.count("moe.dispatch") if imported.mlir else 0


@pytest.mark.parametrize("combine", [
    places_in_a_buffer, places_below_a_capacity, marks_of_choices, keys_of_choices, two_maxima,
    a_sort_for_each_choice, weights_before_the_last_product, tables_of_choices, scaled_rows],
    ids=lambda f: f.__name__)
def test_found(combine):
    assert run(combine) == 1


def weights_of_the_other_choice(m, x):
    w, ids = m.choose(x)
    return keys_of_choices(_With(m, w.flip(1), ids), x)


def squared_weights(m, x):
    """The weights of the sum are not those that rows are scaled with."""
    w, ids = m.choose(x)
    y = m.gathered(x.repeat_interleave(K, 0), ids.reshape(-1)).view(-1, K, H)
    return ((y * w[..., None]) * (1 + w[..., None])).sum(1)


def rows_of_a_neighbour(m, x):
    return keys_of_choices(m, x.roll(1, 0))


def experts_in_another_order(m, x):
    w, ids = m.choose(x)
    return keys_of_choices(_With(m, w, (ids + 1) % E), x)


def last_products_of_another(m, x):
    w, ids = m.choose(x)
    flat = ids.reshape(-1)
    rows = x.repeat_interleave(K, 0).unsqueeze(1)
    hidden = silu(torch.bmm(rows, m.gate[flat].mT)) * torch.bmm(rows, m.up[(flat + 1) % E].mT)
    y = torch.bmm(hidden, m.down[flat].mT).view(-1, K, H)
    return (y * w[..., None]).sum(1)


def bent_after_the_weights(m, x):
    w, ids = m.choose(x)
    y = m.gathered(x.repeat_interleave(K, 0), ids.reshape(-1)).view(-1, K, H)
    return torch.tanh(y * w[..., None]).sum(1)


def shifted_columns(m, x):
    w, ids = m.choose(x)
    y = m.gathered(x.repeat_interleave(K, 0).roll(1, 1), ids.reshape(-1)).view(-1, K, H)
    return (y * w[..., None]).sum(1)


def one_expert_that_differs(m, x):
    w, ids = m.choose(x)
    y = m.gathered(x.repeat_interleave(K, 0), ids.reshape(-1)).view(-1, K, H)
    return (torch.where((ids == 3)[..., None], 2 * y, y) * w[..., None]).sum(1)


class _With:
    """A block with other choices."""

    def __init__(self, block, w, ids):
        self.choice, self.gathered, self.batched = (w, ids), block.gathered, block.batched

    def choose(self, _):
        return self.choice


@pytest.mark.parametrize("combine, dispatches", [
    (weights_of_the_other_choice, 1), (squared_weights, 0), (rows_of_a_neighbour, 0),
    (experts_in_another_order, 0), (last_products_of_another, 0), (bent_after_the_weights, 0),
    (shifted_columns, 0), (one_expert_that_differs, 0)],
    ids=lambda v: getattr(v, "__name__", None))
def test_near_misses(combine, dispatches):
    """Whatever is found, the result is that of the block."""
    assert run(combine) == dispatches


def limited(m, x):
    """Limits that no number of a small row reaches."""
    def gathered(rows, ids):
        rows = rows.unsqueeze(1)
        gate = torch.bmm(rows, m.gate[ids].mT).clamp(max=7.0)
        up = torch.bmm(rows, m.up[ids].mT).clamp(-7.0, 7.0)
        return torch.bmm(silu(gate) * (up + 1), m.down[ids].mT).squeeze(1)

    block = _With(m, *m.choose(x))
    block.gathered = gathered
    return keys_of_choices(block, x)


def without_outliers(m, x):
    def gathered(rows, ids):
        rows = rows.unsqueeze(1)
        up = torch.bmm(rows, m.up[ids].mT)
        return torch.bmm(torch.where(up > 7.0, 0.0, up), m.down[ids].mT).squeeze(1)

    block = _With(m, *m.choose(x))
    block.gathered = gathered
    return keys_of_choices(block, x)


def a_large_capacity(m, x):
    return places_below_a_capacity(m, x, 100)


@pytest.mark.parametrize("combine, dispatches, tokens, scale", [
    (limited, 1, 30, 100.0), (without_outliers, 0, 30, 100.0), (a_large_capacity, 1, 700, 1.0)],
    ids=lambda v: getattr(v, "__name__", None))
def test_what_small_rows_do_not_show(combine, dispatches, tokens, scale):
    block = Block(combine).eval()
    for parameter in (block.gate, block.up, block.down):
        parameter.data *= 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = moe.from_torch(block, example=torch.zeros(13, H))
        layer = imported.layer()
    assert imported.mlir.count("moe.dispatch") == dispatches
    x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(1)) * scale
    with torch.no_grad():
        expected = block(x)
    actual = torch.as_tensor(layer(x))
    assert torch.allclose(actual, expected, rtol=0, atol=float(expected.abs().max()) * 1e-5)


def flipped_masks(m, x):
    w, ids = (part.flip(1) for part in m.choose(x))
    out = torch.zeros_like(x)
    for e in range(E):
        token, slot = torch.where(ids == e)
        hidden = silu(x[token] @ m.gate[e].t()) * (x[token] @ m.up[e].t())
        out = out.index_add(0, token, (hidden @ m.down[e].t()) * w[token, slot][:, None])
    return out


def test_counts_of_rows_in_a_program_of_one_number_of_tokens():
    """Sizes that are read from values are no multiples of a fixed number of tokens."""
    block = Block(flipped_masks).eval()
    program = torch.export.export(block, (torch.zeros(13, H),), strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = moe.from_torch(program)
        assert imported.reason is not None
        x = torch.randn(13, H)
        with torch.no_grad():
            assert torch.equal(torch.as_tensor(imported.layer()(x)), block(x))
