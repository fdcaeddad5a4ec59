"""Layers whose experts are programs drawn at random, against numpy in float64.

Products with weights in either layout, activations, biases, slices and roundings, in any
order, some of which a pass fuses and others not.  A few run always, hundreds with
`./dev test --long`, there also on the double of a GPU's driver.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from moe_testing import data
from moe_testing.device import arrays as gpu
from moe_testing.device import double
from moe_testing.mlir.builder import Block, Layer, Value

LONG = os.environ.get("MOE_TEST_LONG") == "1"
FEW, MANY, PART = 24, 400, 50
TARGETS = ("host", "x86-64-v3", "x86-64-v2", "reference")
DEVICES = ("sm_80", "sm_90a")

# MLIR from %a to %r in f32, and the same in numpy. None makes a small difference large.
UNARY = {
    "tanh": ("%r = math.tanh %a : f32", np.tanh),
    "abs": ("%r = math.absf %a : f32", np.abs),
    "relu": ("%z = arith.constant 0.0 : f32\n%r = arith.maximumf %a, %z : f32",
             lambda a: np.maximum(a, 0)),
    "half": ("%h = arith.constant -0.5 : f32\n%r = arith.mulf %a, %h : f32", lambda a: a * -0.5),
    "silu": ("%neg = arith.negf %a : f32\n%e = math.exp %neg : f32\n%o = arith.constant 1.0 : f32\n"
             "%d = arith.addf %e, %o : f32\n%r = arith.divf %a, %d : f32",
             lambda a: a / (1 + np.exp(-a))),
    "clamp": ("%l = arith.constant -0.7 : f32\n%u = arith.constant 0.9 : f32\n"
              "%m = arith.maximumf %a, %l : f32\n%r = arith.minimumf %m, %u : f32",
              lambda a: np.clip(a, np.float32(-0.7), np.float32(0.9))),
}
BINARY = {
    "add": ("%r = arith.addf %a, %b : f32", np.add),
    "sub": ("%r = arith.subf %a, %b : f32", np.subtract),
    "mul": ("%r = arith.mulf %a, %b : f32", np.multiply),
    "max": ("%r = arith.maximumf %a, %b : f32", np.maximum),
}


@dataclass
class Term:
    """A tensor of the expert and what numpy computes for it from rows and weights."""

    value: Value
    run: Callable[[np.ndarray, list[np.ndarray]], np.ndarray]

    @property
    def columns(self) -> int:
        return self.value.shape[1]


class Program:
    """A layer with given ids and weights; its expert is drawn from a seed."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.dtype = str(self.random.choice(["f32", "bf16", "f16"]))
        self.experts = int(self.random.integers(1, 7))
        self.top_k = int(self.random.integers(1, min(3, self.experts) + 1))
        self.hidden = int(self.random.integers(1, 40))
        self.layer = Layer(self.dtype)
        self.parameters: list[Value] = []
        x = self.layer.input("x", -1, self.hidden)
        ids = self.layer.input("ids", -1, self.top_k, element="i32")
        factors = self.layer.input("factors", -1, self.top_k, element="f32")
        self._draw()
        body = self.layer.body
        grouped, offsets, positions = body.dispatch(x, ids, self.experts)
        y = body.expert("y", grouped, offsets, self.parameters, self._emit)
        self.layer.results = [body.combine("z", y, positions, factors)]

    def _draw(self) -> None:
        """Draw the steps, and with them the weights that they take."""
        r, columns, choices = self.random, [self.hidden], []
        for _ in range(int(r.integers(1, 7))):
            source = int(r.integers(len(columns)))
            width = columns[source]
            kind = str(r.choice(["product", "product", "unary", "binary", "bias", "slice",
                                 "round"]))
            detail = None
            if kind == "product":
                width, detail = int(r.integers(1, 50)), (bool(r.integers(2)), len(self.parameters))
                shape = (width, columns[source]) if detail[0] else (columns[source], width)
                self._parameter(*shape)
            elif kind == "unary":
                detail = str(r.choice(list(UNARY)))
            elif kind == "binary":
                same = [i for i, c in enumerate(columns) if c == width]
                detail = (str(r.choice(list(BINARY))), int(r.choice(same)))
            elif kind == "bias":
                detail = len(self.parameters)
                self._parameter(width)
            elif kind == "slice":
                if width < 2:
                    continue
                stride = int(r.integers(1, 3))
                offset = int(r.integers(0, 2))
                width = int((width - offset + stride - 1) // stride)
                detail = (offset, stride)
            columns.append(width)
            choices.append((kind, source, detail))
        if columns[-1] != self.hidden:
            choices.append(("product", len(columns) - 1, (True, len(self.parameters))))
            self._parameter(self.hidden, columns[-1])
        self.choices = choices

    def _parameter(self, *shape: int) -> None:
        name = f"p{len(self.parameters)}"
        self.parameters.append(self.layer.weight(name, self.experts, *shape))

    def _emit(self, b: Block, rows: Value, *parameters: Value) -> Value:
        terms = [Term(rows, lambda x, p: x)]
        for kind, source, detail in self.choices:
            terms.append(self._step(b, terms, terms[source], kind, detail, parameters))
        self.result = self._rounded(b, terms[-1])
        return self.result.value

    def _wide(self, b: Block, term: Term) -> Value:
        return b.extend("wide", term.value)

    def _rounded(self, b: Block, term: Term) -> Term:
        if term.value.element == self.dtype:
            return term
        kind = data.numpy_type(self.dtype)
        return Term(b.round("rounded", term.value),
                    lambda x, p: term.run(x, p).astype(kind).astype(np.float64))

    def _step(self, b: Block, terms: list[Term], term: Term, kind: str, detail,
              parameters: tuple[Value, ...]) -> Term:
        if kind == "product":
            transposed, number = detail
            term = self._rounded(b, term)
            make = b.linear if transposed else b.matmul
            return Term(make("product", term.value, parameters[number]),
                        lambda x, p: term.run(x, p) @ (p[number].T if transposed else p[number]))
        if kind == "unary":
            text, run = UNARY[detail]
            return Term(b.map("unary", [self._wide(b, term)], text),
                        lambda x, p: run(term.run(x, p)))
        if kind == "binary":
            (text, run), other = BINARY[detail[0]], terms[detail[1]]
            return Term(b.map("joined", [self._wide(b, term), self._wide(b, other)], text),
                        lambda x, p: run(term.run(x, p), other.run(x, p)))
        if kind == "bias":
            return Term(b.add_row("biased", self._wide(b, term), parameters[detail]),
                        lambda x, p: term.run(x, p) + p[detail])
        if kind == "slice":
            offset, stride = detail
            width = (term.columns - offset + stride - 1) // stride
            return Term(b.slice("slice", term.value, offset, width, stride),
                        lambda x, p: term.run(x, p)[:, offset::stride])
        return self._rounded(b, term)

    def arrays(self, tokens: int, skew: bool):
        r, kind = self.random, data.numpy_type(self.dtype)
        ids = np.stack([r.permutation(self.experts)[:self.top_k] for _ in range(tokens)]
                       or [np.zeros(self.top_k)]).astype(np.int32)[:tokens]
        if skew:
            ids[:, 0] = self.experts - 1
        ids[r.random(ids.shape) < 0.1] = -1
        weights = {v.name[1:]: (r.standard_normal(v.shape) / np.sqrt(v.shape[-1])).astype(kind)
                   for v in self.parameters}
        inputs = {"x": r.standard_normal((tokens, self.hidden)).astype(kind), "ids": ids,
                  "factors": r.standard_normal(ids.shape).astype(np.float32)}
        return inputs, weights

    def expected(self, inputs, weights) -> np.ndarray:
        y = np.zeros(inputs["x"].shape)
        wide = [np.asarray(w).astype(np.float64) for w in weights.values()]
        for expert in range(self.experts):
            token, choice = np.nonzero(inputs["ids"] == expert)
            rows = self.result.run(inputs["x"][token].astype(np.float64), [w[expert] for w in wide])
            np.add.at(y, token, inputs["factors"][token, choice, None] * rows)
        return y


def compile_for(program: Program, target: str):
    import moe

    text = program.layer.text("random")
    with warnings.catch_warnings():
        # Where an expert is left to loops.
        warnings.simplefilter("ignore", RuntimeWarning)
        if target == "reference":
            return moe.compile(text, options=["--pipeline=moe-reference"])
        if target in DEVICES:
            return moe.compile(text, target=target, device="cuda")
        return moe.compile(text, target=None if target == "host" else target)


def check(seed: int, target: str) -> None:
    program = Program(seed)
    module = compile_for(program, target)
    for tokens, skew in ((0, False), (1, False), (37, seed % 2 == 0)):
        inputs, weights = program.arrays(tokens, skew)
        if target in DEVICES:
            bound = module.layer({name: gpu.upload(array) for name, array in weights.items()})
            y = gpu.run(bound, inputs, tokens)
        else:
            y = module.layer(weights)(**inputs)
        # A rounding in between may come out one unit apart, and then others after it.
        error = data.relative_error(y, program.expected(inputs, weights))
        assert error < 2 * data.TOLERANCE[program.dtype], (seed, target, tokens, program.choices)


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@pytest.mark.parametrize("seed", range(FEW))
def test_few(seed):
    target = TARGETS[seed % len(TARGETS)]
    data.skip_unless_runs(target)
    check(seed, target)


@pytest.mark.skipif(not LONG, reason="runs with ./dev test --long")
@pytest.mark.parametrize("first", range(FEW, FEW + MANY, PART))
def test_many(first):
    for seed in range(first, first + PART):
        target = TARGETS[seed % len(TARGETS)]
        if data.runs(target):
            check(seed, target)


@pytest.mark.skipif(not LONG, reason="runs with ./dev test --long")
@pytest.mark.parametrize("first", range(FEW + MANY, FEW + MANY + MANY // 4, PART))
def test_devices(first):
    double.needs_device()
    for seed in range(first, first + PART):
        check(seed, DEVICES[seed % len(DEVICES)])
