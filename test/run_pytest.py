#!/usr/bin/env python3
"""Run pytest, or say which module is missing and exit with 77 (ctest's "skipped").

    run_pytest.py MODULE[,MODULE...] [pytest's arguments]
"""

import importlib.util
import sys

SKIPPED = 77


def main() -> int:
    needed = sys.argv[1].split(",")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: {sys.executable} has no module {', '.join(missing)}; "
              "`./dev test` installs them, or: "
              f"{sys.executable} -m pip install -r python/requirements-test.txt")
        return SKIPPED
    import pytest

    return pytest.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
