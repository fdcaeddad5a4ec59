//===- ScalarsToDevice.cpp - Numbers that kernels pass on -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What touches elements of buffers becomes kernels; some compute numbers. A
// kernel cannot give one to the host, which would have to wait for it, and so
// not to another kernel either: it goes by way of memory.
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
/// The numbers of one function.
class Scalars {
public:
  /// Find the kernels that moe-outline-kernels will make of `block`.
  void findKernels(Block &block);
  /// Store the numbers that cross from one to another; how many there are.
  int64_t store();

private:
  Operation *findWork(Operation *user);
  bool isParallel(Operation *op) {
    return isParallelKernel(
        op, [&](Value value) { return computed.contains(value); });
  }

  /// Operations that will be in kernels, with the kernel's number.
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

/// What `user` is, or is inside of, that becomes part of a kernel; null if the
/// host does it.
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
      // What the host needs is an error of moe-outline-kernels.
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
