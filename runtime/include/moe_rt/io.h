//===- io.h - Read and write tensors ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A C++ library beside the C runtime: .npy and .safetensors files, Hugging Face
// checkpoints, and the weights of a function from one of them or from a seed.
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
  Invalid,  // does not fit what is asked for
  NotFound, // no such file or tensor
  Damaged,  // a file that is not what it should be
  NoMemory,
};

struct Error {
  std::string message;
  ErrorKind kind = ErrorKind::Invalid;

  /// The same, with where it happened before it.
  Error in(const std::string &where) const {
    return {where + ": " + message, kind};
  }
};

/// A value, or the reason why there is none.
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

/// "f32", "bf16", ...; a description for a type that has no name.
std::string dtypeName(DLDataType type);
/// The type of that name in an artifact's metadata ("i1" is a byte).
std::optional<DLDataType> parseDType(std::string_view name);
/// "f32[64, 1024]".
std::string typeName(DLDataType type, const std::vector<int64_t> &shape);

/// Bytes of a compact tensor; nothing if they exceed 2^63-1 or are not whole.
std::optional<uint64_t> byteSize(DLDataType type,
                                 const std::vector<int64_t> &shape);

/// A row-major tensor in memory that something else owns.
struct TensorView {
  DLDataType dtype = {kDLFloat, 32, 1};
  std::vector<int64_t> shape;
  const void *data = nullptr;
  uint64_t bytes = 0;
};

/// A row-major tensor that owns its memory, aligned to 64 bytes or more.
class Tensor {
public:
  /// Uninitialised. `alignment` is a power of two.
  static Expected<Tensor> create(DLDataType dtype, std::vector<int64_t> shape,
                                 uint32_t alignment = 64);

  DLDataType dtype() const { return type; }
  const std::vector<int64_t> &shape() const { return extents; }
  void *data() const { return memory.get(); }
  uint64_t bytes() const { return size; }

  TensorView view() const { return {type, extents, memory.get(), size}; }
  /// Points into this tensor.
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

/// Element `index` as a double; 0 for types without numbers here (f8 and
/// smaller).
double readElement(const TensorView &tensor, uint64_t index);
/// Store `value`, rounded to nearest even; false for such types.
bool writeElement(const Tensor &tensor, uint64_t index, double value);
/// Elements [first, first + count) as another type, by these two.
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

/// Write a file under another name and rename it, so that no reader ever sees
/// half of it.
Expected<void> writeFileAtomically(
    const std::string &path,
    const std::vector<std::pair<const void *, uint64_t>> &parts);

/// Let the pages of a mapped file leave memory; reading them brings them back.
void dropMappedPages(const void *begin, uint64_t size);

/// Describe the array in the bytes of a .npy file, in place.
Expected<TensorView> parseNpy(const void *bytes, uint64_t size);
/// A .npy file. The array is copied, so it is aligned and may be changed.
Expected<Tensor> readNpy(const std::string &path);
/// bf16 is written as ml_dtypes does ('<V2').
Expected<void> writeNpy(const std::string &path, const TensorView &tensor);

/// A mapped .safetensors file.
class SafetensorsFile {
public:
  using Tensors = std::map<std::string, TensorView, std::less<>>;

  static Expected<SafetensorsFile> open(const std::string &path);
  /// The tensors in the bytes of a file, in place.
  static Expected<Tensors> parse(const void *bytes, uint64_t size);

  const Tensors &tensors() const { return entries; }

private:
  SafetensorsFile(MappedFile file, Tensors entries)
      : file(std::move(file)), entries(std::move(entries)) {}

  MappedFile file;
  Tensors entries;
};

/// JSON of what Python's `json` wrote, which spells three numbers as JSON does
/// not: `nan` stands for the value NaN, `infinity` for Infinity, after the sign
/// of -Infinity. All else stays as it is, for a parser to refuse.
std::string replaceNonFinite(std::string_view text, std::string_view nan,
                             std::string_view infinity);

/// The tensors of a checkpoint: one .safetensors file, or the directory of a
/// Hugging Face model with `model.safetensors`, with shards and their index, or
/// with .safetensors files that share no name. Shards of an index are opened
/// when a tensor of theirs is first asked for. Not for use from several threads
/// at once.
class Checkpoint {
public:
  static Expected<Checkpoint> open(const std::string &path);
  /// The file of each tensor, from the text of an index.
  static Expected<std::map<std::string, std::string, std::less<>>>
  parseIndex(const char *text, uint64_t size);

  bool contains(std::string_view name) const;
  std::vector<std::string> names() const;
  /// A tensor with its name; both are valid as long as the checkpoint.
  using Entry = const SafetensorsFile::Tensors::value_type *;
  Expected<Entry> find(std::string_view name);
  Expected<TensorView> lookup(std::string_view name);
  const std::string &path() const { return root; }

private:
  Checkpoint() = default;
  Expected<SafetensorsFile *> shard(const std::string &file);
  Expected<void> openIndex(const std::string &file);
  Expected<void> openFiles(const std::vector<std::string> &files);

  std::string root;
  std::string directory; // with a slash
  std::map<std::string, std::string, std::less<>> shardOf;
  std::map<std::string, SafetensorsFile> shards;
};

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

/// A weight that a function wants.
struct WeightSpec {
  std::string name;
  DLDataType dtype;
  std::vector<int64_t> shape;
  uint32_t alignment = 1;
  std::vector<std::string> source; // tensors of a checkpoint; may be empty
  bool retained = true;            // calls read it, so it must stay
  bool convert = false; // tensors in `source` may be f32, f16 or bf16
};

/// The weights of a function in signature order, from a module's metadata
/// (moe_rt_module_metadata) and its variant (moe_rt_module_variant). An empty
/// name means the only function.
Expected<std::vector<WeightSpec>> readWeightSpecs(std::string_view metadata,
                                                  size_t variant,
                                                  std::string_view function);

/// What of a module's code the compiler said will be slow, and why; nothing
/// where the metadata does not say.
std::vector<std::string> readWarnings(std::string_view metadata);

/// Called with the bytes done so far and their total.
using ProgressFn = std::function<void(uint64_t done, uint64_t total)>;

/// The weights of a function as DLTensors, and the memory they lie in.
class WeightBinder {
public:
  /// From a checkpoint: by the names in `source`, else by the weight's own
  /// name. A single aligned tensor is used where it is mapped; several are
  /// stacked into a copy. One that is found by `source` may have neighbouring
  /// dimensions of the weight as one, or one of it as several; any other shape
  /// is refused, also with as many elements.
  static Expected<WeightBinder> bind(const std::vector<WeightSpec> &specs,
                                     std::shared_ptr<Checkpoint> checkpoint,
                                     const ProgressFn &progress = nullptr);
  /// Drawn from a normal distribution with standard deviation 1/sqrt(last
  /// extent). The same seed and name yield the same values, whatever the other
  /// weights are. Floating-point types only.
  static Expected<WeightBinder> random(const std::vector<WeightSpec> &specs,
                                       uint64_t seed,
                                       const ProgressFn &progress = nullptr);

  /// For moe_rt_layer_create; valid as long as the binder, wherever it moves.
  const std::vector<DLTensor> &tensors() const { return views; }
  /// Bytes that were copied or generated, rather than mapped.
  uint64_t ownedBytes() const;

private:
  void add(const void *data, const WeightSpec &spec);

  std::shared_ptr<Checkpoint> checkpoint;
  std::vector<Tensor> owned;
  std::vector<std::unique_ptr<std::vector<int64_t>>> shapes;
  std::vector<DLTensor> views;
};

/// The weights of a function, read piece by piece, for
/// moe_rt_layer_create_from_source: a weight that the layer only prepares never
/// lies in memory as a whole.
class WeightReader {
public:
  /// From a checkpoint, as WeightBinder::bind finds them: everything is found
  /// and checked here. Pages of a file leave memory once they are read.
  static Expected<WeightReader> open(const std::vector<WeightSpec> &specs,
                                     std::shared_ptr<Checkpoint> checkpoint,
                                     ProgressFn progress = nullptr);
  /// The values of WeightBinder::random.
  static Expected<WeightReader> random(const std::vector<WeightSpec> &specs,
                                       uint64_t seed,
                                       ProgressFn progress = nullptr);
  /// Where a weight lies in a mapped file, whole and aligned; nullptr if it
  /// does not. Valid as long as the checkpoint.
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
// Random numbers and progress
//===----------------------------------------------------------------------===//

/// Counter-based: number `index` of stream `seed`, from splitmix64.
uint64_t randomBits(uint64_t seed, uint64_t index);
/// A seed for the tensor of that name.
uint64_t mixSeed(uint64_t seed, std::string_view name);
/// Fill with normally distributed numbers (Box-Muller). False if the type is
/// not f64, f32, f16, bf16 or f8E4M3FN.
bool fillNormal(const Tensor &tensor, uint64_t seed, double deviation);
/// Elements [begin, begin + count) of such a tensor.
bool fillNormal(DLDataType type, void *data, uint64_t begin, uint64_t count,
                uint64_t seed, double deviation);

/// Shows progress on stderr where that is a terminal and the work takes more
/// than two seconds.
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
