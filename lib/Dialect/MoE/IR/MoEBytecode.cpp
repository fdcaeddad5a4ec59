//===- MoEBytecode.cpp - The version of the dialect in bytecode -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A change after which operations or attributes of older files do not read as
// they were meant raises the version, and `upgradeFromVersion` makes of the old
// form the new one. test/Dialect/MoE/IR/Inputs has a file of each version.
//
//===----------------------------------------------------------------------===//

#include "Bytecode.h"

#include "mlir/Bytecode/BytecodeImplementation.h"

using namespace mlir;
using namespace mlir::moe;

/// The version that is written; 0 is that of files without one.
static constexpr uint64_t currentVersion = 1;

namespace {
struct Version : DialectVersion {
  explicit Version(uint64_t number) : number(number) {}
  uint64_t number;
};

/// Properties are written by the code that ODS generates, attributes as text.
class MoEBytecodeInterface : public BytecodeDialectInterface {
public:
  explicit MoEBytecodeInterface(Dialect *dialect)
      : BytecodeDialectInterface(dialect) {}

  void writeVersion(DialectBytecodeWriter &writer) const override {
    writer.writeVarInt(currentVersion);
  }

  std::unique_ptr<DialectVersion>
  readVersion(DialectBytecodeReader &reader) const override {
    uint64_t number = 0;
    if (failed(reader.readVarInt(number)))
      return nullptr;
    if (number > currentVersion) {
      reader.emitError("expected version ")
          << currentVersion << " of dialect moe or an older one, got " << number
          << "; a newer compiler wrote the file";
      return nullptr;
    }
    return std::make_unique<Version>(number);
  }
};
} // namespace

void mlir::moe::addBytecodeInterface(MoEDialect &dialect) {
  dialect.addInterfaces<MoEBytecodeInterface>();
}
