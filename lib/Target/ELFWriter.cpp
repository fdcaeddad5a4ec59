//===- ELFWriter.cpp - Write a shared object ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The order of the file: ELF header and program headers; the segments that were
// added; the tables that the loader reads; the dynamic section; and what is not
// loaded: the symbol table for debuggers, and the section headers.
//
//===----------------------------------------------------------------------===//

#include "ELFWriter.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/MC/StringTableBuilder.h"
#include "llvm/Object/ELF.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;
namespace ELF = llvm::ELF;
using Format = llvm::object::ELF64LE;
using Bytes = llvm::SmallVector<char, 0>;

// Program headers: of each object one for constants, code and data; the headers
// themselves, tables and dynamic section; PT_DYNAMIC, PT_GNU_RELRO and
// PT_GNU_STACK.
static constexpr unsigned headersOfObject = 3, otherHeaders = 6;

template <typename T>
static void append(llvm::SmallVectorImpl<char> &bytes, const T &value) {
  const char *data = reinterpret_cast<const char *>(&value);
  bytes.append(data, data + sizeof(T));
}

static Bytes finish(llvm::StringTableBuilder &builder) {
  builder.finalizeInOrder();
  Bytes bytes(builder.getSize());
  builder.write(reinterpret_cast<uint8_t *>(bytes.data()));
  return bytes;
}

ELFWriter::ELFWriter(const ELFMachine &machine, unsigned objectCount,
                     uint64_t dataAddress)
    : machine(machine), dataAddress(dataAddress) {
  unsigned headers = headersOfObject * objectCount + otherHeaders;
  offset = readAddress = sizeof(Format::Ehdr) + headers * sizeof(Format::Phdr);
  sections.push_back({"", ELF::SHT_NULL, 0, 0, 0, 0});
}

ELFWriter::Segment &ELFWriter::addSegment(llvm::StringRef name, uint32_t flags,
                                          uint64_t alignment, uint64_t size,
                                          bool isRelro) {
  uint64_t &next = flags & ELF::PF_W ? dataAddress : readAddress;
  offset = llvm::alignTo(offset, alignment);
  // A page of its own, for its own protection.
  uint64_t address =
      llvm::alignTo(next, machine.pageSize) + offset % machine.pageSize;
  segments.push_back({name, flags, isRelro, offset, address, Bytes(size)});
  if (!name.empty()) {
    uint64_t sectionFlags = ELF::SHF_ALLOC;
    if (flags & ELF::PF_W)
      sectionFlags |= ELF::SHF_WRITE;
    if (flags & ELF::PF_X)
      sectionFlags |= ELF::SHF_EXECINSTR;
    sections.push_back(
        {name, ELF::SHT_PROGBITS, sectionFlags, address, offset, size});
  }
  offset += size;
  next = address + size;
  return segments.back();
}

void ELFWriter::appendSymbol(llvm::SmallVectorImpl<char> &table, uint32_t name,
                             const Symbol &symbol) const {
  Format::Sym entry = {};
  entry.st_name = name;
  entry.setBindingAndType(symbol.isGlobal ? ELF::STB_GLOBAL : ELF::STB_LOCAL,
                          symbol.isFunction ? ELF::STT_FUNC : ELF::STT_OBJECT);
  entry.st_shndx = ELF::SHN_ABS;
  for (auto [i, section] : llvm::enumerate(sections))
    if (symbol.address - section.address < section.size)
      entry.st_shndx = i;
  entry.st_value = symbol.address;
  entry.st_size = symbol.size;
  append(table, entry);
}

//===-- What the loader reads ---------------------------------------------===//

struct ELFWriter::Tables {
  struct Table {
    llvm::StringRef name;
    uint32_t type;
    uint64_t entrySize;
    Bytes bytes = {};
    uint64_t address = 0;
    unsigned section = 0;
  };
  Table hash{".hash", ELF::SHT_HASH, 4};
  Table symbols{".dynsym", ELF::SHT_DYNSYM, sizeof(Format::Sym)};
  Table relocations{".rela.dyn", ELF::SHT_RELA, sizeof(Format::Rela)};
  Table strings{".dynstr", ELF::SHT_STRTAB, 0};
  llvm::SmallVector<uint64_t> libraries; // places in `strings`
};

/// The table by which a loader finds symbols (DT_HASH). The first symbol is the
/// null one.
static Bytes makeHash(llvm::ArrayRef<llvm::StringRef> names) {
  llvm::SmallVector<uint32_t> buckets(names.size()), chains(names.size());
  for (unsigned i = 1; i < names.size(); ++i) {
    uint32_t &bucket = buckets[llvm::object::hashSysV(names[i]) % names.size()];
    chains[i] = std::exchange(bucket, i);
  }
  Bytes bytes;
  auto append32 = [&](uint32_t value) {
    append(bytes, llvm::support::ulittle32_t(value));
  };
  append32(buckets.size());
  append32(chains.size());
  llvm::for_each(buckets, append32);
  llvm::for_each(chains, append32);
  return bytes;
}

ELFWriter::Tables ELFWriter::makeTables() const {
  Tables tables;
  llvm::StringTableBuilder strings(llvm::StringTableBuilder::ELF);
  llvm::SmallVector<llvm::StringRef> names{""};
  append(tables.symbols.bytes, Format::Sym{});
  llvm::MapVector<llvm::StringRef, uint32_t> imports;
  for (const Relocation &relocation : relocations) {
    llvm::StringRef import = relocation.import;
    if (import.empty() || !imports.try_emplace(import, names.size()).second)
      continue;
    Format::Sym entry = {};
    entry.st_name = strings.add(import);
    entry.setBindingAndType(ELF::STB_GLOBAL, ELF::STT_NOTYPE);
    append(tables.symbols.bytes, entry);
    names.push_back(import);
  }
  for (const Symbol &symbol : symbols) {
    if (!symbol.isGlobal)
      continue;
    appendSymbol(tables.symbols.bytes, strings.add(symbol.name), symbol);
    names.push_back(symbol.name);
  }
  for (llvm::StringRef library : libraries)
    tables.libraries.push_back(strings.add(library));
  tables.hash.bytes = makeHash(names);
  tables.strings.bytes = finish(strings);

  for (const Relocation &relocation : relocations) {
    bool isImport = !relocation.import.empty();
    Format::Rela entry = {};
    entry.r_offset = relocation.address;
    entry.r_addend = relocation.addend;
    entry.setSymbolAndType(isImport ? imports.lookup(relocation.import) : 0,
                           isImport ? machine.absolute : machine.relative,
                           /*IsMips64EL=*/false);
    append(tables.relocations.bytes, entry);
  }
  return tables;
}

void ELFWriter::addTables(Tables &tables) {
  Tables::Table *all[] = {&tables.hash, &tables.symbols, &tables.relocations,
                          &tables.strings};
  uint64_t size = 0;
  for (const Tables::Table *table : all)
    size = llvm::alignTo(size, 8) + table->bytes.size();
  Segment &segment = addSegment("", ELF::PF_R, 8, size);
  uint64_t place = 0;
  for (Tables::Table *table : all) {
    place = llvm::alignTo(place, 8);
    llvm::copy(table->bytes, segment.bytes.begin() + place);
    table->address = segment.address + place;
    table->section = sections.size();
    sections.push_back({table->name, table->type, ELF::SHF_ALLOC,
                        table->address, segment.offset + place,
                        table->bytes.size(), table->entrySize});
    place += table->bytes.size();
  }
  sections[tables.hash.section].link = tables.symbols.section;
  sections[tables.relocations.section].link = tables.symbols.section;
  sections[tables.symbols.section].link = tables.strings.section;
  sections[tables.symbols.section].info = 1; // the first that is not local
}

void ELFWriter::addDynamic(const Tables &tables) {
  Bytes bytes;
  auto add = [&](int64_t tag, uint64_t value) {
    Format::Dyn entry = {};
    entry.d_tag = tag;
    entry.d_un.d_val = value;
    append(bytes, entry);
  };
  for (uint64_t library : tables.libraries)
    add(ELF::DT_NEEDED, library);
  add(ELF::DT_HASH, tables.hash.address);
  add(ELF::DT_SYMTAB, tables.symbols.address);
  add(ELF::DT_SYMENT, sizeof(Format::Sym));
  add(ELF::DT_STRTAB, tables.strings.address);
  add(ELF::DT_STRSZ, tables.strings.bytes.size());
  if (!relocations.empty()) {
    add(ELF::DT_RELA, tables.relocations.address);
    add(ELF::DT_RELASZ, tables.relocations.bytes.size());
    add(ELF::DT_RELAENT, sizeof(Format::Rela));
  }
  add(ELF::DT_FLAGS, ELF::DF_BIND_NOW);
  add(ELF::DT_FLAGS_1, ELF::DF_1_NOW);
  add(ELF::DT_NULL, 0);
  addSegment(".dynamic", ELF::PF_R | ELF::PF_W, 8, bytes.size(),
             /*isRelro=*/true)
      .bytes = bytes;
  sections.back().type = ELF::SHT_DYNAMIC;
  sections.back().entrySize = sizeof(Format::Dyn);
  sections.back().link = tables.strings.section;
}

//===-- What is not loaded ------------------------------------------------===//

unsigned ELFWriter::addUnloaded(llvm::StringRef name, uint32_t type,
                                llvm::ArrayRef<char> bytes,
                                uint64_t entrySize) {
  file.resize(llvm::alignTo(file.size(), 8));
  sections.push_back({name, type, 0, 0, file.size(), bytes.size(), entrySize});
  llvm::append_range(file, bytes);
  return sections.size() - 1;
}

void ELFWriter::addSymbolTable() {
  llvm::StringTableBuilder strings(llvm::StringTableBuilder::ELF);
  Bytes table;
  append(table, Format::Sym{});
  unsigned locals = 1;
  for (bool isGlobal : {false, true})
    for (const Symbol &symbol : symbols)
      if (symbol.isGlobal == isGlobal) {
        appendSymbol(table, strings.add(symbol.name), symbol);
        locals += !isGlobal;
      }
  unsigned section =
      addUnloaded(".symtab", ELF::SHT_SYMTAB, table, sizeof(Format::Sym));
  unsigned names = addUnloaded(".strtab", ELF::SHT_STRTAB, finish(strings));
  sections[section].info = locals;
  sections[section].link = names;
}

void ELFWriter::addSectionHeaders() {
  llvm::StringTableBuilder strings(llvm::StringTableBuilder::ELF);
  llvm::SmallVector<uint32_t> names;
  for (const Section &section : sections)
    names.push_back(strings.add(section.name));
  names.push_back(strings.add(".shstrtab"));
  addUnloaded(".shstrtab", ELF::SHT_STRTAB, finish(strings));
  file.resize(llvm::alignTo(file.size(), 8));
  sectionHeaders = file.size();
  for (auto [section, name] : llvm::zip_equal(sections, names)) {
    Format::Shdr entry = {};
    entry.sh_name = name;
    entry.sh_type = section.type;
    entry.sh_flags = section.flags;
    entry.sh_addr = section.address;
    entry.sh_offset = section.offset;
    entry.sh_size = section.size;
    entry.sh_link = section.link;
    entry.sh_info = section.info;
    entry.sh_addralign = section.type == ELF::SHT_PROGBITS ? 1 : 8;
    entry.sh_entsize = section.entrySize;
    append(file, entry);
  }
}

//===-- Headers -----------------------------------------------------------===//

Bytes ELFWriter::makeProgramHeaders() const {
  Bytes headers;
  auto add = [&](uint32_t type, uint32_t flags, uint64_t offset,
                 uint64_t address, uint64_t size, uint64_t memory,
                 uint64_t alignment) {
    Format::Phdr entry = {};
    entry.p_type = type;
    entry.p_flags = flags;
    entry.p_offset = offset;
    entry.p_vaddr = address;
    entry.p_paddr = address;
    entry.p_filesz = size;
    entry.p_memsz = memory;
    entry.p_align = alignment;
    append(headers, entry);
  };
  llvm::SmallVector<const Segment *> sorted;
  for (const Segment &segment : segments)
    sorted.push_back(&segment);
  llvm::sort(sorted, [](const Segment *a, const Segment *b) {
    return a->address < b->address;
  });
  const Segment &dynamic = *sorted.back();

  uint64_t start = segments.front().offset, relro = dynamic.address;
  add(ELF::PT_LOAD, ELF::PF_R, 0, 0, start, start, machine.pageSize);
  for (const Segment *segment : sorted) {
    uint64_t size = segment->bytes.size(), memory = size;
    // A loader protects whole pages.
    if (segment == &dynamic)
      memory = llvm::alignTo(segment->address + size, machine.pageSize) -
               segment->address;
    add(ELF::PT_LOAD, segment->flags, segment->offset, segment->address, size,
        memory, machine.pageSize);
  }
  add(ELF::PT_DYNAMIC, dynamic.flags, dynamic.offset, dynamic.address,
      dynamic.bytes.size(), dynamic.bytes.size(), 8);
  uint64_t relroOffset = dynamic.offset;
  for (const Segment *segment : llvm::reverse(sorted)) {
    if (!segment->isRelro)
      break;
    relro = segment->address;
    relroOffset = segment->offset;
  }
  uint64_t end =
      llvm::alignTo(dynamic.address + dynamic.bytes.size(), machine.pageSize);
  add(ELF::PT_GNU_RELRO, ELF::PF_R, relroOffset, relro,
      dynamic.offset + dynamic.bytes.size() - relroOffset, end - relro, 1);
  add(ELF::PT_GNU_STACK, ELF::PF_R | ELF::PF_W, 0, 0, 0, 0, 16);
  return headers;
}

Bytes ELFWriter::write() {
  Tables tables = makeTables();
  addTables(tables);
  addDynamic(tables);
  file.resize(offset);
  for (const Segment &segment : segments)
    llvm::copy(segment.bytes, file.begin() + segment.offset);
  addSymbolTable();
  addSectionHeaders();

  Bytes programHeaders = makeProgramHeaders();
  Format::Ehdr header = {};
  llvm::copy(llvm::StringRef(ELF::ElfMagic), header.e_ident);
  header.e_ident[ELF::EI_CLASS] = ELF::ELFCLASS64;
  header.e_ident[ELF::EI_DATA] = ELF::ELFDATA2LSB;
  header.e_ident[ELF::EI_VERSION] = ELF::EV_CURRENT;
  header.e_type = ELF::ET_DYN;
  header.e_machine = machine.number;
  header.e_version = ELF::EV_CURRENT;
  header.e_phoff = sizeof(Format::Ehdr);
  header.e_shoff = sectionHeaders;
  header.e_ehsize = sizeof(Format::Ehdr);
  header.e_phentsize = sizeof(Format::Phdr);
  header.e_phnum = programHeaders.size() / sizeof(Format::Phdr);
  header.e_shentsize = sizeof(Format::Shdr);
  header.e_shnum = sections.size();
  header.e_shstrndx = sections.size() - 1;
  Bytes start;
  append(start, header);
  llvm::append_range(start, programHeaders);
  assert(start.size() <= segments.front().offset && "too many segments");
  llvm::copy(start, file.begin());
  return std::move(file);
}
