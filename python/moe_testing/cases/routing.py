"""Routers, moe.route of any ids and experts that choose tokens, on a device, and what numpy says of
them.

Rows and weights are small whole numbers, so that logits are exact and many are equal: choices
and rows have to be what numpy says, ties to the lowest expert.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import moe
import numpy as np

from .. import data
from ..device import arrays as gpu

# Rows of an expert at most, as MLIR and as the papers have it.
CAPACITIES = {
    "": lambda tokens, experts: math.inf,
    "<fixed = 0>": lambda tokens, experts: 0,
    "<fixed = 1>": lambda tokens, experts: 1,
    "<fixed = 5>": lambda tokens, experts: 5,
    "<fixed = 2147483647>": lambda tokens, experts: 2**31 - 1,
    "<factor = 1.25, minimum = 2>":
        lambda tokens, experts: max(math.ceil(tokens / experts * 1.25), 2),
    "<factor = 2.0>": lambda tokens, experts: math.ceil(tokens / experts * 2.0),
    "<factor = 1.25, rounding = floor, minimum = 4, at_most_tokens>":
        lambda tokens, experts: max(min(tokens, int(tokens * 1.25 / experts)), 4),
}


def routing_text(capacity="", priority="position", choices=0, overflow="drop"):
    return " ".join([f"capacity({capacity}) priority({priority}) overflow({overflow})"
                     if capacity else "",
                     f"choices({choices})" if choices else ""])


def ranks(scores, there):
    """How many of those that are there come before each, along the first axis: larger ones,
    and equal ones that are earlier."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.lexsort((-scores, ~there), axis=0)
    return np.argsort(order, axis=0)


def retried(one_hot, choices, capacity):
    """Mesh-TensorFlow: a token whose expert is full tries its next choice."""
    placed = np.zeros(len(one_hot), int)
    kept = np.zeros_like(one_hot)
    for k in range(one_hot.shape[1]):
        wants = one_hot[:, k] & (placed < choices)[:, None]
        taken = kept.sum((0, 1))
        kept[:, k] = wants & (np.cumsum(wants, 0) - wants + taken < capacity)
        placed += kept[:, k].any(1)
    return kept


def grouped(ids, experts, capacity="", priority="position", choices=0, overflow="drop",
            weights=None):
    """Tokens of the rows, where each expert's start, and the row of each choice, with a
    one-hot of the choices and its running sum, as in GShard."""
    tokens, top_k = ids.shape
    one_hot = ids[:, :, None] == np.arange(experts)
    most = CAPACITIES[capacity](tokens, experts)
    if overflow == "drop":
        one_hot[:, choices or top_k:] = False
    inside = one_hot.swapaxes(0, 1) if priority == "choice" else one_hot
    before = (np.cumsum(inside.reshape(-1, experts), 0) - inside.reshape(-1, experts)).reshape(
        inside.shape)
    if priority == "probability":
        columns = inside.reshape(-1, experts)
        before = ranks(np.broadcast_to(weights.reshape(-1, 1), columns.shape), columns).reshape(
            inside.shape)
    kept = inside & (before < most)
    kept = kept.swapaxes(0, 1) if priority == "choice" else kept
    if overflow == "next_choice" and priority == "choice":
        kept = retried(one_hot, choices or top_k, most)
    kept = kept.reshape(-1, experts)
    expert, choice = np.nonzero(kept.T)
    positions = np.full(tokens * top_k, -1)
    positions[choice] = np.arange(len(choice))
    starts = np.concatenate([[0], np.cumsum(kept.sum(0))])
    return choice // top_k, starts, positions.reshape(ids.shape)


@dataclass(frozen=True)
class Router:
    experts: int
    columns: int
    top_k: int
    dtype: str = "bf16"
    transposed: bool = True
    bias: bool = False
    choices: int = 0  # of a token that are grouped; 0: all
    capacity: str = ""
    priority: str = "position"

    def text(self) -> str:
        e, h, k, dtype = self.experts, self.columns, self.top_k, self.dtype
        shape = f"1x{e}x{h}" if self.transposed else f"1x{h}x{e}"
        bias = f', %b: tensor<{e}xf32> {{moe.role = "weight", moe.name = "b"}}' if self.bias else ""
        operands = (f"operands(%b : tensor<{e}xf32>) maps([affine_map<(e, r, n) -> (n)>])"
                    if self.bias else "")
        epilogue = ("^bb0(%s: f32, %a: f32):\n %r = arith.addf %s, %a : f32\n moe.yield %r : f32"
                    if self.bias else "^bb0(%s: f32):\n moe.yield %s : f32")
        routing = routing_text(self.capacity, self.priority, self.choices)
        return f"""
func.func @route(%x: tensor<?x{h}x{dtype}> {{moe.role = "input", moe.name = "x"}},
                 %w: tensor<{shape}x{dtype}> {{moe.role = "weight", moe.name = "w"}}{bias})
    -> (tensor<?x{k}xf32> {{moe.name = "weights"}}, tensor<?x{k}xi32> {{moe.name = "ids"}},
        tensor<{e + 1}xi32> {{moe.name = "starts"}},
            tensor<?x{k}xi32> {{moe.name = "positions"}}) {{
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x{h}x{dtype}>
  %e = tensor.empty(%t) : tensor<?x{e}xf32>
  %l = moe.grouped_matmul %x weights(%w : tensor<{shape}x{dtype}>)
      {'transposed' if self.transposed else ''} {operands} outs(%e : tensor<?x{e}xf32>) {{
    {epilogue}
  }} : tensor<?x{h}x{dtype}> -> tensor<?x{e}xf32>
  %weights, %ids = moe.gate %l top_k({k}) order(select_then_score) : tensor<?x{e}xf32>
  %tokens, %starts, %positions = moe.route %ids experts({e}) {routing} : tensor<?x{k}xi32>
  return %weights, %ids, %starts, %positions
      : tensor<?x{k}xf32>, tensor<?x{k}xi32>, tensor<{e + 1}xi32>, tensor<?x{k}xi32>
}}
"""


# With tensor cores and without; clusters of none, two, four and eight blocks; columns that end
# within what a warp has; more experts than a block has sums for at a time.
ROUTERS = {
    "small": Router(8, 24, 2),
    "two": Router(16, 72, 4, "f16"),
    "four": Router(32, 1032, 4),
    "eight": Router(60, 264, 6),
    "many": Router(300, 64, 8),
    "f32": Router(32, 260, 4, "f32"),
    "f32_odd": Router(9, 67, 3, "f32"),
    "along_n": Router(24, 48, 3, "bf16", transposed=False),
    "along_n_f32": Router(24, 48, 3, "f32", transposed=False),
    "bias": Router(16, 40, 2, bias=True),
    "choices": Router(16, 40, 3, choices=2),
    "odd": Router(16, 35, 2, "bf16"),
    # By way of shared memory where there are many tokens: stages of 64 elements and of 32, and
    # the last ones beyond the columns; experts in two groups.
    "staged": Router(64, 968, 6, bias=True),
    "staged_twice": Router(136, 520, 8, "f16"),
    "switch": Router(8, 24, 1, capacity="<fixed = 5>"),
    "position": Router(32, 40, 3, capacity="<factor = 1.25, minimum = 2>"),
    "gshard": Router(16, 40, 2, capacity="<factor = 2.0>", priority="choice"),
    "mesh": Router(300, 64, 3, priority="choice", choices=2, capacity="<factor = 1.25, "
                   "rounding = floor, minimum = 4, at_most_tokens>"),
}


@functools.cache
def module(name: str, target: str):
    return moe.compile(ROUTERS[name].text(), target=target, device="cuda")


def arrays(name: str, tokens: int, skew: bool = False):
    router = ROUTERS[name]
    random = data.rng(name, tokens)
    x = random.integers(-3, 4, (tokens, router.columns)).astype(np.float32)
    w = random.integers(-2, 3, (router.experts, router.columns)).astype(np.float32)
    if skew:  # the last experts win by far, in the order of their numbers
        x[:, 0] = 1
        w[:, 0] = np.arange(router.experts) // (router.experts - router.top_k) * 100
    b = random.integers(-4, 5, router.experts).astype(np.float32) * router.bias
    return x, w, b


def oracle(name: str, x, w, b):
    router = ROUTERS[name]
    logits = x.astype(np.float64) @ w.T.astype(np.float64) + b
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :router.top_k]
    chosen = np.take_along_axis(logits, ids, 1)
    weights = np.exp(chosen - chosen.max(1, keepdims=True, initial=-np.inf))
    weights /= weights.sum(1, keepdims=True)
    _, starts, positions = grouped(ids, router.experts, router.capacity, router.priority,
                                   router.choices)
    return weights, ids, starts, positions


def run(name: str, target: str, x, w, b):
    router = ROUTERS[name]
    numbers = data.numpy_type(router.dtype)
    made = {"w": gpu.upload((w if router.transposed else w.T).astype(numbers)[None])}
    if router.bias:
        made["b"] = gpu.upload(b)
    layer = module(name, target).layer(made)
    outputs = [gpu.empty(info.dtype, [len(x) if d < 0 else d for d in info.shape])
               for info in layer.signature.outputs]
    layer(out=outputs, x=gpu.upload(x.astype(numbers)))
    return [gpu.download(each) for each in outputs]


def check(name, target, tokens, skew=False):
    given = arrays(name, tokens, skew)
    found, expected = run(name, target, *given), oracle(name, *given)
    data.assert_close(found[0], expected[0], 3e-6, 1e-9)
    for i in (1, 2, 3):
        np.testing.assert_array_equal(found[i], expected[i])


# -- moe.route of any ids ---------------------------------------------------------

ROUTES = {  # experts, choices of a token; capacity, priority, choices that count, overflow
    "dropless": (8, 3),
    "none": (8, 3, "<fixed = 0>"),
    "none_by_choice": (8, 3, "<fixed = 0>", "choice"),
    "one": (8, 3, "<fixed = 1>"),
    "one_by_choice": (8, 3, "<fixed = 1>", "choice"),
    "five": (40, 2, "<fixed = 5>"),
    "five_by_choice": (40, 2, "<fixed = 5>", "choice"),
    "all": (8, 3, "<fixed = 2147483647>"),
    "all_by_choice": (8, 3, "<fixed = 2147483647>", "choice"),
    "ceil": (33, 4, "<factor = 1.25, minimum = 2>"),
    "ceil_by_choice": (33, 4, "<factor = 1.25, minimum = 2>", "choice"),
    "first_choices": (33, 4, "<factor = 1.25, minimum = 2>", "choice", 3),
    "exact": (1, 2, "<factor = 2.0>"),
    "exact_by_choice": (1, 2, "<factor = 2.0>", "choice"),
    "none_by_weight": (8, 3, "<fixed = 0>", "probability"),
    "one_by_weight": (8, 3, "<fixed = 1>", "probability"),
    "five_by_weight": (40, 2, "<fixed = 5>", "probability"),
    "all_by_weight": (8, 3, "<fixed = 2147483647>", "probability"),
    "ceil_by_weight": (33, 4, "<factor = 1.25, minimum = 2>", "probability"),
    "first_by_weight": (33, 4, "<factor = 1.25, minimum = 2>", "probability", 3),
    "exact_by_weight": (1, 2, "<factor = 2.0>", "probability"),
    "next": (8, 3, "<factor = 1.25, minimum = 2>", "choice", 1, "next_choice"),
    "next_of_many": (40, 4, "<fixed = 5>", "choice", 2, "next_choice"),
    "next_of_none": (8, 3, "<fixed = 0>", "choice", 2, "next_choice"),
    "next_with_all": (8, 3, "<fixed = 5>", "position", 0, "next_choice"),
    "many_by_choice": (1024, 4, "<factor = 2.0>", "choice"),
}


def ids_of(kind, tokens, experts, top_k):
    random = data.rng("ids", kind, tokens)
    if kind == "one":
        return np.full((tokens, top_k), experts - 1, np.int32)
    if kind == "skewed":
        return np.minimum(random.geometric(0.4, (tokens, top_k)) - 1, experts - 1).astype(np.int32)
    ids = random.integers(0, experts, (tokens, top_k)).astype(np.int32)
    if kind == "hostile":
        wrong = np.array([-1, experts, experts + 1, 2**31 - 1, -2**31], np.int64).astype(np.int32)
        ids = np.where(random.random(ids.shape) < 0.4, random.choice(wrong, ids.shape), ids)
    return ids


def weights_of(kind, shape):
    """With many that are equal, unless nothing is known against them."""
    random = data.rng("weights", kind, shape)
    if kind == "random":
        return random.standard_normal(shape).astype(np.float32)
    some = np.array([-1.5, -0.0, 0.0, 1e-40, 0.25, 0.25000003], np.float32)
    if kind == "hostile":
        some = np.concatenate([some, np.array([np.nan, -np.nan, np.inf, -np.inf], np.float32)])
    return random.choice(some, shape)


@functools.cache
def route(name, tokens, target="sm_80"):
    """Of a given number of tokens or of any, which has no number of rows to return them by."""
    experts, top_k, *routing = ROUTES[name]
    t = "?" if tokens is None else tokens
    results, types = "%starts, %positions", f"tensor<{experts + 1}xi32>, tensor<{t}x{top_k}xi32>"
    if tokens is not None:
        most = min(tokens * top_k, experts * CAPACITIES[(*routing, "")[0]](tokens, experts))
        results, types = f"{results}, %tokens", f"{types}, tensor<{most}xi32>"
    by_weight = "probability" in routing
    weights = f"weights(%w : tensor<{t}x{top_k}xf32>)" if by_weight else ""
    given = (f', %w: tensor<{t}x{top_k}xf32> {{moe.role = "input", moe.name = "w"}}'
             if by_weight else "")
    return moe.compile(f"""
func.func @route(%ids: tensor<{t}x{top_k}xi32> {{moe.role = "input", moe.name = "ids"}}{given})
    -> ({types}) {{
  %tokens, %starts, %positions = moe.route %ids {weights} experts({experts})
      {routing_text(*routing)} : tensor<{t}x{top_k}xi32>
  return {results} : {types}
}}
""", target=target, device="cuda").layer({})


def check_route(name, kind, tokens, known=False, target="sm_80"):
    experts, top_k, *routing = ROUTES[name]
    ids = ids_of(kind, tokens, experts, top_k)
    layer = route(name, tokens if known else None, target)
    outputs = [gpu.empty(info.dtype, [tokens if d < 0 else d for d in info.shape])
               for info in layer.signature.outputs]
    weights = weights_of(kind, ids.shape)
    given = {"w": gpu.upload(weights)} if "probability" in routing else {}
    # Ids that are no expert's are an error of the call, and rows of nobody.
    wrong, message = int(((ids < -1) | (ids >= experts)).sum()), ""
    try:
        layer(out=outputs, ids=gpu.upload(ids), **given)
    except moe.MoEError as error:
        message = error.message
    assert f"{wrong} expert id" in message if wrong else not message, message
    found = [gpu.download(each) for each in outputs]
    rows, starts, positions = grouped(ids, experts, *routing, weights=weights)
    np.testing.assert_array_equal(found[0], starts)
    np.testing.assert_array_equal(found[1], positions)
    if known:
        np.testing.assert_array_equal(found[2][:len(rows)], rows)
        assert (found[2][len(rows):] == -1).all()


# -- Experts that choose tokens ---------------------------------------------------

@dataclass(frozen=True)
class Chooser:
    experts: int
    capacity: str
    score: str = "softmax"
    axis: str = "experts"
    bias: bool = False
    noise: bool = False
    threshold: float | None = None
    scale: float | None = None

    def text(self) -> str:
        e = self.experts
        operands = {"bias": f"tensor<{e}xf32>"} if self.bias else {}
        operands |= {"noise": f"tensor<?x{e}xf32>"} if self.noise else {}
        declared = "".join(f', %{name}: {type} {{moe.role = "input", moe.name = "{name}"}}'
                           for name, type in operands.items())
        given = " ".join(f"{name}(%{name} : {type})" for name, type in operands.items())
        after = f"threshold({self.threshold:e})" if self.threshold is not None else ""
        after += f" scale({self.scale:e})" if self.scale is not None else ""
        return f"""
func.func @choose(%l: tensor<?x{e}xf32> {{moe.role = "input", moe.name = "l"}}{declared})
    -> (tensor<?x{e}xf32> {{moe.name = "weights"}}, tensor<?x{e}xi32> {{moe.name = "ids"}}) {{
  %weights, %ids = moe.gate %l {given} top_k({e}) score({self.score}) score_axis({self.axis})
      select(expert_choice) capacity({self.capacity}) {after} : tensor<?x{e}xf32>
  return %weights, %ids : tensor<?x{e}xf32>, tensor<?x{e}xi32>
}}
"""

    def oracle(self, logits, bias=0, noise=0):
        """As in the paper: of each column of the scores the largest are taken."""
        x = (logits + noise).astype(np.float32)
        x = np.where(np.isnan(x), -np.inf, x)
        if self.score == "softmax":
            axis = 1 if self.axis == "experts" else 0
            x = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf), dtype=np.float64)
            x = x / x.sum(axis, keepdims=True)
        elif self.score == "sigmoid":
            x = 1 / (1 + np.exp(-x.astype(np.float64)))
        elif self.score == "relu":
            x = np.maximum(x, 0)
        most = CAPACITIES[self.capacity](*x.shape)
        taken = ranks(x + bias, np.ones(x.shape, bool)) < most
        if self.threshold is not None:
            taken &= x > self.threshold
        weights = np.where(taken, x, 0) * (1 if self.scale is None else self.scale)
        return weights, np.where(taken, np.arange(self.experts), -1)


CHOOSERS = {
    "softmax": Chooser(8, "<factor = 2.0>"),
    "over_tokens": Chooser(40, "<factor = 1.25, rounding = floor, minimum = 4, at_most_tokens>",
                           axis="tokens"),
    "sigmoid": Chooser(300, "<fixed = 1>", "sigmoid", noise=True),
    "one": Chooser(1, "<fixed = 5>", "none"),
    "none": Chooser(8, "<fixed = 0>", "none"),
    "all": Chooser(8, "<fixed = 2147483647>", "none"),
    "bias": Chooser(33, "<factor = 1.25, minimum = 2>", "none", bias=True, scale=2.0),
    "threshold": Chooser(33, "<factor = 2.0>", "relu", threshold=0.5),
}


@functools.cache
def chooser(name, target):
    return moe.compile(CHOOSERS[name].text(), target=target, device="cuda").layer({})


def check_choice(name, target, tokens, grid):
    its = CHOOSERS[name]
    random = data.rng("choice", name, tokens)
    given = {"l": random.standard_normal((tokens, its.experts)).astype(np.float32)}
    if its.bias:
        given["bias"] = np.round(random.standard_normal(its.experts)).astype(np.float32)
    if its.noise:
        given["noise"] = random.standard_normal(given["l"].shape).astype(np.float32)
    if grid:
        given["l"] = weights_of("hostile", given["l"].shape)
    outputs = [gpu.empty(dtype, given["l"].shape) for dtype in ("f32", "i32")]
    chooser(name, target)(out=outputs, **{key: gpu.upload(a) for key, a in given.items()})
    weights, ids = its.oracle(given["l"], given.get("bias", 0), given.get("noise", 0))
    np.testing.assert_array_equal(gpu.download(outputs[1]), ids)
    data.assert_close(gpu.download(outputs[0]), weights, 1e-5, 1e-12)
