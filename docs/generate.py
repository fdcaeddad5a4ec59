#!/usr/bin/env python3
"""Write the parts of docs/ that come from the sources.

    docs/generate.py            write them
    docs/generate.py --check    write nothing; fail where a file is out of date

    attributes.md, passes.md    from the .td files, by llvm-tblgen, and test/Docs/passes
    c-api.md                    from the C headers
    python-api.md               from the docstrings of python/moe

test/Docs runs it with --check.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "test" / "Docs" / "passes"
DIALECTS = ROOT / "include" / "moe" / "Dialect"
OPERATIONS = {"moe": DIALECTS / "MoE" / "IR" / "MoEOps.td",
              "moe_rt": DIALECTS / "MoERuntime" / "IR" / "MoERuntimeOps.td"}
REGISTRATION = ROOT / "lib" / "Pipelines" / "Registration.cpp"
RUNTIME = ROOT / "runtime" / "include" / "moe_rt"
C_HEADERS = [RUNTIME / f"{name}.h" for name in
             ("moe_rt", "checkpoint", "group", "mpi", "executor", "openmp", "launcher", "artifact")]
COMPILER_HEADERS = ROOT / "include" / "moe-c"
PYTHON = ROOT / "python"
NOTE = "<!-- Written by docs/generate.py; do not edit. -->"

# --------------------------------------------------------------------------
# TableGen
# --------------------------------------------------------------------------


def llvm_prefix() -> Path:
    """The folder of LLVM 22 with bin/llvm-tblgen and include/mlir."""
    candidates = []
    cache = Path(os.environ.get("MOE_BUILD_DIR", ROOT / "build")) / "CMakeCache.txt"
    if cache.exists() and (found := re.search(r"^MLIR_DIR:\w+=(.+)$", cache.read_text(), re.M)):
        candidates.append(Path(found[1]).parents[2])
    candidates.append(Path("/usr/lib/llvm-22"))
    if tool := shutil.which("llvm-tblgen"):
        candidates.append(Path(tool).resolve().parent.parent)
    for prefix in candidates:
        if (prefix / "bin" / "llvm-tblgen").exists():
            return prefix
    sys.exit("docs/generate.py: llvm-tblgen of LLVM 22 was not found; set MOE_BUILD_DIR to a "
             "build tree")


@functools.cache
def records(path: Path) -> dict[str, Any]:
    prefix = llvm_prefix()
    done = subprocess.run([prefix / "bin" / "llvm-tblgen", "--dump-json", "-I", ROOT / "include",
                           "-I", prefix / "include", path], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"docs/generate.py: {path}\n{done.stderr}")
    return json.loads(done.stdout)


def instances(path: Path, kind: str) -> list[dict[str, Any]]:
    """The records of a class, in the order of the file, then of those that it includes."""
    all_of = records(path)

    def place(record: dict[str, Any]) -> tuple[bool, str, int]:
        file, _, line = record["!locs"][0].rpartition(":")
        return Path(file).name != path.name, file, int(line)

    return sorted((all_of[name] for name in all_of["!instanceof"].get(kind, [])), key=place)


def arguments(dag: dict[str, Any], path: Path) -> list[tuple[Any, str]]:
    """(record or C++ type, name) of each element of (ins ...)."""
    return [(records(path)[value["def"]] if isinstance(value, dict) else value, name)
            for value, name in dag["args"]]


# --------------------------------------------------------------------------
# attributes.md
# --------------------------------------------------------------------------


def keywords_of(cpp: str, path: Path) -> list[str]:
    """The keywords of an enumeration, by its C++ name."""
    name = cpp.rpartition("::")[2]
    for enum in instances(path, "EnumAttrInfo"):
        if enum["className"] == name:
            cases = [records(path)[case["def"]] for case in enum["enumerants"]]
            return [case["str"] for case in cases]
    return []


def default_of(text: str, path: Path) -> str:
    """A default of C++ as the assembly writes it: Score::Softmax is softmax."""
    enum, _, case = text.rpartition("::")
    if not enum:
        return text
    for each in instances(path, "EnumAttrInfo"):
        if each["className"] == enum.rpartition("::")[2]:
            for record in (records(path)[e["def"]] for e in each["enumerants"]):
                if record["symbol"] == case:
                    return record["str"]
    return text


VALUES = {"I64Attr": "integer", "F64Attr": "number", "UnitAttr": "none (a flag)",
          "SymbolRefAttr": "symbol", "MoE_FloatTypeAttr": "`f32`, `f16` or `bf16`",
          "DenseI64ArrayAttr": "array of integers", "AffineMapArrayAttr": "array of affine maps",
          "MoERuntime_TensorMapArrayAttr": "array of `#moe_rt.tensor_map`",
          "int64_t": "integer", "bool": "`true` or `false`", "StringAttr": "string",
          "AffineMapAttr": "affine map", "ArrayAttr": "array",
          "::mlir::moe::Real": "number"}


def value_of(record: dict[str, Any] | str, path: Path) -> str:
    """What an attribute or a parameter may be."""
    if isinstance(record, str):
        if words := keywords_of(record, path):
            return ", ".join(f"`{word}`" for word in words)
        return VALUES.get(record, f"`{record}`")
    if "cppType" in record and "AttrParameter" in record["!superclasses"]:
        return value_of(record["cppType"], path)
    if record["!name"] in VALUES:
        return VALUES[record["!name"]]
    if (base := record.get("baseAttr")) is not None:
        return value_of(records(path)[base["def"]], path)
    if "EnumAttr" in record["!superclasses"]:
        return value_of(record["cppType"].removesuffix("Attr"), path)
    if "AttrDef" in record["!superclasses"]:
        return f"`#moe.{record['mnemonic']}`"
    return record.get("summary") or record["!name"]


def clause_of(operation: dict[str, Any], name: str) -> str:
    """The keyword before an attribute in the assembly of an operation."""
    text = operation["assemblyFormat"]
    if found := re.search(rf"`(\w+)` `\(` (?:custom<\w+>\()?\${name}\b", text):
        return f"{found[1]}(…)"
    if found := re.search(rf"`(\w+)` \${name}\^", text):
        return found[1]
    return name


def table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    lines = [head, ("---",) * len(head), *rest]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def operation_tables(dialect: str, path: Path) -> Iterator[str]:
    for operation in instances(path, "Op"):
        rows = []
        for record, name in arguments(operation["arguments"], path):
            if "Attr" not in record["!superclasses"]:
                continue
            optional, default = record.get("isOptional"), record.get("defaultValue")
            if record["!name"] == "UnitAttr":
                given = "absent"
            elif default:
                given = f"`{default_of(default, path)}`"
            else:
                given = "absent" if optional else "required"
            rows.append((f"`{clause_of(operation, name)}`", f"`{name}`", value_of(record, path),
                         given))
        if rows:
            yield f"### `{dialect}.{operation['opName']}`"
            yield table(("clause", "attribute", "value", "default"), *rows)


def definition_tables(dialect: str, path: Path) -> Iterator[str]:
    for attribute in instances(path, "AttrDef"):
        if "EnumAttr" in attribute["!superclasses"] or attribute["hasCustomAssemblyFormat"]:
            continue
        rows = []
        for record, name in arguments(attribute["parameters"], path):
            default = None if isinstance(record, str) else record.get("defaultValue")
            kind = record if isinstance(record, str) else record["cppType"]
            rows.append((f"`{name}`", value_of(kind, path),
                         "absent" if default and default.endswith("Attr()") else
                         f"`{default_of(default, path)}`" if default else "required"))
        yield f"### `#{dialect}.{attribute['mnemonic']}`: {attribute['summary']}"
        yield textwrap.dedent(attribute["description"]).strip()
        yield table(("parameter", "value", "default"), *rows)


def attributes() -> str:
    text = (DOCS / "attributes.md").read_text()
    for name, tables in (("operations", operation_tables), ("definitions", definition_tables)):
        blocks = [block for each in OPERATIONS.items() for block in tables(*each)]
        begin, end = f"<!-- begin {name}: docs/generate.py -->\n", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = before + begin + "\n" + "\n\n".join(blocks) + "\n\n" + end + after
    return text


# --------------------------------------------------------------------------
# passes.md
# --------------------------------------------------------------------------


def pass_files() -> list[Path]:
    return sorted((ROOT / "include" / "moe").rglob("*Passes.td"))


def passes() -> dict[str, dict[str, Any]]:
    """The passes by the name of their option."""
    found = {}
    for path in pass_files():
        for record in instances(path, "PassBase"):
            found[record["argument"]] = record | {"file": path}
    return dict(sorted(found.items()))


def pipelines() -> dict[str, str]:
    """The description of each pipeline, by name."""
    text = REGISTRATION.read_text()
    found = re.findall(r'PassPipelineRegistration<\w*>\(\s*"([\w-]+)",\s*((?:"[^"]*"\s*)+),', text)
    return {name: "".join(re.findall(r'"([^"]*)"', words)) for name, words in sorted(found)}


def example(name: str) -> Iterator[str]:
    path = EXAMPLES / f"{name}.mlir"
    if path.exists():
        yield f"[Example](../{path.relative_to(ROOT)}), which a test runs:"
        yield f"```mlir\n{path.read_text().strip()}\n```"


def options_of(record: dict[str, Any]) -> Iterator[str]:
    all_of = records(record["file"])
    rows = []
    for option in (all_of[each["def"]] for each in record["options"]):
        default = option.get("defaultValue") or ""
        default = default.rpartition("::")[2].strip('"')
        rows.append((f"`{option['argument']}`", " ".join(option["description"].split()),
                     f"`{default}`" if default else ""))
    if rows:
        yield table(("option", "meaning", "default"), *rows)


def pass_reference() -> str:
    blocks = ["# Passes and pipelines", NOTE,
              "`moe-opt --NAME` runs each of them, `moe-opt --NAME='OPTION=VALUE'` with an option. "
              "`lib/Pipelines` has the order in which they run.",
              "## Pipelines"]
    for name, summary in pipelines().items():
        blocks += [f"### `{name}`", f"{summary}.", *example(name)]
    blocks.append("## Passes")
    for name, record in passes().items():
        blocks += [f"### `{name}`", f"_{record['summary']}._",
                   textwrap.dedent(record["description"]).strip(), *options_of(record),
                   *example(name)]
    return "\n\n".join(blocks) + "\n"


# --------------------------------------------------------------------------
# c-api.md
# --------------------------------------------------------------------------

RULE = re.compile(r"//===-+===//")


def prose(lines: list[str]) -> str:
    """Comments as Markdown: what is indented becomes a block of code."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    blocks = []
    for paragraph in filter(None, paragraphs):
        if all(line.startswith("  ") for line in paragraph):
            blocks.append("```\n" + textwrap.dedent("\n".join(paragraph)) + "\n```")
        else:
            text = "\n".join(line.removeprefix(" ") for line in paragraph)
            blocks.append(re.sub(r"^(?!\* )(.+)\n\* ", r"\1\n\n* ", text))
    return "\n\n".join(blocks)


def name_of(declaration: str) -> str:
    if found := re.match(r"#define (\w+)", declaration):
        return found[1]
    if declaration.startswith("typedef"):
        if found := re.search(r"\(\*(\w+)\)", declaration.partition("{")[0]):
            return found[1]
        return re.findall(r"\w+", declaration)[-1]
    return re.findall(r"(\w+)\s*\(", declaration)[0]


def header(path: Path) -> Iterator[str]:
    """The Markdown blocks of one C header."""
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "SPDX" in line) + 1
    end = next(i for i in range(start, len(lines)) if RULE.match(lines[i]))
    # The title of the first line: "//===- moe_rt.h - Load and run ... -*- C -*-===//".
    title = re.match(r"//===- \S+ - (.*?) -+\*-", lines[0])
    yield f"## `{path.parent.name}/{path.name}`" + (f": {title[1]}" if title else "")
    yield prose([line[3:] for line in lines[start:end]])

    comment: list[str] = []
    plain: list[str] = []
    i = end + 1
    while i < len(lines):
        line = lines[i].strip()
        i += 1
        if RULE.match(line) and i + 1 < len(lines) and RULE.match(lines[i + 1].strip()):
            yield "### " + lines[i].strip().removeprefix("// ")
            i += 2
        elif line.startswith("///"):
            comment.append(lines[i - 1].strip()[4:])
        elif line.startswith("//"):
            plain.append(lines[i - 1].strip()[3:])
        else:
            if plain:
                yield prose(plain)
                plain = []
            declaration = [lines[i - 1]]
            if line.startswith("#"):
                documented = line.startswith("#define") and comment
                if not documented:
                    # What is for the preprocessor or for C++ alone.
                    if line == "#ifdef __cplusplus" or line.startswith("#if defined(_WIN32)"):
                        while not lines[i].startswith("#endif"):
                            i += 1
                        i += 1
                    comment = []
                    continue
            elif not line:
                continue
            else:
                end_of = "}" if line.startswith("static inline") else ";"
                while (not declaration[-1].split("//")[0].rstrip().endswith(end_of)
                       or sum(text.count("{") - text.count("}") for text in declaration)):
                    declaration.append(lines[i])
                    i += 1
            text = "\n".join(declaration)
            if found := re.match(r"(?:MOE_(?:RT|JIT)_API|MLIR_CAPI_EXPORTED)\s+", text):
                text = " ".join(text[found.end():].split())
                text = "\n".join(textwrap.wrap(text, 96, subsequent_indent=" " * 4))
            yield f"#### `{name_of(text)}`"
            yield f"```c\n{text}\n```"
            if comment:
                yield prose(comment)
            comment = []


def c_reference() -> str:
    blocks = ["# C API", NOTE,
              "Link with `moe_rt` (`find_package(MoE COMPONENTS runtime)`, target `MoE::moe_rt`). "
              "What lies in `moe-c/` needs the compiler: `MoE::MoECompiler`, which brings MLIR's C "
              "API ([embedding.md](embedding.md)). [stability.md](stability.md) says what may "
              "change."]
    for path in [*C_HEADERS, *sorted(COMPILER_HEADERS.glob("*.h"))]:
        blocks += header(path)
    return "\n\n".join(block for block in blocks if block) + "\n"


# --------------------------------------------------------------------------
# python-api.md
# --------------------------------------------------------------------------


def public_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def defined(path: Path, name: str) -> tuple[Path, ast.stmt] | None:
    """Where a module defines a name, or what it imports it from."""
    nodes = ast.parse(path.read_text()).body
    for each in [n for n in nodes if isinstance(n, ast.If)]:  # TYPE_CHECKING
        nodes += each.body
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and node.level and any(
                (alias.asname or alias.name) == name for alias in node.names):
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            folder = path.parents[node.level - 1]
            module = folder / f"{(node.module or original).replace('.', '/')}.py"
            if node.module and module.exists():
                return defined(module, original)
    return None


def documented(node: ast.AST) -> str:
    """A docstring as Markdown; its sections become lists, its code blocks."""
    text = ast.get_docstring(node) or ""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        if lines[0] == "Returns:":
            blocks.append("Returns: " + textwrap.dedent("\n".join(lines[1:])))
        elif found := re.match(r"(Args|Attributes|Raises|Warns):$", lines[0]):
            body = textwrap.dedent("\n".join(lines[1:]))
            entries = re.sub(r"^(\w+(?:, \w+)*):", r"- `\1`:", body, flags=re.M)
            blocks.append(f"{found[1]}:\n\n{entries}")
        elif lines[0].startswith("    "):
            code = textwrap.dedent(paragraph)
            if blocks and blocks[-1].endswith("\n```"):
                code = blocks.pop()[len("```python\n"):-len("\n```")] + "\n\n" + code
            blocks.append(f"```python\n{code}\n```")
        else:
            blocks.append(paragraph)
    return "\n\n".join(blocks)


def parameters(args: ast.arguments) -> list[str]:
    """Each parameter but self, with its annotation and default."""
    def text(arg: ast.arg, default: ast.expr | None) -> str:
        annotation = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
        equals = " = " if annotation else "="
        return arg.arg + annotation + (f"{equals}{ast.unparse(default)}" if default else "")

    positional = args.posonlyargs + args.args
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    found = [text(arg, default) for arg, default in zip(positional, defaults)
             if arg.arg not in ("self", "cls")]
    if args.vararg:
        found.append("*" + text(args.vararg, None))
    elif args.kwonlyargs:
        found.append("*")
    found += [text(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg:
        found.append("**" + text(args.kwarg, None))
    return found


def signature(node: ast.FunctionDef, name: str) -> str:
    found = parameters(node.args)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{name}({', '.join(found)}){result}"
    if len(line) > 96:
        line = f"{name}(\n" + "".join(f"    {each},\n" for each in found) + f"){result}"
    return f"```python\n{line}\n```"


def members(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_"):
            default = f" = {ast.unparse(each.value)}" if each.value else ""
            yield f"- `{ast.unparse(each.target)}: {ast.unparse(each.annotation)}{default}`"
    for each in node.body:
        if not isinstance(each, ast.FunctionDef):
            continue
        if each.name.startswith("_") and each.name != "__call__":
            continue
        decorators = [ast.unparse(d) for d in each.decorator_list]
        if any("property" in d for d in decorators):
            result = f": {ast.unparse(each.returns)}" if each.returns else ""
            yield f"#### `{node.name}.{each.name}{result}`"
        else:
            name = node.name.lower() if each.name == "__call__" else f"{node.name}.{each.name}"
            yield f"#### `{node.name}.{each.name}`" if each.name != "__call__" else (
                f"#### Calling a `{node.name}`")
            yield signature(each, name)
        yield documented(each)


def python_module(path: Path, name: str) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    yield f"## `{name}`"
    yield documented(tree)
    constants = []
    for public in public_names(tree):
        found = defined(path, public)
        if found is None:
            constants.append(public)
            continue
        node = found[1]
        yield f"### `{name}.{public}`"
        if isinstance(node, ast.ClassDef):
            yield documented(node)
            yield from members(node)
        else:
            yield signature(node, public)
            yield documented(node)
    modules = [c for c in constants if (path.parent / f"{c}.py").exists()
               or (path.parent / c / "__init__.py").exists()]
    others = [c for c in constants if c not in modules]
    if others:
        yield "### Constants"
        yield ", ".join(f"`{name}.{each}`" for each in others)


def python_reference() -> str:
    package = PYTHON / "moe"
    blocks = ["# Python API", NOTE]
    blocks += python_module(package / "__init__.py", "moe")
    for name in ("torch", "dynamo", "transformers", "vllm", "jax", "onnx"):
        blocks += python_module(package / "integrations" / f"{name}.py",
                                f"moe.integrations.{name}")
    blocks += python_module(package / "monitor" / "__init__.py", "moe.monitor")
    blocks += python_module(package / "ir.py", "moe.ir")
    blocks += python_module(package / "reference.py", "moe.reference")
    text = "\n\n".join(block for block in blocks if block) + "\n"
    return re.sub(r"(^- .*)\n\n(?=- `)", r"\1\n", text, flags=re.M)


# --------------------------------------------------------------------------


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    check, stale = bool(sys.argv[1:]), []
    for name, text in (("attributes.md", attributes()), ("passes.md", pass_reference()),
                       ("c-api.md", c_reference()), ("python-api.md", python_reference())):
        path = DOCS / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
                print(f"wrote docs/{name}")
    if check and stale:
        print(f"out of date: {', '.join(f'docs/{name}' for name in stale)}; run docs/generate.py",
              file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
