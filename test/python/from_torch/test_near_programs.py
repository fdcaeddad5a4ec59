"""Exported programs that look like sorted choices, or like a loop, and are something else."""

from __future__ import annotations

import warnings

import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data  # noqa: E402
from moe_testing.models.exported import export  # noqa: E402
from moe_testing.models.hf import H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
E, I = 4, 24


class Sorted(torch.nn.Module):
    """One choice of each token; ``function`` gets rows sorted by expert, weights and products."""

    def __init__(self, function, bias=0.0):
        super().__init__()
        draw = torch.Generator().manual_seed(11)

        def weight(*shape):
            return torch.nn.Parameter(torch.randn(shape, generator=draw) / shape[-1] ** 0.5)

        self.router, self.up, self.down = weight(E, H), weight(E, I, H), weight(E, H, I)
        self.function, self.bias = function, bias

    def forward(self, x):
        weights, ids = torch.softmax(x @ self.router.T, -1).topk(1, -1)
        order = ids.reshape(-1).argsort(stable=True)
        counts = torch.histc(ids.reshape(-1).float(), E, 0, E - 1)
        ends = counts.cumsum(0).to(torch.int32)
        grouped = torch.ops.transformers.grouped_mm_fallback

        def expert(rows):
            return grouped(torch.relu(grouped(rows, self.up.mT, ends)), self.down.mT, ends)

        tokens = order // ids.shape[1]
        y = self.function(x, tokens, weights.reshape(-1)[order].unsqueeze(-1), expert)
        return torch.zeros_like(x).index_add(0, tokens, y)


class Loop(Sorted):
    """``function`` gets the tokens of an expert, their weights, and what it makes of rows."""

    def forward(self, x):
        weights, ids = (x @ self.router.T + self.bias).topk(2, -1)
        weights = weights / 7
        matrix = torch.zeros(x.shape[0], E).scatter(1, ids, weights)
        out = torch.zeros_like(x)
        for e in range(E):
            def expert(rows, e=e):
                return torch.relu(rows @ self.up[e].T) @ self.down[e].T
            out = self.function(x, out, matrix[:, e], ids == e, weights, expert)
        return out


def rounded(x, out, column, hits, weights, expert):
    token, choice = torch.where(hits)
    scale = weights[token, choice, None].to(torch.int64).to(x.dtype)
    return out.index_add(0, token, expert(x[token]) * scale)


def multiplied(x, out, column, hits, weights, expert):
    token, choice = torch.where(hits)
    y = expert(x[token]) * weights[token, choice, None]
    return out + torch.zeros_like(x).scatter(
        0, token[:, None].expand(-1, H), y, reduce="multiply")


def positive(x, out, column, hits, weights, expert):
    token = torch.where(column > 0)[0]
    return out.index_add(0, token, expert(x[token]) * column[token, None])


def twice(x, at, w, expert):
    one, other = x[at], x[at]
    return expert(one * w) + other


BLOCKS = {
    "rows that are gathered twice": Sorted(twice),
    "a mean of all rows": Sorted(
        lambda x, at, w, expert: expert(x[at] - x[at].mean(0, keepdim=True)) * w),
    "rounded weights": Loop(rounded), "a product with zeros": Loop(multiplied),
    "weights below 0": Loop(positive, bias=20.0),
}


@pytest.mark.parametrize("name", list(BLOCKS))
def test_near_misses(name):
    import transformers.integrations.moe  # noqa: F401  (registers the grouped product)

    block = BLOCKS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = moe.from_torch(export(block)).layer()
    x = 40 * torch.randn(33, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert data.relative_error(layer(x).numpy(), block(x).numpy()) < F32


def any_choice(x, out, column, hits, weights, expert):
    token = torch.where(hits.any(-1))[0]
    scale = (weights * hits).sum(-1)[token, None]
    return out.index_add(0, token, expert(x[token]) * scale)


def test_program_of_few_rows():
    """It takes fewer rows than it is compared with."""
    block = Loop(any_choice).eval()
    program = torch.export.export(block, (torch.randn(7, H),), dynamic_shapes=(
        {0: torch.export.Dim("tokens", min=2, max=16)},))
    imported = moe.from_torch(program)
    assert imported.mlir.count("moe.dispatch") == 1
    x = torch.randn(9, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


def logarithm(x, out, column, hits, weights, expert):
    token, choice = torch.where(hits)
    return out.index_add(0, token, torch.log2(expert(x[token]) - 1) * weights[token, choice, None])


def test_experts_of_nan():
    layer = moe.from_torch(export(block := Loop(logarithm))).layer()
    x = torch.randn(9, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), block(x), equal_nan=True)
