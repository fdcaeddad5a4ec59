"""moe.reference against compiled functions of one operation each, over seeded random
combinations of attributes.  Ids, offsets and positions must be equal; weights agree to
the last bits of exp."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from moe.reference import Capacity, Groups, Normalize, combine, dispatch, gate
from moe_testing import data

GATES, DISPATCHES, COMBINES = 120, 60, 40
H = 5


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@dataclass
class Case:
    """One function: its MLIR text and how to call the reference."""

    name: str
    inputs: list[tuple[str, tuple[int, ...], str]]  # name, shape, element
    operation: str
    results: list[str]  # types
    returned: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        declared = ", ".join(
            f'%{n}: {tensor(s, e)} {{moe.role = "input", moe.name = "{n}"}}'
            for n, s, e in self.inputs)
        return (f"func.func @{self.name}({declared})\n    -> ({', '.join(self.results)}) {{\n"
                f"{self.operation}\n  return {self.returned} : {', '.join(self.results)}\n}}\n")


def tensor(shape, element):
    return "tensor<" + "".join("?x" if d < 0 else f"{d}x" for d in shape) + element + ">"


def normalize_text(n: Normalize) -> str:
    parts = [n.kind]
    if n.kind == "norm":
        parts.append(f"p = {n.p:e}")
    if n.epsilon:
        parts.append(f"epsilon = {n.epsilon:e}")
    if n.guard != "add":
        parts.append(f"guard = {n.guard}")
    return f"normalize(<{', '.join(parts)}>)"


def capacity_text(c: Capacity) -> str:
    if c.fixed >= 0:
        return f"capacity(<fixed = {c.fixed}>)"
    parts = [f"factor = {c.factor:e}", f"rounding = {c.rounding}", f"minimum = {c.minimum}"]
    return f"capacity(<{', '.join(parts + ['at_most_tokens'] * c.at_most_tokens)}>)"


def random_normalize(r, softmax=True) -> Normalize | None:
    kind = r.choice(["none", "sum", "norm", "softmax"] if softmax else ["none", "sum", "norm"])
    if kind == "none":
        return None
    if kind == "softmax":
        return Normalize("softmax")
    return Normalize(str(kind), p=float(r.choice([1.0, 2.0, 3.0])) if kind == "norm" else 2.0,
                     epsilon=float(r.choice([0.0, 1e-20, 0.125])),
                     guard=str(r.choice(["add", "clamp"])))


def random_capacity(r) -> Capacity:
    if r.random() < 0.4:
        return Capacity(fixed=int(r.integers(0, 8)))
    return Capacity(factor=float(r.choice([0.3, 1.0, 1.25, 2.0])),
                    rounding=str(r.choice(["ceil", "floor"])), minimum=int(r.choice([0, 1, 4])),
                    at_most_tokens=bool(r.random() < 0.5))


# --------------------------------------------------------------------------
# moe.gate
# --------------------------------------------------------------------------


def gate_case(i: int) -> Case:
    r = data.rng("gate case", i)
    experts = int(r.choice([4, 6, 12]))
    order = str(r.choice(["score_then_select"] * 3 + ["select_then_score"] * 2
                         + ["score_each_choice"]))
    expert_choice = order == "score_then_select" and r.random() < 0.2
    given = not expert_choice and r.random() < (0.4 if order == "score_each_choice" else 0.15)
    a: dict[str, Any] = dict(order=order)
    a["top_k"] = experts if expert_choice else int(r.integers(1, experts + 1))
    a["score"] = "softmax" if order == "score_each_choice" else str(
        r.choice(["softmax", "sigmoid", "relu", "none", "sqrt_softplus"]))
    if order == "score_then_select" and a["score"] == "softmax" and r.random() < 0.3:
        a["score_axis"] = "tokens"
    if expert_choice:
        a.update(select="expert_choice", capacity=random_capacity(r))
    if order == "score_each_choice" and r.random() < 0.7:
        a["margin"] = float(r.choice([0.02, 0.5, 1.0]))
    select = order != "score_each_choice" and not given
    bias = select and r.random() < 0.4
    if select and not expert_choice and r.random() < 0.4:
        count = int(r.choice([c for c in (1, 2, 3) if experts % c == 0]))
        keep = int(r.integers(1, count + 1))
        a["groups"] = Groups(count, keep, str(r.choice(["max", "top2_sum"])),
                             str(r.choice(["neg_inf", "zero"])))
        a["top_k"] = min(a["top_k"], keep * experts // count)
    if r.random() < 0.25:
        a["threshold"] = float(r.choice([0.0, 0.11, -0.55]))
    normalize = random_normalize(r)
    if normalize:
        a["normalize"] = normalize
    if r.random() < 0.4:
        a["scale"] = float(r.choice([2.5, 16.0, -0.5]))
    score_type = str(r.choice(["f32", "f32", "bf16", "f16"]))
    if score_type != "f32":
        a["score_type"] = score_type
    element = str(r.choice(["f32", "f32", "bf16", "f16"]))

    inputs = [("logits", (-1, experts), element)]
    operands = ""
    for name, shape, kind, present in (
            ("bias", (experts,), str(r.choice(["f32", "bf16"])), bias),
            ("noise", (-1, experts), "f32", r.random() < 0.2),
            ("ids", (-1, a["top_k"]), "i32", given)):
        if present:
            inputs.append((name, shape, kind))
            operands += f" {name}(%{name} : {tensor(shape, kind)})"
    parts = [f"top_k({a['top_k']})", f"score({a['score']})"]
    for key in ("score_axis", "order"):
        if key in a:
            parts.append(f"{key}({a[key]})")
    if expert_choice:
        parts.append("select(expert_choice)")
    if "margin" in a:
        parts.append(f"margin({a['margin']:e})")
    if "groups" in a:
        g = a["groups"]
        parts.append(f"groups(<count = {g.count}, keep = {g.keep}, score = {g.score}, "
                     f"fill = {g.fill}>)")
    if "capacity" in a:
        parts.append(capacity_text(a["capacity"]))
    if "threshold" in a:
        parts.append(f"threshold({a['threshold']:e})")
    if normalize:
        parts.append(normalize_text(normalize))
    if "scale" in a:
        parts.append(f"scale({a['scale']:e})")
    if score_type != "f32":
        parts.append(f"score_type({score_type})")
    operation = (f"  %w, %i = moe.gate %logits{operands} {' '.join(parts)}\n"
                 f"    : {tensor((-1, experts), element)}")
    results = [tensor((-1, a["top_k"]), score_type), tensor((-1, a["top_k"]), "i32")]
    return Case(f"gate{i}", inputs, operation, results, "%w, %i", a)


def gate_inputs(case: Case, tokens: int, broken: bool) -> dict[str, np.ndarray]:
    """Logits on a grid of eighths, so that ties are frequent and exact."""
    r = data.rng(case.name, tokens, broken)
    made = {}
    for name, shape, element in case.inputs:
        shape = tuple(tokens if d < 0 else d for d in shape)
        if name == "ids":
            experts = case.inputs[0][1][1]
            made[name] = r.integers(-1, experts, shape).astype(np.int32)
            continue
        values = r.integers(-16, 17, shape) / 8
        if broken and name in ("logits", "noise"):
            hit = r.random(shape)
            values = np.where(hit < 0.1, np.nan, np.where(hit < 0.15, -np.inf, values))
            if name == "logits":
                values = np.where((hit > 0.15) & (hit < 0.2), np.inf, values)
        made[name] = values.astype(np.float32).astype(data.numpy_type(element))
    return made


@functools.cache
def modules(kind: str):
    """All functions of a kind in one module; if that fails, one by one."""
    import moe

    cases = {"gate": [gate_case(i) for i in range(GATES)],
             "dispatch": [dispatch_case(i) for i in range(DISPATCHES)],
             "combine": [combine_case(i) for i in range(COMBINES)]}[kind]
    try:
        whole = moe.compile("\n".join(c.text() for c in cases))
        return cases, {c.name: whole for c in cases}
    except moe.MoEError:
        return cases, {}


def compiled_layer(kind: str, i: int):
    import moe

    cases, found = modules(kind)
    case = cases[i]
    module = found.get(case.name) or moe.compile(case.text())
    return case, module.layer([], function=case.name)


@pytest.mark.parametrize("i", range(GATES))
def test_gate(i):
    case, layer = compiled_layer("gate", i)
    arguments = dict(case.arguments)
    arguments["score_type"] = data.numpy_type(arguments.get("score_type", "f32"))
    for tokens, broken in ((0, False), (1, False), (7, False), (33, False), (33, True)):
        inputs = gate_inputs(case, tokens, broken)
        weights, ids = layer(**inputs)
        expected, expected_ids = gate(inputs["logits"], **arguments, **{
            k: v for k, v in inputs.items() if k != "logits"})
        np.testing.assert_array_equal(ids, expected_ids, err_msg=case.operation)
        assert weights.dtype == expected.dtype
        # exp and pow may differ in their last bits, and so in one rounding more.
        unit = {"float32": 2e-6, "bfloat16": 2.0**-7, "float16": 2.0**-9}[expected.dtype.name]
        data.assert_close(weights, expected, 2 * unit, 1e-7, case.operation)


# --------------------------------------------------------------------------
# moe.dispatch: offsets and positions, and the row of each choice
# --------------------------------------------------------------------------


def dispatch_case(i: int) -> Case:
    r = data.rng("dispatch case", i)
    experts, top_k = int(r.choice([1, 3, 8])), int(r.integers(1, 5))
    a: dict[str, Any] = dict(num_experts=experts)
    if r.random() < 0.75:
        a["capacity"] = random_capacity(r)
    a["priority"] = str(r.choice(["position", "choice", "probability"]))
    if "capacity" in a and a["priority"] != "probability" and r.random() < 0.5:
        a["overflow"] = "next_choice"
    if r.random() < 0.4:
        a["choices"] = int(r.integers(1, top_k + 1))
    if r.random() < 0.5:
        a["uncovered"] = "zero"
    if r.random() < 0.4:
        a["scale_rows"] = True
    element, kind = str(r.choice(["f32", "bf16", "f16"])), str(r.choice(["f32", "bf16"]))
    rows, ids = tensor((-1, H), element), tensor((-1, top_k), "i32")
    inputs = [("rows", (-1, H), element), ("ids", (-1, top_k), "i32")]
    operands = ""
    if a["priority"] == "probability" or a.get("scale_rows") or r.random() < 0.2:
        inputs.append(("weights", (-1, top_k), kind))
        operands = f" weights(%weights : {tensor((-1, top_k), kind)})"
    parts = [f"experts({experts})"]
    if "capacity" in a:
        parts.append(capacity_text(a["capacity"]))
    for key in ("priority", "overflow", "choices", "uncovered"):
        if key in a:
            parts.append(f"{key}({a[key]})")
    if a.get("scale_rows"):
        parts.append("scale_rows")
    lines = ["  %c0 = arith.constant 0 : index", f"  %t = tensor.dim %ids, %c0 : {ids}",
             f"  %g, %o, %p = moe.dispatch %rows, %ids{operands} {' '.join(parts)}\n"
             f"    : {rows}, {ids}"]
    # The grouped rows have no extent of T: show the row of each choice instead.
    for k in range(top_k):
        column = tensor((-1, 1), "i32")
        lines.append(f"  %p{k} = tensor.extract_slice %p[0, {k}] [%t, 1] [1, 1] : {ids} to "
                     f"{column}\n  %y{k} = moe.combine %g, %p{k} : {rows}, {column}")
    results = [f"tensor<{experts + 1}xi32>", ids] + [rows] * top_k
    returned = ", ".join(["%o", "%p"] + [f"%y{k}" for k in range(top_k)])
    return Case(f"dispatch{i}", inputs, "\n".join(lines), results, returned, a)


@pytest.mark.parametrize("i", range(DISPATCHES))
def test_dispatch(i):
    case, layer = compiled_layer("dispatch", i)
    experts = case.arguments["num_experts"]
    for tokens in (0, 1, 7, 33):
        r = data.rng(case.name, tokens)
        inputs: dict[str, np.ndarray] = {}
        for name, shape, element in case.inputs:
            shape = tuple(tokens if d < 0 else d for d in shape)
            if name == "ids":
                skew = r.random() < 0.3
                inputs[name] = r.integers(-1, 1 if skew else experts, shape).astype(np.int32)
            else:
                values = r.integers(-8, 9, shape) / 8
                if name == "weights" and not case.arguments.get("scale_rows"):
                    values = np.where(r.random(shape) < 0.1, np.nan, values)
                inputs[name] = values.astype(np.float32).astype(data.numpy_type(element))
        offsets, positions, *rows = layer(**inputs)
        grouped, expected_offsets, expected_positions = dispatch(
            inputs["rows"], inputs["ids"], weights=inputs.get("weights"), **case.arguments)
        np.testing.assert_array_equal(offsets, expected_offsets, err_msg=case.operation)
        np.testing.assert_array_equal(positions, expected_positions, err_msg=case.operation)
        for k, row in enumerate(rows):
            expected = combine(grouped, expected_positions[:, k:k + 1])
            np.testing.assert_array_equal(row.astype(np.float32), expected.astype(np.float32),
                                          err_msg=case.operation)


# --------------------------------------------------------------------------
# moe.combine
# --------------------------------------------------------------------------


def combine_case(i: int) -> Case:
    r = data.rng("combine case", i)
    top_k = int(r.integers(1, 5))
    element, kind = str(r.choice(["f32", "bf16", "f16"])), str(r.choice(["f32", "bf16", "f16"]))
    rows, positions = tensor((-1, H), element), tensor((-1, top_k), "i32")
    inputs = [("grouped", (-1, H), element), ("positions", (-1, top_k), "i32")]
    operands, a = "", {}
    if r.random() < 0.75:
        inputs.append(("weights", (-1, top_k), kind))
        operands += f" weights(%weights : {tensor((-1, top_k), kind)})"
    if r.random() < 0.5:
        inputs.append(("dropped", (-1, H), element))
        operands += f" dropped(%dropped : {rows})"
    if len(inputs) > 2 and inputs[2][0] == "weights":
        if normalize := random_normalize(r):
            a["normalize"] = normalize
            operands += " " + normalize_text(normalize)
    operation = f"  %y = moe.combine %grouped, %positions{operands} : {rows}, {positions}"
    return Case(f"combine{i}", inputs, operation, [rows], "%y", a)


@pytest.mark.parametrize("i", range(COMBINES))
def test_combine(i):
    case, layer = compiled_layer("combine", i)
    for tokens in (0, 1, 7, 33):
        r = data.rng(case.name, tokens)
        inputs: dict[str, np.ndarray] = {}
        for name, shape, element in case.inputs:
            shape = tuple(tokens if d < 0 else d for d in shape)
            if name == "positions":
                inputs[name] = r.integers(-1, max(tokens, 1), shape).astype(np.int32)
            else:
                values = r.integers(1 if name == "weights" else -8, 9, shape) / 8
                inputs[name] = values.astype(np.float32).astype(data.numpy_type(element))
        y = layer(**inputs)
        expected = combine(inputs["grouped"], inputs["positions"], **case.arguments, **{
            k: v for k, v in inputs.items() if k in ("weights", "dropped")})
        assert y.dtype == expected.dtype
        # Without a quotient every term is exact; with one, bf16 may round apart once.
        unit = {"float32": 2e-6, "bfloat16": 2.0**-7, "float16": 2.0**-10}[y.dtype.name]
        if "normalize" not in case.arguments:
            unit = 0
        data.assert_close(y, expected, unit, unit, case.operation)
