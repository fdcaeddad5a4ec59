"""Loops over experts as the TorchScript exporter writes them: masks, places and sums in ONNX's
operators; against ONNX Runtime.

`./dev check onnx` runs this in an environment with these packages.
"""

from __future__ import annotations

import importlib.util
import io
import warnings

import pytest

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in (
        "onnx", "onnxruntime", "onnxscript", "torch", "transformers")),
        reason="onnx is not installed; ./dev check onnx installs it"),
    pytest.mark.usefixtures("compiled"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning")]

if importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxscript"):
    import moe
    import onnx
    import torch
    from engines.test_onnx import close, draw
    from engines.test_onnx_graphs import call, theirs

H, I, E, K = 32, 24, 3, 2


# -- all choices in a row: y has a row for each ---------------------------------------


def put(y, rows, at, expert):
    y[at] = expert(rows[at])
    return y


def copied(y, rows, at, expert):
    place = torch.where(at)[0]
    return y.index_copy(0, place, expert(rows[place]))


def added(y, rows, at, expert):
    place = torch.where(at)[0]
    return y.index_add(0, place, expert(rows[place]))


def selected(y, rows, at, expert):
    return torch.where(at[:, None], expert(rows), y)


def put_beside(y, rows, at, expert):
    """Rows of the next places."""
    y[at] = expert(rows[at.roll(1, 0)])
    return y


def selected_twice(y, rows, at, expert):
    """Each expert sees what others left."""
    return torch.where(at[:, None], expert(rows + y), y)


def flat(step, change=""):
    def block(m, x, w, ids):
        rows = x.repeat_interleave(K, 0)
        y = torch.zeros_like(rows)
        for i, expert in enumerate(m.experts):
            y = step(y, rows, ids.flatten() == i, expert)
        if change == "reversed":
            w = w.flip(1)
        return (y.view(*w.shape, -1) * w.unsqueeze(-1)).sum(1)
    return block


# -- tokens of each expert ------------------------------------------------------------


def mixtral(m, x, w, ids):
    """As transformers had it."""
    out = torch.zeros_like(x)
    mask = torch.nn.functional.one_hot(ids, E).permute(2, 1, 0)
    for i, expert in enumerate(m.experts):
        choice, token = torch.where(mask[i])
        rows = x[None, token].reshape(-1, H)
        out.index_add_(0, token, (expert(rows) * w[token, choice, None]).to(x.dtype))
    return out


def any_choice(m, x, w, ids):
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.experts):
        token = torch.where((ids == i).any(-1))[0]
        weight = (w * (ids == i)).sum(-1)[token]
        out = out.index_put((token,), expert(x[token]) * weight[:, None], accumulate=True)
    return out


def transposed_weights(m, x, w, ids):
    out = torch.zeros_like(x)
    mask = torch.nn.functional.one_hot(ids, E).permute(2, 1, 0)
    for i, expert in enumerate(m.experts):
        token = torch.where(mask[i])[1]
        weight = (mask[i].float() * w.t()).sum(0)[token, None]
        out = out.scatter_add(0, token[:, None].expand(-1, H), expert(x[token]) * weight)
    return out


def weights_of_the_other(m, x, w, ids):
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.experts):
        token, choice = torch.where(ids == i)
        out.index_add_(0, token, expert(x[token]) * w[token, 1 - choice, None])
    return out


def last_wins(m, x, w, ids):
    out = torch.zeros_like(x)
    for i, expert in enumerate(m.experts):
        token, choice = torch.where(ids == i)
        out = out.index_copy(0, token, expert(x[token]) * w[token, choice, None])
    return out


def one_twice(m, x, w, ids):
    out = torch.zeros_like(x)
    for i in (0, 1, 1):
        token, choice = torch.where(ids == i)
        out.index_add_(0, token, m.experts[i](x[token]) * w[token, choice, None])
    return out


def exported(block):
    class Expert(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = torch.nn.Linear(H, I), torch.nn.Linear(I, H, bias=False)

        def forward(self, x):
            return self.down(torch.nn.functional.silu(self.up(x)))

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.router = torch.nn.Linear(H, E, bias=False)
            self.experts = torch.nn.ModuleList(Expert() for _ in range(E))

        def forward(self, x):
            rows = x.view(-1, H)
            w, ids = torch.topk(self.router(rows).softmax(-1), K, -1)
            return block(self, rows, w / w.sum(-1, keepdim=True), ids).view(x.shape)

    torch.manual_seed(0)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Block().eval(), (torch.randn(1, 9, H),), file, dynamo=False,
                          input_names=["x"], output_names=["y"], opset_version=17,
                          dynamic_axes={"x": {0: "b", 1: "s"}, "y": {0: "b", 1: "s"}})
    return onnx.load_from_string(file.getvalue())


def compare(block):
    model = exported(block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = moe.from_onnx(model)
        layer = imported.layer()
    for tokens in (17, 1):
        x = draw(tokens, H, seed=tokens)[None]
        close(call(layer, x), theirs(model, x))
    return imported


@pytest.mark.parametrize("block", [
    flat(put), flat(copied), flat(added), flat(selected), mixtral, any_choice,
    transposed_weights], ids=["put", "copied", "added", "selected", "mixtral", "any choice",
                              "transposed weights"])
def test_loops(block):
    imported = compare(block)
    assert imported.mlir.count("= moe.dispatch ") == 1
    assert len(imported.weights) == 4


@pytest.mark.parametrize("block", [
    flat(put_beside), flat(selected_twice), flat(put, "reversed"), weights_of_the_other,
    last_wins, one_twice], ids=["rows beside", "rows of the sum", "reversed", "other weights",
                                "last wins", "one twice"])
def test_near_misses(block):
    """Right, whether they are experts or not."""
    imported = compare(block)
    if block is last_wins:
        assert "results of the choices of a token replace one another" in imported.reason
