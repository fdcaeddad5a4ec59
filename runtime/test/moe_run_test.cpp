//===- moe_run_test.cpp - The tool moe-run --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Runs the tool as its users do, and looks at its exit status and its output.
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/io.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sys/wait.h>

using namespace moe::io;
using namespace moe::test;

namespace {

class MoeRunTest : public ::testing::Test {
protected:
  void SetUp() override {
    writeFile(directory / "double.moe",
              makeArtifact(readFile(FIXTURE), metadataOf({doubleFunction})));
    writeFile(directory / "layer.moe",
              makeArtifact(readFile(FIXTURE), metadataOf({layerFunction})));
    writeFile(directory / "both.moe",
              makeArtifact(readFile(FIXTURE),
                           metadataOf({doubleFunction, layerFunction})));
  }

  /// Run it in the directory; what it prints is in `out` and `err`.
  int run(const std::string &arguments, std::string program = MOE_RUN) {
    std::string command = "cd '" + directory.path + "' && '" + program + "' " +
                          arguments + " >out 2>err";
    int status = std::system(command.c_str());
    out = readFile(directory / "out");
    err = readFile(directory / "err");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void expectError(const std::string &arguments, const std::string &text) {
    EXPECT_EQ(run(arguments), 2) << arguments;
    EXPECT_EQ(err.rfind("moe-run: error: ", 0), 0u) << err;
    EXPECT_NE(err.find(text), std::string::npos) << err;
    EXPECT_EQ(out, "") << arguments;
  }

  void save(const std::string &name, std::vector<int64_t> shape,
            const std::vector<double> &values,
            DLDataType type = {kDLFloat, 32, 1}) {
    Expected<Tensor> tensor = Tensor::create(type, std::move(shape));
    ASSERT_TRUE(tensor);
    for (size_t i = 0; i < values.size(); ++i)
      writeElement(*tensor, i, values[i]);
    ASSERT_TRUE(writeNpy(directory / name, tensor->view()));
  }
  std::vector<double> load(const std::string &name) {
    Expected<Tensor> tensor = readNpy(directory / name);
    EXPECT_TRUE(tensor) << tensor.error();
    std::vector<double> values;
    for (uint64_t i = 0; tensor && i < tensor->bytes() / 4; ++i)
      values.push_back(readElement(tensor->view(), i));
    return values;
  }

  TemporaryDirectory directory;
  std::string out, err;
};

#define EXPECT_CONTAINS(text, part)                                            \
  EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(MoeRunTest, Help) {
  EXPECT_EQ(run("--help"), 0);
  EXPECT_CONTAINS(out, "usage: moe-run PROGRAM");
  EXPECT_EQ(run("--version"), 0);
  EXPECT_EQ(out, "moe-run 0.1.0\n");
}

TEST_F(MoeRunTest, RunsOnFiles) {
  save("x.npy", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(run("double.moe --input x.npy --output y.npy"), 0) << err;
  EXPECT_EQ(load("y.npy"), (std::vector<double>{2, 4, 6, 8, 10, 12, 14, 16}));
  EXPECT_CONTAINS(out, "y: f32[2, 4], min 2, max 16, mean 9 -> y.npy");
  EXPECT_EQ(run("double.moe --input=x=x.npy --output y=z.npy"), 0) << err;
  EXPECT_EQ(load("z.npy").size(), 8u);
}

TEST_F(MoeRunTest, RunsWithoutTokens) {
  save("x.npy", {0, 4}, {});
  EXPECT_EQ(run("double.moe --input x.npy --output y.npy"), 0) << err;
  EXPECT_TRUE(load("y.npy").empty());
  EXPECT_EQ(run("layer.moe --weights random --tokens 0 --stats"), 0) << err;
}

TEST_F(MoeRunTest, Compares) {
  save("x.npy", {1, 4}, {1, 2, 3, 4});
  save("good.npy", {1, 4}, {2, 4, 6, 8.0001});
  save("bad.npy", {1, 4}, {2, 4, 6, 9});
  save("nan.npy", {1, 4}, {2, 4, 6, NAN});
  save("bf16.npy", {1, 4}, {2, 4, 6, 8}, {kDLBfloat, 16, 1});
  save("shape.npy", {4, 1}, {2, 4, 6, 8});
  EXPECT_EQ(run("double.moe --input x.npy --expect good.npy"), 0) << err;
  EXPECT_CONTAINS(out, "y: matches: largest absolute error");
  EXPECT_EQ(run("double.moe --input x.npy --expect bf16.npy --rtol 0 --atol 0"),
            0);
  EXPECT_EQ(run("double.moe --input x.npy --expect bad.npy"), 1);
  EXPECT_CONTAINS(out, "y: differs: largest absolute error 1, relative 0.1111");
  EXPECT_CONTAINS(out, "1 of 4 elements are outside the tolerance; the first "
                       "is element 3: 8, expected 9");
  EXPECT_EQ(run("double.moe --input x.npy --expect bad.npy --atol 1"), 0);
  EXPECT_EQ(run("double.moe --input x.npy --expect bad.npy --rtol 0.2"), 0);
  EXPECT_EQ(run("double.moe --input x.npy --expect nan.npy --rtol 9"), 1);
  save("x.npy", {1, 4}, {1, 2, 3, NAN});
  EXPECT_EQ(run("double.moe --input x.npy --expect nan.npy"), 0);
  EXPECT_CONTAINS(out, "1 NaN");
  EXPECT_EQ(run("double.moe --input x.npy --expect good.npy --atol 1e30"), 1);
  expectError("double.moe --input x.npy --expect shape.npy",
              "output 'y' has type f32[1, 4], the expected tensor f32[4, 1]");
}

TEST_F(MoeRunTest, DrawsTheSameInputsEachTime) {
  EXPECT_EQ(run("layer.moe --weights random:3 --tokens 5 --seed 1 "
                "--output a.npy --repeat 5"),
            0)
      << err;
  EXPECT_CONTAINS(out, "5 calls: results are bit-identical");
  EXPECT_EQ(run("layer.moe --weights random:3 --tokens 5 --seed 1 "
                "--expect a.npy --rtol 0 --atol 0"),
            0);
  EXPECT_EQ(run("layer.moe --weights random:4 --tokens 5 --seed 1 "
                "--expect a.npy"),
            1);
  EXPECT_EQ(run("layer.moe --weights random:3 --tokens 5 --seed 2 "
                "--expect a.npy"),
            1);
}

TEST_F(MoeRunTest, BenchmarksAsJson) {
  EXPECT_EQ(run("layer.moe --weights random --tokens 0,1,7 --benchmark "
                "--repeat 3 --json --stats"),
            0)
      << err;
  nlohmann::json json = nlohmann::json::parse(out, nullptr, false);
  ASSERT_TRUE(json.is_object()) << out;
  EXPECT_EQ(json["function"], "layer");
  ASSERT_EQ(json["runs"].size(), 3u);
  const nlohmann::json &last = json["runs"][2];
  EXPECT_EQ(last["tokens"], 7);
  EXPECT_EQ(last["calls"], 3);
  EXPECT_EQ(last["workspace_bytes"], 128);
  EXPECT_LE(last["min_ms"], last["median_ms"]);
  EXPECT_LE(last["median_ms"], last["max_ms"]);
  EXPECT_GT(last["tokens_per_second"], 0);
  // Three timed calls, none of the warm-up.
  EXPECT_EQ(last["dispatches"][0]["calls"], 3);
  EXPECT_EQ(last["dispatches"][0]["choices"], 3 * 7 * 2);
  EXPECT_EQ(last["dispatches"][0]["tokens_per_expert"].size(), 3u);
}

TEST_F(MoeRunTest, Profiles) {
  EXPECT_EQ(run("layer.moe --weights random --tokens 7 --profile --repeat 4"),
            0)
      << err;
  EXPECT_CONTAINS(out, ", 4 calls, median ");
  EXPECT_CONTAINS(out, "the code has no stages");
  EXPECT_CONTAINS(out, "dispatch 0: ");
  std::string staged = std::string(doubleFunction) +
                       ", \"stages\": [{\"name\": \"gate\", \"kernels\": "
                       "[]}]";
  writeFile(directory / "staged.moe",
            makeArtifact(readFile(FIXTURE), metadataOf({staged})));
  // Three calls that warm up are not counted, nor those of the benchmark.
  EXPECT_EQ(
      run("staged.moe --tokens 2 --benchmark --profile --repeat 6 --json"), 0)
      << err;
  nlohmann::json json = nlohmann::json::parse(out, nullptr, false);
  ASSERT_TRUE(json.is_object()) << out;
  EXPECT_TRUE(json["target"].is_string());
  const nlohmann::json &profile = json["runs"][0]["profile"];
  EXPECT_EQ(profile["name"], "call");
  EXPECT_EQ(profile["calls"], 6);
  EXPECT_GT(profile["median_ms"], 0);
  // Its code begins no stage.
  EXPECT_EQ(profile["stages"].size(), 0u);
}

TEST_F(MoeRunTest, BenchmarksAsText) {
  EXPECT_EQ(run("double.moe --tokens 1,10 --benchmark --repeat 2"), 0) << err;
  EXPECT_CONTAINS(out, "median ms");
  EXPECT_CONTAINS(out, "tokens/s");
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3) << out;
}

TEST_F(MoeRunTest, ReadsSafetensors) {
  auto item = [](const char *name, const char *dtype, const char *shape,
                 int begin, int end) {
    return std::string("\"") + name + "\":{\"dtype\":\"" + dtype +
           "\",\"shape\":" + shape + ",\"data_offsets\":[" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
  };
  std::string header = "{" + item("x", "F32", "[1,4]", 0, 16) + "," +
                       item("ids", "I32", "[1,2]", 16, 24) + "," +
                       item("w", "F32", "[3,4]", 24, 72) + "}";
  std::string bytes(1, static_cast<char>(header.size()));
  bytes += std::string(7, '\0') + header + std::string(72, '\0');
  writeFile(directory / "all.safetensors", bytes);
  save("y.npy", {1, 4}, {0, 0, 0, 0});
  EXPECT_EQ(run("layer.moe --weights all.safetensors --input all.safetensors "
                "--expect y.npy --stats"),
            0)
      << err;
  EXPECT_CONTAINS(out, "y: matches");
  EXPECT_CONTAINS(out, "dispatch 0: 1 calls, 2 choices, 0 dropped");
  // A file that is named goes before the one that has all.
  save("ids.npy", {1, 2}, {-1, 2}, {kDLInt, 32, 1});
  EXPECT_EQ(run("layer.moe --weights all.safetensors --input all.safetensors "
                "--input ids=ids.npy --stats"),
            0)
      << err;
  EXPECT_CONTAINS(out, "1 choices");
  expectError("double.moe --tokens 1 --expect all.safetensors",
              "all.safetensors: there is no tensor 'y'");
}

TEST_F(MoeRunTest, RunsStaticFunctions) {
  std::string body = doubleFunction;
  for (size_t at; (at = body.find("[-1, 4]")) != std::string::npos;)
    body.replace(at, 7, "[2, 4]");
  writeFile(directory / "static.moe",
            makeArtifact(readFile(FIXTURE), metadataFor(body)));
  EXPECT_EQ(run("static.moe"), 0) << err;
  EXPECT_CONTAINS(out, "y: f32[2, 4]");
}

TEST_F(MoeRunTest, DrawsDistinctIds) {
  // With three experts and two choices per token, never one expert twice.
  EXPECT_EQ(run("layer.moe --weights random --tokens 4 --stats --json"), 0);
  nlohmann::json json = nlohmann::json::parse(out, nullptr, false);
  ASSERT_TRUE(json.is_object()) << out;
  const nlohmann::json &dispatch = json["runs"][0]["dispatches"][0];
  EXPECT_EQ(dispatch["choices"], 8);
  for (const nlohmann::json &count : dispatch["tokens_per_expert"])
    EXPECT_LE(count, 4);
}

TEST_F(MoeRunTest, PreparesWeights) {
  writeFile(directory / "packed.moe",
            makeArtifact(readFile(FIXTURE),
                         metadataOf({packedFunction, packFunction})));
  std::string data;
  auto floats = [&](std::vector<float> values) {
    data.append(reinterpret_cast<const char *>(values.data()),
                values.size() * sizeof(float));
  };
  for (float e : {1.f, 2.f, 3.f})
    floats({e, e, e, e}); // the gates
  floats({1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3});
  floats({0, 1, 2, 3});
  std::string header =
      R"({"e.0.gate":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
      R"("e.1.gate":{"dtype":"F32","shape":[4],"data_offsets":[16,32]},)"
      R"("e.2.gate":{"dtype":"F32","shape":[4],"data_offsets":[32,48]},)"
      R"("all.up":{"dtype":"F32","shape":[3,4],"data_offsets":[48,96]},)"
      R"("bias":{"dtype":"F32","shape":[4],"data_offsets":[96,112]}})";
  uint64_t size = header.size();
  writeFile(directory / "w.safetensors",
            std::string(reinterpret_cast<const char *>(&size), 8) + header +
                data);
  save("x.npy", {1, 4}, {1, 1, 1, 2});
  for (const char *threads : {"", " --threads 1", " --threads=3"}) {
    EXPECT_EQ(run("packed.moe --weights w.safetensors --input x.npy --output "
                  "y.npy --json" +
                  std::string(threads)),
              0)
        << err;
    // 1 + 4 + 9 times x, and the bias.
    EXPECT_EQ(load("y.npy"), (std::vector<double>{14, 15, 16, 31}));
    EXPECT_EQ(nlohmann::json::parse(out)["copied_weight_bytes"], 96 + 16);
  }
  EXPECT_EQ(run("packed.moe --weights random --tokens 2 --threads 2"), 0)
      << err;
  std::string two = out;
  EXPECT_EQ(run("packed.moe --weights random --tokens 2 --threads 1"), 0)
      << err;
  EXPECT_EQ(out, two);
  expectError("packed.moe --tokens 1", "the first is 'gate': give --weights");
  expectError("packed.moe --tokens 1 --weights w.safetensors --threads 4097",
              "num_threads is 4097, expected 0 to 4096");
  expectError("packed.moe --tokens 1 --threads many",
              "--threads: expected a number from 0 to 2^63-1, got 'many'");
}

TEST_F(MoeRunTest, RecordsRouting) {
  const std::string layer = "layer.moe --weights random:1 ";
  EXPECT_EQ(run(layer + "--tokens 3,4 --repeat 2 --record-routing r.json"), 0)
      << err;
  auto record = nlohmann::json::parse(readFile(directory / "r.json"));
  EXPECT_EQ(record["format"], 1);
  ASSERT_EQ(record["dispatches"].size(), 1u);
  const nlohmann::json &dispatch = record["dispatches"][0];
  EXPECT_EQ(dispatch["num_experts"], 3);
  EXPECT_EQ(dispatch["top_k"], 2);
  EXPECT_EQ(dispatch["calls"], 4);
  EXPECT_EQ(dispatch["choices"], 2 * 2 * (3 + 4));
  int64_t kept = 0;
  ASSERT_EQ(dispatch["tokens_per_expert"].size(), 3u);
  for (const nlohmann::json &count : dispatch["tokens_per_expert"])
    kept += count.get<int64_t>();
  EXPECT_EQ(dispatch["choices"], kept + dispatch["dropped"].get<int64_t>());
  EXPECT_EQ(dispatch.size(), 6u);

  // What the report says of each run adds up to it; it says so only if asked.
  EXPECT_EQ(out.find("dispatch"), std::string::npos);
  EXPECT_EQ(run(layer + "--tokens 3,4 --repeat 2 --stats --json"), 0) << err;
  std::vector<int64_t> sum(3);
  auto report = nlohmann::json::parse(out);
  for (const nlohmann::json &each : report["runs"])
    for (size_t e = 0; e < 3; ++e)
      sum[e] += each["dispatches"][0]["tokens_per_expert"][e].get<int64_t>();
  EXPECT_EQ(dispatch["tokens_per_expert"], nlohmann::json(sum));

  EXPECT_EQ(run("double.moe --tokens 1 --record-routing none.json"), 0) << err;
  record = nlohmann::json::parse(readFile(directory / "none.json"));
  EXPECT_TRUE(record["dispatches"].empty());
  expectError(layer + "--tokens 1 --record-routing no/r.json",
              "no/r.json: cannot create");
}

TEST_F(MoeRunTest, CommandLineErrors) {
  expectError("", "expected a program; see --help");
  expectError("double.moe --nonsense", "unknown option '--nonsense'");
  expectError("double.moe double.moe", "unexpected argument 'double.moe'");
  expectError("double.moe --input", "--input needs a value");
  expectError("double.moe --tokens 1,,2",
              "--tokens: expected a number from 0 to 2^63-1, got ''");
  expectError("double.moe --tokens -1",
              "--tokens: expected a number from 0 to 2^63-1, got '-1'");
  expectError("double.moe --tokens 99999999999999999999",
              "expected a number from 0");
  expectError("double.moe --rtol x",
              "--rtol: expected a number of at least 0, got 'x'");
  expectError("double.moe --atol=-1",
              "--atol: expected a number of at least 0, got '-1'");
  expectError("double.moe --atol nan",
              "--atol: expected a number of at least 0, got 'nan'");
  expectError("double.moe --repeat 0", "--repeat: expected at least 1");
  expectError("double.moe --seed 1x",
              "--seed: expected a number from 0 to 2^64-1, got '1x'");
  expectError("double.moe --tokens 1,2 --expect y.npy",
              "need one number of tokens, there are 2");
  expectError("double.moe --tokens 1 --input x.npy",
              "expected either --tokens or --input, got both");
}

// Whatever it is called there: what is read stays.
TEST_F(MoeRunTest, WritesNothingThatIsRead) {
  namespace fs = std::filesystem;
  save("x.npy", {1, 4}, {1, 2, 3, 4});
  save("y.npy", {1, 4}, {2, 4, 6, 8});
  fs::create_symlink("x.npy", directory / "link.npy");
  fs::create_hard_link(directory / "double.moe", directory / "other.npy");
  fs::create_directory(directory / "weights");
  writeFile(directory / "weights/model.safetensors", "kept");
  const std::string call = "double.moe --input x.npy --expect y.npy ";
  for (const char *option :
       {"--output x.npy", "--output y=link.npy", "--output ./y.npy",
        "--output other.npy", "--record-routing x.npy",
        "--weights weights --output weights/model.safetensors",
        "--output new.npy --record-routing new.npy"})
    expectError(call + option, "expected another file");
  EXPECT_EQ(load("x.npy"), (std::vector<double>{1, 2, 3, 4}));
  EXPECT_EQ(readFile(directory / "weights/model.safetensors"), "kept");
  EXPECT_FALSE(fs::exists(directory / "new.npy"));
  // What an earlier call wrote may be written again.
  EXPECT_EQ(run(call + "--output z.npy"), 0) << err;
  EXPECT_EQ(run(call + "--output z.npy"), 0) << err;
}

TEST_F(MoeRunTest, Devices) {
  EXPECT_EQ(run("double.moe --tokens 1 --device cpu --json"), 0) << err;
  EXPECT_EQ(nlohmann::json::parse(out)["device"], "cpu");
  for (const char *device :
       {"gpu", "cuda0", "cuda:", "cuda:x", "cuda:-1", "cuda:2147483648", "''"})
    expectError("double.moe --tokens 1 --device " + std::string(device),
                "--device: expected cpu, cuda or cuda:N, got '");
  writeFile(directory / "a.mlir", "");
  expectError("a.mlir --tokens 1 --device cuda",
              "a.mlir: MLIR is compiled for this CPU only");
  setenv("MOE_CUDA_LIBRARY", "/none/libcuda.so", 1);
  expectError("double.moe --tokens 1 --device cuda",
              "no NVIDIA driver: cannot open /none/libcuda.so");
  setenv("MOE_CUDA_LIBRARY", CUDA_DOUBLE, 1);
  expectError("double.moe --tokens 1 --device cuda:1000", "device");
  // An artifact for the CPU alone.
  expectError("double.moe --tokens 1 --device cuda",
              "is for the CPU, this context is for an NVIDIA GPU");
  unsetenv("MOE_CUDA_LIBRARY");
}

TEST_F(MoeRunTest, Errors) {
  save("x.npy", {2, 4}, std::vector<double>(8, 1));
  save("x5.npy", {2, 5}, std::vector<double>(10, 1));
  save("f16.npy", {2, 4}, std::vector<double>(8, 1), {kDLFloat, 16, 1});
  save("ids.npy", {2, 2}, {0, 1, 2, 3}, {kDLInt, 32, 1});
  expectError("none.moe --tokens 1", "none.moe: cannot open: No such file");
  expectError("x.npy --tokens 1", "x.npy: not an artifact");
  expectError("both.moe --tokens 1",
              "has 2 functions, choose one with --function: double, layer");
  expectError("both.moe --function no --tokens 1", "no function 'no'");
  expectError("double.moe", "give the inputs with --input, or --tokens");
  expectError("layer.moe --tokens 1",
              "has 1 weights, the first is 'w': give --weights");
  expectError("layer.moe --weights random:x --tokens 1", "'x' is no seed");
  expectError("layer.moe --weights none --tokens 1", "none: cannot open");
  expectError("double.moe --tokens 1001", "T is 1001, expected 0 to 1000");
  expectError("double.moe --input none.npy", "none.npy: cannot open");
  expectError("double.moe --input double.moe", "double.moe: not a .npy file");
  expectError("double.moe --input x5.npy", "input 'x': extent 1 is 5");
  expectError("double.moe --input f16.npy", "has type f16, expected f32");
  expectError("double.moe --input x.npy --input x.npy", "too many");
  expectError("double.moe --input z=x.npy",
              "there is no 'z', expected one of: x");
  expectError("double.moe --input x=x.npy --input x=x.npy", "already given");
  expectError("layer.moe --weights random --input x.npy",
              "input 'ids' of type i32[T, 2] is not given");
  expectError("layer.moe --weights random --input x.npy --input ids.npy",
              "input 'ids': element 3 is 3, expected an expert id in [0, 3)");
  EXPECT_EQ(run("both.moe --function double --input x.npy"), 0) << err;
}

TEST_F(MoeRunTest, CompilesMlir) {
  namespace fs = std::filesystem;
  // As it is installed: bin/moe-run and lib/libMoECompiler.so.
  fs::create_directories(directory / "bin");
  fs::create_directories(directory / "lib");
  std::string tool = directory / "bin/moe-run";
  fs::copy_file(MOE_RUN, tool);
  save("x.npy", {1, 4}, {1, 2, 3, 4});
  writeFile(directory / "a.mlir", metadataOf({doubleFunction}));
  writeFile(directory / "b.mlir", "error");

  fs::copy_file(FAKE_COMPILER, directory / "lib/libMoECompiler.so");
  EXPECT_EQ(run("a.mlir --input x.npy --output y.npy", tool), 0) << err;
  EXPECT_EQ(load("y.npy"), (std::vector<double>{2, 4, 6, 8}));
  EXPECT_EQ(run("b.mlir --tokens 1", tool), 2);
  EXPECT_EQ(err, "moe-run: error: b.mlir: cannot compile: it says so\n");
  EXPECT_EQ(run("b.mlir --tokens 1 --compile-options --fast", tool), 2);
  EXPECT_EQ(err, "moe-run: error: b.mlir: cannot compile: --fast\n");

  // One that is damaged is not passed over, and one of another kind is told.
  writeFile(directory / "lib/libMoECompiler.so", "x");
  EXPECT_EQ(run("a.mlir --tokens 1", tool), 2);
  EXPECT_CONTAINS(err, "moe-run: error: cannot open the compiler");
  fs::copy_file(FIXTURE, directory / "lib/libMoECompiler.so",
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(run("a.mlir --tokens 1", tool), 2);
  EXPECT_CONTAINS(err, "libMoECompiler.so is of another version");
}

TEST_F(MoeRunTest, NoProgressWithoutATerminal) {
  EXPECT_EQ(run("double.moe --tokens 1000 --benchmark --repeat 1000"), 0);
  EXPECT_EQ(err, "");
}

} // namespace
