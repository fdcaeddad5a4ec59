//===- program.h - PTX made ready to execute --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A module after decoding: every instruction names the function that executes
// it, and its operands are slots of the executing thread's frame. A frame is an
// array of 32-bit words: a scratch area for results that nobody wants, the
// function's registers, its constants and its special registers. What is wider
// takes two or four words, aligned.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_PROGRAM_H
#define MOE_CUDA_DOUBLE_PROGRAM_H

#include "ptx_syntax.h"

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace moe::gpu {

struct Thread;
struct Instruction;
struct Function;

/// Whether the thread goes on with its next instruction or has to wait.
enum class Step : uint8_t { Go, Stop };

using Handler = Step (*)(Thread &, const Instruction &);

struct Instruction {
  Handler run = nullptr;
  int32_t guard = -1; // slot of a predicate; -1 without one
  uint8_t guardNegated = 0;
  uint8_t flags[7] = {};                      // what they mean is up to `run`
  uint32_t d = 0, a = 0, b = 0, c = 0, e = 0; // slots; 0 where not used
  uint32_t count = 0;                         // of `list`
  int64_t offset = 0;
  const uint32_t *list = nullptr;      // slots of vector operands
  const Instruction *target = nullptr; // of a branch
  const void *data = nullptr;          // anything else
  uint32_t statement = 0;
  uint32_t site = 0; // number of this access to global memory in the module
};

/// Words at the start of each frame that results without a register go to.
constexpr uint32_t scratchWords = 4;

/// PTX ISA 10 "Special Registers", those that keep their value; and what else
/// differs from thread to thread or launch to launch but not while it runs.
enum class Special : uint8_t {
  TidX,
  TidY,
  TidZ,
  NtidX,
  NtidY,
  NtidZ,
  CtaidX,
  CtaidY,
  CtaidZ,
  NctaidX,
  NctaidY,
  NctaidZ,
  LaneId,
  WarpId,
  NwarpId,
  SmId,
  NsmId,
  GridId,
  IsExplicitCluster,
  ClusterIdX,
  ClusterIdY,
  ClusterIdZ,
  NclusterIdX,
  NclusterIdY,
  NclusterIdZ,
  ClusterCtaidX,
  ClusterCtaidY,
  ClusterCtaidZ,
  ClusterNctaidX,
  ClusterNctaidY,
  ClusterNctaidZ,
  ClusterCtarank,
  ClusterNctarank,
  LanemaskEq,
  LanemaskLe,
  LanemaskLt,
  LanemaskGe,
  LanemaskGt,
  DynamicSmemSize,
  TotalSmemSize,
  LocalBase,     // where the function's variables are in local memory
  SharedAddress, // of variable `index`
};

struct SpecialUse {
  Special which;
  uint32_t index;
  uint32_t slot;
};

/// A place in a function's part of local memory: its .local variables, its
/// formal parameters and results, and those of the functions that it calls.
struct LocalVariable {
  uint32_t offset, size;
};

struct CallSite {
  const Function *callee = nullptr;
  struct Copy {
    uint32_t caller, callee, size; // offsets in the frames' local memory
  };
  std::vector<Copy> arguments, results;
};

struct Parameter {
  uint32_t offset, size;
};

struct Function {
  std::string name;
  bool entry = false;
  const syntax::Function *source = nullptr;
  std::vector<Instruction> code;
  uint32_t registerEnd = 0;   // the slots of registers are below
  std::vector<uint32_t> tail; // the frame from there on, but for the specials
  std::vector<SpecialUse> specials;
  uint32_t slots() const {
    return registerEnd + static_cast<uint32_t>(tail.size());
  }
  uint32_t localBytes = 0;
  std::vector<LocalVariable> parameters, results; // of a function
  std::vector<Parameter> kernelParameters;        // of an entry
  uint32_t parameterBytes = 0;

  /// Shared variables that it or its callees name.
  std::vector<uint32_t> sharedVariables;
  std::vector<const Function *> callees;

  // What instructions point to.
  std::deque<std::vector<uint32_t>> lists;
  std::deque<CallSite> calls;
  std::deque<std::vector<const Instruction *>> tables;
  std::deque<std::shared_ptr<const void>> data;

  const uint32_t *keep(std::vector<uint32_t> list) {
    lists.push_back(std::move(list));
    return lists.back().data();
  }
};

struct SharedVariable {
  std::string name;
  uint32_t size, align;
  bool dynamic;
};

/// Where an entry's shared variables are, after what the system takes.
struct SharedLayout {
  std::map<uint32_t, uint32_t> offsets;
  uint32_t staticBytes = 0;
  uint32_t dynamicAt = 0; // from the first byte that a block may use
};

struct GlobalVariable {
  uint64_t address;
  uint64_t size;
  bool constant;
};

struct Module {
  std::unique_ptr<syntax::Module> syntax;
  int arch = 0;              // 90 for sm_90 and sm_90a
  bool archSpecific = false; // sm_90a
  std::vector<SharedVariable> shared;
  std::map<std::string, GlobalVariable, std::less<>> globals;
  std::map<std::string, std::unique_ptr<Function>, std::less<>> functions;
  uint32_t sites = 0;

  const syntax::Statement &statement(const Function &function,
                                     const Instruction &instruction) const {
    return function.source->statements[instruction.statement];
  }
  SharedLayout layout(const Function &entry) const;
};

/// Where the variables of .global and .const go while a module is decoded.
class GlobalAllocator {
public:
  virtual ~GlobalAllocator() = default;
  virtual uint64_t allocate(uint64_t bytes, uint64_t align) = 0;
  virtual void write(uint64_t address, const void *bytes, uint64_t count) = 0;
};

/// Throws Fault with CUDA_ERROR_INVALID_PTX.
std::unique_ptr<Module> decodeModule(std::unique_ptr<syntax::Module> syntax,
                                     GlobalAllocator &allocator);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_PROGRAM_H
