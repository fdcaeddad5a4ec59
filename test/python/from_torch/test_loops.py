"""Loops over experts in a block: one dispatch, or an error, never wrong."""

from __future__ import annotations

import pytest

import moe

torch = pytest.importorskip("torch")

from moe_testing import data  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
H, I, E, K = 32, 24, 6, 2
one_hot = torch.nn.functional.one_hot


class Expert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = torch.nn.Linear(H, I, bias=False), torch.nn.Linear(H, I)
        self.down = torch.nn.Linear(I, H)

    def forward(self, x):
        return self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x))


class Block(torch.nn.Module):
    """``loop`` adds what the experts compute of rows, by weights and ids."""

    def __init__(self, loop, top_k=K):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.router = torch.nn.Linear(H, E, bias=False)
        self.parts = torch.nn.ModuleList(Expert() for _ in range(E))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=draw) / p.shape[-1] ** 0.5)
        self.loop, self.top_k = loop, top_k

    def forward(self, x):
        scores = self.router(x).softmax(-1)
        if self.top_k is None:
            weights, ids = scores.max(-1)
        else:
            weights, ids = scores.topk(self.top_k, -1)
        return self.loop(self, x, weights, ids)


def where(m, x, w, ids):
    """As the code of Mixtral's authors."""
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        out[token] += w[token, choice, None] * expert(x[token])
    return out


def guarded(m, x, w, ids):
    """An expert without tokens is skipped."""
    out = torch.zeros_like(x)
    for i in range(E):
        mask = ids == i
        if not mask.any():
            continue
        token, choice = mask.nonzero(as_tuple=True)
        out.index_add_(0, token, m.parts[i](x[token]) * w[token, choice].unsqueeze(-1))
    return out


def mask_of_choices(m, x, w, ids):
    """As transformers had it."""
    out, mask = torch.zeros_like(x), one_hot(ids, E).permute(2, 1, 0)
    for i in range(E):
        choice, token = torch.where(mask[i])
        rows = x[None, token].reshape(-1, H)
        out.index_add_(0, token, (m.parts[i](rows) * w[token, choice, None]).to(x.dtype))
    return out


def out_of_place(m, x, w, ids):
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        y = expert(x[token]) * w[token, choice, None]
        out = out.index_add(0, token, y)
    return out


def put_among_zeros(m, x, w, ids):
    """A token is there once for each expert."""
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        token = torch.where((ids == i).sum(-1) > 0)[0]
        y = expert(x[token]) * (w * (ids == i)).sum(-1)[token, None]
        out = out + torch.zeros_like(x).scatter(0, token[:, None].expand_as(y), y)
    return out


def copied(m, x, w, ids):
    """Rows of all choices."""
    rows, flat = x.repeat_interleave(w.shape[1], 0), ids.flatten()
    y = torch.empty_like(rows)
    for i, expert in enumerate(m.parts):
        place = torch.where(flat == i)[0]
        y = y.index_copy(0, place, expert(rows[place]))
    return (y.view(*w.shape, -1) * w.unsqueeze(-1)).sum(1)


def selected(m, x, w, ids):
    rows, flat = x.repeat_interleave(w.shape[1], 0), ids.flatten()
    y = torch.zeros_like(rows)
    for i, expert in enumerate(m.parts):
        y = torch.where((flat == i)[:, None], expert(rows), y)
    return (y.view(*w.shape, -1) * w.unsqueeze(-1)).sum(1)


def added_where(m, x, w, ids):
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        mask = ids == i
        weight = (w * mask).sum(-1, keepdim=True)
        out = torch.where(mask.any(-1, keepdim=True), out + weight * expert(x), out)
    return out


def best(m, x, w, ids):
    """One expert for each token, by masks."""
    out = torch.zeros_like(x)
    for i in range(E):
        mask = ids == i
        out[mask] = m.parts[i](x[mask]) * w[mask].unsqueeze(-1)
    return out


def compare(block, dtype=torch.float32, limit=F32):
    block = block.to(dtype).eval()
    imported = moe.from_torch(block, example=torch.zeros(4, H, dtype=dtype))
    layer = imported.layer()
    for tokens in (33, 1):
        x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(3)).to(dtype)
        with torch.no_grad():
            expected = block(x).float()
        assert data.relative_error(layer(x).float().numpy(), expected.numpy()) < limit
    return imported


@pytest.mark.parametrize("loop, top_k", [(where, K), (guarded, K), (mask_of_choices, K),
                                         (out_of_place, K), (put_among_zeros, K), (copied, K),
                                         (selected, K), (added_where, K),
                                         (best, None)], ids=lambda v: getattr(v, "__name__", ""))
def test_loops(loop, top_k):
    imported = compare(Block(loop, top_k))
    assert imported.mlir.count("moe.dispatch") == 1
    assert imported.weights["parts.*.down.weight"].shape == (E, H, I)


class Called(torch.nn.Module):
    """A loop in a module called experts."""

    class Experts(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.parts, self.loop = block.parts, block.loop

        def forward(self, x, ids, w):
            return self.loop(self, x, w, ids)

    def __init__(self, loop):
        super().__init__()
        block = Block(loop)
        self.router, self.experts = block.router, self.Experts(block)

    def forward(self, x):
        weights, ids = self.router(x).softmax(-1).topk(K, -1)
        return self.experts(x, ids, weights)


@pytest.mark.parametrize("loop", [out_of_place, copied, selected, added_where],
                         ids=lambda f: f.__name__)
def test_loops_of_modules(loop):
    """What cannot be read of one call is read in the graph."""
    assert compare(Called(loop)).mlir.count("moe.dispatch") == 1


def test_rounding():
    """Weights of f32 in a model of bf16: results are rounded after they are weighted."""

    def loop(m, x, w, ids):
        return mask_of_choices(m, x, w.float(), ids)

    assert compare(Block(loop), torch.bfloat16, 8 * 2.0**-9).mlir.count("moe.dispatch") == 1


def weights_of_others(m, x, w, ids):
    """Of the first choice, whichever it was."""
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        out[token] += w[token, choice * 0, None] * expert(x[token])
    return out


def last_wins(m, x, w, ids):
    """Results replace one another."""
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        out[token] = w[token, choice, None] * expert(x[token])
    return out


def without_one(m, x, w, ids):
    out = torch.zeros_like(x)
    for i in range(1, E):
        token, choice = torch.where(ids == i)
        out[token] += w[token, choice, None] * m.parts[i](x[token])
    return out


def not_from_zero(m, x, w, ids):
    out = torch.ones_like(x)
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        out.index_add_(0, token, w[token, choice, None] * expert(x[token]))
    return out


def rows_of_the_sum(m, x, w, ids):
    """Each expert sees what others added."""
    out = x * 1
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        out[token] += w[token, choice, None] * expert(out[token])
    return out


def others_of_the_mask(m, x, w, ids):
    """Tokens and choices are swapped."""
    out, mask = torch.zeros_like(x), one_hot(ids, E).permute(2, 0, 1)
    for i in range(E):
        choice, token = torch.where(mask[i])
        token = token.clamp(max=x.shape[0] - 1)
        out.index_add_(0, token, m.parts[i](x[token]) * w[token, choice.clamp(max=1), None])
    return out


def different(m, x, w, ids):
    """One expert computes something else."""
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        token, choice = torch.where(ids == i)
        y = expert(x[token])
        out[token] += w[token, choice, None] * (torch.relu(y) if i == 3 else y)
    return out


def selected_of_the_sum(m, x, w, ids):
    """Each expert sees what others left."""
    rows, flat = x.repeat_interleave(w.shape[1], 0), ids.flatten()
    y = torch.zeros_like(rows)
    for i, expert in enumerate(m.parts):
        y = torch.where((flat == i)[:, None], expert(rows + y), y)
    return (y.view(*w.shape, -1) * w.unsqueeze(-1)).sum(1)


def added_where_another(m, x, w, ids):
    """Masked by the next expert."""
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.parts):
        weight = (w * (ids == i)).sum(-1, keepdim=True)
        mask = (ids == (i + 1) % E).any(-1, keepdim=True)
        out = torch.where(mask, out + weight * expert(x), out)
    return out


def put_of_two(m, x, w, ids):
    """Two experts share what they are put into."""
    out = torch.zeros_like(x)
    for i in range(0, E, 2):
        both = torch.zeros_like(x)
        for j in (i, i + 1):
            token, choice = torch.where(ids == j)
            y = m.parts[j](x[token]) * w[token, choice, None]
            both = both.scatter(0, token[:, None].expand_as(y), y)
        out = out + both
    return out


def branch_that_matters(m, x, w, ids):
    if (x > 100).any():
        x = x * 2
    return where(m, x, w, ids)


@pytest.mark.parametrize("loop", [
    weights_of_others, last_wins, without_one, not_from_zero, rows_of_the_sum, others_of_the_mask,
    different, branch_that_matters, selected_of_the_sum, added_where_another, put_of_two],
    ids=lambda f: f.__name__)
def test_near_misses(loop):
    try:
        compare(Block(loop))
    except moe.MoEError as error:
        assert error.code == moe.UNIMPLEMENTED


@pytest.mark.parametrize("loop, reason", [
    (weights_of_others, "is no function of their rows and weights"),
    (last_wins, "results of the choices of a token replace one another"),
    (without_one, "a sum over experts lacks expert 0"),
    (not_from_zero, "a sum over experts does not begin with zeros"),
    (branch_that_matters, r"depend on the values of a tensor at test_loops\.py:\d+;")],
    ids=lambda v: getattr(v, "__name__", ""))
def test_reasons(loop, reason):
    """What stands in the way, and where."""
    with pytest.warns(UserWarning, match=reason):
        moe.from_torch(Block(loop).eval(), example=torch.zeros(4, H))
