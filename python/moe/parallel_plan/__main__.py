"""``python -m moe plan``: a layer over several ranks, before it runs."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .._error import INVALID_ARGUMENT, MoEError
from ._files import read_record, read_routing, read_table, write_table
from ._layer import LayerShape
from ._links import read_links
from ._placement import balance, check_table, place
from ._plan import ROWS, make_plan
from ._simulate import plot, report, simulate

UNITS = {"": 1, "KiB": 2 ** 10, "MiB": 2 ** 20, "GiB": 2 ** 30, "TiB": 2 ** 40}


def _error(message: str) -> MoEError:
    return MoEError(INVALID_ARGUMENT, message)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m moe plan", description="plan a layer over several ranks, place its "
                     "experts, or simulate how it scales")
    parser.add_argument("source", nargs="?", help="an .mlir file, an artifact (.moe), or a "
                        "checkpoint with --layer; without one the sizes below")
    parser.add_argument("--layer", help="layer of a checkpoint")
    parser.add_argument("--function", help="layer of an artifact that has several")
    sizes = parser.add_argument_group("a layer by its sizes")
    sizes.add_argument("--experts")
    sizes.add_argument("--top-k")
    sizes.add_argument("--hidden")
    sizes.add_argument("--intermediate")
    sizes.add_argument("--dtype", default="bf16", help="of rows and weights")
    sizes.add_argument("--out-bytes", help="bytes of a row out, if not those of dtype")
    sizes.add_argument("--home-bytes", help="bytes of a row home")
    ranks = parser.add_argument_group("ranks")
    ranks.add_argument("--ep", metavar="N[xM]", help="N ranks, or N nodes of M ranks")
    ranks.add_argument("--slots", help="experts that a rank holds at most")
    ranks.add_argument("--replicas", help="ranks that an expert is on at most")
    ranks.add_argument("--table", help="table of experts, .npy or .json")
    calls = parser.add_argument_group("calls")
    calls.add_argument("--tokens", default="4096", help="of each rank, or one number for each")
    calls.add_argument("--load", default="uniform", help="uniform, zipf:S or histogram:FILE")
    calls.add_argument("--groups", metavar="G:g", help="a token uses g of G groups of experts")
    calls.add_argument("--dispatch", default="0", help="number in a file of moe-run")
    calls.add_argument("--record-layer", help="name of the layer in a file that has several")
    calls.add_argument("--delta", default="1e-6", help="probability of more rows than the tail")
    calls.add_argument("--memory-limit", help="such as 64MiB: calls that need more run in rounds")
    calls.add_argument("--out", default="rank", help=f"rows of a token out: a {', '.join(ROWS)}")
    calls.add_argument("--home", help="rows of a token home (default: as the layer has them)")
    calls.add_argument("--links", help="file of constants of links")
    jobs = parser.add_argument_group("instead of a plan")
    jobs.add_argument("--place", metavar="FILE", help="write a table of experts for a load")
    jobs.add_argument("--simulate", metavar="N,N", help="simulate numbers of ranks")
    jobs.add_argument("--plot", help="picture of what was simulated")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("-o", "--output", help="file to write, by default stdout")
    return parser


def _integer(given: argparse.Namespace, name: str, default: int | None = None,
             least: int = 1) -> int:
    text = getattr(given, name)
    option = "--" + name.replace("_", "-")
    if text is None:
        if default is None:
            raise _error(f"expected {option}")
        return default
    if not re.fullmatch(r"\d{1,18}", text) or int(text) < least:
        raise _error(f"{option} is '{text}', expected an integer of at least {least}")
    return int(text)


def _integers(option: str, text: str, least: int) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch(r"\d{1,18}", part) and int(part) >= least for part in parts):
        raise _error(f"{option} is '{text}', expected integers of at least {least}, separated by "
                     "commas")
    return [int(part) for part in parts]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _error(f"{option} is '{text}', expected a number") from None


def _ranks(given: argparse.Namespace) -> tuple[int, int]:
    """The number of ranks, and those of a node."""
    if given.ep is None:
        raise _error("expected --ep=N or --ep=NODESxRANKS")
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", given.ep)
    numbers = [int(each) for each in found.groups(default="1")] if found else [0]
    if 0 in numbers or np.prod(numbers) > 2 ** 20:
        raise _error(f"--ep is '{given.ep}', expected N or NODESxRANKS of at least 1, together at "
                     "most 1048576")
    return numbers[0] * numbers[1], numbers[1]


def _pair(option: str, text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not found:
        raise _error(f"{option} is '{text}', expected G:g")
    return int(found[1]), int(found[2])


def _bytes(option: str, text: str | None) -> int:
    if text is None:
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]iB)?", text)
    if not found or float(found[1]) * UNITS[found[2] or ""] < 1:
        raise _error(f"{option} is '{text}', expected bytes such as 4096 or 64MiB")
    return int(float(found[1]) * UNITS[found[2] or ""])


def _by_sizes(given: argparse.Namespace, slots: int) -> LayerShape:
    sizes = [_integer(given, name) for name in ("experts", "top_k", "hidden", "intermediate")]
    return LayerShape.of_sizes(
        *sizes, slots, given.dtype, replicas=_integer(given, "replicas", 1),
        token_bytes=None if given.out_bytes is None else _integer(given, "out_bytes"),
        choice_bytes=None if given.home_bytes is None else _integer(given, "home_bytes"))


def _layer(given: argparse.Namespace, ranks: int, table: np.ndarray | None) -> LayerShape:
    """The layer that is planned: compiled, or by its sizes."""
    if given.source is None:
        slots = -(-_integer(given, "experts") // ranks) if table is None else table.shape[1]
        return _by_sizes(given, _integer(given, "slots", slots))
    from .._compile import compile
    from .._runtime import load

    if given.source.endswith(".moe"):
        return LayerShape.of_module(load(given.source), given.function)
    if table is not None:
        copies = int(np.bincount(table[table >= 0]).max())
        parallel = f"{table.shape[1]}:{max(copies, _integer(given, 'replicas', 1))}"
    elif given.slots is not None:
        parallel = f"{_integer(given, 'slots')}:{_integer(given, 'replicas', 1)}"
    else:
        parallel = f"ranks={ranks}"
    layer = given.layer
    module = compile(given.source, options=[f"--parallel={parallel}"],
                     layer=int(layer) if layer is not None and layer.isdigit() else layer)
    return LayerShape.of_module(module, given.function)


def _write(given: argparse.Namespace, text: str) -> None:
    if given.output is None:
        print(text)
        return
    try:
        Path(given.output).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise _error(f"'{given.output}': {error.strerror}") from error


def _plan(given: argparse.Namespace) -> None:
    ranks, node_size = _ranks(given)
    table = None if given.table is None else read_table(given.table)
    if table is not None and len(table) != ranks:
        raise _error(f"'{given.table}': the table has {len(table)} ranks, expected {ranks}")
    if table is not None and not (table >= 0).any():
        raise _error(f"'{given.table}': the table has no expert")
    layer = _layer(given, ranks, table)
    routing = read_routing(given.load, layer.experts, layer.top_k, _pair("--groups", given.groups),
                           name=given.record_layer, dispatch=_integer(given, "dispatch", least=0))
    tokens = _integers("--tokens", given.tokens, 0)
    plan = make_plan(layer, ranks, routing, tokens if len(tokens) > 1 else tokens * ranks,
                     node_size=node_size, table=table, links=read_links(given.links),
                     memory_limit=_bytes("--memory-limit", given.memory_limit),
                     delta=_number("--delta", given.delta), out=given.out, home=given.home)
    _write(given, json.dumps(plan.to_json(), indent=1) if given.json else str(plan))


def _place(given: argparse.Namespace) -> None:
    ranks, _ = _ranks(given)
    record = read_record(given.place, name=given.record_layer,
                         dispatch=_integer(given, "dispatch", least=0))
    experts = None if given.experts is None else _integer(given, "experts")
    load = record.load_of(experts)
    if experts is not None and len(load) != experts:
        raise _error(f"'{given.place}': has {len(load)} experts, expected {experts}")
    if not load.any():
        raise _error(f"'{given.place}': expected at least one choice")
    slots = _integer(given, "slots", -(-len(load) // ranks))
    replicas = None if given.replicas is None else _integer(given, "replicas")
    table = place(load, ranks, slots, replicas)
    check_table(table, len(load), ranks)
    if given.output is not None:
        write_table(given.output, table)
    copies = np.bincount(table[table >= 0], minlength=len(load))
    found: dict[str, Any] = {"ranks": ranks, "slots": slots, "experts": len(load),
                             "replicas": int(copies.max()),
                             "fullest_over_mean": balance(table, load)}
    if given.json or given.output is None:
        print(json.dumps({**found, "table": table.tolist()}))
    else:
        print(f"{given.output}: {ranks} ranks, {slots} slots, {len(load)} experts on up to "
              f"{copies.max()} ranks, fullest over mean {found['fullest_over_mean']:.4f}")


def _simulate(given: argparse.Namespace) -> None:
    sizes = _integers("--simulate", given.simulate, 1)
    links = read_links(given.links)
    if links is None:
        raise _error("expected --links=FILE with constants of links")
    if given.source is not None:
        raise _error("--simulate takes a layer by its sizes, such as --experts=256, got "
                     f"'{given.source}'")
    node_size = _ranks(given)[1] if given.ep else 8
    shape = _by_sizes(given, 1)
    routing = read_routing(given.load, shape.experts, shape.top_k,
                           _pair("--groups", given.groups), name=given.record_layer,
                           dispatch=_integer(given, "dispatch", least=0))
    found = {tokens: simulate(lambda slots: _by_sizes(given, slots), sizes, routing, tokens, links,
                              node_size=node_size, out=given.out, home=given.home)
             for tokens in _integers("--tokens", given.tokens, 0)}
    if given.plot is not None:
        plot({f"{tokens} tokens a rank": scales for tokens, scales in found.items()}, given.plot)
    if given.json:
        _write(given, json.dumps(
            {"format": 1, "simulated": True, "links": links.name, "load": routing.name,
             "tokens": {str(tokens): [scale.to_json() for scale in scales]
                        for tokens, scales in found.items()}}, indent=1))
    else:
        _write(given, "\n".join(f"{tokens} tokens a rank, {routing.name}, {report(scales, links)}"
                                for tokens, scales in found.items()))


def main(arguments: list[str]) -> int:
    """Run the command; errors are those of the package."""
    given = _parser().parse_args(arguments)
    if given.place is not None and given.simulate is not None:
        raise _error("expected --place or --simulate, got both")
    if given.place is not None:
        _place(given)
    elif given.simulate is not None:
        _simulate(given)
    else:
        _plan(given)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MoEError as error:
        sys.exit(f"moe: error: {error}")
