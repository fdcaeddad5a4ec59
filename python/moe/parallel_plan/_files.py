"""Files that have routings, tables of experts and constants of links."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._error import INVALID_ARGUMENT, NOT_FOUND, MoEError
from ._routing import Routing

__all__ = ["Record", "read_record", "read_routing", "read_table", "write_table"]


@dataclass(frozen=True)
class Record:
    """A recorded routing: the rows of each expert, or the choices ``[T, K]`` of each token."""

    path: str
    counts: np.ndarray | None = None
    ids: np.ndarray | None = None
    experts: int | None = None
    top_k: int | None = None

    def load_of(self, experts: int | None = None) -> np.ndarray:
        """Return the rows of each expert."""
        if self.counts is not None:
            return self.counts
        count = experts or int(self.ids.max()) + 1
        return np.bincount(self.ids[self.ids >= 0], minlength=count)

    def routing(self, experts: int, top_k: int) -> Routing:
        """Return it as the routing of a layer."""
        has, wants = self.experts, self.top_k
        if (has is not None and has != experts) or (wants is not None and wants != top_k):
            raise fail(self.path, f"is of another layer: it has {has} experts and top_k {wants}, "
                       f"expected {experts} and {top_k}")
        name = f"histogram:{self.path}"
        try:
            if self.ids is not None:
                return Routing.recorded(self.ids, experts, name)
            return Routing.counted(self.counts, top_k, name)
        except MoEError as error:
            raise fail(self.path, error.message) from None


def fail(path: str | os.PathLike[str], message: str) -> MoEError:
    """Return the error that a file is wrong."""
    return MoEError(INVALID_ARGUMENT, f"'{os.fspath(path)}': {message}")


def load_json(path: str | os.PathLike[str]) -> Any:
    """Return what a file of JSON has."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MoEError(NOT_FOUND, f"'{os.fspath(path)}': {error.strerror}") from error
    except UnicodeDecodeError:
        raise fail(path, "expected JSON, got bytes that are no text") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fail(path, f"expected JSON: {error}") from None


def _load_arrays(path: str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.strerror is None:
            raise fail(path, "expected an array of numpy") from None
        raise MoEError(NOT_FOUND, f"'{path}': {error.strerror}") from error
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise fail(path, "expected an array of numpy") from None


def _integers(value: Any, least: int) -> bool:
    return (isinstance(value, list) and len(value) > 0
            and all(type(each) is int and least <= each < 2 ** 63 for each in value))


# --------------------------------------------------------------------------
# Routings
# --------------------------------------------------------------------------


def read_routing(text: str, experts: int, top_k: int, groups: tuple[int, int] = (1, 1), *,
                 name: str | None = None, dispatch: int = 0) -> Routing:
    """Return the routing that ``uniform``, ``zipf:S`` or ``histogram:FILE`` describes."""
    kind, _, rest = text.partition(":")
    if groups != (1, 1) and text != "uniform":
        raise MoEError(INVALID_ARGUMENT, f"groups go with a uniform load, got '{text}'")
    if text == "uniform":
        return Routing.uniform(experts, top_k, groups)
    if kind == "zipf":
        try:
            exponent = float(rest)
        except ValueError:
            exponent = -1
        if not 0 <= exponent <= 64:
            raise MoEError(INVALID_ARGUMENT, "expected zipf:S with an exponent S from 0 to 64, got "
                           f"'{text}'")
        return Routing.zipf(experts, top_k, exponent)
    if kind == "histogram" and rest:
        return read_record(rest, name=name, dispatch=dispatch).routing(experts, top_k)
    raise MoEError(INVALID_ARGUMENT, "expected a load of uniform, zipf:S or histogram:FILE, got "
                   f"'{text}'")


def read_record(path: str | os.PathLike[str], *, name: str | None = None,
                dispatch: int = 0) -> Record:
    """Read a recorded routing.

    Args:
      path: what ``moe-run --record-routing`` writes; records of ``moe.monitor`` (``.jsonl``),
        added up; routes that ``Routes.save`` writes (``.npz``) or ``moe-run --output
        route_ids=FILE.npy``; a list of JSON with the rows of each expert, or with a list of
        choices for each token.
      name: the layer, where the file has several.
      dispatch: the dispatch of the layer, in a file of ``moe-run``.
    """
    path = os.fspath(path)
    suffix = Path(path).suffix
    if suffix == ".npz":
        return _from_routes(path, name)
    if suffix == ".npy":
        return _from_ids(path, _load_arrays(path))
    if suffix == ".jsonl":
        return _from_monitor(path, name)
    found = load_json(path)
    if isinstance(found, dict):
        return _from_moe_run(path, found, dispatch)
    if _integers(found, 0):
        return Record(path, np.array(found, np.int64), experts=len(found))
    if (isinstance(found, list) and found and all(_integers(row, -1) for row in found)
            and len({len(row) for row in found}) == 1):
        return _from_ids(path, np.array(found, np.int64))
    raise fail(path, "expected an object of moe-run, a list of the rows of each expert, or one of "
               "the choices of each token, as integers")


def _from_ids(path: str, ids: np.ndarray) -> Record:
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size or ids.min() < -1:
        raise fail(path, f"expected routes of integers [T, K] from -1, got {ids.dtype}"
                   f"{list(ids.shape)}")
    return Record(path, ids=ids, top_k=ids.shape[1])


def _only(path: str, what: str, names: list[str], name: str | None) -> str:
    if name is not None and name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    raise fail(path, f"expected the name of {what}, one of "
               + ", ".join(f"'{each}'" for each in names)
               + ("" if name is None else f", got '{name}'"))


def _from_routes(path: str, name: str | None) -> Record:
    with _load_arrays(path) as file:
        calls: dict[str, list[str]] = {}
        for key in file.files:
            if key.endswith("/ids") and key.count("/") >= 2:
                calls.setdefault(key.rsplit("/", 2)[0], []).append(key)
        if not calls:
            raise fail(path, "expected arrays LAYER/CALL/ids, as Routes.save writes them")
        found = [_from_ids(path, file[key]).ids
                 for key in calls[_only(path, "a layer", list(calls), name)]]
    if len({ids.shape[1] for ids in found}) != 1:
        raise fail(path, "expected as many choices of a token in all calls")
    return _from_ids(path, np.concatenate(found))


def _from_monitor(path: str, name: str | None) -> Record:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MoEError(NOT_FOUND, f"'{path}': {error.strerror}") from error
    except UnicodeDecodeError:
        raise fail(path, "expected lines of JSON, got bytes that are no text") from None
    loads: dict[str, np.ndarray] = {}
    choices: dict[str, int | None] = {}
    for number, line in enumerate(lines, 1):
        try:
            layers = json.loads(line)["layers"]
            items = [(key, each["load"], each.get("top_k")) for key, each in layers.items()]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise fail(path, f"line {number}: expected a record of moe.monitor with 'layers' that "
                       "have a 'load'") from None
        for key, load, top_k in items:
            if not _integers(load, 0) or len(load) != len(loads.get(key, load)):
                raise fail(path, f"line {number}: layer '{key}': expected 'load' to be the rows "
                           "of each expert, as many in all records")
            loads[key] = loads.get(key, 0) + np.array(load, np.int64)
            choices[key] = top_k if type(top_k) is int else None
    if not loads:
        raise fail(path, "expected at least one record")
    layer = _only(path, "a layer", list(loads), name)
    return Record(path, loads[layer], experts=len(loads[layer]), top_k=choices[layer])


def _from_moe_run(path: str, found: dict[str, Any], dispatch: int) -> Record:
    if found.get("format") != 1 or not isinstance(found.get("dispatches"), list):
        raise fail(path, "expected an object with 'format' 1 and a list 'dispatches'")
    if not 0 <= dispatch < len(found["dispatches"]):
        raise fail(path, f"has {len(found['dispatches'])} dispatches, expected one with number "
                   f"{dispatch}")
    entry = found["dispatches"][dispatch]
    where = f"dispatch {dispatch}: "
    if not isinstance(entry, dict) or not _integers(
            [entry.get(key) for key in ("num_experts", "top_k", "dropped")], 0):
        raise fail(path, where + "expected 'num_experts', 'top_k' and 'dropped' to be integers of "
                   "at least 0")
    rows = entry.get("tokens_per_expert")
    if not _integers(rows, 0) or len(rows) != entry["num_experts"]:
        raise fail(path, where + "expected 'tokens_per_expert' to be one integer of at least 0 "
                   f"for each of {entry['num_experts']} experts")
    if entry["dropped"]:
        raise fail(path, where + f"expected a routing without drops, got {entry['dropped']}: it "
                   "does not say what was asked of the experts that were full")
    return Record(path, np.array(rows, np.int64), experts=len(rows), top_k=entry["top_k"])


# --------------------------------------------------------------------------
# Tables of experts
# --------------------------------------------------------------------------


def write_table(path: str | os.PathLike[str], table: np.ndarray) -> None:
    """Write a table as i32 ``.npy``, or as lists in ``.json``."""
    suffix = Path(path).suffix
    if suffix not in (".npy", ".json"):
        raise fail(path, "expected a name that ends in .npy or .json")
    try:
        if suffix == ".npy":
            with open(path, "wb") as file:
                np.save(file, np.ascontiguousarray(table, np.int32))
        else:
            rows = ",\n ".join(json.dumps(row) for row in table.tolist())
            Path(path).write_text(f"[{rows}]\n", encoding="utf-8")
    except OSError as error:
        raise MoEError(NOT_FOUND, f"'{os.fspath(path)}': {error.strerror}") from error


def read_table(path: str | os.PathLike[str],
               check: Callable[[np.ndarray], None] = lambda table: None) -> np.ndarray:
    """Read a table of experts ``[N, L]``, i32; −1 is an empty slot."""
    path = os.fspath(path)
    if Path(path).suffix == ".npy":
        found = _load_arrays(path)
    else:
        rows = load_json(path)
        if not (isinstance(rows, list) and rows and all(_integers(row, -1) for row in rows)
                and len({len(row) for row in rows}) == 1):
            raise fail(path, "expected a list of the slots of each rank, as many integers for all")
        found = np.array(rows, np.int64)
    if found.ndim != 2 or found.dtype.kind not in "iu" or not found.size:
        raise fail(path, f"expected integers [ranks, slots], got {found.dtype}"
                   f"{list(found.shape)}")
    if found.min() < -1 or found.max() >= 2 ** 31:
        raise fail(path, "expected experts from 0, or -1 for an empty slot")
    try:
        check(found)
    except MoEError as error:
        raise fail(path, error.message) from None
    return found.astype(np.int32)
