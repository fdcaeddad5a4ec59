//===- decoder.h - Decoders of instructions and functions -------*- C++ -*-===//
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

/// Decodes one instruction. Decode functions consume qualifiers from a list; a
/// qualifier that is left is an error, as is an operand of the wrong kind or
/// width.
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
  /// Consumes the first type among the qualifiers.
  Type type();
  std::optional<Type> optionalType();
  /// Consumes the first qualifier that starts with `prefix`; returns the rest.
  std::optional<std::string_view> startingWith(std::string_view prefix);
  /// Consumes .global, .shared::cta, ...; returns Generic if there is none.
  Space space();
  /// Consumes the cache hints, which have no effect.
  void ignoreCacheHints();
  /// Consumes order and scope; returns a set of Order.
  uint8_t ordering();
  void finish(); // fails if a qualifier is left

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
  /// Returns the slots of {a, b, ...}, or of a single register.
  std::vector<uint32_t> sources(size_t i, Type type, Width width = Exact);
  std::vector<uint32_t> destinations(size_t i, Type type, Width width = Exact);
  uint32_t predicate(const syntax::Operand &operand,
                     uint8_t *negated = nullptr);
  /// The bits of the register that an operand names; 0 if it names none.
  int registerBits(const syntax::Operand &operand);

  struct Address {
    uint32_t base = 0; // slot of the base register; 0: none
    int64_t offset = 0;
    bool narrow = false; // the base register has 32 bits
    Space space = Space::Generic;
  };
  /// Decodes [base + offset]. A named variable replaces Generic by its space.
  Address address(size_t i, Space space);
  Address address(const syntax::Operand &operand, Space space);
  /// Sets in `out`: a, offset, flags[0] = narrow, flags[1] = space.
  void setAddress(const Address &address);

  uint32_t constant(uint64_t bits, int width);
  uint32_t special(Special which, uint32_t index = 0);
  const uint32_t *keep(std::vector<uint32_t> list);
  uint32_t newSite();
  /// Transfers ownership of an instruction's `data` to the function.
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

/// Decodes the instructions of one opcode.
using DecodeFunction = void (*)(Decoder &);

struct DecodeEntry {
  std::string_view name;
  DecodeFunction decode;
};

/// The opcodes that one source file implements, with their decoders.
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

  /// Declares registers, variables and labels. Call it for all functions before
  /// decode() of any.
  void declare();
  void decode();

  const RegisterInfo *findRegister(std::string_view name, int scope) const;
  /// Finds a .local or .param variable in the function's local memory.
  const LocalVariable *findLocal(std::string_view name, int scope) const;
  /// Finds a variable or parameter and returns its address in its space.
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
  /// Looks up a name from the innermost scope outwards.
  template <typename Table>
  const typename Table::mapped_type *
  find(const Table &table, std::string_view name, int scope) const;

  using Name = std::pair<int, std::string_view>; // scope and name
  std::map<Name, RegisterInfo> registers;
  std::map<Name, LocalVariable> locals;
  std::map<std::string_view, Parameter> parameters;
  std::map<Name, size_t> labels;
  std::map<std::pair<uint64_t, int>, uint32_t> constants;
  std::map<std::pair<int, uint32_t>, uint32_t> specials;
  std::deque<std::string> registerNames; // names expanded from name<count>
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_DECODER_H
