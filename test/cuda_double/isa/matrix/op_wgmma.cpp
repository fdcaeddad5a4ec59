//===- op_wgmma.cpp - Asynchronous products of a warpgroup ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.15 "Asynchronous Warpgroup Level Matrix Multiply-Accumulate
// Instructions": issue, wait and decoding; wgmma_product.cpp has what one
// computes.
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"
#include "wgmma_product.h"

#include <algorithm>

using namespace moe::gpu;

namespace {

//===----------------------------------------------------------------------===//
// Issue and wait
//===----------------------------------------------------------------------===//

/// Adds `by` to the in-flight counts of the registers of an operation.
void count(Warp &warp, const Instruction &i, int by) {
  WgmmaQueue &queue = warp.wgmma;
  if (queue.inFlight.empty())
    queue.inFlight.resize(warp.threads->function->slots());
  for (uint32_t k = 0; k < i.count; ++k)
    queue.inFlight[i.list[k]] =
        static_cast<uint16_t>(queue.inFlight[i.list[k]] + by);
  queue.inFlightCount += static_cast<uint64_t>(static_cast<int64_t>(by));
}

/// Faults if an operation shares registers with one in flight, except as the
/// accumulators of the same shape.
void checkOverlap(const Warp &warp, const WarpgroupQueue &queue,
                  const Instruction &i) {
  if (warp.wgmma.inFlightCount == 0)
    return;
  const WgmmaShape &shape = shapeOf(i);
  const Instruction *last = nullptr;
  for (uint64_t n = warp.wgmma.waited; n < warp.wgmma.issued; ++n) {
    const Instruction &other = *queue.operations[n - queue.first].at;
    if (&other == last)
      continue;
    last = &other;
    const WgmmaShape &its = shapeOf(other);
    bool same = its.accumulators == shape.accumulators &&
                std::equal(i.list, i.list + shape.accumulators, other.list);
    for (uint32_t x = 0; x < i.count; ++x) {
      bool accumulator = x < shape.accumulators;
      uint32_t y = accumulator && same ? its.accumulators : 0;
      uint32_t end = accumulator ? other.count : its.accumulators;
      for (; y < end; ++y)
        if (i.list[x] == other.list[y])
          undefined("shares a register with a wgmma under way, but not as an "
                    "accumulator of the same shape");
    }
  }
}

void issue(Warp &warp, const Instruction &i, uint32_t) {
  const WgmmaShape &shape = shapeOf(i);
  Block &block = *warp.block;
  uint32_t group = warp.index / 4;
  WarpgroupQueue &queue = block.warpgroups[group];
  if (block.warps.size() < group * 4 + 4 ||
      block.warps[group * 4 + 3].exists != 0xFFFFFFFF)
    undefined("wgmma in a warpgroup of fewer than 128 threads");
  if (!warp.wgmma.fenced)
    undefined("the first wgmma of a warp needs a wgmma.fence before it");
  if (!warp.wgmma.touched.empty())
    for (uint32_t k = 0; k < i.count; ++k)
      if (warp.wgmma.touched[i.list[k]])
        undefined("register ", k,
                  " of it was accessed by another instruction, "
                  "and no wgmma.fence came since");
  if (!warp.threads->callers.empty())
    fail(CUDA_ERROR_NOT_SUPPORTED,
         "wgmma in a function that is called is not modelled");
  checkOverlap(warp, queue, i);

  const Thread &first = warp.threads[0];
  uint64_t a = shape.aInRegisters ? 0 : first.get<uint64_t>(i.a);
  uint64_t b = first.get<uint64_t>(i.b);
  bool accumulate = first.get<uint32_t>(i.c) != 0;
  if (i.flags[0])
    accumulate = !accumulate;
  for (uint32_t lane = 1; lane < 32; ++lane) {
    const Thread &thread = warp.threads[lane];
    if ((!shape.aInRegisters && thread.get<uint64_t>(i.a) != a) ||
        thread.get<uint64_t>(i.b) != b ||
        (thread.get<uint32_t>(i.c) != 0) != (first.get<uint32_t>(i.c) != 0))
      undefined("lanes 0 and ", lane, " have different descriptors or scale-d");
  }

  uint64_t number = warp.wgmma.issued++;
  if (number == queue.first + queue.operations.size()) {
    Epoch now = Epoch::of(queue.agent, std::min(++queue.time, Epoch::maxTime));
    checkOperands(warp, now, shape, a, b);
    Clock after = warp.clock;
    after.set(now.agent(), now.time());
    queue.operations.push_back(
        {&i, a, b, accumulate, 0, false, std::move(after)});
  }
  WgmmaOperation &operation = queue.operations[number - queue.first];
  if (operation.at != &i || operation.a != a || operation.b != b ||
      operation.accumulate != accumulate)
    undefined("the warps of a warpgroup issue different wgmma: another is at ",
              block.machine->where(first, *operation.at));
  operation.issuedBy |= 1u << (warp.index % 4);
  count(warp, i, 1);
  ++block.machine->effects;

  Machine &machine = *block.machine;
  bool now = machine.settings.immediate() ||
             (machine.settings.random() && machine.random.below(2) == 0);
  if (!now || operation.issuedBy != 15)
    return;
  // Execute in order: an operation may read accumulators of earlier ones.
  for (WgmmaOperation &earlier : queue.operations) {
    if (!earlier.done)
      perform(block, group, earlier);
    if (&earlier == &operation)
      break;
  }
}

Step issueAll(Thread &thread, const Instruction &i) {
  thread.warp->arrive(thread, i, 0xFFFFFFFF, issue);
  return Step::Stop;
}

void fence(Warp &warp, const Instruction &, uint32_t) {
  warp.wgmma.fenced = true;
  std::fill(warp.wgmma.touched.begin(), warp.wgmma.touched.end(), false);
}

void commit(Warp &warp, const Instruction &, uint32_t) {
  warp.wgmma.groups.push_back(warp.wgmma.issued);
}

/// The end of the operations that a wait for all but `left` groups covers.
uint64_t covered(const WgmmaQueue &queue, uint64_t left) {
  if (queue.groups.size() <= left)
    return queue.waited;
  return queue.groups[queue.groups.size() - 1 - left];
}

void finishWait(Warp &warp, const Instruction &i, uint32_t) {
  uint64_t left = static_cast<uint64_t>(i.offset);
  WgmmaQueue &mine = warp.wgmma;
  Block &block = *warp.block;
  uint32_t group = warp.index / 4;
  WarpgroupQueue &queue = block.warpgroups[group];
  uint64_t end = covered(mine, left);
  for (uint64_t n = mine.waited; n < end; ++n) {
    WgmmaOperation &operation = queue.operations[n - queue.first];
    if (!operation.done)
      perform(block, group, operation);
    count(warp, *operation.at, -1);
    warp.acquire(operation.after);
  }
  mine.waited = std::max(mine.waited, end);
  if (mine.groups.size() > left)
    mine.groups.erase(mine.groups.begin(),
                      mine.groups.end() - static_cast<ptrdiff_t>(left));
  // Pop the operations that all four warps have waited for.
  uint64_t all = mine.waited;
  for (uint32_t w = 0; w < 4; ++w)
    all = std::min(all, block.warps[group * 4 + w].wgmma.waited);
  for (; queue.first < all; ++queue.first)
    queue.operations.pop_front();
}

Step waitGroup(Thread &thread, const Instruction &i) {
  // An operation that some warp has yet to issue is not complete.
  Warp &warp = *thread.warp;
  uint64_t end = covered(warp.wgmma, static_cast<uint64_t>(i.offset));
  const WarpgroupQueue &queue = thread.block->warpgroups[warp.index / 4];
  for (uint64_t n = warp.wgmma.waited; n < end; ++n)
    if (queue.operations[n - queue.first].issuedBy != 15)
      return thread.machine().wait(thread, i, State::Warpgroup);
  warp.arrive(thread, i, 0xFFFFFFFF, finishWait);
  return Step::Stop;
}

template <Warp::Collective execute>
Step wholeWarp(Thread &thread, const Instruction &i) {
  return thread.warp->arrive(thread, i, 0xFFFFFFFF, execute);
}

} // namespace

/// Calls `body` with each slot that an instruction may access.
template <typename Body> static void forSlots(const Instruction &i, Body body) {
  for (uint32_t slot : {i.d, i.a, i.b, i.c, i.e})
    if (slot != 0)
      body(slot);
  if (i.list)
    for (uint32_t k = 0; k < i.count; ++k)
      body(i.list[k]);
}

void moe::gpu::noteTouch(const Thread &thread, const Instruction &i) {
  WgmmaQueue &queue = thread.warp->wgmma;
  const std::vector<bool> &products = thread.function->productRegisters;
  if (queue.inFlightCount != 0)
    forSlots(i, [&](uint32_t slot) {
      if (slot < queue.inFlight.size() && queue.inFlight[slot] != 0)
        undefined("touches a register of a wgmma that is under way: "
                  "wgmma.wait_group has to come before");
    });
  if (queue.touched.empty())
    queue.touched.resize(products.size());
  if (i.products == ProductUse::Move && products[i.d]) {
    queue.touched[i.d] = products[i.a] ? queue.touched[i.a] : true;
    return;
  }
  forSlots(i, [&](uint32_t slot) {
    if (slot < products.size() && products[slot])
      queue.touched[slot] = true;
  });
}

void moe::gpu::markProducts(Function &function) {
  std::vector<bool> &products = function.productRegisters;
  auto isMove = [&](size_t k) {
    const Instruction &i = function.code[k];
    return k < function.source->statements.size() && i.d != 0 && i.a != 0 &&
           !i.list &&
           function.source->statements[k].opcode.substr(0, 4) == "mov.";
  };
  for (const Instruction &i : function.code)
    if (i.run == issueAll) {
      products.resize(function.slots());
      for (uint32_t k = 0; k < i.count; ++k)
        products[i.list[k]] = true;
    }
  if (products.empty())
    return;
  // LLVM copies operands that are tied to results; ptxas assigns both the same
  // register. So a copy is no access, but what it copies may be one.
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t k = 0; k < function.code.size(); ++k) {
      const Instruction &i = function.code[k];
      if (isMove(k) && products[i.d] && i.a < function.registerEnd &&
          !products[i.a])
        changed = products[i.a] = true;
    }
  }
  for (size_t k = 0; k < function.code.size(); ++k) {
    Instruction &i = function.code[k];
    if (i.run == issueAll)
      continue;
    forSlots(i, [&](uint32_t slot) {
      if (slot < products.size() && products[slot])
        i.products = isMove(k) ? ProductUse::Move : ProductUse::Access;
    });
  }
}

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

static void decodeProduct(Decoder &d) {
  auto shape = std::make_unique<WgmmaShape>();
  std::optional<std::string_view> size = d.startingWith(".m64n");
  if (!size)
    d.error("unknown shape");
  std::string words(*size);
  int k = 0;
  if (std::sscanf(words.c_str(), "%dk%d", &shape->n, &k) != 2)
    d.error("unknown shape");
  shape->saturate = d.has(".satfinite");
  shape->d = d.type();
  shape->a = d.type();
  shape->b = d.type();
  bool halves = shape->a == Type::F16 || shape->a == Type::BF16;
  bool bytes = shape->a == Type::E4M3 || shape->a == Type::E5M2;
  bool integers = shape->a == Type::S8 || shape->a == Type::U8;
  bool supported =
      (halves ? shape->a == shape->b : true) &&
      (halves || bytes || integers || shape->a == Type::TF32) &&
      bitsOf(shape->a) == bitsOf(shape->b) && k == shape->k() &&
      shape->n >= 8 && shape->n <= wgmmaMaxN && shape->n % 8 == 0 &&
      (integers ? shape->d == Type::S32
                : shape->d == Type::F32 ||
                      (shape->d == Type::F16 && shape->a != Type::BF16 &&
                       shape->a != Type::TF32));
  if (!supported)
    d.error("types or shape are not supported");

  d.expectOperands(4, 8);
  std::vector<uint32_t> list = d.destinations(0, Type::B32);
  shape->accumulators = static_cast<uint32_t>(
      shape->d == Type::F16 ? shape->n / 4 : shape->n / 2);
  if (list.size() != shape->accumulators)
    d.error("expected ", shape->accumulators, " accumulators");
  shape->aInRegisters = d.isVector(1);
  if (shape->aInRegisters) {
    std::vector<uint32_t> fragments = d.sources(1, Type::B32);
    if (fragments.size() != 4)
      d.error("expected 4 registers of A");
    shape->fragments = 4;
    list.insert(list.end(), fragments.begin(), fragments.end());
  } else {
    d.out.a = d.source(1, Type::B64);
  }
  d.out.b = d.source(2, Type::B64);
  d.out.c = d.predicate(d.operand(3), &d.out.flags[0]);
  // Integers have no scales; only halves can be transposed.
  size_t next = 4;
  if (!integers) {
    int64_t scales[2] = {d.immediate(4), d.immediate(5)};
    for (int64_t scale : scales)
      if (scale != 1 && scale != -1)
        d.error("scales are 1 or -1");
    shape->negateA = scales[0] < 0;
    shape->negateB = scales[1] < 0;
    next = 6;
  }
  if (halves) {
    if (!shape->aInRegisters)
      shape->transposeA = d.immediate(next++) != 0;
    shape->transposeB = d.immediate(next++) != 0;
  }
  d.expectOperands(next, next);
  d.out.count = static_cast<uint32_t>(list.size());
  d.out.list = d.keep(std::move(list));
  d.out.data = d.own(std::move(shape));
  d.out.run = issueAll;
}

static void decodeWgmma(Decoder &d) {
  if (d.function.module.arch != 90 || !d.function.module.archSpecific)
    d.error("wgmma needs .target sm_90a");
  bool product = d.has(".mma_async");
  d.need(".sync");
  d.need(".aligned");
  if (product) {
    decodeProduct(d);
  } else if (d.has(".fence")) {
    d.expectOperands(0, 0);
    d.out.run = wholeWarp<fence>;
  } else if (d.has(".commit_group")) {
    d.expectOperands(0, 0);
    d.out.run = wholeWarp<commit>;
  } else {
    d.need(".wait_group");
    d.expectOperands(1, 1);
    d.out.offset = d.immediate(0);
    d.out.run = waitGroup;
  }
}

static constexpr DecodeEntry entries[] = {{"wgmma", decodeWgmma}};
const DecodeTable moe::gpu::warpgroupInstructions = tableOf(entries);
