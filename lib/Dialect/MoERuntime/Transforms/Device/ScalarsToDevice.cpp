//===- ScalarsToDevice.cpp - Scalars passed through device memory ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Operations on elements of buffers become kernels, and some of them compute
// scalars. A kernel cannot return a scalar to the host without a
// synchronization, so scalars pass from kernel to kernel through device memory.
//
//===----------------------------------------------------------------------===//

#include "DeviceWork.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOESCALARSTODEVICE
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// The scalars of one function that cross kernels.
class Scalars {
public:
  /// Determines which operations of `block` moe-outline-kernels will put in
  /// which kernel.
  void findKernels(Block &block);
  /// Stores and reloads the scalars that cross kernels; returns their number.
  int64_t store();

private:
  Operation *findWork(Operation *user);
  bool isParallel(Operation *op) {
    return isParallelKernel(
        op, [&](Value value) { return computed.contains(value); });
  }

  /// The index of the kernel that each operation will be in.
  llvm::DenseMap<Operation *, int64_t> kernels;
  llvm::SetVector<Value> computed;
  int64_t current = 0;
};
} // namespace

void Scalars::findKernels(Block &block) {
  for (Operation &op : block) {
    if (isHostControl(&op)) {
      ++current;
      for (Region &region : op.getRegions())
        for (Block &inner : region) {
          findKernels(inner);
          ++current;
        }
      continue;
    }
    if (isParallel(&op)) {
      kernels[&op] = ++current;
      ++current;
      continue;
    }
    bool follows = isPreparation(&op) && usesAny(&op, [&](Value value) {
                     return computed.contains(value);
                   });
    if (isHostWork(&op) && !follows) {
      current += !isPreparation(&op);
      continue;
    }
    kernels[&op] = current;
    computed.insert(op.result_begin(), op.result_end());
  }
}

/// Returns `user` or its ancestor that becomes part of a kernel; null if the
/// host runs it.
Operation *Scalars::findWork(Operation *user) {
  while (user && !kernels.contains(user))
    user = user->getParentOp();
  return user;
}

int64_t Scalars::store() {
  int64_t stored = 0;
  for (Value value : computed) {
    Operation *maker = value.getDefiningOp();
    int64_t kernel = kernels.lookup(maker);
    llvm::MapVector<Operation *, SmallVector<OpOperand *>> others;
    for (OpOperand &use : value.getUses()) {
      Operation *work = findWork(use.getOwner());
      // A use on the host is an error, which moe-outline-kernels reports.
      if (work && kernels.lookup(work) != kernel)
        others[work].push_back(&use);
    }
    if (others.empty() || !MemRefType::isValidElementType(value.getType()) ||
        isa<MemRefType>(value.getType()))
      continue;
    OpBuilder b(maker);
    Location loc = value.getLoc();
    Value buffer =
        memref::AllocOp::create(b, loc, MemRefType::get({}, value.getType()));
    b.setInsertionPointAfter(maker);
    kernels[memref::StoreOp::create(b, loc, value, buffer)] = kernel;
    ++stored;
    for (auto &[work, uses] : others) {
      b.setInsertionPoint(work);
      if (isParallel(work))
        b.setInsertionPointToStart(cast<scf::ParallelOp>(work).getBody());
      auto load = memref::LoadOp::create(b, loc, buffer);
      kernels[load] = kernels.lookup(work);
      for (OpOperand *use : uses)
        use->set(load);
    }
  }
  return stored;
}

namespace {
struct MoEScalarsToDevice
    : moe::impl::MoEScalarsToDeviceBase<MoEScalarsToDevice> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (!isExported(function))
        continue;
      Scalars scalars;
      for (Block &block : function.getBody())
        scalars.findKernels(block);
      numStored += scalars.store();
    }
  }
};
} // namespace
