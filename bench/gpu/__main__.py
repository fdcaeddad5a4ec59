"""The commands for GPUs, of ``./dev`` and of a bundle."""

from __future__ import annotations

import argparse
import sys

from moe_testing.device.cuda_driver import NoDevice


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {"pack": "compile everything into a bundle",
             "check": "compare results of the GPU with float64",
             "bench": "times on the GPU, compared with peers"}
    modules = {}
    # Packing imports modules of a bundle, too; a module that lacks a package reports it.
    from ..device import bundle, check
    from . import bench
    for name, module in (("pack", bundle), ("check", check), ("bench", bench)):
        modules[name] = module
        module.add_arguments(commands.add_parser(name, help=helps[name]))
    arguments = parser.parse_args()
    try:
        return modules[arguments.command].run(arguments)
    except (NoDevice, bundle.NoBundle) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
