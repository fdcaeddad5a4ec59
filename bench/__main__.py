"""The commands of ``./dev bench``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cpu = commands.add_parser("cpu", help="MoE layers on the CPU, compared with peers")
    model = commands.add_parser("model", help="a whole transformers model on the CPU")
    again = commands.add_parser("report", help="the report and plot of results of `cpu`")
    again.add_argument("file", type=Path, help="the JSON file")

    from .cpu import bench as cpu_bench
    from .cpu import model as model_bench

    cpu_bench.add_arguments(cpu)
    model_bench.add_arguments(model)
    cpu_bench.add_all_rows(again)
    arguments = parser.parse_args()
    if arguments.command == "report":
        from .cpu import report

        results = json.loads(arguments.file.read_text())
        report.write(results, arguments.file, arguments.all_rows)
        print(report.markdown(results, arguments.all_rows))
        return 0
    return {"cpu": cpu_bench, "model": model_bench}[arguments.command].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
