//===- decoder.h - What decodes one instruction -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_DECODER_H
#define MOE_CUDA_DOUBLE_DECODER_H

#include "machine/fault.h"
#include "program.h"

#include <optional>

namespace moe::gpu {

struct RegisterInfo {
  uint32_t slot;
  Type type;
};

class FunctionDecoder;

/// One instruction while it is decoded. Qualifiers are taken from a list; what
/// nobody takes is an error, as are operands of the wrong kind or width.
class Decoder {
public:
  Decoder(FunctionDecoder &function, const syntax::Statement &statement,
          Instruction &instruction);

  Instruction &out;

  template <typename... Args> [[noreturn]] void error(const Args &...args) {
    fail(CUDA_ERROR_INVALID_PTX, "line ", statement.line, ": ", args..., ": '",
         statement.text, "'");
  }

  // Qualifiers.
  std::string_view name() const { return opcode; }
  bool has(std::string_view qualifier);
  void need(std::string_view qualifier);
  /// The first type among the qualifiers.
  Type type();
  std::optional<Type> optionalType();
  /// The first qualifier that starts with `prefix`, without it.
  std::optional<std::string_view> startingWith(std::string_view prefix);
  /// .global, .shared::cta, ...; Generic without one.
  Space space();
  /// Take and ignore what only steers caches, and memory ordering.
  void ignoreCacheHints();
  bool ordering(); // whether the access is a strong one
  void finish();   // nothing may be left

  // Operands.
  size_t operands() const { return statement.operands.size(); }
  void expectOperands(size_t least, size_t most);
  const syntax::Operand &operand(size_t i) {
    if (i >= operands())
      error("too few operands");
    return statement.operands[i];
  }
  bool isVector(size_t i) {
    return operand(i).kind == syntax::Operand::Kind::Vector;
  }
  int64_t immediate(size_t i);

  enum Width { Exact, AtLeast };
  uint32_t source(size_t i, Type type, Width width = Exact);
  uint32_t source(const syntax::Operand &operand, Type type,
                  Width width = Exact);
  uint32_t destination(size_t i, Type type, Width width = Exact);
  uint32_t destination(const syntax::Operand &operand, Type type,
                       Width width = Exact);
  /// The slots of {a, b, ...}, or of a single register.
  std::vector<uint32_t> sources(size_t i, Type type, Width width = Exact);
  std::vector<uint32_t> destinations(size_t i, Type type, Width width = Exact);
  uint32_t predicate(const syntax::Operand &operand,
                     uint8_t *negated = nullptr);
  /// Bits of the register that an operand names; 0 if it names none.
  int registerBits(const syntax::Operand &operand);

  struct Address {
    uint32_t base = 0; // slot of 64 bits; 0 for none
    int64_t offset = 0;
    bool narrow = false; // the base is a register of 32 bits
    Space space = Space::Generic;
  };
  /// [base + offset]; the space of a named variable replaces a generic one.
  Address address(size_t i, Space space);
  Address address(const syntax::Operand &operand, Space space);
  /// Into `out`: a, offset and flags[0] = narrow, flags[1] = space.
  void setAddress(const Address &address);

  uint32_t constant(uint64_t bits, int width);
  uint32_t special(Special which, uint32_t index = 0);
  const uint32_t *keep(std::vector<uint32_t> list);
  uint32_t newSite();
  /// Keep what an instruction's `data` points to.
  template <typename T> const T *own(std::unique_ptr<T> data) {
    std::shared_ptr<T> shared = std::move(data);
    keepData(shared);
    return shared.get();
  }

  FunctionDecoder &function;
  const syntax::Statement &statement;

private:
  void keepData(std::shared_ptr<const void> data);
  std::string_view opcode;
  std::vector<std::string_view> qualifiers;
};

/// Decodes instructions of one name.
using DecodeFunction = void (*)(Decoder &);

struct DecodeEntry {
  std::string_view name;
  DecodeFunction decode;
};

/// The instructions that one source file executes, with their decoders.
struct DecodeTable {
  const DecodeEntry *entries;
  size_t count;
};
template <size_t n>
constexpr DecodeTable tableOf(const DecodeEntry (&entries)[n]) {
  return {entries, n};
}
extern const DecodeTable integerInstructions, bitInstructions,
    floatInstructions, convertInstructions, moveInstructions,
    compareInstructions, memoryInstructions, atomicInstructions,
    controlInstructions, barrierInstructions, warpInstructions,
    matrixInstructions, warpgroupInstructions, mbarrierInstructions,
    copyInstructions;

class FunctionDecoder {
public:
  FunctionDecoder(Module &module, const syntax::Function &source,
                  Function &result);

  /// Its registers, variables and labels; of all functions before any decodes.
  void declare();
  void decode();

  const RegisterInfo *findRegister(std::string_view name, int scope) const;
  /// The place of a .local or .param variable in the function's local memory.
  const LocalVariable *findLocal(std::string_view name, int scope) const;
  /// A variable or parameter as an address in its space.
  bool findVariable(std::string_view name, int scope,
                    Decoder::Address &address);
  const Instruction *findLabel(std::string_view name, int scope) const;
  const syntax::BranchTargets *findTargets(std::string_view name,
                                           int scope) const;
  uint32_t constant(uint64_t bits, int width);
  uint32_t special(Special which, uint32_t index);

  Module &module;
  const syntax::Function &source;
  Function &result;

private:
  void declareRegisters();
  void declareVariables();
  uint32_t appendToTail(uint64_t bits, int width);
  /// The innermost entry of a table with names per scope.
  template <typename Table>
  const typename Table::mapped_type *
  find(const Table &table, std::string_view name, int scope) const;

  using Name = std::pair<int, std::string_view>; // of a scope
  std::map<Name, RegisterInfo> registers;
  std::map<Name, LocalVariable> locals;
  std::map<std::string_view, Parameter> parameters;
  std::map<Name, size_t> labels;
  std::map<std::pair<uint64_t, int>, uint32_t> constants;
  std::map<std::pair<int, uint32_t>, uint32_t> specials;
  std::deque<std::string> registerNames; // of name<count>
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_DECODER_H
