//===- LaunchToLLVM.cpp - Launches through the runtime --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// moe_rt.launch becomes a call of the function that moe_rt/launcher.h
// describes, with the arguments of the kernel as that file lays them out.
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoERuntimeToLLVM/MoERuntimeToLLVM.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "moe_rt/abi.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe_rt;

namespace mlir::moe {
#define GEN_PASS_DEF_MOELAUNCHESTOCALLS
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// The index of a field in a structure of 64-bit words.
static constexpr int64_t wordAt(size_t offset) {
  return offset / sizeof(int64_t);
}

/// The elements of a tensor map, where there are such.
static std::optional<moe_rt_map_element_t> mapElementOf(Type element) {
  if (element.isF16())
    return MOE_RT_MAP_F16;
  if (element.isBF16())
    return MOE_RT_MAP_BF16;
  if (element.isF32())
    return MOE_RT_MAP_F32;
  if (element.isInteger(32))
    return MOE_RT_MAP_I32;
  if (element.isIntOrFloat() && element.getIntOrFloatBitWidth() == 8)
    return MOE_RT_MAP_U8;
  return std::nullopt;
}

namespace {
/// The launches of one function.
class Caller {
public:
  Caller(func::FuncOp function, Value launcher)
      : function(function), launcher(launcher),
        b(function.getLoc(), function.getContext()) {}

  LogicalResult lower(LaunchOp op);
  void lower(MultiprocessorsOp op);

private:
  /// moe_rt_kernel_argument_t
  struct Argument {
    int64_t bytes; // 0: a tensor map
    Value bits;    // i64
  };
  Value i64(int64_t value) {
    return arith::ConstantIntOp::create(b, value, 64);
  }
  Value toI64(Value index) {
    return arith::IndexCastOp::create(b, b.getI64Type(), index);
  }
  Value valueOf(OpFoldResult size) {
    return toI64(getValueOrCreateConstantIndexOp(b, b.getLoc(), size));
  }
  Type pointer() { return LLVM::LLVMPointerType::get(b.getContext()); }
  Value field(size_t offset, Type type);
  Value allocate(int64_t words);
  void write(Value memory, int64_t word, Value value);

  Value addressOf(Value buffer);
  FailureOr<Argument> mapOf(LaunchOp op, TensorMapAttr map);
  LogicalResult addPointer(LaunchOp op, Value buffer);
  void addDescriptor(Value buffer);
  FailureOr<Argument> scalarOf(LaunchOp op, Value value);

  func::FuncOp function;
  Value launcher;
  ImplicitLocOpBuilder b;
  SmallVector<Argument> arguments;
};
} // namespace

/// A field of moe_rt_launcher_t, all of which have eight bytes.
Value Caller::field(size_t offset, Type type) {
  Value place =
      LLVM::GEPOp::create(b, pointer(), b.getI64Type(), launcher,
                          ArrayRef<LLVM::GEPArg>{int32_t(wordAt(offset))});
  return LLVM::LoadOp::create(b, type, place);
}

/// Memory of the stack, once however often this runs.
Value Caller::allocate(int64_t words) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(&function.getBody().front());
  return LLVM::AllocaOp::create(b, pointer(), b.getI64Type(), i64(words));
}

void Caller::write(Value memory, int64_t word, Value value) {
  Value place = LLVM::GEPOp::create(b, pointer(), b.getI64Type(), memory,
                                    ArrayRef<LLVM::GEPArg>{int32_t(word)});
  LLVM::StoreOp::create(b, value, place);
}

/// Where the first element of a buffer is.
Value Caller::addressOf(Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  Value base = toI64(memref::ExtractAlignedPointerAsIndexOp::create(b, buffer));
  auto metadata = memref::ExtractStridedMetadataOp::create(b, buffer);
  int64_t bytes = llvm::divideCeil(type.getElementTypeBitWidth(), 8);
  Value offset = arith::MulIOp::create(
      b, valueOf(metadata.getConstifiedMixedOffset()), i64(bytes));
  return arith::AddIOp::create(b, base, offset);
}

FailureOr<Caller::Argument> Caller::mapOf(LaunchOp op, TensorMapAttr map) {
  Value buffer = op.getInputs()[map.getInput()];
  auto type = cast<MemRefType>(buffer.getType());
  Type element = type.getElementType();
  std::optional<moe_rt_map_element_t> kind = mapElementOf(element);
  if (!kind)
    return op.emitOpError("expected a tensor map of elements of 8, 16 or 32 "
                          "bits, got ")
           << element;
  int64_t rank = type.getRank();
  Value memory = allocate(wordAt(sizeof(moe_rt_tensor_map_t)));
  auto set = [&](size_t offset, int64_t element, Value value) {
    write(memory, wordAt(offset) + element, value);
  };
  auto metadata = memref::ExtractStridedMetadataOp::create(b, buffer);
  SmallVector<OpFoldResult> sizes = metadata.getConstifiedMixedSizes();
  SmallVector<OpFoldResult> strides = metadata.getConstifiedMixedStrides();
  set(offsetof(moe_rt_tensor_map_t, address), 0, addressOf(buffer));
  set(offsetof(moe_rt_tensor_map_t, element), 0, i64(*kind));
  set(offsetof(moe_rt_tensor_map_t, rank), 0, i64(rank));
  int64_t bytes = type.getElementTypeBitWidth() / 8;
  // The innermost dimension comes first.
  for (int64_t i = 0; i < rank; ++i) {
    int64_t dim = rank - 1 - i;
    set(offsetof(moe_rt_tensor_map_t, sizes), i, valueOf(sizes[dim]));
    set(offsetof(moe_rt_tensor_map_t, strides), i,
        arith::MulIOp::create(b, valueOf(strides[dim]), i64(bytes)));
    set(offsetof(moe_rt_tensor_map_t, box), i, i64(map.getBox()[dim]));
  }
  set(offsetof(moe_rt_tensor_map_t, swizzle), 0, i64(map.getSwizzle()));
  return Argument{0, LLVM::PtrToIntOp::create(b, b.getI64Type(), memory)};
}

/// A pointer to a compact buffer.
LogicalResult Caller::addPointer(LaunchOp op, Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  if (!type.areTrailingDimsContiguous(type.getRank()))
    return op.emitOpError("expected compact data, got ") << type;
  arguments.push_back({8, addressOf(buffer)});
  return success();
}

/// What a memref is as arguments of a function of the LLVM dialect.
void Caller::addDescriptor(Value buffer) {
  auto metadata = memref::ExtractStridedMetadataOp::create(b, buffer);
  Value base = toI64(memref::ExtractAlignedPointerAsIndexOp::create(b, buffer));
  arguments.push_back({8, base});
  arguments.push_back({8, base});
  arguments.push_back({8, valueOf(metadata.getConstifiedMixedOffset())});
  for (OpFoldResult size : metadata.getConstifiedMixedSizes())
    arguments.push_back({8, valueOf(size)});
  for (OpFoldResult stride : metadata.getConstifiedMixedStrides())
    arguments.push_back({8, valueOf(stride)});
}

FailureOr<Caller::Argument> Caller::scalarOf(LaunchOp op, Value value) {
  Type type = value.getType();
  if (type.isIndex())
    return Argument{8, toI64(value)};
  if (!type.isIntOrFloat() || type.getIntOrFloatBitWidth() > 64)
    return op.emitOpError("expected scalars of at most 64 bits, got ") << type;
  int64_t bits = type.getIntOrFloatBitWidth();
  if (isa<FloatType>(type))
    value = arith::BitcastOp::create(b, b.getIntegerType(bits), value);
  if (bits < 64)
    value = arith::ExtUIOp::create(b, b.getI64Type(), value);
  return Argument{int64_t(llvm::PowerOf2Ceil(llvm::divideCeil(bits, 8))),
                  value};
}

/// The number of a kernel: kernels are counted in the order they stand in.
static int64_t numberOf(Operation *kernel) {
  int64_t number = 0;
  for (Operation &other : *kernel->getBlock()) {
    if (&other == kernel)
      break;
    number += other.hasAttr(gpu::GPUDialect::getKernelFuncAttrName());
  }
  return number;
}

LogicalResult Caller::lower(LaunchOp op) {
  b.setLoc(op.getLoc());
  b.setInsertionPoint(op);
  if (op->getNumResults() != 0)
    return op.emitOpError("is on tensors; bufferize it before "
                          "moe-launches-to-calls");
  Operation *kernel = SymbolTable::lookupNearestSymbolFrom(op, op.getKernel());
  arguments.clear();
  if (op.getMaps())
    for (auto map : op.getMaps()->getAsRange<TensorMapAttr>()) {
      FailureOr<Argument> argument = mapOf(op, map);
      if (failed(argument))
        return failure();
      arguments.push_back(*argument);
    }
  // A kernel on memrefs takes what describes them.
  bool onMemRefs = isa<gpu::GPUFuncOp>(kernel);
  for (Value buffer : llvm::concat<Value>(op.getInputs(), op.getInits())) {
    if (onMemRefs)
      addDescriptor(buffer);
    else if (failed(addPointer(op, buffer)))
      return failure();
  }
  for (Value scalar : op.getScalars()) {
    FailureOr<Argument> argument = scalarOf(op, scalar);
    if (failed(argument))
      return failure();
    arguments.push_back(*argument);
  }
  if (kernel->hasAttr(liveTokensAttrName))
    arguments.push_back(
        {8, field(offsetof(moe_rt_launcher_t, live_tokens), b.getI64Type())});

  int64_t count = arguments.size();
  constexpr int64_t words = wordAt(sizeof(moe_rt_kernel_argument_t));
  Value memory = allocate(words * count);
  for (auto [i, argument] : llvm::enumerate(arguments)) {
    int64_t first = words * i;
    write(memory, first + wordAt(offsetof(moe_rt_kernel_argument_t, size)),
          i64(argument.bytes));
    write(memory, first + wordAt(offsetof(moe_rt_kernel_argument_t, value)),
          argument.bits);
  }
  Type word = b.getI64Type();
  // The launcher remembers what fails, and then starts nothing more.
  LLVM::CallOp::create(
      b,
      LLVM::LLVMFunctionType::get(
          b.getI32Type(), {pointer(), word, word, word, word, pointer(), word}),
      ValueRange{field(offsetof(moe_rt_launcher_t, launch), pointer()),
                 field(offsetof(moe_rt_launcher_t, user), pointer()),
                 i64(numberOf(kernel)), toI64(op.getBlocks()), i64(1), i64(1),
                 memory, i64(count)});
  op.erase();
  return success();
}

void Caller::lower(MultiprocessorsOp op) {
  b.setLoc(op.getLoc());
  b.setInsertionPoint(op);
  Value count = arith::IndexCastOp::create(
      b, b.getIndexType(),
      field(offsetof(moe_rt_launcher_t, multiprocessors), b.getI64Type()));
  op.replaceAllUsesWith(count);
  op.erase();
}

/// Kernels read 16 bytes at once: say so of what the caller passes.
static void requireAlignment(func::FuncOp function) {
  constexpr int64_t bytes = 16;
  SignatureAttr signature = getSignature(function);
  // Weights are prepared element by element, any range of experts.
  if (!signature || !signature.getArguments() ||
      function->hasAttr(preparesAttrName))
    return;
  SmallVector<Attribute> arguments;
  for (auto argument : signature.getArguments().getAsRange<ArgumentAttr>())
    arguments.push_back(argument.isReport() ||
                                argument.getRole() == ArgumentRole::Prepared
                            ? argument
                            : argument.withAlignment(bytes));
  setSignature(function, signature.withArguments(arguments));
}

namespace {
struct MoELaunchesToCalls
    : moe::impl::MoELaunchesToCallsBase<MoELaunchesToCalls> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (failed(convert(function)))
        return signalPassFailure();
  }

  LogicalResult convert(func::FuncOp function) {
    SmallVector<LaunchOp> launches;
    SmallVector<MultiprocessorsOp> questions;
    function.walk([&](LaunchOp op) { launches.push_back(op); });
    function.walk([&](MultiprocessorsOp op) { questions.push_back(op); });
    if (launches.empty() && questions.empty())
      return success();
    unsigned position = function.getNumArguments();
    if (failed(function.insertArgument(
            position, LLVM::LLVMPointerType::get(&getContext()), {},
            function.getLoc())))
      return failure();
    requireAlignment(function);
    Caller caller(function, function.getArgument(position));
    for (LaunchOp op : launches)
      if (failed(caller.lower(op)))
        return failure();
    for (MultiprocessorsOp op : questions)
      caller.lower(op);
    return success();
  }
};
} // namespace
