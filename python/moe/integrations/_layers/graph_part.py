"""A part of a graph of dynamo: the nodes of one call of a module."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .follow import tensors_of

__all__ = ["Left", "Part", "example", "hint", "module_id", "name_of"]

Node = torch.fx.Node


class Left(Exception):
    """Why a part of a graph is not replaced."""


# Functions and methods whose result may share the memory of their first operand.
_VIEWS = {"T", "alias", "as_strided", "bfloat16", "chunk", "contiguous", "detach", "diagonal",
          "expand", "expand_as", "flatten", "float", "getattr", "getitem", "half", "mT", "movedim",
          "narrow", "permute", "reshape", "reshape_as", "select", "split", "squeeze", "swapaxes",
          "t", "tensor_split", "to", "transpose", "type", "type_as", "unbind", "unflatten",
          "unfold", "unsqueeze", "view", "view_as"}
_IN_PLACE = {getattr(operator, name) for name in (
    "iadd", "iand", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior", "ipow", "irshift",
    "isub", "itruediv", "ixor", "setitem")}


@dataclass
class Part:
    """The nodes of one call of a module, what they read and what is read of them."""

    module: torch.nn.Module
    path: str
    nodes: list[Node]
    weights: dict[int, Node]  # by the id of the tensor
    attributes: list[Node]  # numbers of the module
    operands: list[Node]  # other tensors
    results: list[Node]
    gradients: bool = False  # whether it is differentiated

    @staticmethod
    def of(module: torch.nn.Module, path: str, nodes: list[Node],
           values: Mapping[Node, Any]) -> Part:
        inside = set(nodes)
        own = {id(t) for t in tensors_of(module).values()}
        part = Part(module, path, nodes, {}, [], [], [])
        for node in nodes:
            if node.op == "get_attr":
                raise Left(f"it has a part of its own, {node.target}")
            if str(node.target).startswith("moe_mlir."):
                raise Left("its experts are compiled already")
            for source in node.all_input_nodes:
                if source in inside or source in part.operands or source in part.attributes:
                    continue
                value = values.get(source)
                if id(value) in own:
                    part.weights[id(value)] = source
                elif _is_attribute(source, value, module):
                    part.attributes.append(source)
                elif isinstance(example(source), torch.Tensor):
                    part.operands.append(source)
            if any(user not in inside for user in node.users):
                part.results.append(node)
        for node in nodes:
            for written in _written(node):
                base = _base(written, inside)
                if base not in inside:
                    raise Left(f"it writes to {base.name}")
        return part

    def structure(self, result: Node, operands: list[Node], values: Mapping[Node, Any],
                  sizes: bool = True) -> tuple[Any, ...]:
        """Return all that the part computes, but for the elements of its tensors.

        Without ``sizes`` integers are left out, but for those of the rows' other extents.
        """
        numbers: dict[Node, int] = {}
        own = tensors_of(self.module)
        names = {node: tuple(n for n, t in own.items() if id(t) == key)
                 for key, node in self.weights.items()}

        def number(node: Node) -> Any:
            if node in self.attributes:
                return values[node].item()
            return names.get(node) or f"%{numbers.setdefault(node, len(numbers))}"

        def text(value: Any) -> Any:
            if not sizes and (type(value) is int or _is_size(value)):
                return "#"
            return number(value) if isinstance(value, Node) else value

        lines = [str((number(n), n.op, str(n.target),
                      torch.fx.node.map_aggregate((n.args, n.kwargs), text)))
                 for n in self.nodes if sizes or not _is_size(n)]
        kinds = []
        for node in operands:
            value = example(node)
            batch = [str(size) if sizes else "#" if size != 1 else 1 for size in value.shape[:-1]]
            kinds.append((number(node), value.dtype, value.device, *batch, str(value.shape[-1])))
        shapes = [(name, t.shape, t.dtype) for name, t in own.items()]
        return (type(self.module), number(result), *kinds, *lines, *shapes)

    def evaluate(self, result: Node, given: Mapping[Node, Any],
                 values: Mapping[Node, Any]) -> torch.Tensor:
        """Run the part with tensors for its operands and weights, ``given``."""
        done = dict(given)

        def value_of(node: Node) -> Any:
            if node in done:
                return done[node]
            if node in self.attributes:
                return values[node].clone()
            value = values.get(node, example(node))
            if isinstance(value, torch.Tensor):
                raise Left(f"it reads {node.name}, which is not known before it runs")
            return hint(value)

        for node in self.nodes:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
            if node.op == "call_function":
                done[node] = node.target(*args, **kwargs)
            elif node.op == "call_method":
                done[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
            else:
                raise Left(f"it calls {node.target}, which is not known")
        return done[result]

    def erase(self, graph: torch.fx.Graph) -> None:
        """Erase the nodes that only make each other."""
        inside, live = set(self.nodes), set()
        pending = [n for n in self.nodes if any(u not in inside for u in n.users)]
        # What is written in place belongs to another result in ways that nodes do not say.
        if pending and any(True for n in self.nodes for _ in _written(n)):
            return
        while pending:
            node = pending.pop()
            if node not in live:
                live.add(node)
                pending += [n for n in node.all_input_nodes if n in inside]
        for node in reversed(self.nodes):
            if node not in live:
                graph.erase_node(node)


def name_of(node: Node) -> str:
    return node.target if node.op == "call_method" else getattr(node.target, "__name__", "")


def _written(node: Node) -> Iterable[Node]:
    """Return the operands that a node writes to."""
    if isinstance(out := node.kwargs.get("out"), Node):
        yield out
    schema = getattr(node.target, "_schema", None)
    name = name_of(node)
    if node.target in _IN_PLACE or (schema is not None and schema.is_mutable) or (
            name.endswith("_") and not name.endswith("__")):
        if node.args and isinstance(node.args[0], Node):
            yield node.args[0]


def _base(node: Node, inside: set[Node]) -> Node:
    """Return the tensor whose memory a node has, as far as its operations tell."""
    while node in inside and node.args and isinstance(node.args[0], Node) and (
            name_of(node) in _VIEWS or any(True for _ in _written(node))):
        node = node.args[0]
    return node


def _is_attribute(node: Node, value: Any, module: torch.nn.Module) -> bool:
    """Return true if a placeholder is a number that is an attribute in ``module``."""
    source = getattr(node.meta.get("grapharg"), "source", None)
    if not isinstance(value, torch.Tensor) or value.ndim:
        return False
    name = getattr(source, "member", None)  # of an instance
    if name is None and type(getattr(source, "base", None)).__name__ == "TypeDictSource":
        name = source.index  # of its class
    return isinstance(name, str) and any(
        isinstance(own := getattr(part, name, None), (int, float)) and own == value.item()
        for part in module.modules())


def module_id(key: str) -> int:
    """Return the id of the module of a key of ``nn_module_stack``; 0 if there is none."""
    number = str(key).partition("@")[0]
    return int(number) if number.isdigit() else 0


def example(node: Node) -> Any:
    """Return the value of a node that dynamo traced with."""
    return node.meta.get("example_value")


def hint(value: Any) -> Any:
    """Return the value that a symbolic number has now."""
    if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value
    if (found := value.node.hint) is None:
        raise Left(f"it needs {value}, which is not known before it runs")
    return found


def _is_size(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(example(value), (int, torch.SymInt))
