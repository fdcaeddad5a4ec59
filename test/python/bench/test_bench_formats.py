"""The formats of quantised weights in the benchmarks: none needs a peer installed."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from bench.common import data, shapes
from bench.common.formats import FORMATS
from bench.common.participants import Unavailable
from bench.cpu import roofline

# Whole blocks of every format.
SHAPE = shapes.Shape("small", "small", 256, 512, 8, 3, True, shapes.SHAPES["tiny"].config,
                     shared=256)
PEAKS = {"threads": 1, "fma_f32": 100e9, "dot_bf16": 200e9, "read": 20e9, "copy": 10e9}


def f16(block, offset):
    return float(np.frombuffer(bytes(block[offset:offset + 2]), np.float16)[0])


def decode_q8_0(block):
    return [f16(block, 0) * (q - 256 * (q > 127)) for q in block[2:]]


def decode_q4_0(block):
    return [f16(block, 0) * ((block[2 + i % 16] >> 4 * (i // 16) & 15) - 8) for i in range(32)]


def decode_mxfp4(block):
    values = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    nibbles = [block[1 + i % 16] >> 4 * (i // 16) & 15 for i in range(32)]
    return [(-1) ** (n >> 3) * values[n & 7] * 2.0 ** (block[0] - 127) for n in nibbles]


def decode_q4_k(block):
    """get_scale_min_k4 and dequantize_row_q4_K of ggml, number by number."""
    q, result = block[4:16], []
    for i in range(256):
        j = i // 32
        if j < 4:
            scale, least = q[j] & 63, q[j + 4] & 63
        else:
            scale = q[j + 4] & 15 | q[j - 4] >> 6 << 4
            least = q[j + 4] >> 4 | q[j] >> 6 << 4
        quant = block[16 + i // 64 * 32 + i % 32] >> 4 * (i // 32 % 2) & 15
        result.append(f16(block, 0) * scale * quant - f16(block, 2) * least)
    return result


def decode_q6_k(block):
    result = []
    for i in range(256):
        half, part, l = i // 128, i // 32 % 4, i % 32
        low = block[64 * half + 32 * (part % 2) + l] >> 4 * (part // 2) & 15
        high = block[128 + 32 * half + l] >> 2 * part & 3
        scale = block[192 + i // 16]
        result.append(f16(block, 208) * (scale - 256 * (scale > 127)) * ((low | high << 4) - 32))
    return result


SCALAR = {"q8_0": decode_q8_0, "q4_0": decode_q4_0, "q4_K": decode_q4_k, "q6_K": decode_q6_k,
          "mxfp4": decode_mxfp4}
# Where blocks have numbers in f16.
F16 = {"q8_0": [0], "q4_0": [0], "q4_K": [0, 2], "q6_K": [208], "mxfp4": []}


def random_rows(name, rows=3, blocks=4):
    rng = np.random.default_rng(1)
    each = FORMATS[name]
    found = rng.integers(0, 256, (rows, blocks, each.block_bytes), np.uint8)
    for offset in F16[name]:
        scales = rng.standard_normal((rows, blocks, 1)).astype(np.float16)
        found[..., offset:offset + 2] = scales.view(np.uint8)
    if name == "mxfp4":
        found[..., 0] = rng.integers(100, 140, (rows, blocks))
    return found.reshape(rows, -1)


@pytest.mark.parametrize("name", list(FORMATS))
def test_formats_decode_to_what_their_description_says(name):
    rows, each = random_rows(name), FORMATS[name]
    assert each.row_bytes(4 * each.block) == rows.shape[1]
    expected = [[v for block in row.reshape(-1, each.block_bytes).tolist()
                 for v in SCALAR[name](block)] for row in rows]
    actual = each.decode(rows)
    assert actual.shape == (3, 4 * each.block)
    # Products of three numbers in f32, and a difference.
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_bytes_of_a_format():
    """The experts and the shared network are quantised, the rest is f32."""
    shape = SHAPE
    experts, router = 3 * 256 * 512, 4 * 8 * 256
    shared = 3 * 256 * 256
    assert shape.weight_bytes("f32") == 4 * shape.parameters
    assert shape.weight_bytes("q4_0") == (8 * experts + shared) * 18 / 32 + router
    assert shape.bytes_touched(5, 2, "q6_K") == (
        (2 * experts + shared) * 210 / 256 + router + 4 * 2 * 5 * 256)


def test_limit_of_a_format_is_that_of_the_memory():
    shape = shapes.SHAPES["olmoe"]
    limit = roofline.seconds(shape, "q4_K", 2048, 64, PEAKS)
    assert limit == shape.bytes_touched(2048, 64, "q4_K") / PEAKS["read"]
    # Its share of the time is nevertheless that of a call.
    assert roofline.estimate(shape, "q4_K", 2048, PEAKS) == roofline.estimate(
        shape, "f32", 2048, PEAKS)


def test_rows_without_whole_blocks_are_refused():
    with pytest.raises(Unavailable, match="rows of 48 have no whole blocks of 32"):
        data.make_layers(shapes.SHAPES["tiny"], "q8_0", 1, 1,
                         lambda name, rows: np.zeros((len(rows), 68), np.uint8))


def test_quantised_layers_differ_in_all_but_the_router():
    def quantise(name, rows):
        return np.random.default_rng(len(rows)).integers(
            0, 128, (len(rows), FORMATS[name].row_bytes(rows.shape[1])), np.uint8)

    shape = SHAPE
    one, two = data.make_layers(shape, "mxfp4", 6, 2, quantise)
    for name, dims in data.weight_shapes(shape).items():
        array, other = getattr(one, name), getattr(two, name)
        assert array.ctypes.data % data.ALIGNMENT == 0
        assert np.array_equal(array, other) == (name == "router")
        expected = dims if name == "router" else (*dims[:-1], dims[-1] // 32 * 17)
        assert array.shape == expected
    assert one.nbytes == shape.weight_bytes("mxfp4")
    assert one.decode(one.down_proj[1]).shape == (256, 512)
