//===- GPUBuilder.cpp - Builder of device code ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr llvm::StringLiteral sharedSymbol = "moe_shared";

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

Value GPUBuilder::i1(bool value) {
  return arith::ConstantIntOp::create(*this, value, 1);
}
Value GPUBuilder::i32(int64_t value) {
  return arith::ConstantIntOp::create(*this, value, 32);
}
Value GPUBuilder::i64(int64_t value) {
  return arith::ConstantIntOp::create(*this, value, 64);
}
Value GPUBuilder::f32(double value) {
  return arith::ConstantOp::create(*this, getF32FloatAttr(value));
}
Value GPUBuilder::constantLike(Value like, int64_t value) {
  return arith::ConstantIntOp::create(
      *this, value, cast<IntegerType>(like.getType()).getWidth());
}

Value GPUBuilder::add(Value x, Value y) {
  return arith::AddIOp::create(*this, x, y);
}
Value GPUBuilder::sub(Value x, Value y) {
  return arith::SubIOp::create(*this, x, y);
}
Value GPUBuilder::mul(Value x, Value y) {
  return arith::MulIOp::create(*this, x, y);
}
Value GPUBuilder::div(Value x, Value y) {
  return arith::DivUIOp::create(*this, x, y);
}
Value GPUBuilder::rem(Value x, Value y) {
  return arith::RemUIOp::create(*this, x, y);
}
Value GPUBuilder::min(Value x, Value y) {
  return arith::MinSIOp::create(*this, x, y);
}
Value GPUBuilder::max(Value x, Value y) {
  return arith::MaxSIOp::create(*this, x, y);
}
Value GPUBuilder::bitAnd(Value x, Value y) {
  return arith::AndIOp::create(*this, x, y);
}
Value GPUBuilder::bitOr(Value x, Value y) {
  return arith::OrIOp::create(*this, x, y);
}
Value GPUBuilder::bitXor(Value x, Value y) {
  return arith::XOrIOp::create(*this, x, y);
}
Value GPUBuilder::shiftLeft(Value x, int64_t bits) {
  return bits ? arith::ShLIOp::create(*this, x, constantLike(x, bits)) : x;
}
Value GPUBuilder::shiftRight(Value x, int64_t bits) {
  return bits ? arith::ShRUIOp::create(*this, x, constantLike(x, bits)) : x;
}
Value GPUBuilder::less(Value x, Value y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::slt, x, y);
}
Value GPUBuilder::below(Value x, Value y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::ult, x, y);
}
Value GPUBuilder::equal(Value x, Value y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, x, y);
}
Value GPUBuilder::select(Value condition, Value x, Value y) {
  return arith::SelectOp::create(*this, condition, x, y);
}
Value GPUBuilder::toI64(Value x) {
  return x.getType().isInteger(64)
             ? x
             : arith::ExtSIOp::create(*this, getI64Type(), x);
}
Value GPUBuilder::toI32(Value flag) {
  return arith::ExtUIOp::create(*this, getI32Type(), flag);
}

Value GPUBuilder::toFloat(Value x, Type type) {
  if (x.getType() == type)
    return x;
  if (getElementTypeOrSelf(type).isF32())
    return arith::ExtFOp::create(*this, type, x);
  if (!getElementTypeOrSelf(x).isF32()) {
    Type wide = getF32Type();
    if (auto vector = dyn_cast<VectorType>(type))
      wide = vector.clone(wide);
    x = arith::ExtFOp::create(*this, wide, x);
  }
  return arith::TruncFOp::create(*this, type, x);
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

Value GPUBuilder::at(Value pointer, Type element, Value index) {
  return LLVM::GEPOp::create(*this, pointer.getType(), element, pointer,
                             ArrayRef<LLVM::GEPArg>{index});
}
Value GPUBuilder::load(Type type, Value pointer, int64_t alignment) {
  return LLVM::LoadOp::create(*this, type, pointer, alignment);
}
Value GPUBuilder::loadAt(Type element, Value pointer, Value index) {
  return load(element, at(pointer, element, index));
}
void GPUBuilder::store(Value value, Value pointer, int64_t alignment) {
  LLVM::StoreOp::create(*this, value, pointer, alignment);
}
void GPUBuilder::storeAt(Value value, Value pointer, Value index) {
  store(value, at(pointer, value.getType(), index));
}
/// Emits inline PTX; with side effects, it is neither moved nor removed.
static LLVM::InlineAsmOp emitPTX(GPUBuilder &b, Type result,
                                 ValueRange operands, StringRef ptx,
                                 StringRef constraints,
                                 bool hasSideEffects = true) {
  return LLVM::InlineAsmOp::create(
      b, result, operands, ptx, constraints, hasSideEffects,
      /*is_align_stack=*/false, LLVM::TailCallKind::None,
      LLVM::AsmDialectAttr::get(b.getContext(), LLVM::AsmDialect::AD_ATT),
      /*operand_attrs=*/ArrayAttr());
}

Value GPUBuilder::opaque(Value x) {
  return emitPTX(*this, x.getType(), x, "mov.b32 $0, $1;", "=r,r").getRes();
}

/// Returns the bits of a scalar or vector as integers of at most 64 bits, of 32
/// if there are several.
static SmallVector<Value> wordsOf(GPUBuilder &b, Value value) {
  auto vector = dyn_cast<VectorType>(value.getType());
  int64_t bits = getElementTypeOrSelf(value).getIntOrFloatBitWidth() *
                 (vector ? vector.getNumElements() : 1);
  if (bits <= 64)
    return {LLVM::BitcastOp::create(b, b.getIntegerType(bits), value)};
  Value words = LLVM::BitcastOp::create(
      b, VectorType::get(bits / 32, b.getI32Type()), value);
  SmallVector<Value> each;
  for (int64_t i = 0; i < bits / 32; ++i)
    each.push_back(vector::ExtractOp::create(b, words, i));
  return each;
}

void GPUBuilder::storeIf(Value condition, Value value, Value pointer) {
  SmallVector<Value> operands{toI32(condition), pointer};
  llvm::append_range(operands, wordsOf(*this, value));
  std::string ptx = "{\n.reg .pred p;\nsetp.ne.b32 p, $0, 0;\n@p st.global.";
  std::string constraints = "r,l";
  if (size_t count = operands.size() - 2; count > 1) {
    ptx += "v" + std::to_string(count) + ".b32 [$1], {";
    for (size_t i = 0; i < count; ++i) {
      ptx += (i ? ", $" : "$") + std::to_string(i + 2);
      constraints += ",r";
    }
    ptx += "};\n}";
  } else {
    unsigned bits = operands.back().getType().getIntOrFloatBitWidth();
    ptx += "b" + std::to_string(bits) + " [$1], $2;\n}";
    constraints += bits == 16 ? ",h" : bits == 32 ? ",r" : ",l";
  }
  emitPTX(*this, /*result=*/Type(), operands, ptx, constraints);
}

Value GPUBuilder::loadIf(Value condition, Type type, Value pointer,
                         bool isConstant) {
  auto vector = dyn_cast<VectorType>(type);
  unsigned bits = getElementTypeOrSelf(type).getIntOrFloatBitWidth() *
                  (vector ? vector.getNumElements() : 1);
  // 128 bits are four words. There are no registers of 8 bits.
  unsigned count = bits == 128 ? 4 : 1, wordBits = bits / count;
  unsigned registerBits = std::max(wordBits, 16u);
  std::string names, zeros, constraints;
  for (unsigned i = 0; i < count; ++i) {
    std::string name = "$" + std::to_string(i);
    names += (i > 0 ? ", " : "") + name;
    zeros += "mov.b" + std::to_string(registerBits) + " " + name + ", 0;\n";
    constraints += registerBits == 16   ? "=&h,"
                   : registerBits == 32 ? "=&r,"
                                        : "=&l,";
  }
  std::string ptx = "{\n.reg .pred p;\nsetp.ne.b32 p, $" +
                    std::to_string(count) + ", 0;\n" + zeros + "@p ld.global." +
                    (count > 1 ? "v4.b32 {" + names + "}"
                               : "b" + std::to_string(wordBits) + " " + names) +
                    ", [$" + std::to_string(count + 1) + "];\n}";
  Type word = getIntegerType(registerBits), result = word;
  if (count > 1)
    result = LLVM::LLVMStructType::getLiteral(getContext(),
                                              SmallVector<Type>(count, word));
  Value loaded = emitPTX(*this, result, {toI32(condition), pointer}, ptx,
                         constraints + "r,l", !isConstant)
                     .getRes();
  if (count > 1) {
    SmallVector<Value> words;
    for (unsigned i = 0; i < count; ++i)
      words.push_back(LLVM::ExtractValueOp::create(*this, loaded, i));
    loaded = vector::FromElementsOp::create(*this, VectorType::get(count, word),
                                            words);
  } else if (wordBits < registerBits) {
    loaded = arith::TruncIOp::create(*this, getIntegerType(wordBits), loaded);
  }
  return type.isInteger()
             ? loaded
             : LLVM::BitcastOp::create(*this, type, loaded).getRes();
}

Value GPUBuilder::atomicAdd(Value pointer, Value value) {
  return LLVM::AtomicRMWOp::create(*this, LLVM::AtomicBinOp::add, pointer,
                                   value, LLVM::AtomicOrdering::monotonic);
}

void GPUBuilder::fence() {
  LLVM::FenceOp::create(*this, LLVM::AtomicOrdering::acq_rel, "device");
}

Value GPUBuilder::sharedMemory() {
  auto kernels =
      getInsertionBlock()->getParentOp()->getParentOfType<gpu::GPUModuleOp>();
  auto type = LLVM::LLVMArrayType::get(getI8Type(), 0);
  constexpr unsigned space = unsigned(NVVM::NVVMMemorySpace::Shared);
  if (!kernels.lookupSymbol(sharedSymbol)) {
    InsertionGuard guard(*this);
    setInsertionPointToStart(kernels.getBody());
    // The 128-byte swizzle repeats every 1024 bytes, so tiles start on them.
    LLVM::GlobalOp::create(*this, type, /*isConstant=*/false,
                           LLVM::Linkage::External, sharedSymbol, Attribute(),
                           /*alignment=*/1024, space);
  }
  return LLVM::AddressOfOp::create(
      *this, LLVM::LLVMPointerType::get(getContext(), space), sharedSymbol);
}
Value GPUBuilder::sharedAt(Value base, Value byte) {
  return at(base, getI8Type(), byte);
}

//===----------------------------------------------------------------------===//
// Threads
//===----------------------------------------------------------------------===//

Value GPUBuilder::thread() {
  return NVVM::ThreadIdXOp::create(*this, getI32Type());
}
Value GPUBuilder::block() {
  return NVVM::BlockIdXOp::create(*this, getI32Type());
}
Value GPUBuilder::numBlocks() {
  return NVVM::GridDimXOp::create(*this, getI32Type());
}
Value GPUBuilder::warp() { return shuffle(shiftRight(thread(), 5), i32(0)); }
Value GPUBuilder::warpOfGrid(int64_t warpsInBlock) {
  return add(mul(toI64(block()), warpsInBlock), toI64(shiftRight(thread(), 5)));
}
void GPUBuilder::barrier() { NVVM::BarrierOp::create(*this); }

void GPUBuilder::arriveCluster(bool aligned) {
  NVVM::ClusterArriveOp::create(*this, aligned ? getUnitAttr() : UnitAttr());
}
void GPUBuilder::waitCluster(bool aligned) {
  NVVM::ClusterWaitOp::create(*this, aligned ? getUnitAttr() : UnitAttr());
}
Value GPUBuilder::mapToBlock(Value pointer, Value rank) {
  auto type = LLVM::LLVMPointerType::get(
      getContext(), unsigned(NVVM::NVVMMemorySpace::SharedCluster));
  return NVVM::MapaOp::create(*this, type, pointer, rank);
}

static Value shuffleBy(GPUBuilder &b, Value value, Value by, int64_t clamp,
                       NVVM::ShflKind kind) {
  Type type = value.getType();
  assert((type.isF32() || type.isInteger(32)) && "shuffles move 32 bits");
  return NVVM::ShflOp::create(b, type, b.i32(-1), value, by, b.i32(clamp), kind,
                              UnitAttr());
}
Value GPUBuilder::shuffleXor(Value value, int64_t mask) {
  return shuffleBy(*this, value, i32(mask), 31, NVVM::ShflKind::bfly);
}
std::pair<Value, Value> GPUBuilder::transposeLanes(Value first, Value second,
                                                   int64_t bit) {
  Value isLower = equal(bitAnd(lane(), bit), 0);
  Value received = shuffleXor(select(isLower, second, first), bit);
  return {select(isLower, first, received), select(isLower, received, second)};
}

Value GPUBuilder::shuffle(Value value, Value lane) {
  return shuffleBy(*this, value, lane, 31, NVVM::ShflKind::idx);
}

void GPUBuilder::mma(Type element, ArrayRef<Value> lhs, ArrayRef<Value> rhs,
                     MutableArrayRef<Value> accumulators) {
  bool isF16 = element.isF16();
  SmallVector<Value> a(lhs), b(rhs);
  // NVVM takes f16 operands as vector<2xf16>, bf16 ones as i32.
  auto toPair = [&](Value &value) {
    if (isF16 && value.getType().isInteger(32))
      value =
          LLVM::BitcastOp::create(*this, VectorType::get(2, element), value);
  };
  llvm::for_each(a, toPair);
  llvm::for_each(b, toPair);
  Type f32 = getF32Type();
  NVVM::MMATypes type = isF16 ? NVVM::MMATypes::f16 : NVVM::MMATypes::bf16;
  Value result = NVVM::MmaOp::create(
      *this,
      LLVM::LLVMStructType::getLiteral(getContext(), {f32, f32, f32, f32}), a,
      b, ValueRange(ArrayRef<Value>(accumulators)),
      ArrayRef<int64_t>{16, 8, 16}, std::nullopt, std::nullopt,
      std::array<NVVM::MMATypes, 2>{type, type},
      std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                     NVVM::MMALayout::col});
  for (auto [i, accumulator] : llvm::enumerate(accumulators))
    accumulator = LLVM::ExtractValueOp::create(*this, result, i);
}

//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

SmallVector<Value> GPUBuilder::loop(Value from, Value to, Value step,
                                    ValueRange inits, LoopBody body) {
  auto op = scf::ForOp::create(*this, from, to, step, inits);
  InsertionGuard guard(*this);
  // scf.for without iteration arguments is created with its terminator.
  if (inits.empty())
    setInsertionPoint(op.getBody()->getTerminator());
  else
    setInsertionPointToStart(op.getBody());
  SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
  if (!inits.empty())
    scf::YieldOp::create(*this, next);
  return llvm::to_vector_of<Value>(op.getResults());
}

void GPUBuilder::loop(Value from, Value to, Value step,
                      llvm::function_ref<void(Value)> body) {
  loop(from, to, step, ValueRange(), [&](Value i, ValueRange) {
    body(i);
    return SmallVector<Value>();
  });
}

void GPUBuilder::ifThen(Value condition, llvm::function_ref<void()> then) {
  auto op = scf::IfOp::create(*this, condition);
  InsertionGuard guard(*this);
  setInsertionPointToStart(op.thenBlock());
  then();
}

void GPUBuilder::ifElse(Value condition, llvm::function_ref<void()> then,
                        llvm::function_ref<void()> otherwise) {
  auto op = scf::IfOp::create(*this, condition, /*withElseRegion=*/true);
  InsertionGuard guard(*this);
  setInsertionPointToStart(op.thenBlock());
  then();
  setInsertionPointToStart(op.elseBlock());
  otherwise();
}

//===----------------------------------------------------------------------===//
// Warp-wide reductions and scans
//===----------------------------------------------------------------------===//

Value GPUBuilder::reduceWarp(Value value,
                             llvm::function_ref<Value(Value, Value)> combine) {
  for (int64_t distance = warpSize / 2; distance > 0; distance /= 2)
    value = combine(value, shuffleXor(value, distance));
  return value;
}
Value GPUBuilder::sumWarp(Value value) {
  return reduceWarp(value, [&](Value x, Value y) -> Value {
    if (isa<FloatType>(x.getType()))
      return arith::AddFOp::create(*this, x, y);
    return add(x, y);
  });
}
Value GPUBuilder::maxWarp(Value value) {
  return reduceWarp(value, [&](Value x, Value y) -> Value {
    if (isa<FloatType>(x.getType()))
      return arith::MaximumFOp::create(*this, x, y);
    return max(x, y);
  });
}

Value GPUBuilder::scanWarp(Value value) {
  Value lane = this->lane();
  for (int64_t distance = 1; distance < warpSize; distance *= 2) {
    Value from = sub(lane, distance);
    Value other = shuffle(value, bitAnd(from, 31));
    value = add(value, select(less(from, 0), i32(0), other));
  }
  return value;
}

Value GPUBuilder::scanBlock(Value value, Value scratch, int64_t warps) {
  Value warp = shiftRight(thread(), 5), scan = scanWarp(value);
  ifThen(equal(lane(), warpSize - 1),
         [&] { store(scan, at(scratch, getI32Type(), warp)); });
  barrier();
  for (int64_t other = 0; other + 1 < warps; ++other) {
    Value total = loadAt(getI32Type(), scratch, i32(other));
    scan = add(scan, select(less(i32(other), warp), total, i32(0)));
  }
  return scan;
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

LLVM::LLVMFuncOp
mlir::moe::createKernel(GPUBuilder &b, gpu::GPUModuleOp kernels, StringRef name,
                        const KernelShape &shape, int64_t pointers,
                        ArrayRef<Type> scalars) {
  MLIRContext *context = b.getContext();
  auto map = LLVM::LLVMPointerType::get(context);
  auto global = LLVM::LLVMPointerType::get(
      context, unsigned(NVVM::NVVMMemorySpace::Global));
  SmallVector<Type> types(shape.tensorMaps, map);
  types.append(pointers, global);
  llvm::append_range(types, scalars);
  std::string unique = name.str();
  for (int64_t i = 1; kernels.lookupSymbol(unique); ++i)
    unique = (name + "_" + Twine(i)).str();
  b.setInsertionPointToEnd(kernels.getBody());
  auto kernel = LLVM::LLVMFuncOp::create(
      b, unique,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context), types));
  kernel->setAttr(gpu::GPUDialect::getKernelFuncAttrName(), b.getUnitAttr());
  kernel->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(), b.getUnitAttr());
  kernel->setAttr(NVVM::NVVMDialect::getMaxntidAttrName(),
                  b.getDenseI32ArrayAttr({int32_t(shape.threads), 1, 1}));
  kernel->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
                  b.getI32IntegerAttr(shape.resident));
  if (shape.cluster > 1)
    kernel->setAttr(NVVM::NVVMDialect::getClusterDimAttrName(),
                    b.getDenseI32ArrayAttr({int32_t(shape.cluster), 1, 1}));
  kernel->setAttr(sharedBytesAttrName, b.getI64IntegerAttr(shape.sharedBytes));
  for (int64_t i = 0; i < shape.tensorMaps; ++i) {
    auto bytes = LLVM::LLVMArrayType::get(b.getI8Type(), 128);
    kernel.setArgAttr(i, LLVM::LLVMDialect::getByValAttrName(),
                      TypeAttr::get(bytes));
    kernel.setArgAttr(i, LLVM::LLVMDialect::getAlignAttrName(),
                      b.getI64IntegerAttr(64));
    kernel.setArgAttr(i, NVVM::NVVMDialect::getGridConstantAttrName(),
                      b.getUnitAttr());
  }
  Block *entry = kernel.addEntryBlock(b);
  b.setInsertionPointToEnd(entry);
  auto end = LLVM::ReturnOp::create(b, ValueRange());
  b.setInsertionPoint(end);
  return kernel;
}
