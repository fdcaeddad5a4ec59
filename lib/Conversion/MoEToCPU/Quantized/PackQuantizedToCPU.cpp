//===- PackQuantizedToCPU.cpp - moe.pack of quantised weights -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task packs one panel of one expert, in the order of its bytes: groups along
// k, in each the words of the columns for every step, then their scales. Codes
// are moved, never decoded. Columns beyond n have codes and scales of zero
// bits.
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
  int64_t groups() { return llvm::divideCeil(op.getK(), packed.group); }
  void buildGroup(Value expert, Value panel, int64_t matmul, Value group,
                  Value start);
  Value wordOf(FormatDecoder &decoder, Value expert, Value n, Value k);
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

/// Returns the codes of the elements from `k` on, as a word.
Value PackQuantizedLowering::wordOf(FormatDecoder &decoder, Value expert,
                                    Value n, Value k) {
  Value word;
  for (auto [position, element] : llvm::enumerate(PackedFormat::order)) {
    decoder.setElement(expert, n, b.add(k, element));
    Value code = arith::ExtUIOp::create(b, b.getI32Type(),
                                        decoder.readBits(format.getCodes()));
    code = arith::ShLIOp::create(
        b, code, arith::ConstantIntOp::create(b, 4 * position, 32));
    word = word ? arith::OrIOp::create(b, word, code).getResult() : code;
  }
  return word;
}

/// Packs a group of the columns of one matmul, from byte `start` on.
void PackQuantizedLowering::buildGroup(Value expert, Value panel,
                                       int64_t matmul, Value group,
                                       Value start) {
  int64_t fields = op.getNumFields(), share = panels.getShare();
  int64_t columns = panels.getColumns(), first = matmul * share;
  FormatDecoder decoder(b, format,
                        op.getWeights().slice(matmul * fields, fields), 1);
  Value k = b.mul(group, packed.group);
  // The last group may be partial; its other codes stay as they are, since no
  // kernel reads them.
  Value steps =
      b.div(b.min(b.sub(b.index(op.getK()), k), b.index(packed.group)),
            PackedFormat::step);
  Value n0 = b.mul(panel, share);
  auto forEachColumn = [&](llvm::function_ref<Value(Value)> bits, Type type,
                           Value at) {
    b.forEach(b.index(0), b.index(share), [&](Value column) {
      Value n = b.add(n0, column);
      auto value = scf::IfOp::create(b, type, b.less(n, b.index(op.getN())),
                                     /*withElseRegion=*/true);
      {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(value.thenBlock());
        scf::YieldOp::create(b, bits(n));
        b.setInsertionPointToStart(value.elseBlock());
        Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
        scf::YieldOp::create(b, zero);
      }
      int64_t bytes = type.getIntOrFloatBitWidth() / 8;
      store(value.getResult(0), b.add(at, b.mul(b.add(column, first), bytes)));
    });
  };
  b.forEach(b.index(0), steps, [&](Value step) {
    Value at = b.add(start, b.mul(step, 4 * columns));
    Value from = b.add(k, b.mul(step, PackedFormat::step));
    forEachColumn([&](Value n) { return wordOf(decoder, expert, n, from); },
                  b.getI32Type(), at);
  });
  forEachColumn(
      [&](Value n) {
        decoder.setElement(expert, n, k);
        return decoder.readBits(packed.scale);
      },
      b.getIntegerType(packed.scale.getWidth()),
      b.add(start, columns * packed.group / 2));
}

LogicalResult PackQuantizedLowering::run() {
  if (!cast<MemRefType>(op.getInit().getType()).getLayout().isIdentity())
    return op.emitOpError("expected a compact destination, got ")
           << op.getInit().getType();
  out = flatten(b, op.getInit());
  int64_t panelBytes = packed.getPanelBytes(panels.getColumns(), op.getK());
  int64_t groupBytes = packed.getGroupBytes(panels.getColumns());
  Value experts = memref::DimOp::create(b, op.getInit(), 0);
  b.forEachTask(b.mul(experts, panelCount()), [&](Value task) {
    Value expert = b.div(task, panelCount());
    Value panel = b.rem(task, panelCount());
    Value start = b.add(out.offset, b.mul(task, panelBytes));
    b.forEach(b.index(0), b.index(groups()), [&](Value group) {
      for (int64_t matmul = 0; matmul < panels.getMatmuls(); ++matmul)
        buildGroup(expert, panel, matmul, group,
                   b.add(start, b.mul(group, groupBytes)));
    });
  });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerQuantizedToCPU(PackOp op) {
  return PackQuantizedLowering(op).run();
}
