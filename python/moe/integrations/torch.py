"""A layer of a PyTorch model, compiled: ``moe.from_torch``.

    imported = moe.from_torch(model.model.layers[3].mlp)
    layer = imported.layer()           # compiled, with the weights of the module
    y = layer(x)                       # [T, H], any T

The module is traced with ``torch.export`` for any number of tokens. Experts that go
through transformers' experts interface are one operation of the graph; what is around
them, the router first, is translated operation by operation to linalg, and passes of the
compiler recognise the gate in it. A router that they do not recognise is compiled as it
is, and a warning of the compiler says so.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .._compile import compile as compile_module
from .._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._runtime import Layer, Module
from ._experts.description import is_experts
from ._experts.dispatch import Described, choices_of, describe_experts, write_experts
from ._experts.routing import find_experts
from ._experts.written import may_be_experts, number_of_rows
from ._graph.function import Function, Tensor, extents_of
from ._graph.operations import as_matrix, element_of, translate
from ._layers.follow import tensors_of
from ._layers.module import CompiledLayer, PythonLayer
from ._layers.ranks import RankLayer
from ._layers.training import TrainableLayer
from ._tracing.batches import BY_SEQUENCE, NONE, ROWS, WHOLE, kind_of_batches
from ._tracing.checks import check_graph
from ._tracing.examples import example_of, first_of, rows_in_model, rows_that_fit, shapes_of
from ._tracing.export import Rows, export_for_any, quiet
from ._tracing.prepare import prepare
from ._tracing.token_counts import Condition, counts_beyond
from ._tracing.unchanged import unchanged

__all__ = ["CompiledLayer", "Imported", "PythonLayer", "from_torch", "import_module", "replace"]

aten = torch.ops.aten


@dataclass
class Imported:
    """A traced layer: ``mlir`` computes it from rows ``[T, H]`` and ``weights``, in order."""

    mlir: str
    weights: dict[str, torch.Tensor]
    columns: int  # of a row of the result
    returned: int | None = None  # the length of the tuple that the module returns, if it does
    rows: str = "rows"  # the name of that argument
    reason: str | None = None  # why the layer runs in Python, if it does
    original: torch.nn.Module | None = None  # what runs then, on rows of ``ndim`` dimensions
    ndim: int = 2
    traced: Callable[[], torch.nn.Module | None] | None = None  # the module, if it is still there
    example: torch.Tensor | None = None  # rows that it takes

    def __post_init__(self) -> None:
        self.dtypes = {name: tensor.dtype for name, tensor in self.weights.items()}

    def compile(self, **options: Any) -> Module:
        """Compile the layer; ``options`` are those of ``moe.compile``."""
        if self.reason is not None:
            raise MoEError(UNIMPLEMENTED, self.reason)
        return compile_module(self.mlir, **options)

    def layer(self, **options: Any) -> Layer | PythonLayer:
        """Compile the layer and bind the weights that the module has now.

        What the compiler refuses without options, such as a tensor that grows with the square of
        the number of tokens, runs in Python, with a warning.
        """
        if self.reason is not None:
            return PythonLayer(self.original, self.ndim)
        try:
            module = self.compile(**options)
        except MoEError as error:
            own = None if options or self.traced is None else self.traced()
            if own is None or error.code not in (INVALID_ARGUMENT, UNIMPLEMENTED):
                raise
            warnings.warn(f"{type(own).__name__} runs in Python: {error.message}", stacklevel=2)
            return PythonLayer(own, self.ndim)
        return module.layer(self.arrays())

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return the weights as ``Module.layer`` takes them: contiguous, without gradients."""
        # Some routers change the type of their weights when they run.
        return {name: tensor.detach().to(self.dtypes.get(name)).contiguous()
                for name, tensor in self.weights.items()}

    def module(self) -> torch.nn.Module:
        """Return a module that runs the compiled layer on rows ``[..., H]``.

        Where the sequences of a batch are not as good as rows of one, each is a call. It has
        the parameters that the layer uses, by the same names; a change of them is noticed.
        Parameters of experts that are a module each are copied, stacked, under a name with a
        star. What else a call is given, or training mode, has the traced module run in
        Python, with a warning. It is one operation for ``torch.compile`` and
        ``torch.export``, and a saved program that has it loads wherever
        ``moe.integrations.torch`` is imported.
        """
        if self.reason is not None:
            return self.original
        module = None if self.traced is None else self.traced()
        batches = BY_SEQUENCE if self.ndim > 2 else ROWS
        if module is not None:
            batches = kind_of_batches(module, self.example)
        return CompiledLayer(self.mlir, self.weights, self.columns, self.returned, self.rows,
                             batches, module)

    def trainable(self, group: Any = None, **options: Any) -> TrainableLayer | RankLayer:
        """Return a module whose gradients are compiled, too; ``options`` are those of compile.

        It runs on rows ``[..., H]`` and has the parameters that the layer uses, by the same
        names. A backward function is compiled for the tensors that need a gradient, when they
        first do. The layer keeps for it the rows, the routes and the products before the
        activation, and computes the rest again. Weights are packed again after they change.
        Gradients of gradients are an error. With ``accumulate_into="grad"`` or ``"main_grad"``
        the gradients of parameters are added to that attribute of them, in place (see
        ``moe.integrations.transformers.register``).

        With a ``group``, a process group or a ``moe.parallel.Group``, the layer is spread over its
        ranks, which call it and its backward pass together, each with its own rows. Parameters
        that are by experts are those of this rank's ``own_experts``, in the placement of ``table``;
        each expert is on one rank. The loss is the sum over the ranks: gradients of what all ranks
        have, such as the router, are added up over a process group, in the order of ranks, and
        are the caller's to add up with a ``moe.parallel.Group``. All weights need the same
        gradients on all ranks, when the layer is made. With ``tokens="replicated"`` all ranks call
        it with the same rows, as attention in tensor parallelism has them, and have the loss and
        the gradients of one rank; a ``moe.parallel.Group`` was made with it, or without.
        """
        if self.reason is not None:
            raise MoEError(UNIMPLEMENTED, self.reason)
        if group is not None:
            return RankLayer(self.mlir, self.weights, group, **options)
        return TrainableLayer(self.mlir, self.weights, options)


def replace(model: torch.nn.Module) -> list[str]:
    """Replace the blocks of ``model`` that ``from_torch`` translates by compiled layers.

    A block is the module around a router and its experts. It runs compiled from then on,
    in eager mode, under ``torch.compile`` with any backend, and in exported programs; its
    parameters keep their names. Where the block returns more than its rows, such as the
    logits of its router, the compiled layer returns None for it. In training mode, or where it
    is given more than rows, the block runs as it was, with a warning. What transformers records
    of its router by hooks (``output_router_logits``), the router computes when it is asked
    for; what it records of the block itself is a warning. A block that stays is a warning
    with its reason.

    Returns:
      the names of the modules that were replaced.

    Raises:
      MoEError: if ``model`` has no such block inside.
    """
    found = [(name, block) for name, block in blocks_of(model) if name]
    if not found:
        raise MoEError(INVALID_ARGUMENT, f"{type(model).__name__} has no block with experts inside")
    replaced: dict[torch.nn.Module, torch.nn.Module | None] = {}
    names = []
    for name, block in found:
        if any(name.startswith(f"{outer}.") for outer in names):
            continue
        if block not in replaced:
            try:
                replaced[block] = _compiled(block, name, model)
            except MoEError as error:
                replaced[block] = None
                warnings.warn(f"{name} stays as it is: {error}", stacklevel=2)
        if replaced[block] is not None:
            path, _, last = name.rpartition(".")
            setattr(model.get_submodule(path), last, replaced[block])
            names.append(name)
    return names


def _compiled(block: torch.nn.Module, name: str, model: torch.nn.Module) -> torch.nn.Module:
    """Return a block of ``model`` as a compiled layer."""
    example = rows_in_model(block, example_of(block, name, model))
    imported = import_module(block, example=example)
    parts = parts_of(block, imported.weights)
    compiled = imported.module()
    if compiled._batches in (WHOLE, NONE):
        raise MoEError(UNIMPLEMENTED, f"{type(block).__name__} computes something else for rows "
                       "in a batch of two")
    if parts is not None:
        kept = [name for name, child in block.named_children() if not any(
            _is_called_experts(n.rpartition(".")[2], m) for n, m in [
                (name, child), *child.named_modules()])]
        routers = _routers_of(block, kept, example)
        compiled._stand_for(block, parts, kept, routers)
        _warn_of_records(model, block, name)
    else:
        warnings.warn(f"{name}: some weights are copies of those of its experts: changes of those "
                      "are not noticed", stacklevel=3)
    return compiled


def _routers_of(block: torch.nn.Module, kept: Sequence[str], example: torch.Tensor) -> (
        list[tuple[str, int]]):
    """Return the modules inside that a call of ``block`` calls once, with its rows alone, and the
    number of their dimensions."""
    rows = torch.randn((*example.shape[:-2], 5, example.shape[-1]),
                       generator=torch.Generator().manual_seed(0)).to(example.device, example.dtype)
    calls: dict[str, list[int | None]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = [*arguments, *named.values()]
            same = len(given) == 1 and isinstance(given[0], torch.Tensor) and (
                given[0].shape[-1] == rows.shape[-1] and given[0].numel() == rows.numel()
                and torch.equal(given[0].reshape(rows.shape).to(rows.dtype), rows))
            calls.setdefault(name, []).append(given[0].ndim if same and not named else None)
        return hook

    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, part in block.named_modules():
            if name.partition(".")[0] in kept:
                handle = part.register_forward_pre_hook(watch(name), with_kwargs=True)
                stack.callback(handle.remove)
        block(rows.clone())
    return [(name, ndims[0]) for name, ndims in calls.items()
            if len(ndims) == 1 and ndims[0] is not None]


def _warn_of_records(model: torch.nn.Module, block: torch.nn.Module, name: str) -> None:
    """Warn of what transformers records of a block itself."""
    for part in model.modules():
        for key, specifications in (getattr(part, "_can_record_outputs", None) or {}).items():
            several = specifications if isinstance(specifications, list) else [specifications]
            for each in several:
                target = getattr(each, "target_class", each)
                if isinstance(target, type) and isinstance(block, target):
                    warnings.warn(f"{name}: what transformers records of a {target.__name__} as "
                                  f"'{key}' lacks this block", stacklevel=4)


def parts_of(block: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> (
        list[list[str]] | None):
    """Return the names of the tensors of ``block`` that each weight consists of; None if one is
    something else."""
    own, parts = tensors_of(block), []
    for name, weight in weights.items():
        before, star, after = name.partition("*")
        if star:
            names = [f"{before}{i}{after}" for i in range(weight.shape[0])]
        else:
            names = [name]
        if not all(n in own for n in names) or (
                sum(own[n].numel() for n in names) != weight.numel()):
            return None
        if not star and (own[name].data_ptr() != weight.data_ptr() or not (
                own[name].is_contiguous() and weight.is_contiguous())):
            return None
        parts.append(names)
    return parts


def blocks_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Return the modules around routers and experts, by each of their names."""
    for name, module in model.named_modules(remove_duplicate=False):
        if is_block(module):
            yield name, module


def is_block(module: torch.nn.Module) -> bool:
    """Return true for a module with experts among its children, or that is called MoE and has
    none inside."""
    if isinstance(module, CompiledLayer):
        return False
    return any(_is_called_experts(n, child) for n, child in module.named_children()) or bool(
        _MOE.search(type(module).__name__)
        and not any(_is_called_experts(n.rpartition(".")[2], part)
                    for n, part in module.named_modules()))


def _is_called_experts(name: str, module: torch.nn.Module) -> bool:
    return is_leaf(name, module) or (name == "experts" and bool(list(module.parameters())))


_MOE = re.compile(r"M[oO][Ee](Block|Layer)?$")


def from_torch(module: torch.nn.Module | torch.export.ExportedProgram, *,
               example: torch.Tensor | None = None) -> Imported:
    """Trace a module or an exported program to MLIR.

    Args:
      module: takes rows ``[T, H]`` or ``[1, T, H]`` and returns as many, alone or first in
        a tuple; in evaluation mode. Or what ``torch.export.export`` made of one, with a
        dynamic number of rows; of a fixed one it computes what chooses nothing.
      example: an input of it; needed only where no parameter shows how many columns and
        which type it has. Without it the module gets ``[1, T, H]``, or ``[T, H]`` if it
        does not take that.

    What has no translation runs in Python: a warning has the reason, as ``reason`` of the result
    does, which then has a ``layer()`` and a ``module()``, and nothing to compile.

    Raises:
      MoEError: if the module is in training mode, or takes something else than rows.
    """
    is_program = isinstance(module, torch.export.ExportedProgram)
    name = "the program" if is_program else type(module).__name__
    try:
        if is_program:
            with quiet():
                return _translate(module, {}, name)
        return import_module(module, example=example)
    except MoEError as failure:
        error = failure
        if error.code != UNIMPLEMENTED:
            raise
        own = module.module() if is_program else module
        rows = _rows_of(module, name, example)
        if rows is None:
            raise  # it does not run in Python, either
    reason = error.message
    if is_program and all(isinstance(extent, int) for extent in extents_of(rows)):
        reason += "; it was exported for one number of tokens, expected a dynamic one"
    warnings.warn(f"{name} runs in Python: {reason}", stacklevel=2)
    return Imported("", {}, 0, reason=reason, original=own, ndim=rows.ndim)


def _rows_of(module: torch.nn.Module | torch.export.ExportedProgram, name: str,
             example: torch.Tensor | None) -> torch.Tensor | None:
    """Return rows of the shape that a module or a program takes; None if it takes none."""
    if isinstance(module, torch.export.ExportedProgram):
        inputs = [node.meta["val"] for node in module.graph.nodes
                  if node.name in module.graph_signature.user_inputs]
        return inputs[0] if len(inputs) == 1 else None
    rows = example_of(module, name) if example is None else example
    # A generator, as looking for more columns takes a while.
    shapes = itertools.chain((rows[0], rows), rows_that_fit(module, rows))
    for shape in shapes if example is None else (rows,):
        try:
            with unchanged(module), torch.no_grad():
                result = first_of(module(shape.clone()))
        except Exception:  # noqa: BLE001 - it takes other rows
            continue
        if not isinstance(result, torch.Tensor):
            raise MoEError(INVALID_ARGUMENT, f"{name} returns a {type(result).__name__}, expected "
                           "rows, alone or first in a tuple")
        if result.shape[:-1].numel() == shape.shape[:-1].numel():
            return shape
    return None


def import_module(module: torch.nn.Module, *, example: torch.Tensor | None = None) -> Imported:
    """Trace a module as ``from_torch`` does, or raise an error that says why it cannot be."""
    name = type(module).__name__
    if module.training:
        raise MoEError(INVALID_ARGUMENT, f"{name} is in training mode, expected evaluation mode: "
                       "call eval()")
    if example is not None:
        return _trace(module, name, example)
    failure = None
    for rows in shapes_of(module, example_of(module, name)):
        try:
            return _trace(module, name, rows)
        except MoEError as error:
            if error.code != UNIMPLEMENTED:
                raise
            failure = error
    raise failure


def _trace(module: torch.nn.Module, name: str, rows: torch.Tensor) -> Imported:
    """Trace a module that takes rows of this shape."""
    # A number of rows that divides nothing and is no other extent: no guards about it.
    rows = rows.new_zeros((*rows.shape[:-2], number_of_rows(module), rows.shape[-1]))
    lengths: list[int] = []
    try:
        imported = _trace_with(module, name, rows, lengths, is_leaf)
    except MoEError as error:
        # What is only called experts may be read in the graph of the module.
        if error.code != UNIMPLEMENTED or not any(
                is_leaf(n, m) and not is_experts(m) for n, m in module.named_modules()):
            raise
        try:
            imported = _trace_with(module, name, rows, lengths, lambda _, m: is_experts(m))
        except MoEError:
            raise error from None
        if "moe.dispatch" not in imported.mlir:
            raise
    if "moe.dispatch" not in imported.mlir:
        tables = [n for n, m in module.named_modules() if isinstance(m, torch.nn.Embedding)]
        why = f": {' and '.join(tables)} are tables whose rows are looked up" if tables else ""
        warnings.warn(f"{name} has nothing that is known as experts, and is compiled as the "
                      f"operations that it consists of{why}", stacklevel=3)
    imported.returned = lengths[-1] if lengths else None
    imported.rows = next(iter(inspect.signature(module.forward).parameters), "rows")
    # Copies of weights stay where the module goes.
    copies = any("*" in name for name in imported.weights)
    imported.traced = weakref.ref(module) if copies else lambda: module
    imported.example = rows
    return imported


def _trace_with(module: torch.nn.Module, name: str, rows: torch.Tensor, lengths: list[int],
                is_one: Callable[[str, torch.nn.Module], bool]) -> Imported:
    """Trace a module in which those for which ``is_one`` is true are one operation each."""
    traced = Rows(module, lengths.append)
    with unchanged(module), _leaves(module, is_one) as experts, quiet():
        program, conditions = export_for_any(traced, rows, name)
    with quiet():
        return _translate(program, experts, name, traced, conditions)


# -- experts as one operation -------------------------------------------------


@torch.library.custom_op("moe_mlir::traced_experts", mutates_args=())
def _experts(rows: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, key: str) -> (
        torch.Tensor):
    raise MoEError(UNIMPLEMENTED, "this operation is only traced")


@_experts.register_fake
def _(rows: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, key: str) -> torch.Tensor:
    return torch.empty_like(rows)


def is_leaf(name: str, module: torch.nn.Module) -> bool:
    """Return true if a module may be experts that are called with rows, ids and weights."""
    return is_experts(module) or may_be_experts(name, module)


@contextlib.contextmanager
def _leaves(module: torch.nn.Module, is_one: Callable[[str, torch.nn.Module], bool]) -> (
        Iterator[dict[str, torch.nn.Module]]):
    """Make one operation of each experts module in ``module``; yields them by key."""
    # A forward of the instance does something else than its class.
    found = {name: part for name, part in module.named_modules()
             if "forward" not in part.__dict__
             and is_one(name, part)}
    tracer = threading.get_ident()
    for key, part in found.items():
        original = part.forward

        def forward(*args: Any, key: str = key, original: Callable[..., Any] = original,
                    signature: inspect.Signature = inspect.signature(original),
                    **kwargs: Any) -> torch.Tensor:
            if threading.get_ident() != tracer:
                return original(*args, **kwargs)
            rows, ids, weights, *_ = signature.bind(*args, **kwargs).arguments.values()
            return torch.ops.moe_mlir.traced_experts(rows, ids, weights, key)

        part.forward = forward
    try:
        yield found
    finally:
        for part in found.values():
            del part.forward


# -- the graph ----------------------------------------------------------------


def _translate(program: torch.export.ExportedProgram, experts: dict[str, torch.nn.Module],
               name: str, traced: Rows | None = None,
               conditions: Sequence[Condition] = ()) -> Imported:
    """Write a program as a function; ``experts`` are modules that are one operation of it.

    What the trace of a module supposes, is compared with it: ``conditions`` of the number of
    tokens, and values that Python read.
    """
    graph, tensors, input_ = prepare(program, name)
    reasons: list[str] = []
    grouped = find_experts(graph, tensors, torch.ops.moe_mlir.traced_experts.default, reasons)
    guesses = any(part.is_guess for part in grouped.values())
    counts, far = counts_beyond(conditions, number_of_rows(traced)) if traced else ([], [])
    if far:
        raise MoEError(UNIMPLEMENTED, f"{name} cannot be exported: its operations depend on the "
                       f"number of tokens ({far[0]})")

    def check(grouped: dict[str, torch.nn.Module], guesses: bool) -> None:
        if traced is None and not grouped:
            return
        check_graph(graph, tensors, input_, {**experts, **grouped}, traced or program.module(),
                    name, counts, guesses or traced is None or traced.reads.assumed,
                    " and ".join(c.text for c in conditions))

    try:
        check(grouped, guesses)
    except MoEError:
        if not guesses and traced is not None:
            raise
        # As the operations that it consists of.
        graph, tensors, input_ = prepare(program, name)
        grouped = {}
        check(grouped, False)
    experts = {**experts, **grouped}
    function = Function(name)
    weights: dict[str, torch.Tensor] = {}
    rows = input_.meta["val"]
    element, extents = element_of(function, rows), tuple(e for e in extents_of(rows) if e != 1)
    x = Tensor(function.argument("x", "input", extents, element), extents_of(rows), element)
    function.line(f"%c0 = arith.constant 0 : index\n%tokens = tensor.dim {x.name}, %c0 : {x.type}")
    function.indices.update({0: "%c0", extents[0]: "%tokens"})
    known: dict[torch.fx.Node, Any] = {input_: x}

    arguments: dict[str, str] = {}

    def add_weight(name: str, tensor: torch.Tensor) -> str:
        if name not in arguments:
            weights[name] = tensor
            arguments[name] = function.argument(name, "weight", tuple(tensor.shape),
                                                element_of(function, tensor))
        elif weights[name].shape != tensor.shape:
            raise function.error(f"uses {name} whole and in part")
        return arguments[name]

    for node, (own, tensor) in tensors.items():
        if node.users:
            known[node] = function.without_units(add_weight(own, tensor), tuple(tensor.shape),
                                                 element_of(function, tensor))
    written: dict[str, tuple[Described, dict[str, str]]] = {}

    def leaf(f: Function, _: torch.Tensor, rows: Tensor, ids: Tensor, scale: Tensor,
             key: str) -> Tensor:
        shape, rows = rows.shape, as_matrix(f, rows)
        mask = ids if len(ids.shape) == 3 else None
        if (len(ids.shape) not in (2, 3) or ids.shape[:2] != scale.shape or not all(
                isinstance(e, int) for e in ids.shape[1:])):
            raise f.error(f"calls its experts with ids of shape {ids.shape} and weights of shape "
                          f"{scale.shape}, expected [T, K], or a mask [T, K, E] in place of ids")
        if mask is not None:
            ids, scale = choices_of(f, mask, scale)
        if key not in written:
            described = describe_experts(experts[key], rows, mask and mask.shape[-1])
            prefix = f"{key}." if key and key not in grouped else ""
            written[key] = described, {
                n: add_weight(prefix + n, w)
                for n, w in [*described.weights.items(), *described.shared.items()]}
        described, arguments = written[key]
        y = write_experts(f, arguments, described, rows, ids, scale)
        return f.reshape(y, shape[:-1] + (described.output,))

    try:
        results = translate(function, graph, known, {torch.ops.moe_mlir.traced_experts: leaf})
    except MoEError as error:
        if error.code != UNIMPLEMENTED or not reasons:
            raise
        raise MoEError(error.code, f"{error.message}; a loop over experts is not recognised: "
                       f"{reasons[0]}") from error
    y = results[0] if isinstance(results, Sequence) else results
    y = function.reshape(y, (extents[0], y.shape[-1]))
    return Imported(function.text(y), weights, y.shape[-1], ndim=rows.ndim)
