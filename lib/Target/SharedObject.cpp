//===- SharedObject.cpp - Link objects into a shared object ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// JITLink reads the objects, makes their tables of addresses and stubs of
// calls, and relocates them. Instead of running them, their segments are
// written to a file, and the addresses that only a loader knows become its
// relocations.
//
//===----------------------------------------------------------------------===//

#include "SharedObject.h"
#include "ELFWriter.h"
#include "moe/Target/Target.h"

#include "llvm/ADT/BitmaskEnum.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/BinaryFormat/ELF.h"
#include "llvm/ExecutionEngine/JITLink/JITLink.h"
#include "llvm/ExecutionEngine/JITLink/aarch64.h"
#include "llvm/ExecutionEngine/JITLink/x86_64.h"
#include "llvm/Object/ELFObjectFile.h"

using namespace llvm::jitlink;
using mlir::moe::ELFMachine;
using mlir::moe::ELFWriter;
namespace ELF = llvm::ELF;
namespace orc = llvm::orc;
LLVM_ENABLE_BITMASK_ENUMS_IN_NAMESPACE();

// Where imported functions seem to be: out of the reach of every instruction,
// so that calls of them keep their stubs.
static constexpr uint64_t farAway = uint64_t(1) << 62;
// Where data seems to be until the extent of what comes before it is known.
static constexpr uint64_t provisionalData = uint64_t(1) << 30;

static llvm::Expected<ELFMachine> machineOf(const llvm::Triple &triple) {
  switch (triple.getArch()) {
  case llvm::Triple::x86_64:
    return ELFMachine{ELF::EM_X86_64, ELF::R_X86_64_64, ELF::R_X86_64_RELATIVE,
                      1 << 12};
  case llvm::Triple::aarch64:
    return ELFMachine{ELF::EM_AARCH64, ELF::R_AARCH64_ABS64,
                      ELF::R_AARCH64_RELATIVE, 1 << 16};
  default:
    return llvm::createStringError("cannot link objects for " + triple.str());
  }
}

static bool isPointer(const Edge &edge, const llvm::Triple &triple) {
  return edge.getKind() == (triple.isAArch64() ? Edge::Kind(aarch64::Pointer64)
                                               : Edge::Kind(x86_64::Pointer64));
}

namespace {
/// Gives the segments of an object their places in the file.
class FileMemory : public JITLinkMemoryManager {
public:
  FileMemory(ELFWriter &writer, bool hasData)
      : writer(writer), hasData(hasData) {}

  using JITLinkMemoryManager::allocate;
  void allocate(const JITLinkDylib *, LinkGraph &graph,
                OnAllocatedFunction onAllocated) override {
    BasicLayout layout(graph);
    for (auto &[group, segment] : layout.segments()) {
      orc::MemProt protection = group.getMemProt();
      bool isCode = bool(protection & orc::MemProt::Exec);
      bool isData = bool(protection & orc::MemProt::Write);
      unsigned flags = ELF::PF_R;
      if (isCode)
        flags |= ELF::PF_X;
      if (isData)
        flags |= ELF::PF_W;
      // Zeros that have no bytes in an object have some in the file.
      ELFWriter::Segment &added = writer.addSegment(
          isCode   ? ".text"
          : isData ? (hasData ? ".data" : ".data.rel.ro")
                   : ".rodata",
          flags, segment.Alignment.value(),
          segment.ContentSize + segment.ZeroFillSize, isData && !hasData);
      segment.Addr = orc::ExecutorAddr(added.address);
      segment.WorkingMem = added.bytes.data();
    }
    if (llvm::Error error = layout.apply())
      return onAllocated(std::move(error));
    onAllocated(std::make_unique<Allocation>());
  }
  using JITLinkMemoryManager::deallocate;
  void deallocate(std::vector<FinalizedAlloc>,
                  OnDeallocatedFunction onDeallocated) override {
    onDeallocated(llvm::Error::success());
  }

private:
  /// The memory is the writer's.
  struct Allocation : InFlightAlloc {
    void abandon(OnAbandonedFunction onAbandoned) override {
      onAbandoned(llvm::Error::success());
    }
    void finalize(OnFinalizedFunction onFinalized) override {
      onFinalized(FinalizedAlloc(orc::ExecutorAddr()));
    }
  };

  ELFWriter &writer;
  bool hasData;
};

/// Links one object.
class ObjectContext : public JITLinkContext {
public:
  ObjectContext(ELFWriter &writer, bool hasData, llvm::Error &error)
      : JITLinkContext(nullptr), writer(writer), memory(writer, hasData),
        error(error) {}

  JITLinkMemoryManager &getMemoryManager() override { return memory; }
  void notifyFailed(llvm::Error failure) override {
    error = llvm::joinErrors(std::move(error), std::move(failure));
  }
  void lookup(const LookupMap &symbols,
              std::unique_ptr<JITLinkAsyncLookupContinuation> then) override {
    AsyncLookupResult result;
    for (const auto &[name, flags] : symbols)
      result[name] = {orc::ExecutorAddr(farAway),
                      llvm::JITSymbolFlags::Exported};
    then->run(std::move(result));
  }
  llvm::Error notifyResolved(LinkGraph &graph) override {
    addSymbols(graph);
    return llvm::Error::success();
  }
  void notifyFinalized(JITLinkMemoryManager::FinalizedAlloc alloc) override {
    alloc.release();
  }
  llvm::Error modifyPassConfig(LinkGraph &,
                               PassConfiguration &config) override {
    config.PostPrunePasses.push_back(orderTables);
    config.PostPrunePasses.push_back(makePointersWritable);
    config.PreFixupPasses.push_back(
        [this](LinkGraph &graph) { return addRelocations(graph); });
    return llvm::Error::success();
  }

private:
  /// Orders the entries of tables by the names of what they are for. JITLink
  /// makes them in the order of a set of pointers, and lays them out by their
  /// addresses, which are all 0.
  static llvm::Error orderTables(LinkGraph &graph) {
    for (llvm::StringRef name : {"$__GOT", "$__STUBS"}) {
      Section *table = graph.findSectionByName(name);
      if (!table)
        continue;
      llvm::SmallVector<std::pair<std::string, Block *>> entries;
      for (Block *block : table->blocks()) {
        const Symbol *target = &block->edges().begin()->getTarget();
        // A stub is for what its address in the other table is for.
        while (!target->hasName() && target->isDefined() &&
               !target->getBlock().edges_empty())
          target = &target->getBlock().edges().begin()->getTarget();
        std::string key =
            target->hasName()
                ? (*target->getName()).str()
                : llvm::utohexstr(target->getAddress().getValue());
        entries.emplace_back(std::move(key), block);
      }
      llvm::stable_sort(entries, llvm::less_first());
      for (auto [i, entry] : llvm::enumerate(entries))
        entry.second->setAddress(orc::ExecutorAddr(i));
    }
    return llvm::Error::success();
  }

  /// The loader writes the addresses in tables and constants.
  static llvm::Error makePointersWritable(LinkGraph &graph) {
    for (Section &section : graph.sections()) {
      bool hasPointer = llvm::any_of(section.blocks(), [&](Block *block) {
        return llvm::any_of(block->edges(), [&](const Edge &edge) {
          return isPointer(edge, graph.getTargetTriple());
        });
      });
      if (!hasPointer || section.getMemLifetime() == orc::MemLifetime::NoAlloc)
        continue;
      if (bool(section.getMemProt() & orc::MemProt::Exec))
        return llvm::createStringError(
            "section '" + section.getName() +
            "' has code and an address, which a loader would write into it");
      section.setMemProt(section.getMemProt() | orc::MemProt::Write);
    }
    return llvm::Error::success();
  }

  void addSymbols(LinkGraph &graph) {
    for (Symbol *symbol : graph.defined_symbols()) {
      if (!symbol->hasName() || (*symbol->getName()).starts_with(".L") ||
          symbol->getSection().getMemLifetime() == orc::MemLifetime::NoAlloc)
        continue;
      writer.symbols.push_back(
          {(*symbol->getName()).str(), symbol->getAddress().getValue(),
           symbol->getSize(), symbol->getScope() == Scope::Default,
           symbol->isCallable()});
    }
    // The graph has them in the order of a hash table.
    llvm::sort(writer.symbols, [](const auto &a, const auto &b) {
      return std::tie(a.address, a.name) < std::tie(b.address, b.name);
    });
  }

  llvm::Error addRelocations(LinkGraph &graph) {
    for (Block *block : graph.blocks()) {
      if (block->getSection().getMemLifetime() == orc::MemLifetime::NoAlloc)
        continue;
      for (const Edge &edge : block->edges()) {
        if (!isPointer(edge, graph.getTargetTriple()))
          continue;
        const Symbol &target = edge.getTarget();
        uint64_t place = block->getFixupAddress(edge).getValue();
        if (target.isDefined())
          writer.relocations.push_back(
              {place, "",
               int64_t(target.getAddress().getValue()) + edge.getAddend()});
        else
          writer.relocations.push_back(
              {place, (*target.getName()).str(), edge.getAddend()});
      }
    }
    llvm::sort(writer.relocations, [](const auto &a, const auto &b) {
      return a.address < b.address;
    });
    return llvm::Error::success();
  }

  ELFWriter &writer;
  FileMemory memory;
  llvm::Error &error;
};
} // namespace

/// Whether an object has variables, which stay writable.
static bool hasVariables(const LinkGraph &graph) {
  return llvm::any_of(graph.sections(), [](const Section &section) {
    return !section.empty() &&
           section.getMemLifetime() != orc::MemLifetime::NoAlloc &&
           bool(section.getMemProt() & orc::MemProt::Write) &&
           !section.getName().starts_with(".data.rel.ro");
  });
}

/// Links the objects, with their data at this address and after it.
static llvm::Error link(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects,
                        ELFWriter &writer) {
  // JITLink still has names when it has destroyed the graph.
  auto names = std::make_shared<orc::SymbolStringPool>();
  for (auto [i, object] : llvm::enumerate(objects)) {
    auto graph = createLinkGraphFromObject(
        {llvm::StringRef(object.data(), object.size()),
         "object " + std::to_string(i)},
        names);
    if (!graph)
      return graph.takeError();
    llvm::Error error = llvm::Error::success();
    auto context =
        std::make_unique<ObjectContext>(writer, hasVariables(**graph), error);
    llvm::jitlink::link(std::move(*graph), std::move(context));
    if (error)
      return error;
  }
  llvm::StringSet<> defined;
  for (const ELFWriter::Symbol &symbol : writer.symbols)
    if (symbol.isGlobal && !defined.insert(symbol.name).second)
      return llvm::createStringError("two objects define '" + symbol.name +
                                     "'");
  for (const ELFWriter::Relocation &relocation : writer.relocations)
    if (mlir::moe::isMathFunction(relocation.import)) {
      writer.libraries = {"libm.so.6"};
      break;
    }
  return llvm::Error::success();
}

llvm::Expected<llvm::SmallVector<char, 0>> mlir::moe::linkSharedObject(
    llvm::ArrayRef<llvm::SmallVector<char, 0>> objects) {
  auto file = llvm::object::ObjectFile::createELFObjectFile(
      {llvm::StringRef(objects.front().data(), objects.front().size()),
       "object"});
  if (!file)
    return file.takeError();
  auto machine = machineOf((*file)->makeTriple());
  if (!machine)
    return machine.takeError();
  // The second time, data follows what is not writable without a gap.
  ELFWriter first(*machine, objects.size(), provisionalData);
  if (llvm::Error error = link(objects, first))
    return error;
  first.write();
  ELFWriter second(*machine, objects.size(), first.getReadOnlyEnd());
  if (llvm::Error error = link(objects, second))
    return error;
  return second.write();
}
