//===- Artifact.cpp - One file that the runtime loads ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Target/Target.h"
#include "moe_rt/artifact.h"
#include "moe_rt/moe_rt.h"

#include "llvm/ADT/ScopeExit.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Support/xxhash.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"

#include <cstring>

using namespace mlir;
using namespace mlir::moe;

static llvm::Error error(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

/// The path of a library of the system; empty if it is not found.
static std::string findLibrary(llvm::StringRef name) {
  llvm::Triple triple(llvm::sys::getDefaultTargetTriple());
  std::string multiarch = (triple.getArchName() + "-linux-gnu").str();
  for (std::string directory : {"/lib/" + multiarch, "/usr/lib/" + multiarch,
                                std::string("/lib64"), std::string("/usr/lib64")})
    if (std::string path = directory + "/" + name.str();
        llvm::sys::fs::exists(path))
      return path;
  return "";
}

static llvm::Error makeTemporaryFile(llvm::StringRef suffix,
                                     llvm::SmallString<128> &path) {
  if (std::error_code code =
          llvm::sys::fs::createTemporaryFile("moe", suffix, path))
    return error("cannot make a temporary file: " + code.message());
  return llvm::Error::success();
}

/// Link objects into a shared object. All they need from outside is functions of
/// the C and the math library.
static llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>
link(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects) {
  std::string linker;
  for (const char *name : {"ld.lld-22", "ld.lld", "ld"})
    if (llvm::ErrorOr<std::string> found = llvm::sys::findProgramByName(name)) {
      linker = *found;
      break;
    }
  if (linker.empty())
    return error("no linker found; install lld-22 or binutils");

  llvm::SmallVector<llvm::SmallString<128>> inputs(objects.size());
  llvm::SmallString<128> output, log;
  llvm::scope_exit removeFiles([&] {
    for (llvm::StringRef path : llvm::concat<llvm::SmallString<128>>(
             inputs, llvm::MutableArrayRef(output), llvm::MutableArrayRef(log)))
      if (!path.empty())
        (void)llvm::sys::fs::remove(path);
  });
  if (llvm::Error failure = makeTemporaryFile("so", output))
    return failure;
  if (llvm::Error failure = makeTemporaryFile("log", log))
    return failure;
  for (auto [object, input] : llvm::zip_equal(objects, inputs)) {
    if (llvm::Error failure = makeTemporaryFile("o", input))
      return failure;
    std::error_code code;
    llvm::raw_fd_ostream stream(input, code);
    stream.write(object.data(), object.size());
    stream.close();
    if (code || stream.has_error())
      return error("cannot write " + input + ": " + stream.error().message());
  }
  llvm::SmallVector<llvm::StringRef> arguments{
      linker, "-shared", "--hash-style=gnu", "-z", "noexecstack", "-z",
      "relro",  "-z",    "now", "--build-id=none", "-o", output};
  llvm::append_range(arguments, inputs);
  // Named where needed, so that exp and the like are found in whatever host
  // loads it.
  arguments.push_back("--as-needed");
  std::string math = findLibrary("libm.so.6");
  if (!math.empty())
    arguments.push_back(math);
  std::optional<llvm::StringRef> redirects[] = {std::nullopt, log.str(),
                                                log.str()};
  std::string message;
  int status = llvm::sys::ExecuteAndWait(linker, arguments, std::nullopt,
                                         redirects, 0, 0, &message);
  if (status != 0) {
    auto text = llvm::MemoryBuffer::getFile(log);
    return error(linker + " failed: " + message +
                 (text ? (*text)->getBuffer() : ""));
  }
  auto linked = llvm::MemoryBuffer::getFile(
      output, /*IsText=*/false, /*RequiresNullTerminator=*/false,
      /*IsVolatile=*/true); // read rather than mapped: the file goes away
  if (!linked)
    return error("cannot read " + output + ": " + linked.getError().message());
  return std::move(*linked);
}

llvm::Expected<llvm::SmallVector<char, 0>>
mlir::moe::buildArtifact(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects,
                         llvm::StringRef metadata) {
  auto linked = link(objects);
  if (!linked)
    return linked.takeError();
  if (llvm::Error failure = verifyHostFunctions((*linked)->getMemBufferRef()))
    return failure;

  llvm::SmallVector<char, 0> bytes;
  auto append = [&](llvm::StringRef data) {
    bytes.append(data.begin(), data.end());
    bytes.resize(llvm::alignTo(bytes.size(), 8), 0);
  };
  moe_artifact_footer_t footer = {};
  std::memcpy(footer.magic, MOE_ARTIFACT_MAGIC, sizeof(footer.magic));
  footer.format_version = MOE_ARTIFACT_FORMAT_VERSION;
  footer.abi_version = MOE_RT_ABI_VERSION;
  append((*linked)->getBuffer());
  footer.object_size = (*linked)->getBufferSize();
  footer.metadata_offset = bytes.size();
  footer.metadata_size = metadata.size();
  append(metadata);
  footer.file_size = bytes.size() + sizeof(footer);
  const char *start = reinterpret_cast<const char *>(&footer);
  bytes.append(start, start + sizeof(footer));

  size_t checked = bytes.size() - sizeof(footer.checksum);
  footer.checksum = llvm::xxh3_64bits(
      llvm::ArrayRef(reinterpret_cast<const uint8_t *>(bytes.data()), checked));
  std::memcpy(bytes.data() + checked, &footer.checksum,
              sizeof(footer.checksum));
  return bytes;
}
