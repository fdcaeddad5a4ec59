#!/usr/bin/env python3
"""Small .npy files, by hand and without numpy.

    npy.py write FILE TYPE EXTENTxEXTENT VALUE...     TYPE is f32, i32, ...
    npy.py show FILE...                               a line for each row
"""

import ast
import struct
import sys

TYPES = {"f32": ("<f4", "f"), "f64": ("<f8", "d"), "i32": ("<i4", "i"), "i64": ("<i8", "q")}


def write(path: str, type_name: str, shape: str, values: list[str]) -> None:
    descr, code = TYPES[type_name]
    extents = tuple(int(extent) for extent in shape.split("x"))
    header = repr({"descr": descr, "fortran_order": False, "shape": extents}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    number = float if code in "fd" else int
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        file.write(struct.pack(f"<{len(values)}{code}", *map(number, values)))


def show(path: str) -> None:
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack_from("<H", data, 8)[0]
    header = ast.literal_eval(data[10:10 + size].decode())
    code = {descr: code for descr, code in TYPES.values()}[header["descr"]]
    values = [item[0] for item in struct.iter_unpack("<" + code, data[10 + size:])]
    columns = header["shape"][-1]
    for start in range(0, len(values), columns):
        print(*(f"{value:g}" for value in values[start:start + columns]))


if sys.argv[1] == "write":
    write(*sys.argv[2:5], sys.argv[5:])
else:
    for argument in sys.argv[2:]:
        show(argument)
