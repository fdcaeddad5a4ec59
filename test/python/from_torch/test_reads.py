"""Experts of public code that read counts, or select tokens by masks: one dispatch. What looks
alike and is another function runs in Python, with a warning, and is right."""

from __future__ import annotations

import warnings

import pytest

import moe

torch = pytest.importorskip("torch")

from moe_testing import data  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
H, I, E, K = 32, 24, 4, 2
F = torch.nn.functional


class Expert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(H, I, bias=False), torch.nn.Linear(I, H)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Block(torch.nn.Module):
    """``loop`` adds what the experts compute of rows, by weights and ids."""

    def __init__(self, loop, top_k=K):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.router = torch.nn.Linear(H, E, bias=False)
        self.experts = torch.nn.ModuleList(Expert() for _ in range(E))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=draw) / p.shape[-1] ** 0.5)
        self.loop, self.top_k = loop, top_k

    def forward(self, x):
        scores = self.router(x).softmax(-1)
        weights, ids = scores.max(-1) if self.top_k is None else scores.topk(self.top_k, -1)
        return self.loop(self, x, weights, ids)


def unsorted(y, order, w):
    out = torch.empty_like(y)
    out[order] = y
    return (out.view(*w.shape, H) * w.unsqueeze(-1)).sum(1)


def numpy_counts(m, x, w, ids):
    """As DeepSeek-V2's remote code."""
    counts = ids.new_zeros((ids.shape[0], E))
    counts.scatter_(1, ids, 1)
    order = ids.view(-1).argsort()
    rows, parts, start = x[order // ids.shape[1]], [], 0
    for i, n in enumerate(counts.sum(dim=0).cpu().numpy()):
        end = start + n
        if n == 0:
            continue
        parts.append(m.experts[i](rows[start:end]))
        start = end
    return unsorted(torch.cat(parts), order, w)


def numpy_ends(m, x, w, ids):
    """As DeepSeekMoE's remote code: without a number of bins."""
    out, flat, scale = torch.zeros_like(x), ids.view(-1), w.view(-1, 1)
    order = flat.argsort()
    ends, tokens = flat.bincount().cpu().numpy().cumsum(0), order // K
    for i, end in enumerate(ends):
        start = 0 if i == 0 else ends[i - 1]
        if start == end:
            continue
        at = tokens[start:end]
        y = m.experts[i](x[at])
        y.mul_(scale[order[start:end]])
        out.scatter_reduce_(0, at.view(-1, 1).repeat(1, H), y, reduce="sum")
    return out


def split(m, x, w, ids):
    flat = ids.flatten()
    order, counts = flat.argsort(), torch.bincount(flat, minlength=E).tolist()
    parts = x.repeat_interleave(K, 0)[order].split(counts)
    return unsorted(torch.cat([e(p) for e, p in zip(m.experts, parts)]), order, w)


def placed(m, x, w, ids):
    """Ends that are read one by one, and results that are written to slices."""
    sorted_ids, order = torch.sort(ids.flatten().int())
    ends = torch.cumsum(torch.histc(sorted_ids.float(), E, 0, E - 1).int(), 0)
    rows = x[order // K]
    out, start = torch.zeros_like(rows), 0
    for i in range(E):
        end = ends[i].item()
        out[start:end] = m.experts[i](rows[start:end])
        start = end
    return torch.zeros_like(x).index_add(0, order // K, out * w.flatten()[order][:, None])


def placed_best(m, x, w, ids):
    order, start = ids.argsort(), 0
    rows = x[order]
    out, y = torch.empty_like(rows), torch.empty_like(rows)
    for i, n in enumerate(torch.bincount(ids, minlength=E).tolist()):
        if n > 0:
            out[start:start + n] = m.experts[i](rows[start:start + n])
        start += n
    y[order] = out
    return y * w[:, None]


def slots(m, x, w, ids):
    """A loop for each choice, by masks."""
    out = torch.zeros_like(x)
    for k in range(K):
        for e in range(E):
            mask = ids[:, k] == e
            if mask.any():
                out[mask] += w[mask, k].unsqueeze(-1) * m.experts[e](x[mask])
    return out


def any_choice(m, x, w, ids):
    """As makeMoE: weights from a matrix of all experts."""
    out, matrix = torch.zeros_like(x), torch.zeros(x.shape[0], E).scatter(-1, ids, w)
    for e in range(E):
        mask = (ids == e).any(dim=-1)
        if mask.any():
            out[mask] += m.experts[e](x[mask]) * matrix[mask, e].unsqueeze(1)
    return out


def columns(m, x, w, ids):
    """Tokens that have a weight in a column."""
    out, matrix = torch.zeros_like(x), torch.zeros(x.shape[0], E).scatter(-1, ids, w)
    for e in range(E):
        at = torch.nonzero(matrix[:, e]).squeeze(-1)
        out = out.index_add(0, at, m.experts[e](x[at]) * matrix[at, e, None])
    return out


def hit(m, x, w, ids):
    """As transformers had it: the experts that have tokens."""
    out, mask = torch.zeros_like(x), F.one_hot(ids, E).permute(2, 1, 0)
    for e in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero():
        choice, token = torch.where(mask[e].squeeze(0))
        out.index_add_(0, token, m.experts[e](x[token]) * w[token, choice, None])
    return out


def unique(m, x, w, ids):
    out = torch.zeros_like(x)
    for e in torch.unique(ids).tolist():
        mask = ids == e
        at, scale = mask.any(-1).nonzero().squeeze(-1), (w * mask).sum(-1, keepdim=True)
        out.index_add_(0, at, m.experts[e](x[at]) * scale[at])
    return out


def lengths(m, x, w, ids):
    out = torch.zeros_like(x)
    for e in range(E):
        token, choice = (ids == e).nonzero(as_tuple=True)
        if token.numel() == 0 or len(token) == 0:
            continue
        out[token] += m.experts[e](x[token]) * w[token, choice, None]
    return out


def flat_masks(m, x, w, ids):
    """As DeepSeek's code for training."""
    rows, flat = x.repeat_interleave(K, dim=0), ids.view(-1)
    y = torch.empty_like(rows)
    for e, expert in enumerate(m.experts):
        y[flat == e] = expert(rows[flat == e])
    return (y.view(*w.shape, H) * w.unsqueeze(-1)).sum(dim=1)


def switch(m, x, w, ids):
    """Weights after the loop."""
    out = torch.zeros_like(x)
    for e in range(E):
        at = torch.where(ids == e)[0]
        if len(at) > 0:
            out[at] = m.experts[e](x[at])
    return out * w.unsqueeze(-1)


def away_from_ties(block, x):
    """The rows whose scores differ enough for their order to be certain in bf16."""
    with torch.no_grad():
        scores = block.router(x).float().softmax(-1).sort(-1).values
    return x[(scores.diff(dim=-1) > 2.0**-6).all(-1)]


def run(block, dtype=torch.float32, limit=F32):
    block = block.to(dtype).eval()
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        imported = moe.from_torch(block, example=torch.zeros(4, H, dtype=dtype))
    layer = imported.layer()
    for tokens in (65, 1, 0):
        x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(3)).to(dtype)
        x = away_from_ties(block, x) if dtype != torch.float32 else x
        y = layer(x).float().numpy()
        assert y.shape == x.shape
        if len(x):
            with torch.no_grad():
                assert data.relative_error(y, block(x).float().numpy()) < limit
    return imported, " ".join(str(m.message) for m in messages)


FORMS = [(f, K) for f in (numpy_counts, numpy_ends, split, placed, slots, any_choice, columns, hit,
                          unique, lengths, flat_masks)]


@pytest.mark.parametrize("loop, top_k", [*FORMS, (placed_best, None), (switch, None)],
                         ids=lambda v: getattr(v, "__name__", ""))
def test_forms(loop, top_k):
    imported, _ = run(Block(loop, top_k))
    assert imported.mlir.count("moe.dispatch") == 1
    assert imported.weights["experts.*.up.weight"].shape == (E, I, H)


@pytest.mark.parametrize("loop", [numpy_ends, slots])
def test_bf16(loop):
    imported, _ = run(Block(loop), torch.bfloat16, 8 * 2.0**-9)
    assert imported.mlir.count("moe.dispatch") == 1


def of_no_tokens(m, x, w, ids):
    """Experts without tokens matter."""
    out = torch.zeros_like(x)
    for e, n in enumerate(torch.bincount(ids.flatten(), minlength=E).tolist()):
        if n == 0:
            out = out + 1.0
            continue
        token, choice = torch.where(ids == e)
        out = out.index_add(0, token, m.experts[e](x[token]) * w[token, choice, None])
    return out


def other_experts(m, x, w, ids):
    """Each slice goes to the next expert."""
    flat = ids.flatten()
    order, counts = flat.argsort(), torch.bincount(flat, minlength=E).tolist()
    parts = x[order // K].split(counts)
    y = torch.cat([m.experts[(i + 1) % E](p) for i, p in enumerate(parts)])
    return unsorted(y, order, w)


def other_order(m, x, w, ids):
    flat = ids.flatten()
    order, counts = flat.argsort(), torch.bincount(flat, minlength=E).tolist()
    y = torch.cat([e(p) for e, p in zip(m.experts, x[order // K].split(counts))])
    return unsorted(y, order.flip(0), w)


def slots_differ(m, x, w, ids):
    """The second choice has another function at one expert."""
    out = torch.zeros_like(x)
    for k in range(K):
        for e in range(E):
            mask = ids[:, k] == e
            y = m.experts[0 if k and e == 3 else e](x[mask])
            out[mask] += w[mask, k].unsqueeze(-1) * y
    return out


def swapped_weights(m, x, w, ids):
    return slots(m, x, w.flip(1), ids)


def in_place(m, x, w, ids):
    """An expert sees what another wrote."""
    out = x.clone()
    for e in range(E):
        mask = ids[:, 0] == e
        out[mask] = out[mask] + w[mask, 0].unsqueeze(-1) * m.experts[e](out[mask])
    return out


def capacity(m, x, w, ids):
    """Never reached by few rows."""
    out = torch.zeros_like(x)
    for e in range(E):
        token, choice = torch.where(ids == e)
        if len(token) > 5000:
            token, choice = token[:5000], choice[:5000]
        out.index_add_(0, token, m.experts[e](x[token]) * w[token, choice, None])
    return out


def threshold(m, x, w, ids):
    out = torch.zeros_like(x)
    for e in range(E):
        token, choice = torch.where(ids == e)
        if token.numel() > 2:
            out.index_add_(0, token, m.experts[e](x[token]) * w[token, choice, None])
    return out


def most(m, x, w, ids):
    """The largest count matters."""
    if max(torch.bincount(ids.flatten(), minlength=E).tolist()) > x.shape[0] // 2:
        w = w * 2
    return lengths(m, x, w, ids)


def sign(m, x, w, ids):
    """Random rows always have an element above 0."""
    return lengths(m, x, w, ids) if (x > 0).any() else x


NEAR_MISSES = [of_no_tokens, other_experts, other_order, slots_differ, in_place, capacity,
               threshold, most, sign]


@pytest.mark.parametrize("loop", [*NEAR_MISSES, swapped_weights], ids=lambda f: f.__name__)
def test_near_misses(loop):
    imported, messages = run(Block(loop))
    if loop not in (other_experts, swapped_weights):
        assert imported.reason is not None and "Block runs in Python" in messages
    if loop is sign:
        assert torch.equal(imported.layer()(-torch.ones(3, H)), -torch.ones(3, H))


def test_a_block_that_counts_its_calls():
    class Counts(Block):
        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x) * self.calls

    with pytest.warns(UserWarning, match="Counts computes something else in each call"):
        moe.from_torch(Counts(lengths).eval())
