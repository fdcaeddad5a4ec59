"""Record the routes of a model of transformers, and replay them.

A route is what the router of a layer passes to its experts in one call: ids and weights
``[tokens, choices]``. It is read where experts are called, which is the same place for
every router and every implementation of experts: a module, or in programs of ``torch.export``
the operation that it became.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..._error import (DATA_LOSS, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED,
                      MoEError)
from .._experts.description import is_experts

# ids and weights of a call, as the router of the model computes them, to those that the experts get
_Change = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_changes: weakref.WeakKeyDictionary[torch.nn.Module, tuple[_Change, ...]] = (
    weakref.WeakKeyDictionary())


@dataclass(frozen=True)
class Route:
    """The route of one call: the experts of each token, and the weights of their results."""

    ids: np.ndarray  #: int64 [tokens, choices]
    weights: np.ndarray  #: float32 [tokens, choices]

    def __post_init__(self) -> None:
        for name, dtype in (("ids", np.int64), ("weights", np.float32)):
            value = np.asarray(getattr(self, name))
            integers = np.issubdtype(value.dtype, np.integer)
            if value.ndim != 2 or integers != (dtype is np.int64):
                raise MoEError(INVALID_ARGUMENT, f"{name} are {value.dtype} {list(value.shape)}, "
                               f"expected {np.dtype(dtype)} [tokens, choices]")
            object.__setattr__(self, name, value.astype(dtype))
        if self.ids.shape != self.weights.shape:
            raise MoEError(INVALID_ARGUMENT, f"ids are {list(self.ids.shape)} and weights "
                           f"{list(self.weights.shape)}, expected one shape")


class Routes(dict[str, list[Route]]):
    """The routes of a model: for the name of each experts module, one for each call."""

    def merged(self) -> Routes:
        """Return the routes with all calls of a module as one, token by token.

        So what a prompt and the steps of its generation chose can be replayed in one call on the
        whole sequence. Tokens of several sequences come in the order of the calls: merge the
        routes of one sequence only.
        """
        return Routes({name: [Route(np.concatenate([c.ids for c in calls]),
                                    np.concatenate([c.weights for c in calls]))]
                       for name, calls in self.items() if calls})

    def save(self, path: str | PathLike[str]) -> None:
        """Write the routes to a ``.npz`` file."""
        arrays = {f"{name}/{i}/{part}": getattr(route, part) for name, calls in self.items()
                  for i, route in enumerate(calls) for part in ("ids", "weights")}
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Routes:
        """Read routes that ``save`` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        except FileNotFoundError as error:
            raise MoEError(NOT_FOUND, f"no such file: '{fspath(path)}'") from error
        except Exception as error:  # numpy and zipfile raise what they find
            raise MoEError(DATA_LOSS, f"'{fspath(path)}' is no file of routes: {error}") from error
        found = cls()
        try:
            while arrays:
                name, number, _ = next(iter(arrays)).rsplit("/", 2)
                if int(number) != len(found.setdefault(name, [])):
                    raise ValueError(f"call {number} of {name} is not the next one")
                found[name].append(Route(arrays.pop(f"{name}/{number}/ids"),
                                         arrays.pop(f"{name}/{number}/weights")))
        except (KeyError, ValueError, AttributeError, MoEError) as error:
            raise MoEError(DATA_LOSS, f"'{fspath(path)}' is no file of routes: {error}") from error
        return found


def apply(module: torch.nn.Module, ids: torch.Tensor,
          weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the experts of ``module`` get instead of ``ids`` and ``weights``."""
    for change in _changes.get(module, ()):
        ids, weights = change(ids, weights)
    return ids, weights


def _experts_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    found = {name: m for name, m in model.named_modules() if is_experts(m)}
    if not found:
        raise MoEError(INVALID_ARGUMENT, f"{type(model).__name__} has no experts that go through "
                       "transformers' experts interface")
    return found


@contextmanager
def _changed(module: torch.nn.Module, change: _Change, applied_by: str) -> Iterator[None]:
    """Apply ``change`` to the calls of a module.

    The implementation ``applied_by`` does it itself, so that code compiled before sees it.
    """
    def before(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if getattr(module.config, "_experts_implementation", None) == applied_by:
            return None
        call = inspect.signature(module.forward).bind(*args, **kwargs)
        # Hidden states, ids and weights, by whatever names.
        _, ids, weights = list(call.arguments)[:3]
        given = change(call.arguments[ids], call.arguments[weights])
        call.arguments.update(zip((ids, weights), given))
        return call.args, call.kwargs

    _changes[module] = (*_changes.get(module, ()), change)
    hook = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        # At the end of a process the module may be gone before this ends.
        _changes[module] = tuple(c for c in _changes.get(module, ()) if c is not change)


class _Recorder:
    """Adds the route of each call of one module to a list."""

    def __init__(self, calls: list[Route]):
        self.calls = calls

    def __call__(self, ids: torch.Tensor,
                 weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append(Route(ids.detach().cpu().to(torch.int64, copy=True).numpy(),
                                weights.detach().cpu().to(torch.float32, copy=True).numpy()))
        return ids, weights


class _Player:
    """Replaces the routes of the calls of one module, in their order."""

    def __init__(self, name: str, calls: Sequence[Route], by_router: bool):
        self.name, self.calls, self.by_router = name, calls, by_router
        self.next = 0

    def current(self, shape: Sequence[int]) -> Route:
        """Return the route of the call that has begun."""
        if self.next >= len(self.calls):
            raise MoEError(FAILED_PRECONDITION, f"{self.name}: call {self.next} has no route, "
                           f"{len(self.calls)} were recorded")
        route = self.calls[self.next]
        if route.ids.shape != tuple(shape):
            raise MoEError(INVALID_ARGUMENT, f"{self.name}: call {self.next} has ids "
                           f"{list(shape)}, recorded were {list(route.ids.shape)}")
        return route

    def __call__(self, ids: torch.Tensor,
                 weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        route = self.current(ids.shape)
        self.next += 1
        given = torch.tensor(route.ids, device=ids.device, dtype=ids.dtype)
        if self.by_router:
            # The router has chosen them already, and weighed what it chose.
            if not torch.equal(given, ids):
                raise MoEError(FAILED_PRECONDITION, f"{self.name}: the router does not choose "
                               "with torch.topk, so that its weights of other experts are not "
                               "known; replay the recorded weights")
            return ids, weights
        return given, torch.tensor(route.weights, device=weights.device, dtype=weights.dtype)


class _Choice(TorchFunctionMode):
    """Makes ``torch.topk`` choose the recorded experts of a call."""

    def __init__(self, player: _Player, experts: int):
        super().__init__()
        self.player, self.experts = player, experts

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in (torch.topk, torch.Tensor.topk):
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        scores = args[0] if args else kwargs["input"]
        # Others choose groups of experts.
        if scores.ndim != 2 or scores.shape[1] != self.experts:
            return result
        route = self.player.current(result.indices.shape)
        ids = torch.tensor(route.ids, device=scores.device)
        if ((ids < 0) | (ids >= self.experts)).any():
            raise MoEError(INVALID_ARGUMENT, f"{self.player.name}: call {self.player.next} has ids "
                           f"outside [0, {self.experts}), which the router cannot weigh")
        return type(result)((scores.gather(1, ids), ids))


@contextmanager
def _choosing(block: torch.nn.Module, experts: torch.nn.Module, player: _Player) -> Iterator[None]:
    """Have the router in ``block`` choose what was recorded."""
    modes: list[_Choice] = []

    def leave(*_: Any) -> None:
        if modes:
            modes.pop().__exit__(None, None, None)

    def enter(*_: Any) -> None:
        if torch.compiler.is_compiling():
            raise MoEError(FAILED_PRECONDITION, f"{player.name}: the router runs in code of "
                           "torch.compile, where its choice cannot be replaced; run it eagerly or "
                           "replay the recorded weights")
        modes.append(_Choice(player, experts.num_experts))
        modes[-1].__enter__()

    with ExitStack() as stack:
        stack.callback(leave)
        # The experts' own changes come after the mode ends.
        for handle in (block.register_forward_pre_hook(enter),
                       experts.register_forward_pre_hook(leave, prepend=True),
                       block.register_forward_hook(leave, always_call=True)):
            stack.callback(handle.remove)
        yield


def _operations_of(model: torch.nn.Module) -> dict[str, int]:
    """Return the experts that a program of ``torch.export`` calls as operations: by the name of
    the module that they were, the address of their first weight."""
    if not isinstance(model, torch.fx.GraphModule):
        return {}
    found = {}
    for node in model.graph.nodes:
        # Rows, ids and weights; a layer with its router has rows alone.
        if node.target is torch.ops.moe_mlir.layer.default and len(node.args[0]) == 3:
            weight = node.args[1][0]
            if weight.op == "get_attr":
                tensor = attrgetter(weight.target)(model)
                found[weight.target.rpartition(".")[0]] = tensor.data_ptr()
    return found


class _Operations(TorchDispatchMode):
    """Applies changes to the experts of a program, by the addresses of their first weights."""

    def __init__(self, changes: Mapping[int, _Change]):
        super().__init__()
        self.changes = changes

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        if function is torch.ops.moe_mlir.layer.default and len(args[0]) == 3 and (
                change := self.changes.get(args[1][0].data_ptr())) is not None:
            rows, ids, weights = args[0]
            args = ([rows, *change(ids, weights)], *args[1:])
        return function(*args, **(kwargs or {}))


@contextmanager
def observe(model: torch.nn.Module, observer: Callable[[str, torch.nn.Module], _Change],
            applied_by: str) -> Iterator[None]:
    """Show the routes of each experts module to what ``observer`` returns for it by its name."""
    with ExitStack() as stack:
        for name, module in _experts_of(model).items():
            stack.enter_context(_changed(module, observer(name, module), applied_by))
        yield


@contextmanager
def record(model: torch.nn.Module, applied_by: str) -> Iterator[Routes]:
    routes = Routes()
    if operations := _operations_of(model):
        with _Operations({address: _Recorder(routes.setdefault(name, []))
                          for name, address in operations.items()}):
            yield routes
        return
    with observe(model, lambda name, _: _Recorder(routes.setdefault(name, [])), applied_by):
        yield routes


@contextmanager
def replay(model: torch.nn.Module, routes: Mapping[str, Sequence[Route]], weights: str,
           applied_by: str) -> Iterator[None]:
    if weights not in ("recorded", "router"):
        raise MoEError(INVALID_ARGUMENT, f"weights is {weights!r}, expected 'recorded' or 'router'")
    operations = _operations_of(model)
    experts = operations or _experts_of(model)
    if missing := experts.keys() - routes.keys():
        raise MoEError(INVALID_ARGUMENT, f"the routes lack those of '{min(missing)}'")
    if unknown := routes.keys() - experts.keys():
        raise MoEError(INVALID_ARGUMENT, f"the routes have those of '{min(unknown)}', which are no "
                       "experts of the model")
    if operations and weights == "router":
        raise MoEError(UNIMPLEMENTED, "the routers of a program of torch.export cannot choose "
                       "recorded ids; replay the recorded weights")
    players: list[_Player] = []
    with ExitStack() as stack:
        if operations:
            players = [_Player(name, list(routes[name]), False) for name in operations]
            stack.enter_context(_Operations(dict(zip(operations.values(), players))))
            experts = {}
        for name, module in experts.items():
            player = _Player(name, list(routes[name]), weights == "router")
            players.append(player)
            if player.by_router:
                if "." not in name:
                    raise MoEError(INVALID_ARGUMENT, f"{name}: the experts are called by the model "
                                   "itself, expected a block with the router around them")
                block = model.get_submodule(name.rpartition(".")[0])
                stack.enter_context(_choosing(block, module, player))
            stack.enter_context(_changed(module, player, applied_by))
        yield
    for player in players:
        if player.calls and player.next == 0:
            raise MoEError(FAILED_PRECONDITION, f"{player.name}: no call was replayed, "
                           f"{len(player.calls)} were recorded")
