"""The plan of a layer over several ranks before it runs, placements of experts, and how it scales.

    python -m moe plan layer.mlir --ep=2x8 --tokens=4096 --load=zipf:0.5 --links=links.json
    python -m moe plan --place=routing.json --ep=32 --slots=9 -o table.npy
    python -m moe plan --experts=256 --top-k=8 --hidden=7168 --intermediate=2048 \\
        --simulate=16,64,256 --links=links.json

Formulas are exact where they can be: bounds of rows, their means, the exponent of their tails.
Times are ``alpha + bytes / beta`` of the slower link, with constants that a file gives.
"""

from ._files import Record, read_record, read_routing, read_table, write_table
from ._layer import LayerShape, Memory, default_table
from ._links import Link, Links
from ._placement import balance, check_table, place
from ._plan import Direction, Plan, make_plan
from ._routing import Routing, tail_rows, uniform_hit
from ._simulate import Scale, plot, simulate

__all__ = ["Direction", "LayerShape", "Link", "Links", "Memory", "Plan", "Record", "Routing",
           "Scale", "balance", "check_table", "default_table", "make_plan", "place", "plot",
           "read_record", "read_routing", "read_table", "simulate", "tail_rows", "uniform_hit",
           "write_table"]
