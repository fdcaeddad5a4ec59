"""Every ```mlir block of the reference is tested as it stands there.

An example that is a function or a module must parse, verify, print and parse again
to the same text, and lower to LLVM through the reference pipeline, or that of the
CPU if only kernels read an operation, unless it shows an operation of moe_rt, or one that
the runtime runs between the parts of a function, which these pipelines do not take. One
that is only a few operations is put into a function first, with the values it uses and
does not define as operands of the types it gives them. One in the description of a
pass runs through that pass.

The examples of passes and pipelines are files of their own, test/Docs/passes, which
lit runs and docs/passes.md shows; test_reference.py looks for one of each.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MOE_BUILD_DIR", ROOT / "build"))
MOE_OPT = BUILD / "bin" / "moe-opt"
DIALECTS = [BUILD / "docs" / "MoEDialect.md", BUILD / "docs" / "MoERuntimeDialect.md"]
DOCUMENTS = [*DIALECTS, *sorted({*(BUILD / "docs").glob("*.md")} - {*DIALECTS}),
             ROOT / "docs" / "attributes.md", ROOT / "docs" / "rationale.md"]
REFERENCE = "--moe-reference"
# Pipelines of operations that only kernels read.
OF_KERNELS = {"moe.quantize_rows": "--moe-cpu=vector-bits=256",
              "moe.round_matrices": "--moe-cpu=vector-bits=256"}

# Operations that no pipeline lowers: functions are cut at them.
OF_THE_RUNTIME = re.compile(r"moe_rt\.|moe\.(?:all_gather|exchange|own_rows)\b")

BLOCK = re.compile(r"^( *)```mlir\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
UNDECLARED = re.compile(r"error: use of undeclared SSA value name '(%[\w$.#-]+)'")
MISTYPED = re.compile(r"error: use of value '(%[\w$.-]+)' expects different type than prior "
                      r"uses: '(.*)' vs '(.*)'")


def examples():
    """(name, heading, text) of each example; the heading is the one it stands under."""
    for path in DOCUMENTS:
        if not path.exists():
            yield pytest.param(f"{path} was not generated", "", None, id=path.name)
            continue
        text = path.read_text()
        count: dict[str, int] = {}
        for match in BLOCK.finditer(text):
            headings = re.findall(r"^#+ `?([-\w.]+)", text[:match.start()], re.MULTILINE)
            heading = headings[-1] if headings else path.name
            count[heading] = count.get(heading, 0) + 1
            line = text.count("\n", 0, match.start()) + 1
            block = "\n".join(row.removeprefix(match[1]) for row in match[2].split("\n"))
            yield pytest.param(f"{path.name}:{line}", heading, block,
                               id=f"{path.stem}-{heading}-{count[heading]}")


def moe_opt(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MOE_OPT, *options, "-"], input=text, capture_output=True, text=True,
                          timeout=120)


def is_whole(text: str) -> bool:
    return re.match(r"\s*(//[^\n]*\n\s*|#[^\n]*\n\s*|!\w+ *=[^\n]*\n\s*)*(func\.func|module)\b",
                    text) is not None


def in_function(block: str) -> str:
    """The block as the body of a function; what it does not define becomes an argument.

    The parser itself says which values those are and, given a wrong type, which type
    they should have.
    """
    arguments: dict[str, str] = {}
    definitions = re.findall(r"^[#!]\w+ *=.*$", block, re.MULTILINE)
    body = re.sub(r"^[#!]\w+ *=.*$", "", block, flags=re.MULTILINE)
    for _ in range(100):
        signature = ", ".join(f"{name}: {type_}" for name, type_ in arguments.items())
        text = "\n".join([*definitions, f"func.func @example({signature}) {{", body, "return", "}"])
        errors = moe_opt(text).stderr
        if undeclared := UNDECLARED.search(errors):
            arguments[undeclared[1]] = "none"
        elif (mistyped := MISTYPED.search(errors)) and arguments.get(mistyped[1]) == "none":
            arguments[mistyped[1]] = mistyped[2]
        else:
            return text
    raise AssertionError(f"no types were found for {arguments}")


@pytest.mark.parametrize(("where", "heading", "block"), list(examples()))
def test_example(where, heading, block):
    assert block is not None, where
    whole = is_whole(block)
    text = block if whole else in_function(block)

    first = moe_opt(text)
    assert first.returncode == 0, f"{where}:\n{first.stderr}\n{text}"
    assert not first.stderr, f"{where}: a warning:\n{first.stderr}"
    again = moe_opt(first.stdout)
    assert again.returncode == 0, f"{where} does not parse as printed:\n{again.stderr}"
    assert again.stdout == first.stdout
    if heading.startswith("-"):  # a pass, by its option
        after = moe_opt(text, heading)
        assert after.returncode == 0, f"{where}: {heading} fails:\n{after.stderr}"
    elif whole and not OF_THE_RUNTIME.search(block):
        lowered = moe_opt(text, OF_KERNELS.get(heading, REFERENCE))
        assert lowered.returncode == 0, f"{where} does not lower:\n{lowered.stderr}"
        left = sorted(set(re.findall(r"\bmoe\.(?:gate|dispatch|expert|combine)\b", lowered.stdout)))
        assert not left, f"{where}: left after {REFERENCE}: {left}"


# What other operations show in their examples.
WITHOUT_EXAMPLE = {"moe_rt.done"}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda path: path.stem)
def test_there_are_examples(dialect):
    """Every operation of a dialect shows one."""
    text = dialect.read_text()
    operation = re.compile(r"^### `(moe(?:_rt)?\.\w+)`", re.MULTILINE)
    sections = operation.split(text)[1:]
    assert sections
    without = [name for name, section in zip(sections[::2], sections[1::2])
               if "```mlir" not in section and name not in WITHOUT_EXAMPLE]
    assert not without, f"no example for {without}"
