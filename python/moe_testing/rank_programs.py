"""Layers over ranks by the definitions of ``moe.reference``, without the runtime's exchanges.

``moe-parallelize`` and ``moe-split-at-exchanges`` leave functions and, in the metadata, the steps
between: calls of functions and exchanges. Here all ranks take each step together; the functions are
compiled by the pipeline of the reference, and each is called as a layer of one rank.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import moe
import moe.parallel
import numpy as np
from moe import reference

from . import ranks


@dataclass(frozen=True)
class Parts:
    """The functions between the exchanges of a layer, and the weights that are by experts."""

    module: moe.Module
    of_experts: frozenset[str]


def parts_of(text: str, options: str) -> Parts:
    """Compile the functions between exchanges, each as a layer of one rank, by the pipeline of the
    reference; ``options`` are those of ``moe-parallelize``."""
    opt = moe.find_compiler().resolve().parent / "moe-opt"

    def run(passes: str) -> str:
        return subprocess.run([opt, "-", f"--{passes}={options}"], input=text, text=True,
                              capture_output=True, check=True).stdout

    of_experts = re.findall(r'moe\.experts = \d+ : i64, moe\.name = "(\w+)"',
                            run("moe-parallelize"))
    lines = run("moe-expert-parallel").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("module "))
    # The layer itself is no function any more.
    lines[begin] = "module {"
    return Parts(moe.compile("\n".join(lines), options=["--pipeline=moe-reference"]),
                 frozenset(of_experts))


def call(module: moe.Module, parts: Parts, weights: dict[str, np.ndarray],
         inputs: dict[str, np.ndarray], counts: Sequence[int],
         table: np.ndarray | None = None) -> list[np.ndarray]:
    """Run the only layer of a module for ranks with these counts of tokens; the outputs, whole.

    ``module`` says what the steps are, and ``parts`` has the functions that they call.
    """
    program = module._variant["parallel"][0]
    size = len(counts)
    if table is None:
        table = moe.parallel.placement(program["experts"], size)
    slots = np.full((size, program["slots"]), -1, np.int32)
    slots[:, :table.shape[1]] = table
    target = placement(slots, program["experts"], program["replicas"])
    values: list[dict[str, Any]] = ranks.split(inputs, counts)
    for rank, own in enumerate(values):
        # A rank takes its own copy of an expert where it has one.
        own["placement"] = target.copy()
        for expert in slots[rank][slots[rank] >= 0]:
            own["placement"][expert] = -1
            own["placement"][expert, 0] = (rank * program["slots"]
                                           + slots[rank].tolist().index(expert))
    for step in program["steps"]:
        if "call" in step:
            for rank, own in enumerate(values):
                _call(parts.module, step, own,
                      own_weights(weights, parts.of_experts, slots[rank]))
        elif "exchange" in step:
            _exchange(program, step["exchange"], values, counts)
        elif "gather" in step:
            found = reference.all_gather([own[step["gather"]["source"]] for own in values])
            _set(values, step["gather"]["result"], found)
        else:
            found = reference.own_rows([own[step["own"]["source"]] for own in values], counts)
            _set(values, step["own"]["result"], found)
    return [np.concatenate([own[each["name"]] for own in values])
            for each in program["arguments"] if each["role"] == "output"]


def placement(slots: np.ndarray, experts: int, replicas: int) -> np.ndarray:
    """The slots of each expert, ``[E, R]``, by ranks."""
    found = np.full((experts, replicas), -1, np.int32)
    for expert in range(experts):
        where = np.flatnonzero(slots.ravel() == expert)
        found[expert, :len(where)] = where
    return found


def own_weights(weights: dict[str, np.ndarray], of_experts: frozenset[str],
                own: np.ndarray) -> dict[str, np.ndarray]:
    """The weights of a rank; zeros for an empty slot."""
    found = dict(weights)
    for name in of_experts:
        found[name] = np.where((own >= 0).reshape(-1, *[1] * (weights[name].ndim - 1)),
                               weights[name][np.maximum(own, 0)], 0).astype(weights[name].dtype)
    return found


def _set(values: list[dict[str, Any]], name: str, found: Sequence[np.ndarray]) -> None:
    for own, each in zip(values, found, strict=True):
        own[name] = each


def _call(parts: moe.Module, step: dict[str, Any], own: dict[str, Any],
          weights: dict[str, np.ndarray]) -> None:
    signature = parts.signature(step["call"])
    layer = parts.layer({info.name: weights[info.name] for info in signature.weights},
                        function=step["call"])
    result = layer(**{info.name: own[info.name] for info in signature.inputs})
    results = result if isinstance(result, tuple) else (result,)
    own.update(zip(step["outputs"], results, strict=True))


def _exchange(program: dict[str, Any], step: dict[str, Any], values: list[dict[str, Any]],
              counts: Sequence[int]) -> None:
    sources = [[own[each["value"]] for each in step["sources"]] for own in values]
    index = step["sources"][0].get("index")
    rows, received = reference.exchange(sources, [own[step["counts"]] for own in values],
                                        None if index is None else [own[index] for own in values])
    described = {each["name"]: each for each in program["values"]}
    for i, name in enumerate(step["results"]):
        for own, each, tokens in zip(values, rows, counts, strict=True):
            own[name] = each[i]
            if described[name]["rows"] == "home":
                own[name] = _padded(each[i], (tokens, *described[name]["shape"][1:]))
    if "received" in step:
        _set(values, step["received"], received)
    else:
        for own, each in zip(values, received):
            np.testing.assert_array_equal(each, own[step["expected"]])


def _padded(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rows as the first of a value that has room for more, which nothing may read."""
    whole = np.full((int(np.prod(shape[:-1])), shape[-1]), -1 if rows.dtype.kind == "i" else np.nan,
                    rows.dtype)
    whole[:len(rows)] = rows
    return whole.reshape(shape)
