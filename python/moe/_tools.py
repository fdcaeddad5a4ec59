"""The command line tools beside this package or in a build tree, and their console commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from ._error import NOT_FOUND, MoEError


def build_tree() -> Path:
    """Return the build tree that is looked into: ``MOE_BUILD_DIR``, or that of the repository."""
    return Path(os.environ.get("MOE_BUILD_DIR",
                               Path(__file__).resolve().parent.parent.parent / "build"))


def find_tool(name: str) -> Path | None:
    """Return the path of a tool beside the package or in a build tree, if it is there."""
    package = Path(__file__).resolve().parent
    for path in (package / name, package / "bin" / name, build_tree() / "bin" / name):
        if os.access(path, os.X_OK):
            return path
    return None


def run_tool(name: str, arguments: list[str]) -> NoReturn:
    """Become the tool.

    Raises:
      MoEError: if it is not there. A console command of the same name is not looked for in PATH:
        it would be this one.
    """
    path = find_tool(name)
    if path is None:
        raise MoEError(NOT_FOUND, f"{name} was not found beside the package or in a build tree")
    sys.stdout.flush()
    os.execv(path, [str(path), *arguments])


def _command(name: str) -> NoReturn:
    try:
        run_tool(name, sys.argv[1:])
    except (MoEError, OSError) as error:
        sys.exit(f"{name}: error: {error}")


def moe_compile() -> NoReturn:
    _command("moe-compile")


def moe_opt() -> NoReturn:
    _command("moe-opt")


def moe_run() -> NoReturn:
    _command("moe-run")
