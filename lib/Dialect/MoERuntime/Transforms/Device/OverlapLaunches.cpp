//===- OverlapLaunches.cpp - Let kernels begin under the one before -------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Programmatic dependent launch (PTX ISA, griddepcontrol). Every kernel waits
// before it lets its dependents begin, but the first, which is launched
// plainly. So when a kernel begins early, only the launch directly before it
// may still run: earlier ones have ended, and what they wrote is in memory.
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Interfaces/CallInterfaces.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;
using moe_rt::LaunchOp;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEOVERLAPLAUNCHES
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// True if the kernels are for GPUs with griddepcontrol, sm_90 and later.
static bool canOverlap(gpu::GPUModuleOp kernels) {
  if (ArrayAttr targets = kernels.getTargetsAttr())
    for (Attribute each : targets)
      if (auto target = dyn_cast<NVVM::NVVMTargetAttr>(each)) {
        StringRef chip = target.getChip();
        int64_t version = 0;
        return chip.consume_front("sm_") && !chip.consumeInteger(10, version) &&
               version >= 90;
      }
  return false;
}

//===----------------------------------------------------------------------===//
// Buffers of a launch
//===----------------------------------------------------------------------===//

/// Returns the buffer that a memref is a part of: an argument of the function,
/// an allocation, or a range of the arena. Two of these that are in use at the
/// same time are different memory. Null if it is not known.
static Value bufferOf(Value memref) {
  while (Operation *op = memref.getDefiningOp()) {
    auto view = dyn_cast<ViewLikeOpInterface>(op);
    if (!view || isa<memref::ViewOp>(op))
      return isa<memref::ViewOp, memref::AllocOp>(op) ? memref : Value();
    memref = view.getViewSource();
  }
  auto function = dyn_cast<func::FuncOp>(
      cast<BlockArgument>(memref).getOwner()->getParentOp());
  return function ? memref : Value();
}

static bool writes(LaunchOp launch, Value memref) {
  Value buffer = bufferOf(memref);
  return llvm::any_of(launch.getInits(), [&](Value init) {
    Value written = bufferOf(init);
    return !buffer || !written || written == buffer;
  });
}

/// Returns the memref behind an argument of a kernel: tensor maps come first,
/// then pointers. Null for a scalar.
static Value operandOf(LaunchOp launch, unsigned argument) {
  unsigned numMaps = 0;
  if (ArrayAttr maps = launch.getMapsAttr()) {
    numMaps = maps.size();
    if (argument < numMaps)
      return launch
          .getInputs()[cast<moe_rt::TensorMapAttr>(maps[argument]).getInput()];
  }
  unsigned pointer = argument - numMaps;
  unsigned numInputs = launch.getInputs().size();
  if (pointer < numInputs)
    return launch.getInputs()[pointer];
  if (pointer - numInputs < launch.getInits().size())
    return launch.getInits()[pointer - numInputs];
  return Value();
}

/// True for the launches of one operation, of which some have empty grids.
static bool areVariants(LaunchOp one, LaunchOp other) {
  auto same = [](OperandRange a, OperandRange b) {
    return !a.empty() && !b.empty() && bufferOf(a.front()) &&
           bufferOf(a.front()) == bufferOf(b.front());
  };
  return same(one.getInits(), other.getInits()) &&
         same(one.getInputs(), other.getInputs());
}

//===----------------------------------------------------------------------===//
// Accesses of a kernel to global memory
//===----------------------------------------------------------------------===//

namespace {
/// What an operation accesses: it reads what is behind these arguments of the
/// kernel. With `others` it writes, too, or what it reads is not known.
struct Accesses {
  llvm::SetVector<unsigned> reads;
  bool others = false;
};
} // namespace

static bool maybeGlobal(Type type) {
  auto pointer = dyn_cast<LLVM::LLVMPointerType>(type);
  if (!pointer)
    return isa<BaseMemRefType>(type);
  unsigned space = pointer.getAddressSpace();
  return space == unsigned(NVVM::NVVMMemorySpace::Generic) ||
         space == unsigned(NVVM::NVVMMemorySpace::Global);
}

/// Adds the arguments of `kernel` that an address is computed from. Fails if
/// there is another origin.
static LogicalResult findArguments(Operation *kernel, Value address,
                                   llvm::SetVector<unsigned> &arguments) {
  if (auto argument = dyn_cast<BlockArgument>(address)) {
    arguments.insert(argument.getArgNumber());
    return success(argument.getOwner()->getParentOp() == kernel);
  }
  Operation *op = address.getDefiningOp();
  if (isa<LLVM::GEPOp, LLVM::AddrSpaceCastOp>(op))
    return findArguments(kernel, op->getOperand(0), arguments);
  if (auto select = dyn_cast<arith::SelectOp>(op))
    return success(
        succeeded(findArguments(kernel, select.getTrueValue(), arguments)) &&
        succeeded(findArguments(kernel, select.getFalseValue(), arguments)));
  return failure();
}

static Accesses accessesOf(Operation *kernel, Operation *op) {
  Accesses accesses;
  op->walk([&](Operation *nested) {
    // Addresses, and hints that read nothing.
    if (isa<LLVM::GEPOp, LLVM::AddrSpaceCastOp, arith::SelectOp,
            NVVM::PrefetchOp, NVVM::CpAsyncBulkTensorPrefetchOp>(nested))
      return;
    accesses.others |= isa<CallOpInterface>(nested);
    bool onlyReads =
        isa<LLVM::LoadOp, NVVM::CpAsyncOp,
            NVVM::CpAsyncBulkTensorGlobalToSharedClusterOp>(nested);
    for (Value operand : nested->getOperands())
      if (maybeGlobal(operand.getType()))
        accesses.others |= !onlyReads || failed(findArguments(kernel, operand,
                                                              accesses.reads));
  });
  return accesses;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// Emits an instruction that no access to memory is moved across: to LLVM the
/// intrinsics of griddepcontrol do not touch memory.
static void emitControl(OpBuilder &b, Location loc, StringRef ptx) {
  MLIRContext *context = b.getContext();
  LLVM::InlineAsmOp::create(
      b, loc, /*res=*/Type(), ValueRange(), ptx, "~{memory}",
      /*has_side_effects=*/true, /*is_align_stack=*/false,
      LLVM::TailCallKind::None,
      LLVM::AsmDialectAttr::get(context, LLVM::AsmDialect::AD_ATT),
      /*operand_attrs=*/ArrayAttr());
}

namespace {
struct MoEOverlapLaunches
    : moe::impl::MoEOverlapLaunchesBase<MoEOverlapLaunches> {
  void runOnOperation() override {
    auto modules = getOperation().getOps<gpu::GPUModuleOp>();
    if (modules.empty() || !canOverlap(*modules.begin()))
      return;
    SymbolTable symbols(*modules.begin());
    llvm::DenseMap<Attribute, unsigned> launchCounts;
    getOperation()->walk(
        [&](LaunchOp launch) { ++launchCounts[launch.getKernel()]; });
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      SmallVector<LaunchOp> launches;
      function.walk([&](LaunchOp launch) { launches.push_back(launch); });
      for (size_t i = 0; i < launches.size(); ++i) {
        Operation *kernel =
            symbols.lookup(launches[i].getKernel().getLeafReference());
        // One with several launches would have to know which of them it is.
        if (!kernel || launchCounts[launches[i].getKernel()] != 1)
          continue;
        // The first one begins when everything before has ended.
        if (i == 0) {
          OpBuilder b(&kernel->getRegion(0));
          emitControl(b, kernel->getLoc(), "griddepcontrol.launch_dependents;");
          continue;
        }
        SmallVector<Value> early = placeWait(kernel, launches, i);
        kernel->setAttr(primariesAttrName, primariesOf(launches, early));
        ++numOverlapped;
      }
    }
  }

  /// Returns the launches that `kernel` should overlap: those of the operation
  /// before it, and of its own.
  static SmallVector<LaunchOp> expectedPrimaries(ArrayRef<LaunchOp> launches,
                                                 size_t i) {
    SmallVector<LaunchOp> expected;
    size_t j = i;
    for (; j > 0 && areVariants(launches[j - 1], launches[i]); --j)
      expected.push_back(launches[j - 1]);
    for (size_t last = j; j > 0; --j) {
      if (j < last && !areVariants(launches[j - 1], launches[last - 1]))
        break;
      expected.push_back(launches[j - 1]);
    }
    return expected;
  }

  /// Inserts the wait ahead of the first operation of the kernel that may
  /// access what the launches before it write, or that writes. Returns the
  /// memrefs that are read before.
  SmallVector<Value> placeWait(Operation *kernel, ArrayRef<LaunchOp> launches,
                               size_t i) {
    SmallVector<LaunchOp> expected = expectedPrimaries(launches, i);
    LaunchOp launch = launches[i];
    SmallVector<Value> early;
    Block &entry = kernel->getRegion(0).front();
    auto needsWait = [&](Operation &op) {
      Accesses accesses = accessesOf(kernel, &op);
      if (accesses.others)
        return true;
      SmallVector<Value> reads;
      for (unsigned argument : accesses.reads) {
        Value memref = operandOf(launch, argument);
        if (!memref || llvm::any_of(expected, [&](LaunchOp before) {
              return writes(before, memref);
            }))
          return true;
        reads.push_back(memref);
      }
      llvm::append_range(early, reads);
      return false;
    };
    auto first = llvm::find_if(entry.without_terminator(), needsWait);
    OpBuilder b(&entry, first);
    emitControl(b, kernel->getLoc(), "griddepcontrol.wait;");
    if (first != entry.without_terminator().end())
      emitControl(b, kernel->getLoc(), "griddepcontrol.launch_dependents;");
    return early;
  }

  /// Returns the kernels that write nothing of what is read early.
  ArrayAttr primariesOf(ArrayRef<LaunchOp> launches, ArrayRef<Value> early) {
    llvm::MapVector<Attribute, bool> mayOverlap;
    for (LaunchOp launch : launches) {
      auto name = FlatSymbolRefAttr::get(launch.getKernel().getLeafReference());
      bool conflicts = llvm::any_of(
          early, [&](Value memref) { return writes(launch, memref); });
      bool &may = mayOverlap.try_emplace(name, true).first->second;
      may &= !conflicts;
    }
    SmallVector<Attribute> primaries;
    for (auto [name, may] : mayOverlap)
      if (may)
        primaries.push_back(name);
    return ArrayAttr::get(&getContext(), primaries);
  }
};
} // namespace
