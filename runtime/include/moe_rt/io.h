//===- io.h - Read and write tensors ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A C++ library beside the C runtime: .npy, .safetensors and .gguf files,
// Hugging Face checkpoints, and the weights of a function from one of them or
// from a seed.
// It neither throws nor needs LLVM. Files are mapped, not read: changing one
// while it is open is not supported.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_IO_H
#define MOE_RT_IO_H

#include "moe_rt/dlpack.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe::io {

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

enum class ErrorKind {
  Invalid,  // does not match the request
  NotFound, // no such file or tensor
  Damaged,  // the content of a file is invalid
  NoMemory,
};

struct Error {
  std::string message;
  ErrorKind kind = ErrorKind::Invalid;

  /// Returns the error with `where` as the prefix of its message.
  Error in(const std::string &where) const {
    return {where + ": " + message, kind};
  }
};

/// A value or an error.
template <typename T> class [[nodiscard]] Expected {
public:
  Expected(T value) : value(std::move(value)) {}
  Expected(Error error) : failure(std::move(error)) {}

  explicit operator bool() const { return value.has_value(); }
  T &operator*() { return *value; }
  const T &operator*() const { return *value; }
  T *operator->() { return &*value; }
  const T *operator->() const { return &*value; }

  Error takeError() { return std::move(failure); }
  const std::string &error() const { return failure.message; }

private:
  std::optional<T> value;
  Error failure;
};

template <> class [[nodiscard]] Expected<void> {
public:
  Expected() = default;
  Expected(Error error) : failure(std::move(error)), failed(true) {}

  explicit operator bool() const { return !failed; }
  Error takeError() { return std::move(failure); }
  const std::string &error() const { return failure.message; }

private:
  Error failure;
  bool failed = false;
};

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

/// Returns "f32", "bf16", ...; a description for a type without a name.
std::string dtypeName(DLDataType type);
/// Parses the name of a type in an artifact's metadata ("i1" is a byte).
std::optional<DLDataType> parseDType(std::string_view name);
/// Formats a type, such as "f32[64, 1024]".
std::string typeName(DLDataType type, const std::vector<int64_t> &shape);

/// Returns the bytes of a compact tensor; nullopt if they exceed 2^63-1 or are
/// not whole.
std::optional<uint64_t> byteSize(DLDataType type,
                                 const std::vector<int64_t> &shape);

/// A row-major tensor in memory owned by others.
struct TensorView {
  DLDataType dtype = {kDLFloat, 32, 1};
  std::vector<int64_t> shape;
  const void *data = nullptr;
  uint64_t bytes = 0;
  /// Of a block-quantised tensor of a .gguf file, the format of its blocks,
  /// e.g. "q8_0": its elements are u8 and its last extent is in bytes.
  const char *format = nullptr;
};

/// The tensors of a file by name.
using TensorMap = std::map<std::string, TensorView, std::less<>>;

/// A row-major tensor that owns its memory, aligned to 64 bytes or more.
class Tensor {
public:
  /// Allocates without initialization. `alignment` is a power of two.
  static Expected<Tensor> create(DLDataType dtype, std::vector<int64_t> shape,
                                 uint32_t alignment = 64);

  DLDataType dtype() const { return type; }
  const std::vector<int64_t> &shape() const { return extents; }
  void *data() const { return memory.get(); }
  uint64_t bytes() const { return size; }

  TensorView view() const { return {type, extents, memory.get(), size}; }
  /// Returns a view of this tensor.
  DLTensor dlpack();

private:
  struct Release {
    void operator()(void *memory) const;
  };

  DLDataType type = {kDLFloat, 32, 1};
  std::vector<int64_t> extents;
  std::unique_ptr<void, Release> memory;
  uint64_t size = 0;
};

/// Returns element `index` as a double; 0 for types that are not supported
/// (complex64, f6 and smaller).
double readElement(const TensorView &tensor, uint64_t index);
/// Stores `value`, rounded to nearest even; false for types that are not
/// supported.
bool writeElement(const Tensor &tensor, uint64_t index, double value);
/// Converts elements [first, first + count) to another type with the above.
bool convertElements(const TensorView &from, uint64_t first, uint64_t count,
                     DLDataType type, void *to);

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// A file mapped for reading.
class MappedFile {
public:
  static Expected<MappedFile> open(const std::string &path);
  MappedFile(MappedFile &&other) noexcept;
  MappedFile &operator=(MappedFile &&other) noexcept;
  ~MappedFile();

  const char *data() const { return address; }
  uint64_t size() const { return length; }

private:
  MappedFile() = default;

  const char *address = nullptr;
  uint64_t length = 0;
};

/// Writes a file under a temporary name and renames it, so that readers never
/// see a partial file.
Expected<void> writeFileAtomically(
    const std::string &path,
    const std::vector<std::pair<const void *, uint64_t>> &parts);

/// Evicts the pages of a mapped file from memory; accesses load them again.
void dropMappedPages(const void *begin, uint64_t size);

/// Parses the bytes of a .npy file; the view refers to them.
Expected<TensorView> parseNpy(const void *bytes, uint64_t size);
/// Reads a .npy file into memory that is aligned and writable.
Expected<Tensor> readNpy(const std::string &path);
/// Writes a .npy file; bf16 has the type of ml_dtypes ('<V2').
Expected<void> writeNpy(const std::string &path, const TensorView &tensor);

/// A mapped .safetensors file.
class SafetensorsFile {
public:
  using Tensors = TensorMap;

  static Expected<SafetensorsFile> open(const std::string &path);
  /// Parses the bytes of a file; the tensors refer to them.
  static Expected<Tensors> parse(const void *bytes, uint64_t size);

  const Tensors &tensors() const { return entries; }

private:
  SafetensorsFile(MappedFile file, Tensors entries)
      : file(std::move(file)), entries(std::move(entries)) {}

  MappedFile file;
  Tensors entries;
};

/// A format of .gguf files in which `elements` neighbours of a row, one block,
/// are `bytes` bytes.
struct BlockFormat {
  const char *name; // as ggml calls it: "q4_0", "q6_K", "mxfp4"
  uint32_t elements;
  uint32_t bytes;
};

/// Finds the format that a TensorView names.
std::optional<BlockFormat> findBlockFormat(std::string_view name);

/// The key-values of a .gguf file, such as "qwen3moe.expert_count". They refer
/// to its bytes. A lookup fails with ErrorKind::NotFound without the key, and
/// with ErrorKind::Invalid if its value has another type.
class GgufMetadata {
public:
  /// A value in the file.
  struct Value {
    uint32_t type = 0;        // gguf_metadata_value_type of the format
    uint32_t elementType = 0; // likewise, of an array
    uint64_t count = 0;       // bytes of a string, elements of an array
    const char *data = nullptr;
  };
  using Values = std::map<std::string, Value, std::less<>>;

  GgufMetadata() = default;
  explicit GgufMetadata(Values values) : values(std::move(values)) {}

  bool contains(std::string_view key) const {
    return values.find(key) != values.end();
  }
  std::vector<std::string> keys() const;

  Expected<std::string> string(std::string_view key) const;
  /// Of any width and signedness, up to 2^63-1.
  Expected<int64_t> integer(std::string_view key) const;
  /// f32 or f64.
  Expected<double> real(std::string_view key) const;
  Expected<bool> boolean(std::string_view key) const;
  /// An array; of integers as above.
  Expected<std::vector<int64_t>> integers(std::string_view key) const;

private:
  Expected<Value> find(std::string_view key) const;

  Values values;
};

/// A mapped .gguf file of version 2 or 3, little-endian. Shapes are row-major,
/// which is the reverse of how the file has them. Tensors in blocks of ggml's
/// formats have bytes as elements; see TensorView::format.
class GgufFile {
public:
  using Tensors = TensorMap;
  struct Content {
    GgufMetadata metadata;
    Tensors tensors;
  };

  static Expected<GgufFile> open(const std::string &path);
  /// Parses the bytes of a file; metadata and tensors refer to them. Tensors of
  /// a type that is not known, or has been removed from ggml, are an error.
  static Expected<Content> parse(const void *bytes, uint64_t size);
  /// Whether these bytes begin as such a file does.
  static bool hasMagic(const void *bytes, uint64_t size);

  const GgufMetadata &metadata() const { return content.metadata; }
  const Tensors &tensors() const { return content.tensors; }

private:
  GgufFile(MappedFile file, Content content)
      : file(std::move(file)), content(std::move(content)) {}

  MappedFile file;
  Content content;
};

/// Replaces the non-finite constants of Python's `json`, which JSON lacks: NaN
/// by `nan` and Infinity by `infinity`, also after a minus sign. All other text
/// stays unchanged.
std::string replaceNonFinite(std::string_view text, std::string_view nan,
                             std::string_view infinity);

/// The tensors of a checkpoint: one .safetensors file, or the directory of a
/// Hugging Face model with `model.safetensors`, with shards and their index, or
/// with .safetensors files without common names. Shards of an index are opened
/// when one of their tensors is first requested. Or a .gguf file: any part of
/// one that is split (`split.count`; NAME-00001-of-00003.gguf) opens all of
/// them, which are in one directory. Not thread-safe.
class Checkpoint {
public:
  static Expected<Checkpoint> open(const std::string &path);
  /// Parses the text of an index; returns the file of each tensor.
  static Expected<std::map<std::string, std::string, std::less<>>>
  parseIndex(const char *text, uint64_t size);

  bool contains(std::string_view name) const;
  std::vector<std::string> names() const;
  /// Finds a tensor; the entry is valid as long as the checkpoint.
  using Entry = const TensorMap::value_type *;
  Expected<Entry> find(std::string_view name);
  Expected<TensorView> lookup(std::string_view name);
  const std::string &path() const { return root; }
  /// The key-values of a .gguf file, of the first part if it is split; none for
  /// other files.
  const GgufMetadata &metadata() const;

private:
  /// An open file; no key-values if it is no .gguf file.
  struct Shard {
    MappedFile file;
    TensorMap tensors;
    GgufMetadata metadata;
  };

  Checkpoint() = default;
  Expected<Shard *> shard(const std::string &file);
  /// A file that is named, with the other parts if it is split.
  Expected<void> openFile(const std::string &file);
  Expected<void> openParts(const std::vector<std::string> &parts);
  Expected<void> openIndex(const std::string &file);
  Expected<void> openFiles(const std::vector<std::string> &files);

  std::string root;
  std::string directory; // ends in a slash
  std::map<std::string, std::string, std::less<>> shardOf;
  std::map<std::string, Shard> shards;
  std::string metadataFile; // the shard whose key-values are the checkpoint's
};

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

/// A weight of a function.
struct WeightSpec {
  std::string name;
  DLDataType dtype;
  std::vector<int64_t> shape;
  uint32_t alignment = 1;
  std::vector<std::string> source; // tensors of a checkpoint; may be empty
  bool retained = true;            // calls read it, so it must stay
  bool convert = false;          // tensors in `source` may be f32, f16 or bf16
  std::string sourceFormat = {}; // as TensorView::format; empty: not known
};

/// Returns the weights of a function in signature order, from the metadata of a
/// module (moe_rt_module_metadata) and its variant (moe_rt_module_variant). An
/// empty name selects the only function.
Expected<std::vector<WeightSpec>> readWeightSpecs(std::string_view metadata,
                                                  size_t variant,
                                                  std::string_view function);

/// Returns the compiler's warnings about slow code in the metadata of a module.
std::vector<std::string> readWarnings(std::string_view metadata);

/// Returns the target of a variant in the metadata of an artifact: the
/// architecture of a GPU, or a processor; empty if it names none.
std::string readTarget(std::string_view metadata, size_t variant);

/// Called with the bytes that are done and their total.
using ProgressFn = std::function<void(uint64_t done, uint64_t total)>;

/// The weights of a function as DLTensors, with their memory.
class WeightBinder {
public:
  /// Binds tensors of a checkpoint, by the names in `source`, else by the name
  /// of the weight. A single aligned tensor stays mapped; several are stacked
  /// into a copy. A tensor named by `source` may merge adjacent dimensions of
  /// the weight, or split one; any other shape is an error, even with the same
  /// number of elements. A weight of integers takes unsigned ones of its width,
  /// too.
  static Expected<WeightBinder> bind(const std::vector<WeightSpec> &specs,
                                     std::shared_ptr<Checkpoint> checkpoint,
                                     const ProgressFn &progress = nullptr);
  /// Draws weights from a normal distribution with standard deviation
  /// 1/sqrt(last extent). Values depend only on the seed and the name of a
  /// weight. Integers (not i1) take all values alike, and the powers of two of
  /// f8E8M0FNU are from 2^-4 to 2^4.
  static Expected<WeightBinder> random(const std::vector<WeightSpec> &specs,
                                       uint64_t seed,
                                       const ProgressFn &progress = nullptr);

  /// Returns the arguments of moe_rt_layer_create; valid as long as the binder,
  /// even if it is moved.
  const std::vector<DLTensor> &tensors() const { return views; }
  /// Returns the bytes that were copied or generated instead of mapped.
  uint64_t ownedBytes() const;

private:
  void add(const void *data, const WeightSpec &spec);

  std::shared_ptr<Checkpoint> checkpoint;
  std::vector<Tensor> owned;
  std::vector<std::unique_ptr<std::vector<int64_t>>> shapes;
  std::vector<DLTensor> views;
};

/// Reads the weights of a function in parts for
/// moe_rt_layer_create_from_source, so that weights which are only prepared are
/// never in memory as a whole.
class WeightReader {
public:
  /// Finds and checks all weights like WeightBinder::bind. Pages of a file are
  /// evicted after they are read.
  static Expected<WeightReader> open(const std::vector<WeightSpec> &specs,
                                     std::shared_ptr<Checkpoint> checkpoint,
                                     ProgressFn progress = nullptr);
  /// Generates the values of WeightBinder::random.
  static Expected<WeightReader> random(const std::vector<WeightSpec> &specs,
                                       uint64_t seed,
                                       ProgressFn progress = nullptr);
  /// Returns the address of a weight that is mapped as a whole and aligned,
  /// otherwise nullptr. Valid as long as the checkpoint.
  const void *mapped(size_t weight) const;

  WeightReader(WeightReader &&);
  WeightReader &operator=(WeightReader &&);
  ~WeightReader();

  /// A moe_rt_read_weight_fn; `user` is the reader.
  static int32_t read(void *user, size_t weight, int64_t first, int64_t count,
                      void *data, uint64_t bytes);

private:
  struct State;
  explicit WeightReader(std::unique_ptr<State> state);

  std::unique_ptr<State> state;
};

//===----------------------------------------------------------------------===//
// Random values and progress
//===----------------------------------------------------------------------===//

/// Returns value `index` of the counter-based stream `seed` (splitmix64).
uint64_t randomBits(uint64_t seed, uint64_t index);
/// Derives the seed of the tensor `name`.
uint64_t mixSeed(uint64_t seed, std::string_view name);
/// Fills a tensor with normally distributed values (Box-Muller). False if the
/// type is not f64, f32, f16, bf16, f8E4M3FN or f8E5M2.
bool fillNormal(const Tensor &tensor, uint64_t seed, double deviation);
/// Fills elements [begin, begin + count) of such a tensor.
bool fillNormal(DLDataType type, void *data, uint64_t begin, uint64_t count,
                uint64_t seed, double deviation);
/// Likewise, with the values of WeightBinder::random for other types: i8, i16,
/// i32, i64 and f8E8M0FNU.
bool fillWeight(DLDataType type, void *data, uint64_t begin, uint64_t count,
                uint64_t seed, double deviation);

/// Returns how many cores this process may use: those of its affinity, but no
/// more than its cgroups give it time for.
int64_t countCores();

/// Shows progress on stderr if that is a terminal and the work takes more than
/// two seconds.
class ProgressBar {
public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  void update(uint64_t done, uint64_t total);

private:
  std::string label;
  int64_t start;     // milliseconds
  int64_t shown = 0; // when it was last drawn
  bool terminal;
};

} // namespace moe::io

#endif // MOE_RT_IO_H
