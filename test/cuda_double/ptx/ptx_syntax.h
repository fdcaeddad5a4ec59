//===- ptx_syntax.h - The syntax tree of PTX --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The syntax tree of a PTX module (PTX ISA 4 "Syntax", 5 "State Spaces, Types
// and Variables", 11 "Directives"). Names are views of the module's text.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_PTX_SYNTAX_H
#define MOE_CUDA_DOUBLE_PTX_SYNTAX_H

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moe::gpu {

enum class Space : uint8_t {
  Generic,
  Global,
  Shared,        // .shared, .shared::cta
  SharedCluster, // .shared::cluster
  Local,
  Param,
  Const,
};

/// The fundamental types, and types of instruction operands only.
enum class Type : uint8_t {
  None,
  Pred,
  B8,
  B16,
  B32,
  B64,
  B128,
  U8,
  U16,
  U32,
  U64,
  S8,
  S16,
  S32,
  S64,
  U16x2,
  S16x2,
  F16,
  F16x2,
  BF16,
  BF16x2,
  TF32,
  F32,
  F64,
  E4M3,
  E5M2,
  E4M3x2,
  E5M2x2,
};

/// The type that a qualifier such as ".f32" names, or None.
Type typeNamed(std::string_view qualifier);
int bitsOf(Type type);
bool isSigned(Type type);
bool isFloat(Type type);

namespace syntax {

struct Operand {
  enum class Kind {
    Name,    // a register, variable, parameter, label or function
    Integer, // bits
    Float,   // real; floatBits: 32 or 64
    Address, // [parts[0] + offset, parts[1], ...]
    Vector,  // {parts}
    List,    // (parts)
    Pair,    // parts[0] | parts[1]
    Sink,    // _
  };
  Kind kind = Kind::Sink;
  bool negated = false; // !p, or -name
  int floatBits = 0;
  std::string_view name;
  uint64_t bits = 0;
  double real = 0;
  int64_t offset = 0;
  std::vector<Operand> parts;
};

struct Statement {
  std::string_view text; // without the guard and the semicolon
  int line = 0;
  int scope = 0;
  std::string_view guard; // empty: no guard
  bool guardNegated = false;
  std::string_view opcode; // with its qualifiers
  std::vector<Operand> operands;
};

/// .reg .type name, or name<count>.
struct Register {
  int scope = 0;
  std::string_view name;
  int count = -1; // registers name0, name1, ...; -1: a single one
  Type type = Type::None;
};

struct Variable {
  struct Relocation {
    uint64_t at; // offset in `bytes`
    std::string_view symbol;
    int64_t offset;
    bool generic;
  };
  int scope = 0;
  Space space = Space::Generic;
  std::string_view name;
  uint64_t size = 0; // 0: .extern .shared name[]
  uint64_t align = 1;
  bool external = false;
  std::vector<uint8_t> bytes; // the initialiser; the rest is zero
  std::vector<Relocation> relocations;
};

struct Label {
  int scope;
  std::string_view name;
  size_t statement;
};

/// name: .branchtargets labels;
struct BranchTargets {
  int scope;
  std::string_view name;
  std::vector<std::string_view> labels;
};

struct Function {
  std::string_view name;
  bool entry = false;
  bool defined = false;
  int line = 0;
  std::vector<Variable> results, parameters;
  std::vector<int> scopes; // the parent of each scope; -1 for the outermost
  std::vector<Register> registers;
  std::vector<Variable> variables;
  std::vector<Label> labels;
  std::vector<BranchTargets> targets;
  std::vector<Statement> statements;

  // Performance-tuning and cluster directives; 0 if absent.
  uint32_t maxThreads[3] = {0, 0, 0};
  uint32_t requiredThreads[3] = {0, 0, 0};
  uint32_t clusterSize[3] = {0, 0, 0};
  uint32_t minBlocks = 0, maxRegisters = 0;
  bool explicitCluster = false, blocksAreClusters = false;
};

struct Module {
  std::string source;
  int versionMajor = 0, versionMinor = 0;
  std::string target; // sm_90a
  std::vector<Variable> variables;
  std::vector<std::unique_ptr<Function>> functions;
};

} // namespace syntax

/// Throws a Fault whose message names the line.
std::unique_ptr<syntax::Module> parsePtx(std::string source);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_PTX_SYNTAX_H
