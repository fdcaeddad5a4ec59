//===- op_control.cpp - Control flow --------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.12 "Control Flow Instructions" and 9.7.19 "Miscellaneous".
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"

using namespace moe::gpu;
using syntax::Operand;

namespace {

Step branch(Thread &thread, const Instruction &i) {
  thread.pc = i.target;
  return Step::Go;
}

Step branchIndexed(Thread &thread, const Instruction &i) {
  const auto &table =
      *static_cast<const std::vector<const Instruction *> *>(i.data);
  uint32_t index = thread.get<uint32_t>(i.a);
  if (index >= table.size())
    undefined("brx.idx with index ", index, " into ", table.size(), " labels");
  thread.pc = table[index];
  return Step::Go;
}

Step call(Thread &thread, const Instruction &i) {
  return thread.machine().call(thread, i);
}

Step ret(Thread &thread, const Instruction &) {
  return thread.machine().back(thread);
}

Step exit(Thread &thread, const Instruction &) {
  thread.machine().exit(thread);
  return Step::Stop;
}

Step trap(Thread &, const Instruction &) {
  fail(CUDA_ERROR_ILLEGAL_INSTRUCTION, "the kernel executes a trap");
}

Step yield(Thread &thread, const Instruction &) {
  return thread.machine().yield();
}

/// Waits until the launch before has ended and its memory can be seen.
Step waitForLaunch(Thread &thread, const Instruction &i) {
  Machine &machine = thread.machine();
  if (machine.dependenciesEnded(thread.launch(), thread.warp->clock))
    return Step::Go;
  return machine.wait(thread, i, State::Launch);
}

Step launchDependents(Thread &thread, const Instruction &) {
  thread.machine().trigger(*thread.block, thread.warp->clock.launches);
  return Step::Go;
}

Step nothing(Thread &, const Instruction &) { return Step::Go; }

} // namespace

static const Instruction *label(Decoder &d, std::string_view name) {
  const Instruction *target = d.function.findLabel(name, d.statement.scope);
  if (!target)
    d.error("unknown label '", name, "'");
  return target;
}

static void decodeBranch(Decoder &d) {
  d.has(".uni");
  d.expectOperands(1, 1);
  d.out.target = label(d, d.operand(0).name);
  d.out.run = branch;
}

static void decodeBrx(Decoder &d) {
  d.has(".uni");
  d.need(".idx");
  d.expectOperands(2, 2);
  d.out.a = d.source(0, Type::U32);
  const syntax::BranchTargets *targets =
      d.function.findTargets(d.operand(1).name, d.statement.scope);
  if (!targets)
    d.error("unknown list of labels");
  std::vector<const Instruction *> table;
  for (std::string_view name : targets->labels)
    table.push_back(label(d, name));
  d.function.result.tables.push_back(std::move(table));
  d.out.data = &d.function.result.tables.back();
  d.out.run = branchIndexed;
}

/// Decodes call (results), function, (arguments);
static void decodeCall(Decoder &d) {
  d.has(".uni");
  size_t at = 0;
  const std::vector<Operand> *results = nullptr, *arguments = nullptr;
  if (d.operands() > 0 && d.operand(0).kind == Operand::Kind::List)
    results = &d.operand(at++).parts;
  if (at >= d.operands() || d.operand(at).kind != Operand::Kind::Name)
    d.error("expected a function");
  std::string_view name = d.operand(at++).name;
  if (at < d.operands() && d.operand(at).kind == Operand::Kind::List)
    arguments = &d.operand(at++).parts;
  if (at != d.operands())
    d.error("indirect calls are not supported");
  auto found = d.function.module.functions.find(name);
  if (found == d.function.module.functions.end() || found->second->entry)
    d.error("unknown function '", name, "'");
  Function &callee = *found->second;

  CallSite site;
  site.callee = &callee;
  auto connect = [&](const std::vector<Operand> *operands,
                     const std::vector<LocalVariable> &formal,
                     std::vector<CallSite::Copy> &copies) {
    if ((operands ? operands->size() : 0) != formal.size())
      d.error("wrong number of arguments of '", name, "'");
    for (size_t k = 0; k < formal.size(); ++k) {
      const LocalVariable *actual =
          d.function.findLocal((*operands)[k].name, d.statement.scope);
      if (!actual || actual->size != formal[k].size)
        d.error("argument ", k + 1, " does not fit");
      copies.push_back({actual->offset, formal[k].offset, actual->size});
    }
  };
  connect(arguments, callee.parameters, site.arguments);
  connect(results, callee.results, site.results);
  d.function.result.callees.push_back(&callee);
  d.function.result.calls.push_back(std::move(site));
  d.out.data = &d.function.result.calls.back();
  d.out.run = call;
}

static void decodeReturn(Decoder &d) {
  d.has(".uni");
  d.expectOperands(0, 0);
  d.out.run = ret;
}

static void decodeExit(Decoder &d) {
  d.expectOperands(0, 0);
  d.out.run = exit;
}

static void decodeTrap(Decoder &d) {
  d.expectOperands(0, 0);
  d.out.run = trap;
}

static void decodeSleep(Decoder &d) {
  d.need(".u32");
  d.expectOperands(1, 1);
  d.source(0, Type::U32);
  d.out.run = yield;
}

static void decodeMarker(Decoder &d) {
  d.has(".mask");
  d.out.run = nothing;
}

static void decodeDependency(Decoder &d) {
  bool waits = d.has(".wait");
  if (!waits)
    d.need(".launch_dependents");
  d.expectOperands(0, 0);
  d.out.run = waits ? waitForLaunch : launchDependents;
}

static constexpr DecodeEntry entries[] = {
    {"bra", decodeBranch},     {"brx", decodeBrx},
    {"call", decodeCall},      {"ret", decodeReturn},
    {"exit", decodeExit},      {"trap", decodeTrap},
    {"brkpt", decodeTrap},     {"nanosleep", decodeSleep},
    {"pmevent", decodeMarker}, {"griddepcontrol", decodeDependency},
};
const DecodeTable moe::gpu::controlInstructions = tableOf(entries);
