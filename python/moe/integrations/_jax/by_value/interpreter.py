"""Runs equations on fingerprints, and records what becomes of a row in the experts."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .equations import Equation, Equations, Literal, NotFound
from .labels import Labels
from .steps import Part, Step

MOST_ELEMENTS = 1 << 24

MOVEMENT = {
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "gather",
    "scatter", "scatter-add", "scatter_add", "dynamic_slice", "dynamic_update_slice",
    "concatenate", "pad", "rev", "select_n", "copy", "copy_p", "reduce_sum", "split", "index",
    "stack", "tile", "optimization_barrier", "reduce_precision", "sharding_constraint"}
ELEMENTWISE = {
    "add", "sub", "mul", "div", "max", "min", "neg", "exp", "exp2", "log", "log1p", "expm1",
    "tanh", "logistic", "erf", "erfc", "erf_inv", "rsqrt", "sqrt", "cbrt", "pow", "integer_pow",
    "square", "abs", "sign", "select_n", "clamp", "lt", "le", "gt", "ge", "eq", "ne", "and",
    "or", "not", "convert_element_type", "sin", "cos", "is_finite", "round", "floor", "ceil",
    "stop_gradient", "add_any", "copy"}


class Parameter:
    """All of a value that depends on parameters alone."""

    def __init__(self, value: int) -> None:
        self.value = value


class Moved:
    """Fingerprints of elements of rows, of steps and of parameters."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


OTHER = object()  # depends on the router's floats, or is not understood


class Interpreter:
    """Each value is an array (known), a Parameter, a Moved, or OTHER."""

    def __init__(self, equations: Equations, weights: set[int], rows: int, shape: tuple[int, ...],
                 ids: int, choices: np.ndarray, experts: int, router: set[int]) -> None:
        """``router``: values that are not followed, of the scores."""
        self.equations, self.experts = equations, experts
        self.labels = Labels()
        self.families: dict[Any, int] = {}
        self.of_family: list[Any] = [None]
        self.ends: list[tuple[int, list[Step]]] = []
        self.router = router
        self.values: dict[int, Any] = {}
        for value in weights:
            self.values[value] = Parameter(value)
        for value, constant in equations.constants.items():
            floats = jnp.issubdtype(constant.dtype, jnp.floating) and constant.ndim >= 2
            self.values[value] = Parameter(value) if floats else np.asarray(constant)
        self.width = shape[-1]
        self.tokens = math.prod(shape[:-1])
        family = self._step(Step("row"), self.width)
        count = self.tokens * self.width
        self.values[rows] = Moved(self.labels.write(
            np.full(shape, family), np.arange(count).reshape(shape)))
        self.values[ids] = choices
        self.fixed = {rows, ids}

    # -- families ---------------------------------------------------------------

    def _step(self, step: Step, width: int) -> int:
        if step not in self.families:
            self.families[step] = self.labels.family(self.tokens * width)
            self.of_family.append((step, width))
        return self.families[step]

    def _elements(self, parameter: Parameter) -> np.ndarray:
        shape = self.equations.avals[parameter.value].shape
        count = math.prod(shape)
        if count > MOST_ELEMENTS:
            raise NotFound("a parameter is too large to be moved")
        key = ("parameter", parameter.value)
        if key not in self.families:
            self.families[key] = self.labels.family(count)
            self.of_family.append((parameter.value, shape))
        return self.labels.write(np.full(shape, self.families[key]),
                                 np.arange(count).reshape(shape))

    def _is_step(self, families: np.ndarray) -> np.ndarray:
        kinds = np.array([e is not None and isinstance(e[0], Step) for e in self.of_family])
        return kinds[families]

    def _steps_in(self, moved: Moved) -> list[Step]:
        found = self.labels.read(moved.array)
        assert found is not None
        return [self.of_family[f][0] for f in np.unique(found[0])
                if f and isinstance(self.of_family[f][0], Step)]

    # -- equations --------------------------------------------------------------

    def run(self) -> None:
        for position, eq in enumerate(self.equations.list):
            if all(out in self.fixed or out in self.values for out in eq.outputs):
                continue
            if any(out in self.router for out in eq.outputs):
                results: list[Any] = [OTHER] * len(eq.outputs)
            else:
                results = self._do(position, eq)
            for out, result in zip(eq.outputs, results):
                if out not in self.fixed:
                    self.values[out] = result

    def _read(self, v: int | Literal) -> Any:
        if isinstance(v, Literal):
            return np.asarray(v.value)
        return self.values.get(v, OTHER)

    def _do(self, position: int, eq: Equation) -> list[Any]:
        given = [self._read(v) for v in eq.inputs]
        other = [OTHER] * len(eq.outputs)
        if any(v is OTHER for v in given):
            for v in given:
                if isinstance(v, Moved):
                    self._end(position, v)
            return other
        if all(isinstance(v, np.ndarray) or v is None for v in given):
            if math.prod(self.equations.avals[eq.outputs[0]].shape) > MOST_ELEMENTS:
                return other
            return [_numpy(r) for r in eq.call(*given)]
        if all(isinstance(v, (Parameter, np.ndarray)) for v in given):
            if eq.name in MOVEMENT and not eq.name.startswith(("scatter", "dynamic_update")):
                if eq.name in ("reshape", "transpose", "squeeze", "expand_dims", "concatenate",
                               "stack", "broadcast_in_dim") and self._is_small_change(eq, given):
                    return [Parameter(out) for out in eq.outputs]
                moved = self._move(eq, given)
                if moved is not None:
                    return moved
            return [Parameter(out) for out in eq.outputs]
        result = None
        if eq.name in ("dot_general", "ragged_dot_general", "ragged_dot"):
            result = self._product(position, eq, given)
        if result is None and (eq.name in MOVEMENT or eq.name in (
                "mul", "add", "add_any", "dot_general", "convert_element_type")):
            if eq.name == "convert_element_type" or not (
                    eq.name in ("mul", "add") and _scalar(given) not in (None, 0.0, 1.0)):
                result = self._move(eq, given)
        if result is not None and eq.name == "convert_element_type" and self._changes(eq):
            result = None
        if result is None and eq.name in ELEMENTWISE:
            result = self._elementwise(position, eq, given)
        if result is None:
            for v in given:
                if isinstance(v, Moved):
                    self._end(position, v)
            return other
        return result

    def _changes(self, eq: Equation) -> bool:
        before = self.equations.avals[eq.inputs[0]].dtype
        return before != eq.params["new_dtype"] and jnp.issubdtype(before, jnp.floating)

    def _is_small_change(self, eq: Equation, given: list[Any]) -> bool:
        """Whether the result is a parameter as it is, whose experts are its first dimension."""
        shape = self.equations.avals[eq.outputs[0]].shape
        return len(shape) == 3 and shape[0] == self.experts and eq.name in ("stack", "concatenate")

    def _end(self, position: int, moved: Moved) -> None:
        steps = [s for s in self._steps_in(moved) if s.products()]
        if steps:
            self.ends.append((position, steps))

    # -- movement ---------------------------------------------------------------

    def _move(self, eq: Equation, given: list[Any]) -> list[Any] | None:
        """Run the equation on fingerprints; None if that gives none."""
        arrays: list[Any] = []
        for v, of in zip(given, eq.inputs):
            if isinstance(v, Parameter):
                arrays.append(self._elements(v))
            elif isinstance(v, Moved):
                arrays.append(v.array)
            elif np.issubdtype(v.dtype, np.integer) or v.dtype == bool:
                arrays.append(v.astype(np.float64) if eq.name in ("mul", "add", "dot_general")
                              else v)
            else:
                arrays.append(v.astype(np.float64))
        results = _in_numpy(eq, arrays)
        if results is None:
            if sum(a.size for a in arrays) > MOST_ELEMENTS:
                raise NotFound("too many elements are moved")
            with jax.enable_x64(True):
                if eq.name == "dot_general":
                    results = [jax.lax.dot_general(
                        *arrays, eq.params["dimension_numbers"],
                        precision=jax.lax.Precision.HIGHEST)]
                elif eq.name in ("scatter-add", "scatter"):
                    # The equation adds in the type of the rows.
                    scatter = jax.lax.scatter if eq.name == "scatter" else jax.lax.scatter_add
                    results = [scatter(
                        *map(jnp.asarray, arrays), eq.params["dimension_numbers"],
                        indices_are_sorted=eq.params["indices_are_sorted"],
                        unique_indices=eq.params["unique_indices"], mode=eq.params["mode"])]
                else:
                    try:
                        results = eq.call(*map(jnp.asarray, arrays))
                    except (TypeError, ValueError):
                        return None
        moved = []
        for result in results:
            array = np.asarray(result)
            if array.dtype != np.float64 or self.labels.read(array) is None:
                return None
            moved.append(Moved(array))
        return moved

    # -- products ---------------------------------------------------------------

    def _product(self, position: int, eq: Equation, given: list[Any]) -> list[Any] | None:
        arrays = []
        for v in given[:2]:
            if isinstance(v, np.ndarray):
                return None
            arrays.append(self._elements(v) if isinstance(v, Parameter) else v.array)
        if eq.name == "dot_general":
            (left, right), (left_batch, right_batch) = eq.params["dimension_numbers"]
            a, a_free = _batched(arrays[0], left_batch, left, last=True)
            b, b_free = _batched(arrays[1], right_batch, right, last=True)
            batch = tuple(arrays[0].shape[i] for i in left_batch)
            rows, columns = self._rows(a), self._columns(b)
            flipped = rows is None or columns is None
            if flipped:
                rows, columns = self._rows(b), self._columns(a)
            if rows is None or columns is None:
                return None
            if not flipped:
                result = self._pairs(position, rows, columns)
            else:
                result = np.swapaxes(self._pairs(position, rows, columns), 1, 2)
            return [Moved(result.reshape(batch + a_free + b_free))]
        if len(given) < 3 or not isinstance(given[2], np.ndarray) or arrays[0].ndim != 2 \
                or arrays[1].ndim != 3 or given[2].ndim != 1:
            return None
        ends = np.cumsum(given[2])
        group = np.searchsorted(ends, np.arange(arrays[0].shape[0]), side="right")
        valid = group < arrays[1].shape[0]
        rows = self._rows(arrays[0][:, None, :])
        columns = self._columns(np.swapaxes(arrays[1], 1, 2))
        if rows is None or columns is None:
            return None
        taken = tuple(c[np.where(valid, group, 0)] for c in columns)
        result = self._pairs(position, rows, taken)[:, 0]
        return [Moved(np.where(valid[:, None], result, 0.0))]

    def _rows(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the step (family) and token of each row [batch, M], of the columns in order."""
        found = self.labels.read(array)
        if found is None:
            return None
        family, index = found
        if not self._is_step(family)[family != 0].all():
            return None
        normal = self._whole_columns(family, index)
        if normal is None:
            return None
        family, index = normal
        width = self._widths()[family[..., 0]]
        size = array.shape[-1]
        first = family[..., :1]
        none = first[..., 0] == 0
        right = (family == first) & (index == index[..., :1] + np.arange(size))
        if not (right.all(-1) | (family == 0).all(-1)).all():
            return None
        if ((width != size) & ~none).any():
            return None
        return family[..., 0], index[..., 0] // size

    def _widths(self) -> np.ndarray:
        return np.array([1 if e is None or not isinstance(e[0], Step) else e[1]
                         for e in self.of_family])

    def _columns(self, array: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """Return parameter (family), expert, axis of the contraction and column, [batch, N]."""
        found = self.labels.read(array)
        if found is None:
            return None
        family, index = found
        if (family == 0).any() or self._is_step(family).any():
            return None
        if (family != family[..., :1]).any() or array.shape[-1] < 2:
            return None
        stride = index[..., 1] - index[..., 0]
        if (index != index[..., :1] + stride[..., None] * np.arange(array.shape[-1])).any():
            return None
        family, index = family[..., 0], index[..., 0]
        expert, axis, column = (np.empty_like(index) for _ in range(3))
        for f in np.unique(family):
            _, shape = self.of_family[f]
            if len(shape) < 2:
                return None
            here = family == f
            rows, columns = shape[-2:]
            expert[here] = index[here] // (rows * columns) if len(shape) > 2 else -1
            within = index[here] % (rows * columns)
            if (stride[here] == columns).all() and array.shape[-1] == rows:
                if (within >= columns).any():
                    return None
                axis[here], column[here] = 0, within
            elif (stride[here] == 1).all() and array.shape[-1] == columns:
                if (within % columns).any():
                    return None
                axis[here], column[here] = 1, within // columns
            else:
                return None
        return family, expert, axis, column

    def _pairs(self, position: int, rows: Any, columns: Any) -> np.ndarray:
        """Return the fingerprints of products of each row [B, M] with each column [B, N]."""
        step, token = (r[:, :, None] for r in rows)
        family, expert, axis, column = (c[:, None, :] for c in columns)
        shape = np.broadcast_shapes(step.shape, family.shape)
        if math.prod(shape) > MOST_ELEMENTS:
            raise NotFound("a product has too many elements")
        most = 1 << 14
        base = len(self.of_family)
        keys = ((step * base + family) * most + expert + 1) * 2 + axis
        keys = np.where(step == 0, -1, keys)
        unique, inverse = np.unique(keys, return_inverse=True)
        families = np.zeros(len(unique), np.int64)
        widths = np.ones(len(unique), np.int64)
        for i, key in enumerate(unique):
            if key < 0:
                continue
            key, ax = divmod(int(key), 2)
            key, e = divmod(key, most)
            s, f = divmod(key, base)
            value, of = self.of_family[f]
            widths[i] = of[-1] if ax == 0 else of[-2]
            product = Step("product", (self.of_family[s][0],), Part(value, ax, e - 1),
                           equation=position)
            families[i] = self._step(product, int(widths[i]))
        inverse = inverse.reshape(shape)
        return self.labels.write(families[inverse],
                                 np.broadcast_to(token, shape) * widths[inverse]
                                 + np.broadcast_to(column, shape))

    # -- elementwise ------------------------------------------------------------

    def _whole_columns(self, family: np.ndarray, index: np.ndarray) -> Any:
        """Return the same elements where parts of the columns of a step are a step of their own."""
        family, index = family.copy(), index.copy()
        for f in np.unique(family):
            entry = self.of_family[f]
            if entry is None or not isinstance(entry[0], Step):
                continue
            step, width = entry
            here = family == f
            column = index[here] % width
            used = np.unique(column)
            if len(used) == width:
                continue
            if len(used) < 2 or len(set(np.diff(used))) != 1:
                return None
            stride = int(used[1] - used[0])
            part = Step("columns", (step,),
                        columns=(int(used[0]), int(used[-1]) + 1, stride))
            family[here] = self._step(part, len(used))
            index[here] = index[here] // width * len(used) + (column - used[0]) // stride
        return family, index

    def _elementwise(self, position: int, eq: Equation, given: list[Any]) -> list[Any] | None:
        shape = self.equations.avals[eq.outputs[0]].shape
        operands: list[Any] = []
        token = column = None
        for v in given:
            if isinstance(v, np.ndarray):
                if v.size == 0 or (v != v.flat[0]).any():
                    return None
                operands.append(v.flat[0])
                continue
            array = self._elements(v) if isinstance(v, Parameter) else v.array
            found = self.labels.read(np.broadcast_to(array, shape))
            if found is None:
                return None
            family, index = found
            steps = self._is_step(family)
            if steps[family != 0].all():
                normal = self._whole_columns(family, index)
                if normal is None:
                    return None
                family, index = normal
                width = self._widths()[family]
                there = family != 0
                t, c = index // width, index % width
                if token is None:
                    token, column, exists = t, c, there
                elif ((t != token) | (c != column))[exists & there].any():
                    return None
                else:
                    exists = exists & there
                operands.append(family)
            elif steps.any():
                return None
            else:
                operands.append((family, index))
        if token is None:
            return None
        keys = []
        for i, operand in enumerate(operands):
            if isinstance(operand, tuple):  # a bias
                family, index = operand
                expert = np.zeros_like(index)
                for f in np.unique(family[exists]):
                    if f == 0:
                        return None
                    _, of = self.of_family[f]
                    here = family == f
                    if (index % of[-1] != column)[here & exists].any():
                        return None
                    expert[here] = index[here] // of[-1] if math.prod(of[:-1]) > 1 or len(
                        of) > 1 else -1
                keys.append(family)
                keys.append(expert)
            elif isinstance(operand, np.ndarray):
                keys.append(operand)
        flat = np.stack([np.where(exists, k, 0).reshape(-1) for k in keys])
        unique, inverse = np.unique(flat, axis=1, return_inverse=True)
        families = np.zeros(unique.shape[1], np.int64)
        widths = np.ones(unique.shape[1], np.int64)
        for n in range(unique.shape[1]):
            key = list(unique[:, n])
            if not any(key):
                continue
            steps, width = [], None
            for operand in operands:
                if isinstance(operand, tuple):
                    f, e = key.pop(0), key.pop(0)
                    value, of = self.of_family[f]
                    steps.append(Step("bias", part=Part(value, -1, int(e))))
                elif isinstance(operand, np.ndarray):
                    step, width = self.of_family[key.pop(0)]
                    steps.append(step)
                else:
                    steps.append(Step("constant", constant=operand))
            families[n] = self._step(Step("elementwise", tuple(steps), equation=position), width)
            widths[n] = width
        inverse = inverse.reshape(shape)
        result = self.labels.write(families[inverse], token * widths[inverse] + column)
        return [Moved(np.where(exists, result, 0.0))]


def _numpy(value: Any) -> Any:
    return np.asarray(value)


def _scalar(given: list[Any]) -> float | None:
    for v in given:
        if isinstance(v, np.ndarray) and v.size and (v == v.flat[0]).all():
            return float(v.flat[0])
    return None


def _batched(array: np.ndarray, batch: Any, contracted: Any, last: bool) -> Any:
    free = [i for i in range(array.ndim) if i not in batch and i not in contracted]
    moved = array.transpose(*batch, *free, *contracted)
    shape = tuple(array.shape[i] for i in free)
    count = math.prod(array.shape[i] for i in batch)
    return moved.reshape(count, math.prod(shape),
                         math.prod(array.shape[i] for i in contracted)), shape


def _in_numpy(eq: Equation, arrays: list[Any]) -> list[Any] | None:
    """The commonest movement without a compilation."""
    p = eq.params
    if eq.name == "reshape" and p.get("dimensions") is None:
        return [arrays[0].reshape(p["new_sizes"])]
    if eq.name == "transpose":
        return [arrays[0].transpose(p["permutation"])]
    if eq.name == "squeeze":
        return [arrays[0].squeeze(tuple(p["dimensions"]))]
    if eq.name == "broadcast_in_dim" and len(arrays) == 1:
        shape = [1] * len(p["shape"])
        for i, d in enumerate(p["broadcast_dimensions"]):
            shape[d] = arrays[0].shape[i]
        return [np.broadcast_to(arrays[0].reshape(shape), p["shape"])]
    if eq.name == "slice":
        strides = p["strides"] or (1,) * arrays[0].ndim
        return [arrays[0][tuple(slice(a, b, s) for a, b, s in zip(
            p["start_indices"], p["limit_indices"], strides))]]
    if eq.name == "mul":
        return [arrays[0] * arrays[1]]
    if eq.name in ("add", "add_any"):
        return [arrays[0] + arrays[1]]
    if eq.name in ("convert_element_type", "copy", "optimization_barrier", "reduce_precision"):
        return list(arrays)
    if eq.name == "concatenate":
        return [np.concatenate(arrays, p["dimension"])]
    if eq.name == "reduce_sum":
        return [arrays[0].sum(tuple(p["axes"]))]
    if eq.name == "tile":
        return [np.tile(arrays[0], p["reps"])] if "reps" in p else None
    if eq.name == "index":
        return [arrays[0][p["i"]]]
    if eq.name == "stack":
        return [np.stack(arrays)]
    if eq.name == "select_n" and len(arrays) == 3 and arrays[0].ndim in (0, arrays[1].ndim):
        return [np.where(np.asarray(arrays[0], bool), arrays[2], arrays[1])]
    return None
