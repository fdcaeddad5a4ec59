"""Cases of ``check``, run in their own process, one artifact after another."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import moe
import numpy as np
from moe import _dlpack
from moe_testing import data, layers
from moe_testing.device import arrays
from moe_testing.device.cuda_driver import DriverError, driver

from ..common import data as bench_data
from ..common import oracle
from . import supervise
from .bundle import Bundle, Spec, find
from .shapes import CHECKED

Arrays = Mapping[str, np.ndarray]
# From less than one row per expert to some hundreds, to cover all tiles, full and partial.
TOKENS = (0, 1, 7, 33, 67, 150, 300, 601)
SKEWED_TOKENS = 333
REPLAYED_TOKENS = 45
# For layers with a capacity, whose formulas have a mask for each slot of each expert.
CAPACITY_TOKENS = (0, 1, 33, 150)
# The routing of a draw depends on rounding if a relative change NUDGE of the router changes the
# result by more than STEADY, relative to the largest magnitude.
NUDGE, STEADY = 1e-5, 1e-3


class Wrong(Exception):
    """A result is wrong."""


class FamilyCase:
    """A family of moe_testing/layers.py."""

    def __init__(self, spec: Spec, seed: int):
        self.spec, self.seeds = spec, itertools.count(seed)
        self.tolerance = data.TOLERANCE[spec.dtype]
        self.weights = data.weights_of(spec.name, spec.dtype)
        self.tokens = CAPACITY_TOKENS if spec.name in layers.WHOLE else TOKENS

    def draw(self, tokens: int, weights: Arrays | None = None) -> Arrays:
        """Draw new inputs whose routing does not depend on rounding."""
        weights = self.weights if weights is None else weights
        for seed in itertools.islice(self.seeds, 20):
            with _seeded(seed):
                inputs = data.inputs_of(self.spec.name, tokens, self.spec.dtype)
            if weights is not self.weights:
                inputs["x"][:, 0] = 2
            if not tokens or self._steady(inputs, weights):
                return inputs
        raise Wrong(f"20 draws of {tokens} tokens had choices that depend on rounding")

    def _steady(self, inputs: Arrays, weights: Arrays) -> bool:
        rng = np.random.default_rng(0)
        nudged = {name: (array.astype(np.float64) * (1 + NUDGE * rng.standard_normal(array.shape))
                         if "router" in name else array) for name, array in weights.items()}
        expected = self.expected(inputs, weights)
        return data.relative_error(self.expected(inputs, nudged), expected) < STEADY

    def expected(self, inputs: Arrays, weights: Arrays) -> np.ndarray:
        return data.formula(self.spec.name, inputs, weights)

    def skewed(self) -> Arrays | None:
        """Return weights with which all tokens choose the same expert first."""
        if "router" not in self.weights or self.spec.name == "hierarchical":
            return None
        _, weights = data.skewed(self.spec.name, 1, expert=6, dtype=self.spec.dtype)
        return weights


class ShapeCase:
    """A layer of odd sizes: many stages along k, several tiles along n."""

    tokens = (1, 5, 64, 300, 1111)

    def __init__(self, spec: Spec, seed: int):
        self.shape, self.seeds, self.spec = CHECKED[spec.name], itertools.count(seed), spec
        self.tolerance = oracle.tolerance(spec.dtype, self.shape.top_k)
        self._weights = bench_data.make_weights(self.shape, spec.dtype, seed)
        self.weights = self._weights.named()

    def draw(self, tokens: int, weights: Arrays | None = None) -> Arrays:
        kind = "zipf" if weights is not None else "uniform"
        return {"x": next(bench_data.batches(self.shape, self._weights.router, self.spec.dtype,
                                             tokens, kind, next(self.seeds))).x}

    def expected(self, inputs: Arrays, weights: Arrays) -> np.ndarray:
        return oracle.run(self.shape, self._weights, inputs["x"])

    def skewed(self) -> Arrays | None:
        return self.weights


class _seeded:
    """Makes moe_testing/data.py draw from another seed."""

    def __init__(self, seed: int):
        self.seed = seed

    def __enter__(self) -> None:
        self.before = data.rng
        data.rng = lambda *key: self.before(self.seed, *key)

    def __exit__(self, *_: Any) -> None:
        data.rng = self.before


class Runner:
    """A layer with its weights on the device, and the tensors of one call."""

    def __init__(self, module: moe.Module, weights: Arrays):
        self.held = {name: arrays.upload(array, guarded=True) for name, array in weights.items()}
        names = [info.name for info in module.signature().weights]
        self.layer = module.layer({name: self.held[name] for name in names})
        # Weights that the layer has packed may be freed.
        for info in module.signature().weights:
            if not info.retained:
                del self.held[info.name]
        self.stream = driver().stream()

    def prepare(self, inputs: Arrays) -> None:
        tokens = len(next(iter(inputs.values())))
        self.inputs = {name: arrays.upload(array, guarded=True) for name, array in inputs.items()}
        info, = self.layer.signature.outputs
        self.out = arrays.empty(info.dtype, [tokens if d < 0 else d for d in info.shape],
                                guarded=True)
        size = self.layer.workspace_bytes(tokens)
        self.workspace = _dlpack.Tensor(0, _dlpack.DTYPES["ui8"], (size,), None,
                                        memory := arrays.Guarded(size), (_dlpack.CUDA, 0))
        self.workspace.dl.data = memory.address

    def enqueue(self) -> None:
        self.layer(out=self.out, workspace=self.workspace, stream=self.stream, **self.inputs)

    def poison(self, byte: int) -> None:
        self.out.owner.poison()
        self.workspace.owner.poison(byte)

    def finish(self) -> np.ndarray:
        driver().wait(self.stream)
        self.layer.poll()
        for name, tensor in (("workspace", self.workspace), ("output", self.out),
                             *self.inputs.items(), *self.held.items()):
            if not tensor.owner.intact():
                raise Wrong(f"something was written beside '{name}'")
        return arrays.download(self.out)

    def run(self, byte: int) -> np.ndarray:
        self.poison(byte)
        self.enqueue()
        return self.finish()


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def _compare(case: FamilyCase | ShapeCase, found: np.ndarray, inputs: Arrays, weights: Arrays,
             what: str) -> float:
    if not len(found):
        return 0.0
    expected = case.expected(inputs, weights)
    scale = max(np.abs(expected).max(), 1e-30)
    errors = np.abs(found.astype(np.float64) - expected) / scale
    wrong = ~(errors < case.tolerance)  # NaN is wrong, too
    if wrong.any():
        token, column = np.argwhere(wrong)[0]
        raise Wrong(
            f"{what}: relative error {errors.max():.2e}, expected below "
            f"{case.tolerance:.1e}; {wrong.sum()} of {wrong.size} elements in "
            f"{wrong.any(1).sum()} of {len(wrong)} rows, the first at [{token}, {column}]: "
            f"{float(found[token, column]):.6g}, expected {expected[token, column]:.6g}")
    return float(errors.max())


def run_case(bundle: Bundle, spec: Spec, seed: int, tokens: tuple[int, ...] = ()
             ) -> Iterator[dict[str, Any]]:
    """Run the steps of a case; raises ``Wrong`` if one fails."""
    case = (FamilyCase if spec.kind == "family" else ShapeCase)(spec, seed)
    begin = time.monotonic()
    module = moe.load(bundle.artifact(spec.key), device="cuda")
    runner = Runner(module, case.weights)
    yield {"step": "load", "seconds": time.monotonic() - begin}
    for count in tokens or case.tokens:
        inputs = case.draw(count)
        runner.prepare(inputs)
        # Results must not depend on the contents of the workspace or the order of blocks.
        first, second = runner.run(arrays.POISON), runner.run(0x00)
        error = _compare(case, first, inputs, case.weights, f"T = {count}")
        if not _same_bits(first, second):
            raise Wrong(f"T = {count}: a second run gives other bits")
        yield {"step": f"T = {count}", "error": error}
    if tokens:
        return
    yield {"step": "graph", "error": _replay(case, runner)}
    if (weights := case.skewed()) is not None:
        again = runner if weights is case.weights else Runner(module, weights)
        inputs = case.draw(SKEWED_TOKENS, weights)
        again.prepare(inputs)
        error = _compare(case, again.run(arrays.POISON), inputs, weights,
                         f"T = {SKEWED_TOKENS}, skewed")
        yield {"step": "skewed", "error": error}


def _replay(case: FamilyCase | ShapeCase, runner: Runner) -> float:
    """Replay a graph of one call with new inputs in the same tensors."""
    runner.prepare(case.draw(REPLAYED_TOKENS))
    runner.run(arrays.POISON)
    graph = driver().capture(runner.stream, runner.enqueue)
    largest = 0.0
    for _ in range(2):
        inputs = case.draw(REPLAYED_TOKENS)
        for name, array in inputs.items():
            arrays.put(runner.inputs[name], array)
        runner.poison(arrays.POISON)
        graph.launch(runner.stream)
        largest = max(largest, _compare(case, runner.finish(), inputs, case.weights,
                                        "replay of a graph"))
    return largest


def work(task: dict[str, Any], emit: supervise.Emit) -> None:
    bundle, known = find(), {spec.key: spec for spec in find().specs}
    for key in task["cases"]:
        emit("begin", case=key)
        errors, begin = [], time.monotonic()
        try:
            for step in run_case(bundle, known[key], task["seed"], tuple(task["tokens"])):
                errors.append(step.get("error", 0.0))
                emit("step", case=key, **step)
        except (Wrong, moe.MoEError, DriverError) as error:
            emit("case", case=key, ok=False, reason=str(error), error=max(errors, default=0.0))
            # The error may be sticky and the context lost: the next case needs another process.
            if not isinstance(error, Wrong):
                raise
            continue
        emit("case", case=key, ok=True, error=max(errors, default=0.0),
             seconds=time.monotonic() - begin)


if __name__ == "__main__":
    supervise.serve(work)
