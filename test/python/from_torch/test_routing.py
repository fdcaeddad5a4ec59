"""Exported programs that sort their choices by expert: one dispatch, or an error, never wrong."""

from __future__ import annotations

import subprocess

import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data  # noqa: E402
from moe_testing.models.exported import Rows, export  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
E, I, K = 8, 24, 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "deepseek_v3", "granitemoe"])
@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
def test_experts_of_transformers(implementation, family, dtype, record):
    """Biases, weights in the other layout, gates of their own and shared experts."""
    made = MODELS[family]()
    made.model.to(dtype)
    block = made.block(made.model)
    for module in made.model.modules():
        if hasattr(module, "config"):
            module.config._experts_implementation = implementation
    imported = moe.from_torch(export(Rows(block), dtype))
    assert imported.mlir.count("moe.dispatch") == 1 and "batch_matmul" not in imported.mlir
    x = made.rows_away_from_ties(33, dtype)
    error = data.relative_error(imported.layer()(x).float().numpy(), made.run(x).float().numpy())
    record(f"{implementation} {family} {dtype}", error)
    assert error < (F32 if dtype == torch.float32 else 8 * 2.0**-9)


class Grouped(torch.nn.Module):
    """Experts as others write them. Each step may be replaced, to be another function."""

    def __init__(self, **steps):
        super().__init__()
        draw = torch.Generator().manual_seed(7)

        def weight(*shape):
            return torch.nn.Parameter(torch.randn(shape, generator=draw) / shape[-1] ** 0.5)

        self.router, self.up, self.down = weight(E, H), weight(E, I, H), weight(E, H, I)
        self.shared = weight(H, H)
        self.steps = steps

    def step(self, name, default, *arguments):
        return self.steps.get(name, default)(*arguments)

    def forward(self, x):
        weights, ids = torch.softmax(x @ self.router.T, -1).topk(K)
        flat = ids.flatten()
        order = self.step("sort", lambda flat: torch.argsort(flat, stable=True), flat)
        tokens = self.step("tokens", lambda order: order // K, order)
        counts = self.step("counts", lambda flat: torch.histc(flat.float(), E, 0, E), flat)
        ends = self.step("ends", lambda counts: torch.cumsum(counts, 0, dtype=torch.int32), counts)
        rows = self.step("rows", lambda x, tokens: x[tokens], x, tokens)
        h = torch.nn.functional.gelu(grouped(rows, self.up.transpose(1, 2), ends))
        y = grouped(h, self.down.transpose(1, 2), ends)
        y = self.step("weigh", lambda y, w, order: y * w.flatten()[order].unsqueeze(-1), y,
                      weights, order)
        return self.step("combine", lambda x, y, tokens, order: torch.zeros_like(x).index_add(
            0, tokens, y), x, y, tokens, order)


def grouped(rows, weight, ends):
    return torch.ops.transformers.grouped_mm_fallback(rows, weight, ends)


def places(tokens):
    return tokens.reshape(-1, 1).expand(-1, H)


def inverse(order):
    return torch.empty_like(order).scatter(0, order, torch.arange(order.shape[0]))


def by_inverse(x, y, tokens, order):
    return y[inverse(order)].view(x.shape[0], K, H).sum(1)


FORMS = {
    "index_add": {},
    "sorted ids": dict(sort=lambda flat: flat.sort()[1]),
    "histogram up to E - 1": dict(counts=lambda flat: torch.histc(flat.float(), E, 0, E - 1)),
    "floor division": dict(tokens=lambda order: torch.div(order, K, rounding_mode="floor")),
    "gather": dict(rows=lambda x, tokens: torch.gather(x, 0, places(tokens))),
    "scatter_add": dict(combine=lambda x, y, tokens, _: torch.zeros_like(x).scatter_add(
        0, places(tokens), y)),
    "inverse permutation": dict(combine=by_inverse),
    "inverse by argsort": dict(combine=lambda x, y, t, order: y[order.argsort()].view(
        x.shape[0], K, H).sum(1)),
    "weights after the inverse": dict(
        weigh=lambda y, w, order: (y, w),
        combine=lambda x, y, t, order: (y[0][inverse(order)].view(x.shape[0], K, H)
                                        * y[1].unsqueeze(-1)).sum(1)),
    "added to another network": dict(combine=lambda x, y, tokens, _: torch.tanh(x).index_add(
        0, tokens, y)),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_forms(form, record):
    import transformers.integrations.moe  # noqa: F401  (registers the grouped product)

    block = Grouped(**FORMS[form])
    imported = moe.from_torch(export(block))
    assert imported.mlir.count("moe.dispatch") == 1
    x = torch.randn(33, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        error = data.relative_error(imported.layer()(x).numpy(), block(x).numpy())
    record(form, error)
    assert error < F32


class WeightedRows(Grouped):
    """Rows that are multiplied by their weights before the experts, as in Llama 4."""

    def __init__(self, top_k, square=False):
        super().__init__()
        self.top_k, self.square = top_k, square

    def forward(self, x):
        weights, ids = torch.sigmoid(x @ self.router.T).topk(self.top_k)
        order = torch.argsort(ids.flatten(), stable=True)
        tokens = order // self.top_k
        ends = torch.cumsum(torch.histc(ids.flatten().float(), E, 0, E), 0, dtype=torch.int32)
        chosen = weights.flatten()[order].unsqueeze(-1)
        rows = x[tokens] * chosen
        h = torch.nn.functional.gelu(grouped(rows, self.up.transpose(1, 2), ends))
        y = grouped(h, self.down.transpose(1, 2), ends)
        y = y * chosen if self.square else y
        return torch.zeros_like(x).index_add(0, tokens, y)


@pytest.mark.parametrize("top_k, square", [(1, False), (1, True), (2, False)])
def test_rows_that_are_weighted_before_the_experts(top_k, square, record):
    """One choice of a token is raised; more have no rows of the tokens, and run in Python."""
    import transformers.integrations.moe  # noqa: F401

    block = WeightedRows(top_k, square)
    imported = moe.from_torch(export(block))
    assert (imported.reason is None) == (top_k == 1)
    x = torch.randn(33, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        error = data.relative_error(imported.layer()(x).numpy(), block(x).numpy())
    record(f"{top_k} {square}", error)
    assert error < F32


NEAR_MISSES = {
    "descending": dict(sort=lambda flat: flat.argsort(descending=True)),
    "another number of choices": dict(tokens=lambda order: order // 4),
    "rounding up": dict(tokens=lambda order: torch.div(order, K, rounding_mode="trunc")),
    "sizes where ends are meant": dict(ends=lambda counts: counts.to(torch.int32)),
    "another histogram": dict(counts=lambda flat: torch.histc(flat.float(), E, 0, 2 * E)),
    "counts of something else": dict(
        counts=lambda flat: torch.histc((flat * 3 % E).float(), E, 0, E)),
    "weights that are not sorted": dict(weigh=lambda y, w, _: y * w.flatten().unsqueeze(-1)),
    "weights twice": dict(
        weigh=lambda y, w, order: y * w.flatten()[order].unsqueeze(-1)
        * w.flatten()[order].unsqueeze(-1)),
    "something after the weights": dict(
        weigh=lambda y, w, order: torch.relu(y * w.flatten()[order].unsqueeze(-1))),
    "no inverse": dict(combine=lambda x, y, *_: y.view(x.shape[0], K, H).sum(1)),
    "the permutation for its inverse": dict(
        combine=lambda x, y, t, order: y[order].view(x.shape[0], K, H).sum(1)),
    "an inverse of other places": dict(combine=lambda x, y, t, order: y[
        torch.empty_like(order).scatter(0, order, torch.arange(order.shape[0]).flip(0))].view(
            x.shape[0], K, H).sum(1)),
    "a sum over columns": dict(combine=lambda x, y, t, order: y[inverse(order)].view(
        x.shape[0], K, H).sum(1, keepdim=True).sum(1)[:, :1].expand(-1, H)),
    "twice the sum": dict(combine=lambda x, y, tokens, _: torch.zeros_like(x).index_add(
        0, tokens, y, alpha=2)),
    "rows at the places of choices": dict(combine=lambda x, y, tokens, order: torch.cat(
        [torch.zeros_like(x)] * K).index_add(0, order, y)[:x.shape[0]]),
}


@pytest.mark.parametrize("what", list(NEAR_MISSES))
def test_near_misses(what):
    """What looks alike and is another function is an error, or right."""
    import transformers.integrations.moe  # noqa: F401

    block = Grouped(**NEAR_MISSES[what])
    program = export(block)
    try:
        layer = moe.from_torch(program).layer()
    except moe.MoEError as error:
        assert error.code == moe.UNIMPLEMENTED
        return
    x = torch.randn(33, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert data.relative_error(layer(x).numpy(), block(x).numpy()) < F32


def test_the_router_is_raised_too():
    import transformers.integrations.moe  # noqa: F401

    text = moe.from_torch(export(Grouped())).mlir
    opt = moe.find_compiler().resolve().parent / "moe-opt"
    done = subprocess.run([opt, "--moe-raise-gate", "--canonicalize", "--cse"], input=text,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "score(none)" not in done.stdout and "moe.gate" in done.stdout
