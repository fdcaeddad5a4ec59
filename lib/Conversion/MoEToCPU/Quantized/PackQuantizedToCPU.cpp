//===- PackQuantizedToCPU.cpp - moe.pack of quantised weights -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task packs one panel of one expert, in the order of its bytes (see
// PackedFormat). Codes and numbers are moved, never decoded; numbers of less
// than 8 bits are widened. Columns beyond n have zero bits.
//
//===----------------------------------------------------------------------===//

#include "../Lowering.h"
#include "moe/Conversion/Utils/FormatDecoder.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class PackQuantizedLowering {
public:
  explicit PackQuantizedLowering(PackOp op)
      : op(op), panels(op.getPanels()), format(panels.getFormat()),
        packed(*PackedFormat::get(format)), b(op.getLoc(), op) {}

  LogicalResult run();

private:
  int64_t panelCount() {
    return llvm::divideCeil(op.getN(), panels.getShare());
  }
  void forEachPart(int64_t elements, int64_t size,
                   llvm::function_ref<void(Value, int64_t)> body);
  void buildBlock(Value expert, Value panel, Value k, Value start,
                  int64_t elements);
  void buildGroup(Value expert, Value panel, Value k, Value start,
                  int64_t elements);
  void buildNumbers(Value expert, Value panel, Value k, Value start,
                    bool ofBlock);
  void forEachColumn(Value panel, Value start, Type type,
                     llvm::function_ref<Value(FormatDecoder &, Value)> bits);
  Value codeAt(FormatDecoder &decoder, Value expert, Value n, Value k);
  Value wordOf(FormatDecoder &decoder, Value expert, Value n, Value k,
               int64_t word);
  Value numberAt(FormatDecoder &decoder, FieldAttr number);
  void store(Value bits, Value byte);

  PackOp op;
  PanelsAttr panels;
  FormatAttr format;
  PackedFormat packed;
  CPUBuilder b;
  FlatBuffer out;
};
} // namespace

/// Stores an integer, the lowest byte first.
void PackQuantizedLowering::store(Value bits, Value byte) {
  Type type = bits.getType();
  Value vector = vector::BroadcastOp::create(b, VectorType::get(1, type), bits);
  auto bytes = VectorType::get(type.getIntOrFloatBitWidth() / 8, b.getI8Type());
  if (vector.getType() != bytes)
    vector = vector::BitCastOp::create(b, bytes, vector);
  vector::StoreOp::create(b, vector, out.elements, byte);
}

/// Returns the code of an element, in 32 bits.
Value PackQuantizedLowering::codeAt(FormatDecoder &decoder, Value expert,
                                    Value n, Value k) {
  decoder.setElement(expert, n, k);
  Value code = decoder.readBits(format.getCodes());
  return arith::ExtUIOp::create(b, b.getI32Type(), code);
}

/// Returns a word of the step that starts at element `k`.
Value PackQuantizedLowering::wordOf(FormatDecoder &decoder, Value expert,
                                    Value n, Value k, int64_t word) {
  auto constant = [&](int64_t value) {
    return arith::ConstantIntOp::create(b, value, 32);
  };
  Value result;
  // Puts bits `from` to `from + width - 1` of a code at bit `to`.
  auto add = [&](int64_t element, int64_t from, int64_t width, int64_t to) {
    Value bits = codeAt(decoder, expert, n, b.add(k, element));
    bits = arith::ShRUIOp::create(b, bits, constant(from));
    bits = arith::AndIOp::create(b, bits, constant((1 << width) - 1));
    bits = arith::ShLIOp::create(b, bits, constant(to));
    result = result ? arith::OrIOp::create(b, result, bits).getResult() : bits;
  };
  if (packed.width == 8) {
    for (auto [i, element] : llvm::enumerate(packed.getByteOrder()))
      add(4 * word + element, 0, 8, 8 * i);
    return result;
  }
  if (packed.width == 6 && word == 0) {
    for (int64_t j = 0; j < 4; ++j)
      for (auto [i, element] : llvm::enumerate(packed.getByteOrder()))
        add(4 * j + element, 4, 2, 8 * i + 2 * j);
    return result;
  }
  int64_t first = packed.width == 6 ? 8 * (word - 1) : 0;
  for (auto [i, element] : llvm::enumerate(PackedFormat::order))
    add(first + element, 0, 4, 4 * i);
  return result;
}

/// Returns the bits of a number of the current element, in whole bytes.
Value PackQuantizedLowering::numberAt(FormatDecoder &decoder,
                                      FieldAttr number) {
  Value bits = decoder.readBits(number);
  if (number.getWidth() % 8 == 0)
    return bits;
  if (number.getElement().isSignedInteger())
    return arith::ExtSIOp::create(b, b.getI8Type(), bits);
  return arith::ExtUIOp::create(b, b.getI8Type(), bits);
}

/// Stores a number of each column of a panel, from byte `start` on.
void PackQuantizedLowering::forEachColumn(
    Value panel, Value start, Type type,
    llvm::function_ref<Value(FormatDecoder &, Value)> bits) {
  int64_t fields = op.getNumFields(), share = panels.getShare();
  int64_t bytes = type.getIntOrFloatBitWidth() / 8;
  Value n0 = b.mul(panel, share);
  for (int64_t matmul = 0; matmul < panels.getMatmuls(); ++matmul) {
    FormatDecoder decoder(b, format,
                          op.getWeights().slice(matmul * fields, fields), 1);
    b.forEach(b.index(0), b.index(share), [&](Value column) {
      Value n = b.add(n0, column);
      auto value = scf::IfOp::create(b, type, b.less(n, b.index(op.getN())),
                                     /*withElseRegion=*/true);
      {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(value.thenBlock());
        scf::YieldOp::create(b, bits(decoder, n));
        b.setInsertionPointToStart(value.elseBlock());
        Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
        scf::YieldOp::create(b, zero);
      }
      store(value.getResult(0),
            b.add(start, b.mul(b.add(column, matmul * share), bytes)));
    });
  }
}

/// Stores the numbers of a block or a group, which starts at element `k`.
void PackQuantizedLowering::buildNumbers(Value expert, Value panel, Value k,
                                         Value start, bool ofBlock) {
  for (FieldAttr number : packed.getNumbers(ofBlock)) {
    int64_t bits = 8 * PackedFormat::getBytes(number);
    forEachColumn(
        panel,
        b.add(start, packed.getNumberOffset(number) * panels.getColumns()),
        b.getIntegerType(bits), [&](FormatDecoder &decoder, Value n) {
          decoder.setElement(expert, n, k);
          return numberAt(decoder, number);
        });
  }
}

/// Packs a group of `elements` elements from `k` on at byte `start`.
void PackQuantizedLowering::buildGroup(Value expert, Value panel, Value k,
                                       Value start, int64_t elements) {
  int64_t columns = panels.getColumns(), steps = elements / packed.getStep();
  b.forEach(b.index(0), b.index(steps), [&](Value step) {
    Value first = b.add(k, b.mul(step, packed.getStep()));
    Value at = b.add(start, b.mul(step, columns * packed.getStepBytes()));
    for (int64_t word = 0; word < packed.getWords(); ++word)
      forEachColumn(panel, b.add(at, 4 * word * columns), b.getI32Type(),
                    [&](FormatDecoder &decoder, Value n) {
                      return wordOf(decoder, expert, n, first, word);
                    });
  });
  buildNumbers(expert, panel, k,
               b.add(start, steps * columns * packed.getStepBytes()),
               /*ofBlock=*/false);
}

/// Calls `body` for each part of `size` elements and for a last, smaller one,
/// with its number and its elements.
void PackQuantizedLowering::forEachPart(
    int64_t elements, int64_t size,
    llvm::function_ref<void(Value, int64_t)> body) {
  int64_t whole = elements / size, rest = elements % size;
  b.forEach(b.index(0), b.index(whole), [&](Value part) { body(part, size); });
  if (rest > 0)
    body(b.index(whole), rest);
}

/// Packs a block of `elements` elements from `k` on at byte `start`.
void PackQuantizedLowering::buildBlock(Value expert, Value panel, Value k,
                                       Value start, int64_t elements) {
  int64_t columns = panels.getColumns();
  buildNumbers(expert, panel, k, start, /*ofBlock=*/true);
  Value groups = b.add(start, columns * packed.getNumberBytes(true));
  forEachPart(elements, packed.group, [&](Value group, int64_t size) {
    buildGroup(expert, panel, b.add(k, b.mul(group, packed.group)),
               b.add(groups, b.mul(group, columns * packed.getGroupBytes())),
               size);
  });
}

LogicalResult PackQuantizedLowering::run() {
  if (!cast<MemRefType>(op.getInit().getType()).getLayout().isIdentity())
    return op.emitOpError("expected a compact destination, got ")
           << op.getInit().getType();
  out = flatten(b, op.getInit());
  int64_t k = op.getK(), columns = panels.getColumns();
  int64_t panelBytes = packed.getPanelBytes(columns, k);
  Value experts = memref::DimOp::create(b, op.getInit(), 0);
  b.forEachTask(b.mul(experts, panelCount()), [&](Value task) {
    Value expert = b.div(task, panelCount());
    Value panel = b.rem(task, panelCount());
    Value start = b.add(out.offset, b.mul(task, panelBytes));
    forEachPart(k, packed.block, [&](Value block, int64_t elements) {
      buildBlock(expert, panel, b.mul(block, packed.block),
                 b.add(start, b.mul(block, columns * packed.getBlockBytes())),
                 elements);
    });
  });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerQuantizedToCPU(PackOp op) {
  return PackQuantizedLowering(op).run();
}
