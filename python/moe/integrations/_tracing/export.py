"""Exports a module with ``torch.export``, for any number of tokens."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..._error import UNIMPLEMENTED, MoEError
from .reads import Reads
from .token_counts import Condition, conditions_of, symbolic_numbers

__all__ = ["Rows", "export_for_any", "quiet"]


class _NotExported(MoEError):
    """torch.export refused a module; perhaps with rows of another shape it does not."""

    def __init__(self, message: str):
        super().__init__(UNIMPLEMENTED, message)


def export_for_any(traced: Rows, rows: torch.Tensor, name: str) -> (
        tuple[torch.export.ExportedProgram, list[Condition]]):
    """Export a module; returns what is supposed of the number of tokens, too."""
    try:
        program = _export(traced, rows, name)
        conditions = _conditions(program)
        if not conditions:
            return program, []
    except _NotExported as failure:
        program, error = None, failure
    # Python may compute another number of it.
    try:
        with symbolic_numbers(traced.module):
            again = _export(traced, rows, name)
        return again, _conditions(again)
    except MoEError:
        if program is None:
            raise error from error.__cause__
        program = _export(traced, rows, name)  # its reads are those of the last trace
        return program, conditions


def _conditions(program: torch.export.ExportedProgram) -> list[Condition]:
    node = next(n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    return conditions_of(node.meta["val"])


def _export(traced: Rows, rows: torch.Tensor, name: str) -> torch.export.ExportedProgram:
    """Export a module; where Python asks how many tokens are selected, there are some."""
    try:
        try:
            return _export_with(traced, rows, Reads())
        except Exception as error:
            if isinstance(error, MoEError) or not _depends(error):
                raise
        program = _export_with(traced, rows, Reads(sizes=True))
        if traced.reads.has_length:
            other = _export_with(traced, rows, Reads(sizes=True, length=2))
            if program.graph_module.code != other.graph_module.code:
                raise MoEError(UNIMPLEMENTED, "its operations depend on how many tokens are "
                               "selected")
        return program
    except MoEError as error:
        raise MoEError(error.code, f"{name} cannot be exported: {error.message}") from error
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        if reason.startswith(("Found the following conflicts", "Constraints violated")):
            reason = "its operations depend on the number of tokens, with which Python computes"
        elif _depends(error):
            where = _place(traced, error)
            reason = (f"its operations depend on the values of a tensor{where}; experts must go "
                      "through transformers' interface, or be a module called experts that takes "
                      "rows, ids and weights")
        elif where := getattr(traced.module, "at", ""):
            reason = f"{reason} (at {where})"
        raise _NotExported(f"{name} cannot be exported: {reason}") from error


def _place(traced: Rows, error: Exception) -> str:
    """Return where a trace has failed: the node of a model, or the line of a module's code."""
    if node := getattr(traced.module, "at", ""):
        return f" at {node}"
    own = Path(__file__).parent.parent.as_posix()
    frames = [f for f in traceback.extract_tb(error.__traceback__)
              if not f.filename.startswith((own, Path(torch.__file__).parent.as_posix()))
              and not f.filename.startswith("<")]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _depends(error: Exception) -> bool:
    """Return true for an error of torch about values that a trace does not know."""
    reason = str(error).strip().split("\n")[0]
    return "data-dependent" in reason or ".numpy()" in reason


def _export_with(traced: Rows, rows: torch.Tensor, reads: Reads) -> (
        torch.export.ExportedProgram):
    traced.reads = reads
    # Of a comparison of the number of tokens there is a condition.
    with _without_graphs():
        return torch.export.export(
            traced, (rows,), strict=False,
            dynamic_shapes=({rows.ndim - 2: torch.export.Dim.DYNAMIC},),
            prefer_deferred_runtime_asserts_over_guards=True)


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Leave out the graphs that torch prints to stderr when an export fails."""
    text, graph = io.StringIO(), ""
    try:
        with contextlib.redirect_stderr(text):
            yield
    except Exception as error:
        graph = f"{getattr(error, 'partial_fx_graph', '')}\n"
        raise
    finally:
        sys.stderr.write(text.getvalue().replace(graph, "") if graph.strip() else text.getvalue())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave what torch logs of an export to the error that it raises."""
    loggers = [logging.getLogger(name) for name in (
        "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")]
    disabled = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            # Of torch's own code.
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)
            yield
    finally:
        for logger, before in zip(loggers, disabled):
            logger.disabled = before


class Rows(torch.nn.Module):
    """A module that returns rows alone."""

    def __init__(self, module: torch.nn.Module, note: Callable[[int], None]):
        super().__init__()
        self.module, self.note = module, note  # called with the length of a tuple
        self.reads = Reads()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        with self.reads if torch.compiler.is_exporting() else contextlib.nullcontext():
            result = self.module(rows)
        if isinstance(result, (tuple, list)):
            self.note(len(result))
            result = result[0]
        if not isinstance(result, torch.Tensor):
            raise MoEError(UNIMPLEMENTED, f"it returns a {type(result).__name__}, expected rows")
        return result.reshape(*rows.shape[:-1], result.shape[-1])
