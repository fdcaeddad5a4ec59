"""moe.pack, matmuls of packed weights, moe.gather_sum and moe.route written directly, compiled
for several processors and along the reference path, against numpy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases.grouped import (LHS_ROWS, PATHS, compiled_for, grid, guarded, normal,
                                       tensor)
from moe_testing.data import bits


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


# -- moe.pack and packed weights --------------------------------------------------

PACKS = [  # element, experts, k, n, matmuls, columns, depth, transposed
    ("f32", 3, 24, 40, 1, 16, 1, False), ("f32", 3, 24, 40, 1, 16, 1, True),
    ("f32", 2, 33, 37, 2, 32, 1, True), ("f32", 2, 33, 37, 2, 32, 1, False),
    ("bf16", 2, 33, 70, 1, 64, 2, False), ("bf16", 2, 33, 70, 1, 64, 2, True),
    ("bf16", 2, 64, 64, 2, 64, 2, True), ("f16", 2, 65, 48, 3, 48, 1, False),
    ("f16", 1, 1, 1, 1, 16, 1, False), ("bf16", 1, 5, 7, 2, 6, 3, False),
    ("f32", 2, 7, 10, 3, 15, 4, True)]


def packed(weights, columns: int, depth: int) -> np.ndarray:
    """[E, K, N] of each product as [E, panels, steps, columns, depth]."""
    share = columns // len(weights)
    parts = []
    for w in weights:
        w = np.pad(w, ((0, 0), (0, -w.shape[1] % depth), (0, -w.shape[2] % share)))
        experts, k, n = w.shape
        parts.append(w.reshape(experts, k // depth, depth, n // share, share).transpose(
            0, 3, 1, 4, 2))
    return np.ascontiguousarray(np.concatenate(parts, 3))


def pack_text(i: int) -> str:
    element, experts, k, n, matmuls, columns, depth, transposed = PACKS[i]
    share = columns // matmuls
    source = tensor((experts, n, k) if transposed else (experts, k, n), element)
    result = tensor((experts, -(-n // share), -(-k // depth), columns, depth), element)
    names = [f"%w{j}" for j in range(matmuls)]
    declared = ", ".join(f'{w}: {source} {{moe.name = "{w[1:]}"}}' for w in names)
    return f"""func.func @pack{i}(%x: tensor<?xf32>, {declared}) -> {result} {{
  %e = tensor.empty() : {result}
  %p = moe.pack {', '.join(names)}{' transposed' * transposed}
      panels(<matmuls = {matmuls}, columns = {columns}, depth = {depth}>)
      outs(%e : {result}) : {', '.join([source] * matmuls)} -> {result}
  return %p : {result}
}}
"""


def packed_product_text(i: int) -> str:
    element, experts, k, n, matmuls, columns, depth, _ = PACKS[i]
    share = columns // matmuls
    kind = tensor((experts, -(-n // share), -(-k // depth), columns, depth), element)
    lhs, out = tensor((-1, k), element), tensor((-1, n), "f32")
    sums = ", ".join(f"%s{j}: f32" for j in range(matmuls))
    return f"""func.func @product{i}(%x: {lhs}, %o: tensor<{experts + 1}xi32>, %w: {kind})
        -> {out} {{
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : {lhs}
  %e = tensor.empty(%t) : {out}
  %y = moe.grouped_matmul %x offsets(%o : tensor<{experts + 1}xi32>) weights(%w : {kind})
      panels(<matmuls = {matmuls}, columns = {columns}, depth = {depth}>) outs(%e : {out}) {{
  ^bb0({sums}):
    moe.yield %s{matmuls - 1} : f32
  }} : {lhs} -> {out}
  return %y : {out}
}}
"""


# Whole vectors of every processor; pairs of bf16 only where there are dot products.
MULTIPLIED = [i for i, p in enumerate(PACKS) if p[6] == 1]


@functools.cache
def packing(path: str):
    text = [pack_text(i) for i in range(len(PACKS))]
    return compiled_for("\n".join(text + [packed_product_text(i) for i in MULTIPLIED]), path)


def pack_weights(i: int) -> list[np.ndarray]:
    element, experts, k, n, matmuls, _, _, _ = PACKS[i]
    return [grid(data.rng("pack", i, j), (experts, k, n), element) for j in range(matmuls)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("i", range(len(PACKS)))
def test_pack(i, path):
    _, _, _, _, _, columns, depth, transposed = PACKS[i]
    weights = pack_weights(i)
    given = [np.ascontiguousarray(w.transpose(0, 2, 1)) if transposed else w for w in weights]
    y = packing(path).layer([], function=f"pack{i}")(np.zeros(3, np.float32), *given)
    np.testing.assert_array_equal(bits(y), bits(packed(weights, columns, depth)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("i", MULTIPLIED)
def test_product_of_packed_weights(i, path):
    element, experts, k, n, matmuls, columns, depth, _ = PACKS[i]
    weights = pack_weights(i)
    layer = packing(path).layer([], function=f"product{i}")
    for rows in (1, 33):
        x = grid(data.rng("x", i, rows), (rows, k), element)
        offsets = np.linspace(0, rows, experts + 1).astype(np.int32)
        y = layer(x, offsets, packed(weights, columns, depth))
        for e in range(experts):
            part = slice(offsets[e], offsets[e + 1])
            expected = x[part].astype(np.float32) @ weights[-1][e].astype(np.float32)
            np.testing.assert_array_equal(y[part], expected)


# -- moe.gather_sum ---------------------------------------------------------------

SUMS = [  # element, columns, choices, weights, dropped
    (element, columns, choices, weights, dropped)
    for element in ("f32", "bf16", "f16")
    for columns, choices, weights, dropped in (
        (1, 1, False, False), (5, 3, True, False), (16, 2, True, True), (33, 4, False, True),
        (64, 8, True, False), (259, 2, True, True))]
SUMS += [("f32", 20000, 2, True, False), ("f32", 3, 1, True, True)]


def sum_text(i: int) -> str:
    element, columns, choices, weighted, dropped = SUMS[i]
    rows, out = tensor((LHS_ROWS, columns), element), tensor((-1, columns), element)
    kinds = f"%x: {rows}, %p: tensor<?x{choices}xi32>"
    words = "%x, %p"
    if weighted:
        kinds += f", %w: tensor<?x{choices}xf32>"
        words += f" weights(%w : tensor<?x{choices}xf32>)"
    if dropped:
        kinds += f", %d: {out}"
        words += f" dropped(%d : {out})"
    return f"""func.func @sum{i}({kinds}) -> {out} {{
  %c0 = arith.constant 0 : index
  %t = tensor.dim %p, %c0 : tensor<?x{choices}xi32>
  %e = tensor.empty(%t) : {out}
  %y = moe.gather_sum {words} outs(%e : {out}) : {rows}, tensor<?x{choices}xi32> -> {out}
  return %y : {out}
}}
"""


@functools.cache
def sums(path: str, threads: int = 0):
    return compiled_for("\n".join(sum_text(i) for i in range(len(SUMS))), path, threads)


def sum_inputs(i: int, tokens: int, draw=grid) -> list[np.ndarray]:
    element, columns, choices, weighted, dropped = SUMS[i]
    r = data.rng("sum", i, tokens)
    positions = r.integers(-LHS_ROWS // 4, LHS_ROWS + LHS_ROWS // 4, (tokens, choices))
    positions.flat[:4] = np.array([-(2**31), 2**31 - 1, LHS_ROWS, LHS_ROWS - 1])[:positions.size]
    arrays = [draw(r, (LHS_ROWS, columns), element), positions.astype(np.int32)]
    if weighted:
        arrays.append(draw(r, (tokens, choices), "f32"))
    if dropped:
        arrays.append(draw(r, (tokens, columns), element))
    return arrays


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("i", range(len(SUMS)))
def test_gather_sum(i, path):
    element, columns, choices, weighted, dropped = SUMS[i]
    layer = sums(path).layer([], function=f"sum{i}")
    for tokens in (0, 1, 7, 100):
        arrays = sum_inputs(i, tokens)
        whole, out = guarded(tokens, columns, element)
        layer(*arrays, out=out)
        beside = np.concatenate([whole[:8], whole[8 + tokens:]])
        assert (beside.view(np.uint8) == 0xA5).all()
        rows, positions = arrays[0].astype(np.float64), arrays[1]
        weights = arrays[2].astype(np.float64) if weighted else np.ones(positions.shape)
        is_row = (positions >= 0) & (positions < LHS_ROWS)
        expected = np.zeros((tokens, columns))
        for k in range(choices):
            term = np.where(is_row[:, k:k + 1], rows[np.clip(positions[:, k], 0, LHS_ROWS - 1)],
                            arrays[-1].astype(np.float64) if dropped else 0)
            expected += weights[:, k:k + 1] * term
        expected = expected.astype(np.float32).astype(out.dtype)
        np.testing.assert_array_equal(out.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("i", [4, 5, 10, 16, 18])
def test_gather_sum_bits(i, path):
    """The order is that of k: the bits of f32 arithmetic, for any threads and other tokens."""
    element, columns, choices, weighted, dropped = SUMS[i]
    arrays = sum_inputs(i, 60, normal)
    rows, positions = arrays[0].astype(np.float32), arrays[1]
    is_row = (positions >= 0) & (positions < LHS_ROWS)
    expected = np.zeros((60, columns), np.float32)
    for k in range(choices):
        term = rows[np.clip(positions[:, k], 0, LHS_ROWS - 1)]
        term = np.where(is_row[:, k:k + 1], term, arrays[-1].astype(np.float32) if dropped else 0)
        expected += arrays[2][:, k:k + 1] * term
    expected = expected.astype(data.numpy_type(element))
    for threads in (1, 2, 5):
        layer = sums(path, threads).layer([], function=f"sum{i}")
        y = layer(*arrays)
        np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))
        parts = [layer(arrays[0], *(a[t:t + 1] for a in arrays[1:])) for t in range(60)]
        np.testing.assert_array_equal(bits(np.concatenate(parts)), bits(y))


# -- moe.route ---------------------------------------------------------------------

ROUTES = [  # tokens, choices, experts, capacity, priority, choices that are kept
    (9, 2, 4, None, "position", None), (9, 2, 4, 2, "position", None),
    (9, 2, 4, 3, "choice", None), (9, 3, 4, 2, "probability", None),
    (9, 4, 3, None, "position", 2), (1, 1, 1, None, "position", None),
    (12, 2, 5, 0, "choice", None)]


def route_text(i: int) -> str:
    tokens, choices, experts, capacity, priority, kept = ROUTES[i]
    words, kinds = "%ids", f'%ids: tensor<{tokens}x{choices}xi32>'
    if priority == "probability":
        words += f" weights(%w : tensor<{tokens}x{choices}xf32>)"
        kinds += f", %w: tensor<{tokens}x{choices}xf32>"
    words += f" experts({experts})"
    if capacity is not None:
        words += f" capacity(<fixed = {capacity}>)"
    words += f" priority({priority})" + (f" choices({kept})" if kept else "")
    rows = experts * capacity if capacity is not None else tokens * choices
    results = f"tensor<{rows}xi32>, tensor<{experts + 1}xi32>, tensor<{tokens}x{choices}xi32>"
    return f"""func.func @route{i}({kinds}) -> ({results}) {{
  %n, %o, %p = moe.route {words} : tensor<{tokens}x{choices}xi32>
  return %n, %o, %p : {results}
}}
"""


@functools.cache
def routes(path: str):
    return compiled_for("\n".join(route_text(i) for i in range(len(ROUTES))), path)


def route_by_hand(i: int, ids, weights):
    """Choices in order of priority take the rows of their expert, in order of tokens."""
    tokens, choices, experts, capacity, priority, kept = ROUTES[i]
    order = [(t, k) for t in range(tokens) for k in range(choices)]
    if priority == "choice":
        order.sort(key=lambda c: (c[1], c[0]))
    elif priority == "probability":
        order.sort(key=lambda c: (-weights[c], c))
    members = [[] for _ in range(experts)]
    for t, k in order:
        e = ids[t, k]
        if 0 <= e < experts and k < (kept or choices) and (
                capacity is None or len(members[e]) < capacity):
            members[e].append((t, k))
    return members


@pytest.mark.parametrize("path", ["host", "reference"])
@pytest.mark.parametrize("i", range(len(ROUTES)))
def test_route(i, path):
    """Every number of a token is where its position says, and nothing else is there."""
    tokens, choices, experts, capacity, priority, kept = ROUTES[i]
    layer = routes(path).layer([], function=f"route{i}")
    for seed in range(5):
        r = data.rng("route", i, seed)
        ids = np.stack([r.permutation(max(experts, choices))[:choices] for _ in range(tokens)])
        ids = np.where(ids < experts, ids, -1).astype(np.int32)
        weights = r.random((tokens, choices), np.float32)
        numbers, offsets, positions = layer(ids, *[weights] * (priority == "probability"))
        members = route_by_hand(i, ids, weights)
        np.testing.assert_array_equal(np.diff(offsets), [len(m) for m in members])
        assert offsets[0] == 0
        covered = np.zeros(len(numbers), bool)
        for e, choices_of in enumerate(members):
            places = [positions[c] for c in choices_of]
            assert sorted(places) == list(range(offsets[e], offsets[e + 1]))
            assert [numbers[p] for p in places] == [t for t, _ in choices_of]
            covered[places] = True
        assert (numbers[~covered] == -1).all()
        assert (positions >= 0).sum() == covered.sum()
