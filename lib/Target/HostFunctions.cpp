//===- HostFunctions.cpp - Host functions that artifacts may call ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The helpers of a compiler's own library (libgcc_s, compiler-rt) are not on
// the list: they differ between versions.
//
//===----------------------------------------------------------------------===//

#include "moe/Target/Target.h"

#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Object/ELFObjectFile.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::isMathFunction(llvm::StringRef name) {
  // Of f64; those of f32 have the suffix f.
  static const llvm::StringSet<> math{
      "acos",  "acosh", "asin",  "asinh",     "atan",     "atan2",     "atanh",
      "cbrt",  "ceil",  "cos",   "cosh",      "erf",      "erfc",      "exp",
      "exp10", "exp2",  "expm1", "fabs",      "floor",    "fma",       "fmax",
      "fmin",  "fmod",  "ldexp", "log",       "log10",    "log1p",     "log2",
      "pow",   "rint",  "round", "sin",       "sinh",     "roundeven", "sqrt",
      "tan",   "tanh",  "trunc", "nearbyint", "copysign", "sincos"};
  return math.contains(name) ||
         (name.ends_with("f") && math.contains(name.drop_back()));
}

bool mlir::moe::isHostFunction(llvm::StringRef name) {
  static const llvm::StringSet<> other{
      "abort",  "aligned_alloc", "bcmp",    "free",   "malloc",
      "memcmp", "memcpy",        "memmove", "memset", "puts"};
  return other.contains(name) || isMathFunction(name);
}

LogicalResult mlir::moe::verifyDefined(ModuleOp module) {
  LogicalResult result = success();
  module.walk([&](FunctionOpInterface function) {
    if (!function.isExternal() || isHostFunction(function.getName()) ||
        SymbolTable::symbolKnownUseEmpty(function, module))
      return;
    result =
        function->emitError("function '")
        << function.getName()
        << "' is called and has no body; an artifact may call only its own "
           "functions and those of the C and math libraries";
  });
  return result;
}

llvm::Error mlir::moe::verifyHostFunctions(llvm::MemoryBufferRef object) {
  auto file = llvm::object::ObjectFile::createELFObjectFile(object);
  if (!file)
    return file.takeError();
  auto &elf = llvm::cast<llvm::object::ELFObjectFileBase>(**file);
  std::string unknown;
  for (llvm::object::ELFSymbolRef symbol : elf.getDynamicSymbolIterators()) {
    auto flags = symbol.getFlags();
    if (!flags)
      return flags.takeError();
    if (!(*flags & llvm::object::SymbolRef::SF_Undefined) ||
        (*flags & llvm::object::SymbolRef::SF_Weak))
      continue;
    auto name = symbol.getName();
    if (!name)
      return name.takeError();
    if (!name->empty() && !isHostFunction(*name))
      unknown += (unknown.empty() ? "'" : ", '") + name->str() + "'";
  }
  if (unknown.empty())
    return llvm::Error::success();
  return llvm::createStringError(
      llvm::inconvertibleErrorCode(),
      "the code calls " + unknown +
          ", which neither it nor the C or math library has");
}
