"""A backend of ``torch.compile`` that runs Mixture-of-Experts blocks as compiled layers.

    model = torch.compile(model, backend="moe")

What ``moe.from_torch`` translates, the router with its experts, becomes one operation,
``moe_mlir::layer``; so do experts behind transformers' interface whose block it does not
translate. The rest of the graph goes to inductor, which takes ``mode`` and ``options``.

A block is replaced only where its part of the graph computes what the module computes
when it is called with its rows alone: both are run with random rows and random weights.
What stays as it is, is a warning with its reason. A block that breaks the graph runs as it
is once, and is one operation of the graphs that are compiled from then on. The weights are
operands, so changes of them are noticed. A block that breaks the graph runs as it is again
when its numbers or parts have changed; elsewhere such a change needs
``torch._dynamo.reset()``, and is an error before.

The backend is registered when this module is imported, and found by its name where the
package is installed.
"""

from __future__ import annotations

import functools
import gc
import operator
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import torch
from torch._dynamo import register_backend
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .._error import MoEError
from ._experts.description import describe, is_experts, parameter_names
from ._layers import operation  # noqa: F401  (registers moe_mlir::layer)
from ._layers.follow import tensors_of
from ._layers.frames import Traced, chooses, watch
from ._layers.gradients import differentiated, needed_of
from ._layers.graph_part import Left, Part, example, hint, module_id, name_of
from ._layers.module import collector, is_recording, run_layer
from ._layers.state import is_still, same_in_both, state_of
from ._tracing.batches import ROWS, kind_of_batches
from ._tracing.examples import example_of, first_of, rows_in_model
from .torch import import_module, is_block, parts_of

__all__ = ["backend"]

Node = torch.fx.Node

# Operations that choose, and how many modules around one may be a router with its experts.
_CHOICES, _LEVELS = ("topk", "argmax"), 3

# Of the largest result. Of sums in another order, and of roundings in another place:
_TRANSLATION = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
# Of the same operations, which may be split among threads in another way:
_SAME = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def backend(graph: torch.fx.GraphModule, inputs: Sequence[Any], *, mode: str | None = None,
            options: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Replace blocks in ``graph``, and compile the rest by inductor.

    The option ``"rest"`` may be another backend, by name or itself, e.g. ``"eager"``.
    """
    options = dict(options or {})
    rest = options.pop("rest", "inductor")
    # Exports and calls of modules must add no guards to the graph that is traced.
    with torch._guards.tracing(None), unset_fake_temporarily():
        _Replacement(graph, inputs).run()
    if rest != "inductor":
        return torch._dynamo.lookup_backend(rest)(graph, inputs, **options)
    if mode is not None:
        options = {**torch._inductor.list_mode_options(mode), **options}
    return torch._inductor.compile(graph, inputs, options=options)


# An installed package has an entry point, which torch registers when it looks for the name.
if not entry_points(group="torch_dynamo_backends", name="moe"):
    register_backend(backend, name="moe")


@dataclass(frozen=True)
class _Translation:
    """A function that computes a part, and its weights by their names in the module."""

    mlir: str
    names: tuple[str, ...]
    columns: int
    experts: int | None = None  # of ids that are an operand
    counts: tuple[int, ...] | None = None  # how many of the names are the parts of each weight


_translations: dict[tuple[Any, ...], _Translation] = {}  # by structure
_of_other_sizes: dict[tuple[Any, ...], list[_Translation]] = {}  # without integers
_split: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # with a warning
_taken: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # those that are one operation now


class _Replacement:
    """Replaces the blocks of one graph."""

    def __init__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]):
        self.graph_module, self.graph = graph, graph.graph
        placeholders = [n for n in self.graph.nodes if n.op == "placeholder"]
        self.values: dict[Node, Any] = dict(zip(placeholders, inputs))
        for node in placeholders:
            if (argument := node.meta.get("grapharg")) is not None:
                self.values[node] = argument.example
        self.frame = Traced()
        self.last = ""  # what a module was translated to last

    def run(self) -> None:
        changed = False
        for path, block, experts in self.candidates():
            reason: Exception = Left("it has no block that is a module")
            # Whatever goes wrong here, the graph can be compiled without.
            if block is not None:
                try:
                    self.replace_block(self.part(block, path))
                    changed = True
                    continue
                except Exception as error:
                    reason = error
            if experts is None:
                _warn(path, block, f"it is not compiled: {_text(reason)}")
                continue
            try:
                self.replace_experts(self.part(experts, path))
            except Exception as error:
                also = f"; its experts alone: {_text(error)}"
                also = "" if _text(error) == _text(reason) else also
                _warn(path, block or experts, f"it is not compiled: {_text(reason)}{also}")
            else:
                changed = True
                _warn(path, block or experts, f"only its experts are compiled: {_text(reason)}")
        for levels in self.around_choices():
            changed = self.replace_innermost(levels) or changed
        if changed:
            self.graph.lint()
            self.graph_module.recompile()

    # -- what is in the graph -------------------------------------------------

    def candidates(self) -> Iterator[tuple[str, torch.nn.Module | None, torch.nn.Module | None]]:
        """Return paths, blocks and their experts; experts alone whose block is no module."""
        seen = {module_id(key): path for node in self.graph.nodes
                for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items()}
        # Dynamo tells the id of a module alone.
        found = {id(m): m for m in gc.get_objects()
                 if id(m) in seen and issubclass(type(m), torch.nn.Module)} if seen else {}
        modules = [(path, found[key]) for key, path in seen.items() if key in found]
        for special in (self.frame.whole, self.frame.split):
            if special is not None and id(special) not in found:
                modules.append(("L['self']", special))
        handled: set[int] = set()
        for path, module in modules:
            is_split = module is self.frame.split
            if module in _taken or not (is_block(module) or (is_split and chooses(module))):
                continue
            experts = next((e for e in module.children() if is_experts(e)), None)
            handled.add(id(experts))
            if is_split:
                _take_over(path, module, self.frame.rows)
                continue
            yield path, module, experts
        for path, module in modules:
            if id(module) not in handled and is_experts(module) and module is not self.frame.split:
                yield path, None, module

    def around_choices(self) -> Iterator[list[tuple[str, torch.nn.Module]]]:
        """Return the modules around each choice that is of no block by its name, from inside."""
        found: dict[int, torch.nn.Module] = {}
        done: set[tuple[int, ...]] = set()
        for node in [n for n in self.graph.nodes if name_of(n) in _CHOICES]:
            if node not in set(self.graph.nodes):  # of what is replaced
                continue
            levels = [(module_id(key), path) for key, (path, _) in (
                node.meta.get("nn_module_stack") or {}).items()]
            if (ids := tuple(i for i, _ in levels)) in done:
                continue
            done.add(ids)
            found = found or {id(m): m for m in gc.get_objects()
                              if issubclass(type(m), torch.nn.Module)}
            modules = [(path, found[i]) for i, path in levels if i in found]
            if self.frame.whole is not None and self.frame.whole not in [m for _, m in modules]:
                modules.insert(0, ("L['self']", self.frame.whole))
            if not any(is_block(m) or is_experts(m) or m in _taken for _, m in modules):
                yield modules[::-1][:_LEVELS]

    def replace_innermost(self, levels: Sequence[tuple[str, torch.nn.Module]]) -> bool:
        """Replace the first of these modules that is a router with experts; return whether one
        is. A choice without experts is no reason for a warning."""
        reason: Exception | None = None
        for path, module in levels:
            self.last = ""
            try:
                self.replace_block(self.part(module, path), only_experts=True)
                return True
            except _NoExperts:
                continue
            except Exception as error:
                reason = error if "moe.dispatch" in self.last else reason
            if reason is not None:
                _warn(path, module, f"it is not compiled: {_text(reason)}")
                break
        return False

    def part(self, module: torch.nn.Module, path: str) -> Part:
        """Collect the part of the graph that is a call of ``module``."""
        body = [n for n in self.graph.nodes if n.op not in ("placeholder", "output")]
        if module is self.frame.whole:
            nodes = body
        else:
            keys = {key for n in body for key in n.meta.get("nn_module_stack") or {}
                    if module_id(key) == id(module)}
            if len(keys) > 1:
                raise Left("it is called several times")
            nodes = [n for n in body if keys & set(n.meta.get("nn_module_stack") or {})]
        if not nodes:
            raise Left("a graph break splits it")
        part = Part.of(module, path, nodes, self.values)
        self.check_modes(part)
        return part

    def check_modes(self, part: Part) -> None:
        """Refuse a part under autocast, and find out whether it is differentiated."""
        gradients = torch.is_grad_enabled()
        autocast = any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
        for node in self.graph.nodes:
            if node is part.nodes[0]:
                break
            if node.target is torch._C._set_grad_enabled:
                gradients = node.args[0]
            autocast = autocast or node.target is torch.amp.autocast_mode._enter_autocast
        part.gradients = gradients
        if autocast:
            raise Left("a compiled layer computes in the type of its weights, not in autocast's")

    # -- replacement ----------------------------------------------------------

    def replace_block(self, part: Part, only_experts: bool = False) -> None:
        """Replace a router with its experts; another module is an error if it is ``only`` these."""
        if len(part.operands) != 1:
            raise Left(f"it takes {len(part.operands)} tensors, expected one: its rows")
        rows, = part.operands
        results = [n for n in part.results if _is_like(example(n), example(rows))]
        if len(results) != 1:
            raise Left(f"{len(results)} of its results have the shape of its rows, expected one")
        found = self.translate(part, results[0], rows, only_experts)
        if only_experts and "moe.dispatch" not in found.mlir:
            raise _NoExperts
        self.replace(part, results[0], [rows], found)

    def translate(self, part: Part, result: Node, rows: Node,
                  only_experts: bool = False) -> _Translation:
        """Translate a block, or find what an equal one was translated to."""
        structure = part.structure(result, [rows], self.values)
        if structure in _translations:
            return _translations[structure]
        self.check_call(part, result, rows)
        # Another number of rows is often another graph, but the same function.
        sizeless = part.structure(result, [rows], self.values, sizes=False)
        for known in _of_other_sizes.setdefault(sizeless, []):
            if self.agrees(part, result, [rows], known):
                _translations[structure] = known
                return known
        like = example(rows)
        columns = hint(like.shape[-1])
        with warnings.catch_warnings():
            if only_experts:
                warnings.filterwarnings("ignore", ".*has nothing that is known as experts")
            imported = import_module(part.module, example=torch.zeros(
                (*[1] * (like.ndim - 2), 6, columns), dtype=like.dtype, device=like.device))
        self.last = imported.mlir
        if only_experts and "moe.dispatch" not in imported.mlir:
            raise _NoExperts
        if imported.columns != columns:
            raise Left(f"its rows have {columns} columns, expected {imported.columns}")
        own, names, counts = tensors_of(part.module), tuple(imported.weights), None
        for name, weight in imported.weights.items():
            if own.get(name) is weight:
                continue
            # Of experts that are a module each.
            if (parts := parts_of(part.module, imported.weights)) is None:
                raise Left(f"its weight {name} is made of its parameters")
            names = tuple(name for of in parts for name in of)
            counts = tuple(len(of) for of in parts)
            break
        found = _Translation(imported.mlir, names, imported.columns, counts=counts)
        for name in names:
            if id(own[name]) not in part.weights:
                raise Left(f"its weight {name} is not an operand of the graph")
        if not self.agrees(part, result, [rows], found):
            raise Left("its translation computes something else")
        _of_other_sizes[sizeless].append(found)
        _translations[structure] = found
        return found

    def replace_experts(self, part: Part) -> None:
        """Replace experts behind transformers' interface."""
        experts = describe(part.module, type(part.module).__name__)
        by_kind = {}
        for node in part.operands:
            value = example(node)
            is_rows = value.is_floating_point() and value.shape[-1] == experts.hidden
            by_kind["rows" if is_rows else "weights" if value.is_floating_point() else "ids"] = node
        if len(part.operands) != 3 or len(by_kind) != 3 or len(part.results) != 1:
            raise Left(f"its experts take {len(part.operands)} tensors and return "
                       f"{len(part.results)}, expected rows, ids and weights, and one")
        operands = [by_kind[k] for k in ("rows", "ids", "weights")]
        rows, result = example(operands[0]), example(part.results[0])
        if result.dtype != rows.dtype or result.ndim != rows.ndim:
            raise Left(f"its experts take rows of {rows.dtype} and return {result.dtype}")
        top_k = hint(example(by_kind["ids"]).shape[-1])
        names = parameter_names(part.module)
        own = tensors_of(part.module)
        for name in names:
            if id(own.get(name)) not in part.weights:
                raise Left(f"its weight {name} is not an operand of the graph")
        found = _Translation(experts.mlir(top_k), names, experts.output, experts.experts)
        structure = part.structure(part.results[0], operands, self.values)
        if _translations.get(structure) != found:
            if not self.agrees(part, part.results[0], operands, found):
                raise Left("in this graph its experts compute something else than by themselves")
            _translations[structure] = found
        self.replace(part, part.results[0], operands, found)

    def replace(self, part: Part, result: Node, operands: list[Node],
                found: _Translation) -> None:
        """Write one operation in place of the nodes that make ``result``."""
        own = tensors_of(part.module)
        weights = [part.weights.get(id(own[name])) for name in found.names]
        if None in weights:
            raise Left(f"its weight {found.names[weights.index(None)]} is not an operand of the "
                       "graph")
        like = example(operands[0])
        with torch.set_grad_enabled(part.gradients):
            needed = needed_of([*map(example, operands)], [own[name] for name in found.names],
                               found.counts)
        counts = found.counts and list(found.counts)
        operation, more = torch.ops.moe_mlir.layer.default, (counts,)
        arguments = operands, weights, found.mlir, found.columns, True
        if part.attributes:  # its backward pass runs it again
            operation = torch.ops.moe_mlir.layer_of_numbers.default
            more = part.attributes, [self.values[n].item() for n in part.attributes], counts
        elif needed:
            operation = torch.ops.moe_mlir.layer_forward.default
            arguments, more = (operands, weights, found.mlir, needed, True, counts, "{}"), ()
        if needed:
            differentiated(found.mlir, tuple(needed), like.device)  # or there is a reason
        with self.graph.inserting_after(part.nodes[-1]):
            y = self.graph.call_function(operation, (*arguments, *more))
        if arguments[3] is needed:
            with self.graph.inserting_after(y):
                y = self.graph.call_function(operator.getitem, (y, 0))
        with like.fake_mode:
            y.meta["example_value"] = like.new_empty((*like.shape[:-1], found.columns))
        last, expected = y, example(result)
        if expected.ndim != like.ndim:
            with self.graph.inserting_after(y):
                last = self.graph.call_method("reshape", (y, -1, found.columns))
            last.meta["example_value"] = expected
        for node in (y, last):
            node.meta.setdefault("stack_trace", result.meta.get("stack_trace"))
            node.meta.setdefault("nn_module_stack", result.meta.get("nn_module_stack"))
        inside = set(part.nodes)
        result.replace_all_uses_with(last, delete_user_cb=lambda user: user not in inside)
        part.erase(self.graph)

    # -- checks ---------------------------------------------------------------

    def check_call(self, part: Part, result: Node, rows: Node) -> None:
        """Check that the part is a call of the module with its rows and nothing else.

        Random weights show what those of now may hide, and large rows what a limit cuts.
        """
        random = torch.Generator().manual_seed(0)
        own = tensors_of(part.module)
        drawn = {name: _draw(t.shape, t, random) if t.is_floating_point() and t.ndim else t.clone()
                 for name, t in own.items()}
        # A tensor with several names is one.
        by_id = {id(own[name]): value for name, value in drawn.items()}
        drawn = {name: by_id[id(t)] for name, t in own.items()}
        given = {node: by_id[key] for key, node in part.weights.items()}
        for scale in (1.0, 30.0):
            tensor = self.random_like(rows, random) * scale
            with torch.no_grad():
                expected = torch.func.functional_call(part.module, drawn, (tensor.clone(),))
                actual = part.evaluate(result, {**given, rows: tensor.clone()}, self.values)
            if isinstance(expected, (tuple, list)):
                expected = expected[0]
            if expected.shape.numel() != actual.shape.numel() or _difference(
                    actual, expected).max() > _SAME[actual.dtype]:
                raise Left("in this graph it computes something else than by itself: an argument "
                           "besides its rows differs")

    def agrees(self, part: Part, result: Node, operands: list[Node],
               found: _Translation) -> bool:
        """Return true if ``found`` computes what the part of the graph does on random rows."""
        random = torch.Generator().manual_seed(0)
        inputs = [self.random_like(node, random, found.experts) for node in operands]
        own = tensors_of(part.module)
        if any(name not in own for name in found.names):
            return False
        given = {node: self.values[node] for node in part.weights.values()}
        with torch.no_grad():
            expected = part.evaluate(result, {**given, **dict(zip(operands, inputs))}, self.values)
            actual = torch.ops.moe_mlir.layer(inputs, [own[n] for n in found.names], found.mlir,
                                              found.columns, True, found.counts)
        # A tie may be another choice in a few rows.
        close = _difference(actual, expected) <= _TRANSLATION[example(result).dtype]
        return bool(close.float().mean() >= 0.875)

    def random_like(self, node: Node, random: torch.Generator, experts: int | None = None) -> (
            torch.Tensor):
        value = example(node)
        shape = [hint(size) for size in value.shape]
        if 0 in shape:
            raise Left("it has no rows now")
        if value.is_floating_point():
            return torch.randn(shape, generator=random).to(value.device, value.dtype)
        return torch.randint(experts, shape, generator=random).to(value.device, value.dtype)


def _is_backend(compiler: Any) -> bool:
    """Return true for what dynamo has made of this backend."""
    while compiler is not None and compiler is not backend:
        compiler = getattr(compiler, "_torchdynamo_orig_backend", None) or getattr(
            compiler, "compiler_fn", None)
    return compiler is backend


def _skipped(modules: Sequence[torch.nn.Module], rows: torch.Tensor | None, reason: str) -> None:
    """Take over modules whose code runs in Python, as a graph break in a loop leaves it."""
    if not (is_block(modules[0]) or chooses(modules[0])):
        return
    with torch._guards.tracing(None), unset_fake_temporarily():
        for module in modules:
            _take_over("a module", module, rows)


def _take_over(path: str, block: torch.nn.Module, rows: torch.Tensor | None) -> None:
    """Have a block that a graph break splits be one operation from its next call on."""
    if block in _split or block in _taken:
        return
    _split.add(block)
    try:
        example = example_of(block, type(block).__name__) if rows is None else torch.zeros(
            (1, 6, hint(rows.shape[-1])), dtype=rows.dtype, device=rows.device)
        rows = rows_in_model(block, example)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*has nothing that is known as experts")
            imported = import_module(block, example=rows)
        if "moe.dispatch" not in imported.mlir:
            if not is_block(block):
                return
            raise Left("it has nothing that is known as experts")
        parts = parts_of(block, imported.weights)
        if parts is None:
            raise Left("some of its weights are no parameters")
        if imported.returned is not None:
            raise Left("it returns more than its rows")
        batches = kind_of_batches(block, rows)
        names = [name for of in parts for name in of]
        counts = [len(of) for of in parts]
        random = torch.Generator().manual_seed(0)
        # A tie may be another choice in a few rows.
        x = torch.randn((*rows.shape[:-2], 16, rows.shape[-1]), generator=random).to(
            rows.device, rows.dtype)
        before = state_of(block)
        with torch.no_grad():
            expected = first_of(block(x.clone()))
            actual = run_layer(block, x, names, imported.mlir, imported.columns, counts)
        close = _difference(actual, expected) <= _TRANSLATION[x.dtype]
        if close.float().mean() < 0.875:
            raise Left("its translation computes something else")
        state = same_in_both(before, state_of(block))
    except Exception as error:
        _warn(path, block, f"it is not compiled, as a graph break splits it: {_text(error)}")
        return
    original, records = block.forward, collector()

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if (not torch.compiler.is_compiling() or torch.compiler.is_exporting()
                or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
                or torch.is_autocast_enabled("cuda") or len(args) + len(kwargs) != 1
                or is_recording(records) or not is_still(block, state)):
            return original(*args, **kwargs)
        x = args[0] if args else next(iter(kwargs.values()))
        if batches != ROWS and (x.ndim != rows.ndim or (x.ndim == 3 and x.shape[0] != 1)):
            return original(*args, **kwargs)
        return run_layer(block, x, names, imported.mlir, imported.columns, counts)

    block.forward = forward
    _taken.add(block)
    _warn(path, block, "a graph break splits it now; it is one operation from its next call on "
          "without gradients, and from the first with experts_implementation='grouped_mm' of "
          "transformers, or once moe.integrations.torch.replace(model) has replaced it")


def _draw(shape: Sequence[int], like: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(shape, generator=random) / shape[-1] ** 0.5
    return drawn.to(like.device, like.dtype)


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the largest differences in each row, of the largest result."""
    actual, expected = (t.reshape(-1, t.shape[-1]).float() for t in (actual, expected))
    return (actual - expected).abs().amax(-1) / expected.abs().amax().clamp_min(1e-30)


class _NoExperts(Left):
    """A module chooses, and not among experts."""


def _is_like(value: Any, rows: torch.Tensor) -> bool:
    """Return true for rows like ``rows``, in its shape or as a matrix."""
    return (isinstance(value, torch.Tensor) and value.dtype == rows.dtype
            and value.shape[-1:] == rows.shape[-1:]
            and (value.shape == rows.shape or (value.ndim == 2 and rows.ndim == 3)))


def _text(error: Exception) -> str:
    if isinstance(error, MoEError):
        return error.message
    return str(error) if isinstance(error, Left) else f"{type(error).__name__}: {error}"


def _warn(path: str, module: torch.nn.Module, why: str) -> None:
    warnings.warn(f"{path} ({type(module).__name__}): {why}", stacklevel=2)


watch(_is_backend, _skipped)
