"""The table of docs/families.md, which tests compare with what they find."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "docs" / "families.md"
COLUMNS = ("traced", "raised", "fused", "--hf", "experts", "GPU code")


def folder_of(model: str) -> str:
    """The folder of transformers that a model of the tests is of."""
    special = {"deepseek_v2_lite": "deepseek_v2", "switch_decoder": "switch_transformers",
               "qwen3_omni_moe_talker_text": "qwen3_omni_moe"}
    return special.get(model, model.removesuffix("_text"))


def read() -> dict[str, dict[str, bool]]:
    """The cells by folder and column."""
    table = {}
    for line in PATH.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(COLUMNS) + 1 and set(cells[1:]) <= {"yes", "no"}:
            table[cells[0].strip("`")] = dict(zip(COLUMNS, (c == "yes" for c in cells[1:])))
    return table


def check(folder: str, **found: bool) -> None:
    """Compare cells of a folder with what a test found: they may only get better, and then the
    table has to say so."""
    row = read()[folder]
    for column, actual in found.items():
        column = {"hf": "--hf", "gpu": "GPU code"}.get(column, column)
        assert row[column] == actual, (
            f"docs/families.md says {'yes' if row[column] else 'no'} for {folder}, {column}; the "
            f"test found {'yes' if actual else 'no'}")
