//===- Artifact.cpp - One file that the runtime loads ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/artifact.h"
#include "moe/Target/Target.h"
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
#include <fcntl.h>
#include <unistd.h>

using namespace mlir;
using namespace mlir::moe;

static llvm::Error error(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

/// Returns the path of a system library; empty if it is not found.
static std::string findLibrary(llvm::StringRef name) {
  llvm::Triple triple(llvm::sys::getDefaultTargetTriple());
  std::string multiarch = (triple.getArchName() + "-linux-gnu").str();
  for (std::string directory :
       {"/lib/" + multiarch, "/usr/lib/" + multiarch, std::string("/lib64"),
        std::string("/usr/lib64")})
    if (std::string path = directory + "/" + name.str();
        llvm::sys::fs::exists(path))
      return path;
  return "";
}

static llvm::Error writeFile(llvm::StringRef path, llvm::ArrayRef<char> bytes) {
  std::error_code code;
  llvm::raw_fd_ostream stream(path, code);
  if (!code) {
    stream.write(bytes.data(), bytes.size());
    stream.close();
    code = stream.error();
    stream.clear_error(); // an unhandled error ends the process
  }
  if (code)
    return error("cannot write " + path + ": " + code.message());
  return llvm::Error::success();
}

llvm::Expected<std::string> mlir::moe::findLinker() {
  for (const char *name : {"ld.lld-22", "ld.lld", "ld"})
    if (llvm::ErrorOr<std::string> found = llvm::sys::findProgramByName(name))
      return *found;
  return error("no linker found; install lld-22 or binutils");
}

/// Allocates the disk space of the linker's output. A linker that maps the file
/// gets a SIGBUS if the disk fills up.
static llvm::Error reserve(llvm::StringRef path, uint64_t bytes) {
  int file;
  std::error_code code = llvm::sys::fs::openFileForWrite(path, file);
  if (!code) {
    if (int failure = posix_fallocate(file, 0, static_cast<off_t>(bytes)))
      code = std::error_code(failure, std::generic_category());
    close(file);
    (void)llvm::sys::fs::remove(path);
  }
  if (code)
    return error("cannot write " + path + ": " + code.message());
  return llvm::Error::success();
}

/// Links objects, which need only functions of the C and math libraries, into a
/// shared object.
static llvm::Expected<std::unique_ptr<llvm::MemoryBuffer>>
link(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects) {
  llvm::Expected<std::string> linker = findLinker();
  if (!linker)
    return linker.takeError();
  // A folder of its own, so that nothing is left behind if the linker crashes.
  llvm::SmallString<128> folder;
  if (std::error_code code =
          llvm::sys::fs::createUniqueDirectory("moe", folder))
    return error("cannot make a temporary folder: " + code.message());
  llvm::scope_exit removeFolder(
      [&] { (void)llvm::sys::fs::remove_directories(folder); });
  auto inFolder = [&](const llvm::Twine &name) {
    return (folder + "/" + name).str();
  };

  std::string output = inFolder("linked.so"), log = inFolder("log");
  llvm::SmallVector<std::string> inputs;
  uint64_t size = 0;
  for (auto [i, object] : llvm::enumerate(objects)) {
    inputs.push_back(inFolder(llvm::Twine(i) + ".o"));
    if (llvm::Error failure = writeFile(inputs.back(), object))
      return failure;
    size += object.size();
  }
  if (llvm::Error failure = reserve(output, 2 * size + (1 << 16)))
    return failure;
  llvm::SmallVector<llvm::StringRef> arguments{*linker,
                                               "-shared",
                                               "--hash-style=gnu",
                                               "-z",
                                               "noexecstack",
                                               "-z",
                                               "relro",
                                               "-z",
                                               "now",
                                               "--build-id=none",
                                               "-o",
                                               output};
  llvm::append_range(arguments, inputs);
  // Named as dependencies, so that exp and the like are found in every host
  // that loads it.
  arguments.push_back("--as-needed");
  std::string math = findLibrary("libm.so.6");
  if (!math.empty())
    arguments.push_back(math);
  std::optional<llvm::StringRef> redirects[] = {std::nullopt, log, log};
  std::string message, temporary = ("TMPDIR=" + folder).str();
  llvm::SmallVector<llvm::StringRef> environment{temporary};
  for (char **variable = environ; *variable; ++variable)
    if (!llvm::StringRef(*variable).starts_with("TMPDIR="))
      environment.push_back(*variable);
  int status =
      llvm::sys::ExecuteAndWait(*linker, arguments, llvm::ArrayRef(environment),
                                redirects, 0, 0, &message);
  if (status != 0) {
    auto text = llvm::MemoryBuffer::getFile(log);
    return error(*linker + " failed: " + message +
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
