"""``python -m moe.monitor plot FILE.jsonl -o map.png``: a heat map, experts against steps."""

from __future__ import annotations

import argparse
import sys

from .._error import MoEError
from ._plot import plot


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m moe.monitor")
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("plot", help="draw the load of each expert over time")
    drawing.add_argument("file", help="what moe.monitor.JSONLines wrote")
    drawing.add_argument("-o", "--output", required=True, help="the picture: .png, .svg, .pdf")
    drawing.add_argument("--layer", action="append", default=[],
                         help="a layer; by default all of them, several if given again")
    given = parser.parse_args(arguments)
    try:
        plot(given.file, given.output, given.layer)
    except MoEError as error:
        print(f"moe.monitor: error: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
