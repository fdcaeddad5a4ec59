//===- ELFWriter.h - Write a shared object ----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The file of an ELF64 little-endian shared object whose segments are laid out
// and relocated by somebody else: headers, symbols, and what a dynamic loader
// has to do.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_TARGET_ELFWRITER_H
#define MOE_LIB_TARGET_ELFWRITER_H

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <deque>
#include <string>

namespace mlir::moe {

/// What the writer has to know of a machine: its EM_* of llvm::ELF, the numbers
/// of the two relocations that a loader applies, and the largest page.
struct ELFMachine {
  uint16_t number;
  uint32_t absolute, relative;
  uint64_t pageSize;
};

class ELFWriter {
public:
  /// A loadable segment, which is one section, too.
  struct Segment {
    llvm::StringRef name;
    uint32_t flags; // llvm::ELF::PF_*
    bool isRelro;   // the loader writes to it, and nobody after that
    uint64_t offset, address;
    llvm::SmallVector<char, 0> bytes;
  };

  struct Symbol {
    std::string name;
    uint64_t address, size;
    bool isGlobal, isFunction; // local ones are for debuggers and profilers
  };

  /// `*address = import + addend`, or, without an import, the address at which
  /// the object was loaded + addend.
  struct Relocation {
    uint64_t address;
    std::string import;
    int64_t addend;
  };

  /// Writable segments are at `dataAddress` and after it, so that the loader
  /// can protect all of them at once; nothing else may reach up to there.
  ELFWriter(const ELFMachine &machine, unsigned objectCount,
            uint64_t dataAddress);

  /// Adds a segment of `size` zeros at the next free place. It stays where it
  /// is when others are added.
  Segment &addSegment(llvm::StringRef name, uint32_t flags, uint64_t alignment,
                      uint64_t size, bool isRelro = false);

  /// Returns the bytes of the file. Nothing may be added afterwards.
  llvm::SmallVector<char, 0> write();

  /// The end of the segments that are not writable, after `write`.
  uint64_t getReadOnlyEnd() const { return readAddress; }

  llvm::SmallVector<Symbol> symbols;
  llvm::SmallVector<Relocation> relocations;
  llvm::SmallVector<std::string> libraries; // that the loader has to load

private:
  struct Section {
    llvm::StringRef name;
    uint32_t type;
    uint64_t flags, address, offset, size;
    uint64_t entrySize = 0;
    uint32_t link = 0, info = 0;
  };
  /// Tables that the loader reads.
  struct Tables;

  Tables makeTables() const;
  void addTables(Tables &tables);
  void addDynamic(const Tables &tables);
  unsigned addUnloaded(llvm::StringRef name, uint32_t type,
                       llvm::ArrayRef<char> bytes, uint64_t entrySize = 0);
  void addSymbolTable();
  void addSectionHeaders();
  llvm::SmallVector<char, 0> makeProgramHeaders() const;
  /// Appends a symbol to a table.
  void appendSymbol(llvm::SmallVectorImpl<char> &table, uint32_t name,
                    const Symbol &symbol) const;

  const ELFMachine machine;
  // The next free place in the file and in memory. An offset and its address
  // are equal modulo the page size, so that the file can be mapped.
  uint64_t offset, readAddress, dataAddress;
  std::deque<Segment> segments;
  llvm::SmallVector<Section> sections;
  llvm::SmallVector<char, 0> file;
  uint64_t sectionHeaders = 0;
};

} // namespace mlir::moe

#endif // MOE_LIB_TARGET_ELFWRITER_H
