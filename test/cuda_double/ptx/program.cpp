//===- program.cpp - Decode functions and modules -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "program.h"
#include "decoder.h"
#include "machine/machine.h"

#include <algorithm>
#include <cstdlib>
#include <set>

using namespace moe::gpu;

static uint64_t alignTo(uint64_t value, uint64_t align) {
  return (value + align - 1) / align * align;
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

FunctionDecoder::FunctionDecoder(Module &module, const syntax::Function &source,
                                 Function &result)
    : module(module), source(source), result(result) {}

template <typename Table>
const typename Table::mapped_type *FunctionDecoder::find(const Table &table,
                                                         std::string_view name,
                                                         int scope) const {
  for (; scope >= 0; scope = source.scopes[static_cast<size_t>(scope)])
    if (auto found = table.find({scope, name}); found != table.end())
      return &found->second;
  return nullptr;
}

const RegisterInfo *FunctionDecoder::findRegister(std::string_view name,
                                                  int scope) const {
  return find(registers, name, scope);
}

const LocalVariable *FunctionDecoder::findLocal(std::string_view name,
                                                int scope) const {
  return find(locals, name, scope);
}

const Instruction *FunctionDecoder::findLabel(std::string_view name,
                                              int scope) const {
  const size_t *statement = find(labels, name, scope);
  return statement ? &result.code[*statement] : nullptr;
}

const syntax::BranchTargets *FunctionDecoder::findTargets(std::string_view name,
                                                          int scope) const {
  for (const syntax::BranchTargets &targets : source.targets)
    if (targets.name == name && targets.scope <= scope)
      return &targets;
  return nullptr;
}

void FunctionDecoder::declareRegisters() {
  uint32_t next = scratchWords;
  auto declare = [&](int scope, std::string_view name, Type type) {
    uint32_t words = bitsOf(type) <= 32 ? 1 : bitsOf(type) / 32;
    next = static_cast<uint32_t>(alignTo(next, words));
    registers[{scope, name}] = {next, type};
    next += words;
  };
  for (const syntax::Register &declared : source.registers) {
    if (declared.count < 0) {
      declare(declared.scope, declared.name, declared.type);
      continue;
    }
    for (int i = 0; i < declared.count; ++i) {
      registerNames.push_back(std::string(declared.name) + std::to_string(i));
      declare(declared.scope, registerNames.back(), declared.type);
    }
  }
  result.registerEnd = static_cast<uint32_t>(alignTo(next, 4));
}

void FunctionDecoder::declareVariables() {
  uint64_t local = 0;
  auto allocate = [&](const syntax::Variable &variable) {
    local = alignTo(local, variable.align);
    LocalVariable result = {static_cast<uint32_t>(local),
                            static_cast<uint32_t>(variable.size)};
    locals[{variable.scope, variable.name}] = result;
    local += variable.size;
    return result;
  };
  if (source.entry) {
    uint64_t at = 0;
    for (const syntax::Variable &variable : source.parameters) {
      at = alignTo(at, variable.align);
      Parameter parameter = {static_cast<uint32_t>(at),
                             static_cast<uint32_t>(variable.size)};
      parameters[variable.name] = parameter;
      result.kernelParameters.push_back(parameter);
      at += variable.size;
    }
    result.parameterBytes = static_cast<uint32_t>(at);
  } else {
    for (const syntax::Variable &variable : source.parameters)
      result.parameters.push_back(allocate(variable));
    for (const syntax::Variable &variable : source.results)
      result.results.push_back(allocate(variable));
  }
  for (const syntax::Variable &variable : source.variables)
    if (variable.space == Space::Local || variable.space == Space::Param)
      allocate(variable);
  result.localBytes = static_cast<uint32_t>(alignTo(local, 16));
  for (const syntax::Label &label : source.labels)
    labels[{label.scope, label.name}] = label.statement;
}

uint32_t FunctionDecoder::appendToTail(uint64_t bits, int width) {
  std::vector<uint32_t> &tail = result.tail;
  size_t words = width <= 32 ? 1 : 2;
  while (tail.size() % words != 0)
    tail.push_back(0);
  uint32_t slot = result.slots();
  tail.push_back(static_cast<uint32_t>(bits));
  if (words == 2)
    tail.push_back(static_cast<uint32_t>(bits >> 32));
  return slot;
}

uint32_t FunctionDecoder::constant(uint64_t bits, int width) {
  width = width <= 32 ? 32 : 64;
  if (width == 32)
    bits &= 0xFFFFFFFF;
  auto [entry, added] = constants.try_emplace({bits, width}, 0);
  if (added)
    entry->second = appendToTail(bits, width);
  return entry->second;
}

uint32_t FunctionDecoder::special(Special which, uint32_t index) {
  auto [entry, added] =
      specials.try_emplace({static_cast<int>(which), index}, 0);
  if (added) {
    // All take 64 bits; most use the lower 32 only.
    entry->second = appendToTail(0, 64);
    result.specials.push_back({which, index, entry->second});
  }
  return entry->second;
}

bool FunctionDecoder::findVariable(std::string_view name, int scope,
                                   Decoder::Address &address) {
  if (const LocalVariable *local = findLocal(name, scope)) {
    address = {special(Special::LocalBase, 0), local->offset, false,
               Space::Local};
    return true;
  }
  if (auto found = parameters.find(name); found != parameters.end()) {
    address = {0, found->second.offset, false, Space::Param};
    return true;
  }
  if (auto found = module.globals.find(name); found != module.globals.end()) {
    address = {0, static_cast<int64_t>(found->second.address), false,
               found->second.constant ? Space::Const : Space::Global};
    return true;
  }
  for (uint32_t i = 0; i < module.shared.size(); ++i) {
    if (module.shared[i].name != name)
      continue;
    std::vector<uint32_t> &used = result.sharedVariables;
    if (std::find(used.begin(), used.end(), i) == used.end())
      used.push_back(i);
    address = {special(Special::SharedAddress, i), 0, false, Space::Shared};
    return true;
  }
  return false;
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

static DecodeFunction findDecoder(std::string_view name) {
  static const std::map<std::string_view, DecodeFunction> all = [] {
    std::map<std::string_view, DecodeFunction> result;
    for (const DecodeTable *table :
         {&integerInstructions, &bitInstructions, &floatInstructions,
          &convertInstructions, &moveInstructions, &compareInstructions,
          &memoryInstructions, &atomicInstructions, &controlInstructions,
          &barrierInstructions, &warpInstructions, &matrixInstructions,
          &warpgroupInstructions, &mbarrierInstructions, &copyInstructions})
      for (size_t i = 0; i < table->count; ++i)
        result[table->entries[i].name] = table->entries[i].decode;
    return result;
  }();
  auto found = all.find(name);
  return found == all.end() ? nullptr : found->second;
}

void FunctionDecoder::declare() {
  declareRegisters();
  result.code.resize(source.statements.size() + 1);
  declareVariables();
}

void FunctionDecoder::decode() {
  for (size_t i = 0; i < source.statements.size(); ++i) {
    const syntax::Statement &statement = source.statements[i];
    Instruction &instruction = result.code[i];
    instruction.statement = static_cast<uint32_t>(i);
    Decoder decoder(*this, statement, instruction);
    DecodeFunction decode = findDecoder(decoder.name());
    if (!decode)
      decoder.error("unknown instruction");
    if (!statement.guard.empty()) {
      const RegisterInfo *guard =
          findRegister(statement.guard, statement.scope);
      if (!guard || guard->type != Type::Pred)
        decoder.error("'", statement.guard, "' is no predicate");
      instruction.guard = static_cast<int32_t>(guard->slot);
      instruction.guardNegated = statement.guardNegated;
    }
    decode(decoder);
    decoder.finish();
  }
  // Append a return after the last instruction.
  static const syntax::Statement end = {"ret", 0, 0, {}, false, "ret", {}};
  Instruction &last = result.code.back();
  last.statement = static_cast<uint32_t>(
      source.statements.empty() ? 0 : result.code.size() - 2);
  Decoder decoder(*this, end, last);
  findDecoder("ret")(decoder);
  markProducts(result);
}

//===----------------------------------------------------------------------===//
// Modules
//===----------------------------------------------------------------------===//

/// Parses e.g. sm_90a to 90 and true.
static void parseTarget(Module &module) {
  const std::string &target = module.syntax->target;
  char *end = nullptr;
  if (target.compare(0, 3, "sm_") == 0)
    module.arch = static_cast<int>(std::strtol(target.c_str() + 3, &end, 10));
  bool known =
      end && (*end == '\0' || ((*end == 'a' || *end == 'f') && end[1] == '\0'));
  if (!known)
    fail(CUDA_ERROR_INVALID_PTX, "unknown target '", target, "'");
  module.archSpecific = *end != '\0';
}

static void declareVariables(Module &module, GlobalAllocator &allocator) {
  std::vector<const syntax::Variable *> shared, global;
  for (const syntax::Variable &variable : module.syntax->variables)
    (variable.space == Space::Shared ? shared : global).push_back(&variable);
  // Module-level storage declared in a function, e.g. static shared memory.
  for (const auto &function : module.syntax->functions)
    for (const syntax::Variable &variable : function->variables)
      if (variable.space == Space::Shared)
        shared.push_back(&variable);
      else if (variable.space != Space::Local && variable.space != Space::Param)
        global.push_back(&variable);

  for (const syntax::Variable *variable : shared)
    module.shared.push_back(
        {std::string(variable->name), static_cast<uint32_t>(variable->size),
         static_cast<uint32_t>(variable->align), variable->size == 0});
  for (const syntax::Variable *variable : global) {
    if (variable->external)
      fail(CUDA_ERROR_INVALID_PTX, "unresolved variable '", variable->name,
           "'");
    uint64_t address = allocator.allocate(std::max<uint64_t>(variable->size, 1),
                                          variable->align);
    module.globals[std::string(variable->name)] = {
        address, variable->size, variable->space == Space::Const};
  }
  for (const syntax::Variable *variable : global) {
    std::vector<uint8_t> bytes = variable->bytes;
    bytes.resize(variable->size);
    for (const syntax::Variable::Relocation &relocation :
         variable->relocations) {
      auto symbol = module.globals.find(relocation.symbol);
      if (symbol == module.globals.end() || relocation.at + 8 > bytes.size())
        fail(CUDA_ERROR_INVALID_PTX, "initialiser with '", relocation.symbol,
             "'");
      uint64_t value =
          symbol->second.address + static_cast<uint64_t>(relocation.offset);
      for (int i = 0; i < 8; ++i)
        bytes[relocation.at + i] = static_cast<uint8_t>(value >> (8 * i));
    }
    allocator.write(module.globals.find(variable->name)->second.address,
                    bytes.data(), bytes.size());
  }
}

std::unique_ptr<Module>
moe::gpu::decodeModule(std::unique_ptr<syntax::Module> syntax,
                       GlobalAllocator &allocator) {
  auto module = std::make_unique<Module>();
  module->syntax = std::move(syntax);
  parseTarget(*module);
  declareVariables(*module, allocator);
  // Declare all functions first: calls refer to functions and parameters.
  std::vector<std::unique_ptr<FunctionDecoder>> decoders;
  for (const auto &source : module->syntax->functions) {
    auto [entry, added] =
        module->functions.try_emplace(std::string(source->name));
    if (added)
      entry->second = std::make_unique<Function>();
    Function &function = *entry->second;
    if (!source->defined && !added)
      continue;
    function.name = source->name;
    function.entry = source->entry;
    function.source = source.get();
  }
  for (auto &[name, function] : module->functions) {
    decoders.push_back(std::make_unique<FunctionDecoder>(
        *module, *function->source, *function));
    decoders.back()->declare();
  }
  for (auto &decoder : decoders)
    if (decoder->source.defined)
      decoder->decode();
  for (auto &[name, function] : module->functions)
    for (const Function *callee : function->callees)
      if (!callee->source->defined)
        fail(CUDA_ERROR_INVALID_PTX, "unresolved function '", callee->name,
             "'");
  return module;
}

SharedLayout Module::layout(const Function &entry, bool tight) const {
  std::set<uint32_t> used;
  std::set<const Function *> seen;
  std::vector<const Function *> work = {&entry};
  while (!work.empty()) {
    const Function *function = work.back();
    work.pop_back();
    if (!seen.insert(function).second)
      continue;
    used.insert(function->sharedVariables.begin(),
                function->sharedVariables.end());
    work.insert(work.end(), function->callees.begin(), function->callees.end());
  }
  SharedLayout layout;
  uint64_t at = 0, dynamicAlign = 16;
  bool dynamic = false;
  for (uint32_t i : used) {
    if (shared[i].dynamic) {
      dynamic = true;
      dynamicAlign = std::max<uint64_t>(dynamicAlign, shared[i].align);
      continue;
    }
    at = alignTo(at, shared[i].align);
    layout.offsets[i] = static_cast<uint32_t>(at);
    at += shared[i].size;
  }
  layout.staticBytes = static_cast<uint32_t>(at);
  // Offsets count from the end of the 1 KiB that the system uses.
  layout.dynamicAt =
      static_cast<uint32_t>(alignTo(at + 1024, dynamicAlign) - 1024);
  if (at == 0 && dynamicAlign <= 1024)
    layout.dynamicAt = 0;
  if (tight && dynamic && dynamicAlign < 1024 &&
      layout.dynamicAt / dynamicAlign % 2 == 0)
    layout.dynamicAt += static_cast<uint32_t>(dynamicAlign);
  for (uint32_t i : used)
    if (shared[i].dynamic)
      layout.offsets[i] = layout.dynamicAt;
  return layout;
}
