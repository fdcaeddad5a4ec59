//===- GroupedContractToGPU.cpp - moe.grouped_contract --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rows of 16 bits are contracted by tensor cores, others by a kernel with a
// thread for two elements of the result.
//
//===----------------------------------------------------------------------===//

#include "ContractKernel.h"
#include "Limits.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// For any types and sizes: a thread sums the products of an element.
class ElementContract : public ContractKernel {
public:
  ElementContract(GroupedContractOp op, ContractOperands &operands,
                  DeviceLowering &lowering)
      : ContractKernel(op, /*tileK=*/1, /*tileN=*/1, operands, lowering) {}

  static constexpr int64_t threads = 256;

  LLVM::LLVMFuncOp build();
};
} // namespace

LLVM::LLVMFuncOp ElementContract::build() {
  KernelShape shape;
  shape.threads = threads;
  auto kernel = create("grouped_contract_elements", shape, std::nullopt);
  Value first = b.add(b.mul(b.block(), threads), b.thread());
  Value stride = b.mul(b.numBlocks(), threads);
  b.loop(first, b.i32(tileCount()), stride, [&](Value index) {
    Coord coord = tileAt(index);
    auto at = [&](const Side &side, Value row, Value column) {
      Value source = sourceRow(side, row, b.i1(true));
      return b.toFloat(b.load(element, pointerTo(side, source, column)),
                       b.getF32Type());
    };
    Value pointer = resultPointer(coord.expert, coord.k, coord.n);
    Value sum = op.getAccumulate()
                    ? b.toFloat(b.load(result, pointer), b.getF32Type())
                    : b.f32(0.0);
    sum = b.loop(coord.firstRow, coord.endRow, b.i32(1), {sum},
                 [&](Value row, ValueRange carried) {
                   Value x = at(lhs, row, coord.k), y = at(rhs, row, coord.n);
                   return SmallVector<Value>{
                       LLVM::FMAOp::create(b, x, y, carried.front())};
                 })
              .front();
    b.store(b.toFloat(sum, result), pointer);
  });
  return kernel;
}

/// Succeeds if there are tensor core kernels for a contraction.
static LogicalResult verifyTensorCoreContract(GroupedContractOp op,
                                              std::string &why) {
  Type rows = getElementTypeOrSelf(op.getLhs());
  if (!rows.isF16() && !rows.isBF16())
    return unsupported(why, "rows that are neither f16 nor bf16");
  // cp.async and TMA copy multiples of 16 bytes.
  if (op.getK() % 8 != 0 || op.getN() % 8 != 0)
    return unsupported(why, "rows of a length that is not a multiple of 8");
  return success();
}

/// Returns where the result becomes a part of a larger tensor, if that is all
/// that reads it: the gradients of two matmuls are often halves of one tensor.
static tensor::InsertSliceOp findWhole(GroupedContractOp op) {
  if (op.getAccumulate() || !op.getResult().hasOneUse())
    return {};
  auto insert =
      dyn_cast<tensor::InsertSliceOp>(*op.getResult().getUsers().begin());
  if (!insert || insert.getSource() != op.getResult() ||
      insert->getBlock() != op->getBlock() ||
      !insert.getDestType().hasStaticShape() ||
      insert.getDestType().getRank() != 3 ||
      ShapedType::isDynamicShape(insert.getStaticOffsets()) ||
      ShapedType::isDynamicShape(insert.getStaticStrides()))
    return {};
  return insert;
}

static ContractOperands operandsOf(GroupedContractOp op,
                                   tensor::InsertSliceOp whole) {
  if (whole)
    return {whole.getDest(), llvm::to_vector<3>(whole.getDestType().getShape()),
            llvm::to_vector<3>(whole.getStaticOffsets()),
            llvm::to_vector<3>(whole.getStaticStrides())};
  auto type = cast<RankedTensorType>(op.getInit().getType());
  return {op.getInit(), llvm::to_vector<3>(type.getShape()),
          SmallVector<int64_t, 3>(3, 0), SmallVector<int64_t, 3>(3, 1)};
}

Lowered mlir::moe::lowerToGPU(GroupedContractOp op, DeviceLowering &lowering,
                              std::string &why) {
  auto type = cast<RankedTensorType>(op.getInit().getType());
  if (!type.hasStaticShape() || type.getNumElements() == 0)
    return unsupported(why, "a dynamic extent, or no elements");
  if (type.getNumElements() > std::numeric_limits<int32_t>::max())
    return unsupported(why, "more than 2^31 elements");
  tensor::InsertSliceOp whole = findWhole(op);
  OpBuilder::InsertionGuard guard(lowering.rewriter);
  // The rest of the tensor may be computed until there.
  if (whole)
    lowering.rewriter.setInsertionPoint(whole);
  HostBuilder b(op.getLoc(), lowering.rewriter);
  auto count = [&](Value rows, Value gather) -> Value {
    Value source = b.extent(rows, 0);
    if (!gather)
      return source;
    // None are contracted where there are none to gather from.
    return b.select(b.equal(source, b.index(0)), source, b.extent(gather, 0));
  };
  Value rows = b.min(count(op.getLhs(), op.getLhsGather()),
                     count(op.getRhs(), op.getRhsGather()));
  ContractOperands operands = operandsOf(op, whole);
  operands.rows = b.toI32(rows);
  operands.lhsRows = b.toI32(b.extent(op.getLhs(), 0));
  operands.rhsRows = b.toI32(b.extent(op.getRhs(), 0));
  bool hasTensorCores = succeeded(verifyTensorCoreContract(op, why));
  bool isWgmma = hasTensorCores && lowering.gpu.hasWgmma();
  if (!hasTensorCores)
    remarkSlow(op, why);
  if (isWgmma)
    launchWgmmaContract(op, operands, lowering);
  else if (hasTensorCores)
    launchMmaSyncContract(op, operands, lowering);
  if (!hasTensorCores || (isWgmma && !op.getAccumulate())) {
    ElementContract kernel(op, operands, lowering);
    LLVM::LLVMFuncOp function = kernel.build();
    Value blocks = b.index(std::min<int64_t>(
        llvm::divideCeil(kernel.tileCount(), ElementContract::threads), 4096));
    // Without rows, of which there is no tensor map, it stores zeros.
    if (isWgmma)
      blocks = b.select(b.equal(rows, b.index(0)), blocks, b.index(0));
    kernel.launch(function, blocks);
  }
  if (!whole)
    return SmallVector<Value>{operands.out};
  whole.getResult().replaceAllUsesWith(operands.out);
  whole.erase();
  return SmallVector<Value>{op.getInit()};
}
