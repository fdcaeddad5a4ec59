"""``moe.from_torch(...).trainable(group=...)``: training over processes is that of one."""

from __future__ import annotations

import copy

import moe
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import processes, ranks  # noqa: E402
from moe_testing.models.hf import MODELS  # noqa: E402

TOKENS, STEPS = 31, 4
COUNTS = {2: [19, 12], 3: [14, 0, 17]}


def block_and_rows(family: str):
    model = MODELS[family]()
    block = model.block(model.model).eval()
    for parameter in block.parameters():
        parameter.requires_grad_(True)
    x = model.rows_away_from_ties(TOKENS, torch.float32)
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return copy.deepcopy(block), x, target


def train(layer, x, target) -> dict[str, list]:
    """The losses, the first result and gradients, and the weights at the end."""
    # A fused step writes without counting it.
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.5,
                                fused=True)
    found: dict[str, list] = {"loss": []}
    for step in range(STEPS):
        rows = x.clone().requires_grad_(True)
        y = layer(rows)
        y = y[0] if isinstance(y, tuple) else y
        loss = ((y - target) ** 2).sum() / (TOKENS * x.shape[-1])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            found["y"], found["rows"] = y.detach().numpy(), rows.grad.numpy()
            found["gradients"] = {n: p.grad.numpy().copy() for n, p in layer.named_parameters()}
        optimizer.step()
        found["loss"].append(loss.item())
    with torch.no_grad():
        found["last"] = layer(x).numpy() if not isinstance(layer(x), tuple) else None
    found["weights"] = {n: p.detach().numpy() for n, p in layer.named_parameters()}
    return found


def on_rank(group, family: str, counts: list[int], table=None):
    import torch.distributed as dist

    torch.set_num_threads(1)
    block, x, target = block_and_rows(family)
    layer = moe.from_torch(block).trainable(group=group, table=table)
    begin = sum(counts[:dist.get_rank(group)])
    end = begin + counts[dist.get_rank(group)]
    return layer.own_experts, train(layer, x[begin:end], target[begin:end])


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and (np.ascontiguousarray(a).view(np.uint8)
                                   == np.ascontiguousarray(b).view(np.uint8)).all()


@pytest.mark.parametrize("family, size", (("mixtral", 2), ("deepseek_v3", 3)))
def test_training(family, size):
    block, x, target = block_and_rows(family)
    imported = moe.from_torch(block)
    of_python = train(copy.deepcopy(block), x[None], target[None])
    one = train(imported.trainable(), x, target)
    assert of_python["loss"][-1] < 0.9 * of_python["loss"][0]
    np.testing.assert_allclose(one["loss"], of_python["loss"], rtol=1e-4)

    table, experts = None, None
    if family == "mixtral":  # in another order
        experts = next(w.shape[0] for n, w in imported.weights.items() if "down" in n)
        table = np.arange(experts, dtype=np.int32).reshape(-1, size).T[::-1]
    found = processes.run(size, on_rank, family, COUNTS[size], table, limit=300)
    results = [each for _, each in found]

    # The first step has the bits of one rank, but for what is summed over all tokens.
    for name in ("y", "rows"):
        assert same_bits(np.concatenate([each[name] for each in results]), one[name]), name
    for name, whole in one["gradients"].items():
        parts = [each["gradients"][name] for each in results]
        if parts[0].shape == whole.shape:
            assert all(same_bits(part, parts[0]) for part in parts), name
            np.testing.assert_allclose(parts[0], whole, rtol=0, atol=2e-6 * np.abs(whole).max())
        else:
            for (own, _), part in zip(found, parts, strict=True):
                assert same_bits(part, whole[own]), name
    # So do later ones, nearly: weights follow the optimizer.
    np.testing.assert_allclose(np.sum([each["loss"] for each in results], axis=0), one["loss"],
                               rtol=1e-5)
    for name, whole in one["weights"].items():
        for own, each in found:
            part = each["weights"][name]
            np.testing.assert_allclose(part, whole if part.shape == whole.shape else whole[own],
                                       rtol=0, atol=1e-5 * np.abs(whole).max(), err_msg=name)
    np.testing.assert_allclose(np.concatenate([each["last"] for each in results]), one["last"],
                               rtol=0, atol=1e-5 * np.abs(one["last"]).max())


def on_same_tokens(group, family: str):
    torch.set_num_threads(1)
    block, x, target = block_and_rows(family)
    layer = moe.from_torch(block).trainable(group=group, tokens="replicated")
    return layer.own_experts, train(layer, x, target)


def test_same_tokens():
    """Ranks with the same tokens, as attention in tensor parallelism has them, are each trained as
    one rank is."""
    block, x, target = block_and_rows("mixtral")
    one = train(moe.from_torch(block).trainable(), x, target)
    for own, each in processes.run(2, on_same_tokens, "mixtral", limit=300):
        for name in ("y", "rows"):
            assert same_bits(each[name], one[name]), name
        for name, whole in one["gradients"].items():
            part = each["gradients"][name]
            if part.shape == whole.shape:  # a sum over all tokens
                np.testing.assert_allclose(part, whole, rtol=0, atol=2e-6 * np.abs(whole).max())
            else:
                assert same_bits(part, whole[own]), name
        np.testing.assert_allclose(each["loss"], one["loss"], rtol=1e-5)


def test_tokens_are_those_of_the_group():
    """A group that was made before has the one or the other; gradients would be other ones."""
    imported = moe.from_torch(block_and_rows("mixtral")[0])

    def on_rank(communicator):
        for tokens, other in (("sharded", "replicated"), ("replicated", "sharded")):
            group = moe.parallel.Group(communicator, num_threads=1, tokens=tokens)
            with pytest.raises(moe.MoEError, match=f"tokens is '{other}', and the group has "
                                                   f"'{tokens}' tokens") as caught:
                imported.trainable(group=group, tokens=other)
            assert caught.value.code == moe.INVALID_ARGUMENT
            assert imported.trainable(group=group).ranks.tokens == tokens

    ranks.run(2, on_rank)


def test_layer():
    """Without gradients, on threads."""
    block, x, _ = block_and_rows("mixtral")
    imported = moe.from_torch(block)

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1)
        return imported.layer(group=group)((x[:5], x[5:])[group.rank])

    assert torch.equal(torch.cat(ranks.run(2, on_rank)), imported.layer()(x))


def test_threads():
    """Gradients of the rank, which are the caller's to add up."""
    block, x, _ = block_and_rows("mixtral")
    imported = moe.from_torch(block)

    def on_rank(communicator):
        layer = imported.trainable(group=communicator, num_threads=1)
        layer((x[:5], x[5:])[layer.ranks.rank]).square().sum().backward()
        return next(p.grad for n, p in layer.named_parameters() if "gate" in n)

    one = imported.trainable()
    one(x).square().sum().backward()
    whole = next(p.grad for n, p in one.named_parameters() if "gate" in n)
    torch.testing.assert_close(sum(ranks.run(2, on_rank)), whole, rtol=1e-4, atol=1e-5)


def refused(group, family: str):
    """A table with copies, and a rank whose weights cannot be taken."""
    block, x, _ = block_and_rows(family)
    imported = moe.from_torch(block)
    experts = next(w.shape[0] for n, w in imported.weights.items() if "down" in n)
    table = np.stack([np.arange(experts)] * 2).astype(np.int32)
    with pytest.raises(moe.MoEError, match="expected each of the [0-9]+ experts on one rank"):
        imported.trainable(group=group, table=table)
    layer = imported.trainable(group=group)
    first = layer(x).detach()
    weight = next(p for n, p in layer.named_parameters() if "down" in n)
    other = weight.data
    if layer.ranks.rank == 1:
        weight.data = other[:, :-1]
    with pytest.raises(moe.MoEError, match="expected|rank 1 failed"):
        layer(x)
    # Other weights than before the error.
    weight.data = 2 * other
    layer.ranks.check()
    assert torch.equal(layer(x), 2 * first)
    # What is no tensor is an error of all ranks, too.
    with pytest.raises(moe.MoEError, match="got ndarray|rank 1 failed"):
        layer(x.numpy() if layer.ranks.rank == 1 else x)
    layer.ranks.check()
    assert torch.equal(layer(x), 2 * first)
    return True


def test_refused():
    assert processes.run(2, refused, "mixtral") == [True, True]
