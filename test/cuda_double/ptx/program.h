//===- program.h - Decoded PTX ----------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A module after decoding: every instruction has a handler that executes it,
// and its operands are slots of the executing thread's frame. A frame is an
// array of 32-bit words: a scratch area for discarded results, the function's
// registers, its constants and its special registers. Values of 64 and 128 bits
// take two or four aligned words.
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

/// Whether the thread continues with its next instruction or stops.
enum class Step : uint8_t { Go, Stop };

using Handler = Step (*)(Thread &, const Instruction &);

/// How an instruction accesses registers that a wgmma uses.
enum class ProductUse : uint8_t { None, Access, Move };

struct Instruction {
  Handler run = nullptr;
  int32_t guard = -1; // slot of a predicate; -1 without one
  uint8_t guardNegated = 0;
  uint8_t flags[7] = {};                      // defined by each handler
  uint32_t d = 0, a = 0, b = 0, c = 0, e = 0; // slots; 0 where not used
  uint32_t count = 0;                         // of `list`
  ProductUse products = ProductUse::None;
  int64_t offset = 0;
  const uint32_t *list = nullptr;      // slots of vector operands
  const Instruction *target = nullptr; // of a branch
  const void *data = nullptr;          // anything else
  uint32_t statement = 0;
  uint32_t site = 0; // index of this global memory access in the module
};

/// The order and scope of an access or fence, as bits of a flag.
enum Order : uint8_t {
  StrongOrder = 1,
  AcquireOrder = 2,
  ReleaseOrder = 4,
  DeviceScope = 8, // .gpu or .sys
};

/// Words at the start of each frame for discarded results.
constexpr uint32_t scratchWords = 4;

/// The special registers (PTX ISA 10) that are constant while a thread runs,
/// and other values that are constant for a thread of one launch.
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
  LocalBase,     // start of the function's part of local memory
  SharedAddress, // address of shared variable `index`
};

struct SpecialUse {
  Special which;
  uint32_t index;
  uint32_t slot;
};

/// A variable in a function's part of local memory: a .local variable, a formal
/// parameter or result, or an argument or result of a call.
struct LocalVariable {
  uint32_t offset, size;
};

struct CallSite {
  const Function *callee = nullptr;
  struct Copy {
    uint32_t caller, callee, size; // offsets in the local memory of each
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
  uint32_t registerEnd = 0; // end of the slots of registers
  std::vector<uint32_t>
      tail; // initial words from there; specials are filled later
  std::vector<SpecialUse> specials;
  uint32_t slots() const {
    return registerEnd + static_cast<uint32_t>(tail.size());
  }
  std::vector<bool> productRegisters; // slots that a wgmma uses, or none
  uint32_t localBytes = 0;
  std::vector<LocalVariable> parameters, results; // of a function
  std::vector<Parameter> kernelParameters;        // of an entry
  uint32_t parameterBytes = 0;

  /// The shared variables that it or its callees refer to.
  std::vector<uint32_t> sharedVariables;
  std::vector<const Function *> callees;

  // Storage of the data that instructions point to.
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

/// The offsets of an entry's shared variables from the end of the system's
/// part.
struct SharedLayout {
  std::map<uint32_t, uint32_t> offsets;
  uint32_t staticBytes = 0;
  uint32_t dynamicAt = 0; // offset of dynamic shared memory
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
  /// `tight`: the address of dynamic shared memory is a multiple of the
  /// alignment that it asks for, and of no higher power of 2, up to 1 KiB.
  SharedLayout layout(const Function &entry, bool tight = false) const;
};

/// Allocates the .global and .const variables of a module.
class GlobalAllocator {
public:
  virtual ~GlobalAllocator() = default;
  virtual uint64_t allocate(uint64_t bytes, uint64_t align) = 0;
  virtual void write(uint64_t address, const void *bytes, uint64_t count) = 0;
};

/// Throws Fault with CUDA_ERROR_INVALID_PTX on an error.
std::unique_ptr<Module> decodeModule(std::unique_ptr<syntax::Module> syntax,
                                     GlobalAllocator &allocator);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_PROGRAM_H
