"""A backend of ``torch.compile`` that runs Mixture-of-Experts blocks as compiled layers.

    model = torch.compile(model, backend="moe")     # for inference, under torch.no_grad()

What ``moe.from_torch`` translates, the router with its experts, becomes one operation,
``moe_mlir::layer``; so do experts behind transformers' interface whose block it does not
translate. The rest of the graph goes to inductor, which takes ``mode`` and ``options``.

A block is replaced only where its part of the graph computes what the module computes
when it is called with its rows alone: both are run once with random rows. What stays as
it is, is a warning with its reason. The weights are operands, so changes of them are
noticed; a change of a module's numbers needs ``torch._dynamo.reset()``, and is an error
before.

The backend is registered when this module is imported, and found by its name where the
package is installed.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._dynamo import register_backend
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .._error import MoEError
from . import _operation  # noqa: F401  (registers moe_mlir::layer)
from ._experts import describe, is_experts, parameter_names
from .torch import blocks_of, from_torch

__all__ = ["backend"]

Node = torch.fx.Node

# Of the largest result: of sums in another order, and of roundings in another place.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@register_backend(name="moe")
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


class _Left(Exception):
    """Why a module is not replaced."""


@dataclass
class _Part:
    """The nodes of one call of a module, what they read and what is read of them."""

    module: torch.nn.Module
    path: str
    nodes: list[Node]
    weights: dict[int, Node]  # by the id of the tensor
    attributes: list[Node]  # numbers of the module
    operands: list[Node]  # other tensors
    results: list[Node]


@dataclass(frozen=True)
class _Translation:
    """A function that computes a part, and its weights by their names in the module."""

    mlir: str
    names: tuple[str, ...]
    columns: int


_translations: dict[tuple[Any, ...], _Translation] = {}  # by structure
_of_other_sizes: dict[tuple[Any, ...], list[_Translation]] = {}  # without integers
_split: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # with a warning


class _Replacement:
    """Replaces the blocks of one graph."""

    def __init__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]):
        self.graph_module, self.graph = graph, graph.graph
        placeholders = [n for n in self.graph.nodes if n.op == "placeholder"]
        self.values: dict[Node, Any] = dict(zip(placeholders, inputs))
        for node in placeholders:
            if (argument := node.meta.get("grapharg")) is not None:
                self.values[node] = argument.example
        self.frame = _Frame()

    def run(self) -> None:
        gradients = torch.is_grad_enabled() and any(
            isinstance(v, torch.Tensor) and v.requires_grad for v in self.values.values())
        refused = None
        if gradients:
            refused = "compiled layers are for inference; run under torch.no_grad()"
        elif self.is_autocast():
            refused = "a compiled layer computes in the type of its weights, not in autocast's"
        changed = False
        for path, block in self.candidates():
            if refused is not None:
                _warn(path, block, f"it is not compiled: {refused}")
                continue
            try:
                self.replace_block(self.part(block, path))
            except (_Left, MoEError) as error:
                reason = error
            else:
                changed = True
                continue
            experts = next((e for e in block.children() if is_experts(e)), None)
            try:
                if experts is None:
                    raise reason
                self.replace_experts(self.part(experts, path))
            except (_Left, MoEError) as error:
                also = "" if error is reason else f"; its experts alone: {_text(error)}"
                _warn(path, block, f"it is not compiled: {_text(reason)}{also}")
            else:
                changed = True
                _warn(path, block, f"only its experts are compiled: {_text(reason)}")
        if changed:
            self.graph.lint()
            self.graph_module.recompile()

    def is_autocast(self) -> bool:
        return any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")) or any(
            node.target is torch.amp.autocast_mode._enter_autocast for node in self.graph.nodes)

    # -- what is in the graph -------------------------------------------------

    def candidates(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """Return the blocks that are in the graph, by their paths."""
        seen = {_number(key): path for node in self.graph.nodes
                for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items()}
        found: set[int] = set()
        for root in self.frame.modules:
            for name, block in blocks_of(root):
                if id(block) in found:
                    continue
                found.add(id(block))
                if id(block) in seen:
                    yield seen[id(block)], block
                elif block is self.frame.whole:
                    yield f"L['self'].{name}".rstrip("."), block
                elif block is self.frame.split and block not in _split:
                    _split.add(block)
                    _warn(name or "the block", block, "a graph break splits it; it has none with "
                          "experts_implementation='grouped_mm' of transformers, or once "
                          "moe.integrations.torch.replace(model) has replaced it")

    def part(self, module: torch.nn.Module, path: str) -> _Part:
        """Collect the part of the graph that is a call of ``module``."""
        body = [n for n in self.graph.nodes if n.op not in ("placeholder", "output")]
        if module is self.frame.whole:
            nodes = body
        else:
            keys = {key for n in body for key in n.meta.get("nn_module_stack") or {}
                    if _number(key) == id(module)}
            if len(keys) > 1:
                raise _Left("it is called several times")
            nodes = [n for n in body if keys & set(n.meta.get("nn_module_stack") or {})]
        if not nodes:
            raise _Left("a graph break splits it")
        inside = set(nodes)
        own = {id(t) for t in (*module.parameters(), *module.buffers())}
        weights, attributes, operands, results = {}, [], [], []
        for node in nodes:
            for source in node.all_input_nodes:
                if source in inside or source in operands or source in attributes:
                    continue
                value = self.values.get(source)
                if id(value) in own:
                    weights[id(value)] = source
                elif _is_attribute(source, value, module):
                    attributes.append(source)
                elif isinstance(_example(source), torch.Tensor):
                    operands.append(source)
            if any(user not in inside for user in node.users):
                results.append(node)
        return _Part(module, path, nodes, weights, attributes, operands, results)

    # -- replacement ----------------------------------------------------------

    def replace_block(self, part: _Part) -> None:
        """Replace a router with its experts."""
        if len(part.operands) != 1:
            raise _Left(f"it takes {len(part.operands)} tensors, expected one: its rows")
        rows, = part.operands
        like = _example(rows)
        results = [n for n in part.results if _is_like(_example(n), like)]
        if len(results) != 1:
            raise _Left(f"{len(results)} of its results have the shape of its rows, expected one")
        translation = self.translate(part, results[0], rows)
        own = _tensors_of(part.module)
        weights = [part.weights[id(own[name])] for name in translation.names]
        self.replace(part, results[0], [rows], weights, translation)

    def translate(self, part: _Part, result: Node, rows: Node) -> _Translation:
        """Translate a block, or find what an equal one was translated to."""
        structure = self.structure(part, result, [rows])
        if structure in _translations:
            return _translations[structure]
        own = _tensors_of(part.module)
        # Another number of rows is often another graph, but the same function.
        sizeless = self.structure(part, result, [rows], sizes=False)
        for known in _of_other_sizes.setdefault(sizeless, []):
            if self.agrees(part, result, [rows], known):
                _translations[structure] = known
                return known
        like = _example(rows)
        columns = _hint(like.shape[-1])
        imported = from_torch(part.module, example=torch.zeros(
            (*[1] * (like.ndim - 2), 6, columns), dtype=like.dtype, device=like.device))
        for name, weight in imported.weights.items():
            if own.get(name) is not weight or id(weight) not in part.weights:
                raise _Left(f"its weight {name} is not an operand of the graph")
        if imported.columns != columns:
            raise _Left(f"its rows have {columns} columns, expected {imported.columns}")
        found = _Translation(imported.mlir, tuple(imported.weights), imported.columns)
        if not self.agrees(part, result, [rows], found):
            raise _Left("in this graph it computes something else than by itself: an argument "
                        "besides its rows differs")
        _of_other_sizes[sizeless].append(found)
        _translations[structure] = found
        return found

    def replace_experts(self, part: _Part) -> None:
        """Replace experts behind transformers' interface."""
        experts = describe(part.module, type(part.module).__name__)
        by_kind = {}
        for node in part.operands:
            value = _example(node)
            is_rows = value.is_floating_point() and value.shape[-1] == experts.hidden
            by_kind["rows" if is_rows else "weights" if value.is_floating_point() else "ids"] = node
        if len(part.operands) != 3 or len(by_kind) != 3 or len(part.results) != 1:
            raise _Left(f"its experts take {len(part.operands)} tensors and return "
                        f"{len(part.results)}, expected rows, ids and weights, and one")
        operands = [by_kind[k] for k in ("rows", "ids", "weights")]
        rows, result = _example(operands[0]), _example(part.results[0])
        if result.dtype != rows.dtype or result.ndim != rows.ndim:
            raise _Left(f"its experts take rows of {rows.dtype} and return {result.dtype}")
        top_k = _example(by_kind["ids"]).shape[-1]
        names = parameter_names(part.module)
        found = _Translation(experts.mlir(top_k), names, experts.output)
        structure = self.structure(part, part.results[0], operands)
        if _translations.get(structure) != found:
            if not self.agrees(part, part.results[0], operands, found):
                raise _Left("in this graph its experts compute something else than by themselves")
            _translations[structure] = found
        own = _tensors_of(part.module)
        if any(id(own.get(name)) not in part.weights for name in names):
            raise _Left(f"its weights {', '.join(names)} are not operands of the graph")
        weights = [part.weights[id(own[name])] for name in names]
        self.replace(part, part.results[0], operands, weights, found)

    def replace(self, part: _Part, result: Node, operands: list[Node], weights: list[Node],
                found: _Translation) -> None:
        """Write one operation in place of the nodes that make ``result``."""
        with self.graph.inserting_after(part.nodes[-1]):
            y = self.graph.call_function(
                torch.ops.moe_mlir.layer.default,
                (operands, weights, found.mlir, found.columns, part.attributes,
                 [self.values[n].item() for n in part.attributes]))
        like = _example(operands[0])
        with like.fake_mode:
            y.meta["example_value"] = like.new_empty((*like.shape[:-1], found.columns))
        last, expected = y, _example(result)
        if expected.ndim != like.ndim:
            with self.graph.inserting_after(y):
                last = self.graph.call_method("reshape", (y, -1, found.columns))
            last.meta["example_value"] = expected
        for node in (y, last):
            node.meta.setdefault("stack_trace", result.meta.get("stack_trace"))
            node.meta.setdefault("nn_module_stack", result.meta.get("nn_module_stack"))
        inside = set(part.nodes)
        result.replace_all_uses_with(last, delete_user_cb=lambda user: user not in inside)
        _erase_unused(self.graph, part.nodes)

    def agrees(self, part: _Part, result: Node, operands: list[Node],
               found: _Translation) -> bool:
        """Return true if ``found`` computes what the part of the graph does on random rows."""
        random = torch.Generator().manual_seed(0)
        inputs = []
        for node in operands:
            value = _example(node)
            shape = [_hint(size) for size in value.shape]
            if value.is_floating_point():
                tensor = torch.randn(shape, generator=random)
            else:
                tensor = torch.randint(part.module.num_experts, shape, generator=random)
            inputs.append(tensor.to(value.device, value.dtype))
        own = _tensors_of(part.module)
        weights = [own[name] for name in found.names]
        with torch.no_grad():
            expected = self.evaluate(part, result, dict(zip(operands, inputs)))
            actual = torch.ops.moe_mlir.layer(inputs, weights, found.mlir, found.columns, [], [])
        expected, actual = (t.reshape(-1, found.columns).float() for t in (expected, actual))
        difference = (actual - expected).abs().amax(-1)
        limit = _TOLERANCE[_example(result).dtype] * expected.abs().amax()
        # A tie may be another choice in a few rows.
        return bool((difference <= limit).float().mean() >= 0.875)

    def structure(self, part: _Part, result: Node, operands: list[Node],
                  sizes: bool = True) -> tuple[Any, ...]:
        """Return all that a part computes, but for the elements of its tensors.

        Without ``sizes`` integers are left out.
        """
        numbers: dict[Node, int] = {}

        def number(node: Node) -> Any:
            if node in part.attributes:
                return self.values[node].item()
            return f"%{numbers.setdefault(node, len(numbers))}"

        def text(value: Any) -> Any:
            if not sizes and (type(value) is int or _is_size(value)):
                return "#"
            return number(value) if isinstance(value, Node) else value

        lines = [str((number(n), n.op, str(n.target),
                      torch.fx.node.map_aggregate((n.args, n.kwargs), text)))
                 for n in part.nodes if sizes or not _is_size(n)]
        shapes = [(name, t.shape, t.dtype) for name, t in _tensors_of(part.module).items()]
        return (type(part.module), number(result), *map(number, operands), *lines, *shapes)

    def evaluate(self, part: _Part, result: Node, values: dict[Node, Any]) -> torch.Tensor:
        """Run the part of the graph."""
        done = dict(values)

        def value_of(node: Node) -> Any:
            if node in done:
                return done[node]
            if node in self.values:
                return _hint(self.values[node])
            value = _example(node)
            if isinstance(value, torch.Tensor):
                raise _Left(f"it reads {node.name}, which is not known before it runs")
            return _hint(value)

        for node in part.nodes:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
            if node.op == "call_function":
                done[node] = node.target(*args, **kwargs)
            elif node.op == "call_method":
                done[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
            elif node.op == "get_attr":
                done[node] = getattr(self.graph_module, node.target)
            else:
                raise _Left(f"it calls {node.target}, which is not known")
        return done[result]


class _Frame:
    """The Python frame that is traced, and the modules that it reaches."""

    def __init__(self) -> None:
        translator = InstructionTranslator.current_tx()
        while getattr(translator, "parent", None) is not None:
            translator = translator.parent
        values = [*translator.f_locals.values(), *translator.f_globals.values()]
        values = [getattr(v, "cell_contents", v) for v in values]
        self.modules = list({id(v): v for v in values if isinstance(v, torch.nn.Module)}.values())
        # The module whose forward the graph is, or is a part of.
        self.whole = self.split = None
        module = translator.f_locals.get("self")
        if isinstance(module, torch.nn.Module):
            reason = translator.output.compile_subgraph_reason
            forward = inspect.unwrap(getattr(module.forward, "__func__", module.forward))
            if reason is not None and reason.graph_break:
                self.split = module
            elif translator.f_code is getattr(forward, "__code__", None):
                self.whole = module


def _number(key: str) -> int:
    """Return the id of the module of a key of ``nn_module_stack``; 0 if there is none."""
    number = str(key).partition("@")[0]
    return int(number) if number.isdigit() else 0


def _is_attribute(node: Node, value: Any, module: torch.nn.Module) -> bool:
    """Return true if a placeholder is a number that is an attribute in ``module``."""
    source = getattr(node.meta.get("grapharg"), "source", None)
    if not isinstance(value, torch.Tensor) or value.ndim:
        return False
    # Of an instance, or of its class.
    name = getattr(source, "member", None) or getattr(source, "index", None)
    return isinstance(name, str) and any(
        isinstance(own := getattr(part, name, None), (int, float)) and own == value.item()
        for part in module.modules())


def _tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module by name."""
    return dict(itertools.chain(module.named_parameters(remove_duplicate=False),
                                module.named_buffers(remove_duplicate=False)))


def _example(node: Node) -> Any:
    return node.meta.get("example_value")


def _last(node: Node | None) -> Any:
    return None if node is None else _example(node).shape[-1]


def _is_size(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(_example(value), (int, torch.SymInt))


def _hint(value: Any) -> Any:
    """Return the value that a symbolic number has now."""
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value.node.hint
    return value


def _is_like(value: Any, rows: torch.Tensor) -> bool:
    """Return true for rows like ``rows``, in its shape or as a matrix."""
    return (isinstance(value, torch.Tensor) and value.dtype == rows.dtype
            and value.shape[-1:] == rows.shape[-1:]
            and (value.shape == rows.shape or (value.ndim == 2 and rows.ndim == 3)))


def _erase_unused(graph: torch.fx.Graph, nodes: list[Node]) -> None:
    """Erase the nodes of a part that only make each other."""
    inside, live = set(nodes), set()
    pending = [n for n in nodes if any(u not in inside for u in n.users)]
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            # A write to what is read belongs to it.
            pending += [n for n in node.all_input_nodes if n in inside]
            pending += [u for u in node.users if u in inside and _writes(u, node)]
    for node in reversed(nodes):
        if node not in live:
            graph.erase_node(node)


def _writes(user: Node, node: Node) -> bool:
    """Return true if ``user`` writes to ``node``, its first operand."""
    name = user.target if user.op == "call_method" else getattr(user.target, "__name__", "")
    return bool(user.args) and user.args[0] is node and (
        name == "setitem" or (name.endswith("_") and not name.endswith("__")))


def _text(error: Exception) -> str:
    return str(error).partition("UNIMPLEMENTED: ")[2] or str(error)


def _warn(path: str, module: torch.nn.Module, why: str) -> None:
    warnings.warn(f"{path} ({type(module).__name__}): {why}", stacklevel=2)
