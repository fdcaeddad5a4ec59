//===- op_bulk.cpp - cp.async.bulk ----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.9.25.4 "Bulk copy" and 9.7.9.25.5 "Tensor copy".
//
//===----------------------------------------------------------------------===//

#include "bulk.h"
#include "isa/ops.h"
#include "machine/memory/mbarrier.h"
#include "machine/memory/tensor_map.h"

#include <array>
#include <memory>

using namespace moe::gpu;
using syntax::Operand;

namespace {

/// The operands of a bulk copy, stored in Instruction::data.
struct BulkOperands {
  Decoder::Address shared; // in shared memory of the CTA or cluster
  Decoder::Address global; // in global memory, or the tensor map
  Decoder::Address other;  // the source of a copy from shared to shared memory
  Decoder::Address barrier;
  int rank = 0;                              // 0: not a tensor copy
  uint32_t coordinates[5] = {0, 0, 0, 0, 0}; // slots
  uint32_t size = 0;                         // slot
  uint32_t mask = 0;                         // slot; 0: no multicast
  bool reduce = false;
  TensorMap::Combine combine = TensorMap::Combine::Replace;
  Type type = Type::None;
};

uint64_t value(const Thread &thread, const Decoder::Address &address) {
  uint64_t base = address.narrow ? thread.get<uint32_t>(address.base)
                  : address.base ? thread.get<uint64_t>(address.base)
                                 : 0;
  return base + static_cast<uint64_t>(address.offset);
}

bool atOnce(Machine &machine) {
  return machine.settings.immediate() ||
         (machine.settings.random() && machine.random.below(2) == 0);
}

SharedLocation locate(Thread &thread, const Decoder::Address &address,
                      uint32_t bytes, uint32_t align) {
  uint64_t at = value(thread, address);
  if (address.space == Space::Generic)
    at -= windows().shared;
  if (at % align != 0)
    fail(CUDA_ERROR_MISALIGNED_ADDRESS, "the address ", Hex{at},
         " in shared memory is not a multiple of ", align);
  return thread.machine().sharedLocation(at, bytes, *thread.block);
}

TensorMap readMap(Thread &thread, const Instruction &i,
                  const Decoder::Address &address, int rank) {
  uint64_t at = value(thread, address);
  if (at % 64 != 0)
    fail(CUDA_ERROR_MISALIGNED_ADDRESS, "the tensor map at ", Hex{at},
         " is not aligned to 64 bytes");
  uint8_t bytes[128];
  for (uint32_t half = 0; half < 128; half += 64)
    std::memcpy(bytes + half,
                thread.access(address.space, at + half, 64, Access::Read, i),
                64);
  TensorMap map;
  std::memcpy(&map, bytes, sizeof(map));
  if (map.magic != TensorMap::expectedMagic)
    undefined("there is no tensor map at ", Hex{at});
  if (map.rank != rank)
    undefined("the tensor map is of rank ", int(map.rank));
  if (map.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
    fail(CUDA_ERROR_NOT_SUPPORTED, "interleaved tensors are not modelled");
  for (int k = 1; k < rank; ++k)
    if (map.elementStrides[k] != 1)
      fail(CUDA_ERROR_NOT_SUPPORTED, "element strides are not modelled");
  uint32_t span = swizzleSpan(static_cast<CUtensorMapSwizzle>(map.swizzle));
  if (span == 0)
    fail(CUDA_ERROR_NOT_SUPPORTED, "the swizzle is not modelled");
  if (span > 16 && map.rowBytes() != span)
    fail(CUDA_ERROR_NOT_SUPPORTED, "rows of ", map.rowBytes(),
         " bytes with a swizzle of ", span, " are not modelled");
  return map;
}

/// Calls `body` with the offsets in a dense box and in swizzled shared memory
/// of each 16-byte chunk.
template <typename Body>
void forChunks(uint32_t address, uint32_t bytes, uint32_t span, Body body) {
  for (uint32_t k = 0; k < bytes; k += 16)
    body(k, span > 16 ? swizzled(address + k, span) - address : k);
}

//===----------------------------------------------------------------------===//
// Copies to shared memory
//===----------------------------------------------------------------------===//

/// Starts a copy to each block of a multicast mask. `readSource` reads the
/// source when a copy takes effect.
void startLoads(Thread &thread, const Instruction &i, SharedLocation to,
                SharedLocation barrier, uint32_t blocks, uint32_t bytes,
                uint32_t span, Block *from, const Clock &after,
                const std::function<std::vector<uint8_t>()> &readSource) {
  Machine &machine = thread.machine();
  const auto &cluster = thread.block->cluster->blocks;
  const Clock &own = thread.warp->clock;
  for (; blocks; blocks &= blocks - 1) {
    auto rank = static_cast<uint32_t>(__builtin_ctz(blocks));
    if (rank >= cluster.size() || cluster[rank]->finished)
      undefined("copies into block ", rank,
                " of the cluster, which does not exist or has ended");
    Block *block = cluster[rank].get();
    checkInitialised(thread, *block, barrier.offset);
    // It writes the memory of the block, which therefore has to wait for it.
    block->noteVisit(thread.warp->bulkAgent, after[thread.warp->bulkAgent]);
    if (block != thread.block)
      block->noteVisit(thread.warp->agent, own[thread.warp->agent]);
    if (!machine.settings.allowBarriers &&
        block->shared.isHidden(barrier.offset))
      undefined(
          "the mbarrier was initialised by a thread that executed neither "
          "fence.mbarrier_init nor fence.proxy.async since");
    block->shared.copyIssued(*thread.warp, to.offset, bytes);
    uint32_t address = static_cast<uint32_t>(block->sharedAddress(to.offset));
    uint32_t offset = to.offset, barrierOffset = barrier.offset;
    machine.startCopy(
        {&thread, &i, from, block, block, barrierOffset, [=] {
           std::vector<uint8_t> data = readSource();
           forChunks(address, bytes, span, [&](uint32_t k, uint32_t at) {
             std::memcpy(block->shared.data(offset + at), &data[k], 16);
           });
           block->shared.asyncArrived(offset, bytes);
           barrierClock(*block, barrierOffset).join(after);
           arriveAtMbarrier(*block, barrierOffset, 0, -int64_t(bytes));
         }});
  }
  // The completion does not order later accesses of the issuing warp.
  thread.warp->clock.tick(thread.warp->agent);
}

uint32_t destinations(Thread &thread, const BulkOperands &operands,
                      const SharedLocation &to) {
  if (!operands.mask)
    return 1u << to.block->rank;
  uint32_t mask = thread.get<uint16_t>(operands.mask);
  if (mask == 0)
    undefined("a multicast to no block");
  return mask;
}

Step loadTensor(Thread &thread, const Instruction &i) {
  const auto &operands = *static_cast<const BulkOperands *>(i.data);
  TensorMap map = readMap(thread, i, operands.global, operands.rank);
  uint32_t bytes = map.boxBytes();
  SharedLocation to = locate(thread, operands.shared, bytes, 128);
  SharedLocation barrier = locate(thread, operands.barrier, 8, 8);
  if (barrier.block != to.block)
    undefined("the mbarrier is in another block than the destination");
  std::array<int32_t, 5> at = {};
  for (int k = 0; k < operands.rank; ++k)
    at[k] = thread.get<int32_t>(operands.coordinates[k]);
  const DeviceMemory &memory = thread.machine().memory;
  Clock after;
  Epoch now = thread.warp->startBulk(after, thread.warp->bulkAgent);
  map.forRanges(memory, at.data(), [&](uint64_t address, uint64_t count) {
    thread.machine().noteBulk(*thread.warp, now, address, count, Access::Copy,
                              false);
  });
  startLoads(thread, i, to, barrier, destinations(thread, operands, to), bytes,
             swizzleSpan(static_cast<CUtensorMapSwizzle>(map.swizzle)), nullptr,
             after,
             [map, at, &memory] { return map.gather(memory, at.data()); });
  return Step::Go;
}

uint32_t plainSize(Thread &thread, const BulkOperands &operands) {
  uint32_t bytes = thread.get<uint32_t>(operands.size);
  if (bytes == 0 || bytes % 16 != 0)
    undefined("a bulk copy of ", bytes, " bytes, which is no multiple of 16");
  return bytes;
}

uint64_t globalAddress(Thread &thread, const BulkOperands &operands,
                       uint32_t bytes, const Instruction &i) {
  uint64_t address = value(thread, operands.global);
  if (address % 16 != 0)
    fail(CUDA_ERROR_MISALIGNED_ADDRESS, "the address ", Hex{address},
         " in global memory is not a multiple of 16");
  thread.machine().globalSite(thread, address, bytes, i);
  return address;
}

Step loadPlain(Thread &thread, const Instruction &i) {
  const auto &operands = *static_cast<const BulkOperands *>(i.data);
  uint32_t bytes = plainSize(thread, operands);
  uint64_t from = globalAddress(thread, operands, bytes, i);
  SharedLocation to = locate(thread, operands.shared, bytes, 16);
  SharedLocation barrier = locate(thread, operands.barrier, 8, 8);
  if (barrier.block != to.block)
    undefined("the mbarrier is in another block than the destination");
  const DeviceMemory &memory = thread.machine().memory;
  Clock after;
  Epoch now = thread.warp->startBulk(after, thread.warp->bulkAgent);
  thread.machine().noteBulk(*thread.warp, now, from, bytes, Access::Copy,
                            false);
  startLoads(thread, i, to, barrier, destinations(thread, operands, to), bytes,
             16, nullptr, after, [=, &memory] {
               const uint8_t *data = memory.translate(from, bytes);
               return std::vector<uint8_t>(data, data + bytes);
             });
  return Step::Go;
}

/// Copies from .shared::cta to .shared::cluster.
Step copyShared(Thread &thread, const Instruction &i) {
  const auto &operands = *static_cast<const BulkOperands *>(i.data);
  uint32_t bytes = plainSize(thread, operands);
  SharedLocation from = locate(thread, operands.other, bytes, 16);
  SharedLocation to = locate(thread, operands.shared, bytes, 16);
  SharedLocation barrier = locate(thread, operands.barrier, 8, 8);
  if (barrier.block != to.block)
    undefined("the mbarrier is in another block than the destination");
  if (from.block != thread.block)
    undefined("the source is in another block");
  Clock after;
  Epoch now = thread.warp->startBulk(after, thread.warp->bulkAgent);
  from.block->shared.asyncReadIssued(*thread.warp, now, from.offset, bytes);
  startLoads(thread, i, to, barrier, 1u << to.block->rank, bytes, 16,
             from.block, after, [=] {
               from.block->shared.asyncRead(from.offset, bytes);
               const uint8_t *data = from.block->shared.data(from.offset);
               return std::vector<uint8_t>(data, data + bytes);
             });
  return Step::Go;
}

//===----------------------------------------------------------------------===//
// Copies from shared memory
//===----------------------------------------------------------------------===//

/// Starts a copy from .shared::cta. `store` writes the dense bytes; `written`
/// orders with the end of its writes.
void startStore(Thread &thread, SharedLocation from, uint32_t bytes,
                uint32_t span, Clock written,
                std::function<void(const std::vector<uint8_t> &)> store) {
  if (from.block != thread.block)
    undefined("the source is in another block");
  Block *block = from.block;
  uint32_t offset = from.offset;
  Clock after;
  Epoch now = thread.warp->startBulk(after, thread.warp->bulkAgent);
  block->shared.asyncReadIssued(*thread.warp, now, offset, bytes);
  uint32_t address = static_cast<uint32_t>(block->sharedAddress(offset));
  Machine &machine = thread.machine();
  ++machine.effects;
  auto data = std::make_shared<std::vector<uint8_t>>(bytes);
  thread.bulks().issue(
      {[=] {
         block->shared.asyncRead(offset, bytes);
         forChunks(address, bytes, span, [&](uint32_t k, uint32_t at) {
           std::memcpy(&(*data)[k], block->shared.data(offset + at), 16);
         });
       },
       [data, store = std::move(store), &machine] {
         ++machine.effects;
         store(*data);
       },
       std::move(after), std::move(written)},
      atOnce(machine), atOnce(machine));
}

Step storeTensor(Thread &thread, const Instruction &i) {
  const auto &operands = *static_cast<const BulkOperands *>(i.data);
  TensorMap map = readMap(thread, i, operands.global, operands.rank);
  SharedLocation from = locate(thread, operands.shared, map.boxBytes(), 128);
  std::array<int32_t, 5> at = {};
  for (int k = 0; k < operands.rank; ++k)
    at[k] = thread.get<int32_t>(operands.coordinates[k]);
  const DeviceMemory &memory = thread.machine().memory;
  TensorMap::Combine combine = operands.combine;
  Clock written;
  Epoch now = thread.warp->startBulk(written, thread.warp->bulkWriter);
  map.forRanges(memory, at.data(), [&](uint64_t address, uint64_t count) {
    thread.machine().noteBulk(*thread.warp, now, address, count, Access::Write,
                              operands.reduce);
  });
  startStore(thread, from, map.boxBytes(),
             swizzleSpan(static_cast<CUtensorMapSwizzle>(map.swizzle)),
             std::move(written),
             [=, &memory](const std::vector<uint8_t> &data) {
               map.scatter(memory, at.data(), data.data(), combine);
             });
  return Step::Go;
}

Step storePlain(Thread &thread, const Instruction &i) {
  const auto &operands = *static_cast<const BulkOperands *>(i.data);
  uint32_t bytes = plainSize(thread, operands);
  uint64_t to = globalAddress(thread, operands, bytes, i);
  SharedLocation from = locate(thread, operands.shared, bytes, 16);
  const DeviceMemory &memory = thread.machine().memory;
  TensorMap::Combine combine = operands.combine;
  Type type = operands.type;
  Clock written;
  Epoch now = thread.warp->startBulk(written, thread.warp->bulkWriter);
  thread.machine().noteBulk(*thread.warp, now, to, bytes, Access::Write,
                            operands.reduce);
  startStore(thread, from, bytes, 16, std::move(written),
             [=, &memory](const std::vector<uint8_t> &data) {
               uint8_t *there = memory.translate(to, bytes);
               if (combine == TensorMap::Combine::Replace)
                 std::memcpy(there, data.data(), bytes);
               else
                 combineElements(type, combine, there, data.data(), bytes);
             });
  return Step::Go;
}

Step commit(Thread &thread, const Instruction &) {
  thread.bulks().commit();
  return Step::Go;
}

Step waitGroup(Thread &thread, const Instruction &i) {
  thread.bulks().wait(*thread.warp, static_cast<uint64_t>(i.offset),
                      i.flags[0]);
  return Step::Go;
}

Step nothing(Thread &, const Instruction &) { return Step::Go; }

} // namespace

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

/// Decodes [map, {coordinates}].
static void decodeMap(Decoder &d, size_t at, BulkOperands &operands) {
  const Operand &operand = d.operand(at);
  operands.global = d.address(operand, Space::Generic);
  if (operand.parts.size() != 2 ||
      operand.parts[1].kind != Operand::Kind::Vector ||
      operand.parts[1].parts.size() != static_cast<size_t>(operands.rank))
    d.error("expected a tensor map with ", operands.rank, " coordinates");
  for (int k = 0; k < operands.rank; ++k)
    operands.coordinates[k] =
        d.source(operand.parts[1].parts[static_cast<size_t>(k)], Type::S32);
}

static TensorMap::Combine decodeCombine(Decoder &d) {
  static constexpr struct {
    std::string_view name;
    TensorMap::Combine combine;
  } names[] = {
      {".add", TensorMap::Combine::Add}, {".min", TensorMap::Combine::Min},
      {".max", TensorMap::Combine::Max}, {".and", TensorMap::Combine::And},
      {".or", TensorMap::Combine::Or},   {".xor", TensorMap::Combine::Xor}};
  for (const auto &entry : names)
    if (d.has(entry.name))
      return entry.combine;
  d.error("the reduction is not supported");
}

void moe::gpu::decodeBulk(Decoder &d, bool reduce) {
  if (d.has(".commit_group")) {
    d.expectOperands(0, 0);
    d.out.run = commit;
    return;
  }
  if (d.has(".wait_group")) {
    d.out.flags[0] = d.has(".read");
    d.expectOperands(1, 1);
    d.out.offset = d.immediate(0);
    d.out.run = waitGroup;
    return;
  }
  bool prefetch = d.has(".prefetch");
  auto operands = std::make_unique<BulkOperands>();
  operands->reduce = reduce;
  if (d.has(".tensor"))
    for (int rank = 1; rank <= 5; ++rank)
      if (d.has(text(".", rank, "d")))
        operands->rank = rank;
  bool policy = d.has(".L2::cache_hint");
  if (prefetch) {
    d.has(".L2");
    d.has(".global");
    d.has(".tile");
    d.out.run = nothing;
    return;
  }
  bool toGlobal = false;
  bool barrier = d.has(".mbarrier::complete_tx::bytes");
  if (!barrier)
    toGlobal = d.has(".bulk_group");
  if (!barrier && !toGlobal)
    d.error("expected a completion mechanism");
  bool multicast = d.has(".multicast::cluster");
  if (d.startingWith(".im2col") || d.startingWith(".cta_group"))
    d.error("not supported");
  d.has(".tile");
  if (reduce) {
    operands->combine = decodeCombine(d);
    d.has(".noftz");
    if (operands->rank == 0)
      operands->type = d.type();
  }

  size_t next = 2;
  if (toGlobal) {
    d.need(".global");
    if (d.space() != Space::Shared)
      d.error("the source must be in .shared::cta");
    operands->shared = d.address(1, Space::Shared);
    if (operands->rank) {
      decodeMap(d, 0, *operands);
      d.out.run = storeTensor;
    } else {
      operands->global = d.address(size_t(0), Space::Global);
      operands->size = d.source(next++, Type::U32);
      d.out.run = storePlain;
    }
  } else {
    // The first state space is the destination's.
    bool own = d.has(".shared::cta");
    bool cluster = d.has(".shared::cluster");
    bool global = d.has(".global");
    if (reduce || (!cluster && !own))
      d.error("not supported");
    bool sharedSource = cluster && own && !global;
    operands->shared =
        d.address(size_t(0), cluster ? Space::SharedCluster : Space::Shared);
    if (operands->rank) {
      decodeMap(d, 1, *operands);
      d.out.run = loadTensor;
    } else if (sharedSource) {
      operands->other = d.address(1, Space::Shared);
      operands->size = d.source(next++, Type::U32);
      d.out.run = copyShared;
    } else {
      operands->global = d.address(1, Space::Global);
      operands->size = d.source(next++, Type::U32);
      d.out.run = loadPlain;
    }
    operands->barrier =
        d.address(next++, cluster ? Space::SharedCluster : Space::Shared);
    if (multicast)
      operands->mask = d.source(next++, Type::B16);
  }
  if (policy)
    d.source(next++, Type::B64);
  d.expectOperands(next, next);
  d.out.site = d.newSite();
  d.out.data = d.own(std::move(operands));
}
