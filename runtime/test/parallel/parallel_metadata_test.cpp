//===- parallel_metadata_test.cpp - Metadata of layers for ranks ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_testing.h"

using namespace moe::test;

namespace {

class ParallelMetadata : public ::testing::Test {
protected:
  moe_rt_status_t create(const std::string &metadata) {
    moe_rt_module_t *module = nullptr;
    moe_rt_status_t status =
        createParallelModule(context, metadata, E, &module);
    EXPECT_EQ(status == nullptr, module != nullptr);
    moe_rt_module_destroy(module);
    return status;
  }
  /// The metadata of the layers with a piece of the text of "parallel"
  /// replaced, the first after `after`.
  std::string changed(const std::string &from, const std::string &to,
                      const std::string &after = "") {
    LayerOptions options;
    options.parallel = parallelOf(options);
    size_t begin = options.parallel.find(after);
    EXPECT_NE(begin, std::string::npos) << after;
    size_t at = options.parallel.find(from, begin);
    EXPECT_NE(at, std::string::npos) << from;
    options.parallel.replace(at, from.size(), to);
    return parallelMetadata(options);
  }

  Context context{&oneThread};
};

#define EXPECT_REFUSED(text, message)                                          \
  EXPECT_ERROR(create(text), MOE_RT_DATA_LOSS, message)

TEST_F(ParallelMetadata, Accepts) {
  EXPECT_OK(create(parallelMetadata({})));
  // What it does not know, it ignores.
  EXPECT_OK(create(changed("\"experts\": 8", "\"experts\": 8, \"plan\": []")));
  EXPECT_OK(create(changed("\"replicas\": 8", "\"replicas\": 8")));
}

TEST_F(ParallelMetadata, RefusesNumbers) {
  EXPECT_REFUSED(changed("\"experts\": 8", "\"experts\": 0"),
                 "parallel[0].experts is 0, expected 1 to 65536");
  EXPECT_REFUSED(changed("\"slots\": 8", "\"slots\": 9"),
                 "parallel[0].slots is 9, expected 1 to 8");
  EXPECT_REFUSED(changed("\"replicas\": 8", "\"replicas\": 3000000"),
                 "parallel[0].replicas is 3000000, expected 1 to 2097152");
  EXPECT_REFUSED(changed("\"experts\": 8", "\"experts\": \"8\""),
                 "experts is a string, expected an integer");
  EXPECT_REFUSED(changed("\"min\": 0", "\"min\": -1"), "tokens.min is -1");
}

TEST_F(ParallelMetadata, RefusesNames) {
  EXPECT_REFUSED(changed("\"name\": \"layer\"", "\"name\": \"layer.part1\""),
                 "parallel[0] repeats the name 'layer.part1'");
  EXPECT_REFUSED(changed("\"name\": \"sums\"", "\"name\": \"layer\""),
                 "parallel[1] repeats the name 'layer'");
  EXPECT_REFUSED(changed("\"name\": \"slots\"", "\"name\": \"x\""),
                 "parallel[0].values[1] repeats the name 'x'");
  EXPECT_REFUSED(changed("\"name\": \"slots\"", "\"name\": \"placement\""),
                 "repeats the name 'placement'");
}

TEST_F(ParallelMetadata, RefusesValues) {
  EXPECT_REFUSED(changed("\"rows\": \"home\"", "\"rows\": \"here\""),
                 "values[0].rows is 'here', expected home, received or all");
  EXPECT_REFUSED(changed(", \"rows\": \"home\"", ""),
                 "values[0].rows is nothing, expected a string");
  EXPECT_REFUSED(
      changed("\"dtype\": \"i32\"", "\"dtype\": \"i7\"", "\"values\""),
      "values[0].dtype is 'i7'");
  EXPECT_REFUSED(changed("[-1, 3, 3]", "[-1, 9223372036854775807, 3]"),
                 "values[1].shape has more than 2^63-1 bytes");
  EXPECT_REFUSED(changed("\"role\": \"weight\"", "\"role\": \"counters\""),
                 "role counters, expected input, weight or output");
  // A step makes each once, before it is used.
  EXPECT_REFUSED(changed("\"ids\", \"placement\"", "\"rslots\", \"placement\""),
                 "steps[0].inputs[0] uses 'rslots' before a step has made it");
  EXPECT_REFUSED(changed("\"outputs\": [\"y\"]", "\"outputs\": [\"index\"]"),
                 "steps[4].outputs[0] makes 'index' again");
  EXPECT_REFUSED(changed("\"outputs\": [\"y\"]", "\"outputs\": [\"what\"]"),
                 "steps[4].outputs[0] names 'what', which is no value");
  EXPECT_REFUSED(
      changed("{\"own\": {\"source\": \"ys\", \"result\": \"y\"}}",
              "{\"gather\": {\"source\": \"x\", \"result\": \"zs\"}}"),
      "steps[2].gather.result names 'zs', which is no value");
  LayerOptions options;
  options.parallel = parallelOf(options);
  size_t begin = options.parallel.find(",\n       {\"call\": \"layer.part2\"");
  size_t end = options.parallel.find("}]},", begin);
  options.parallel.erase(begin, end + 1 - begin);
  EXPECT_REFUSED(parallelMetadata(options),
                 "parallel[0].steps do not make output 'y'");
}

TEST_F(ParallelMetadata, RefusesSavedValues) {
  const std::string home = "\"rows\": \"home\"";
  EXPECT_OK(create(changed(home, home + ", \"saved\": \"after\"")));
  EXPECT_REFUSED(changed(home, home + ", \"saved\": \"before\""),
                 "values[0].saved is 'before', expected after, in a layer "
                 "without 'forward'");
  EXPECT_REFUSED(changed("\"experts\": 8", "\"forward\": \"sums\", "
                                           "\"experts\": 8"),
                 "forward names 'sums', which is no layer for several ranks "
                 "before this one");
  // The second layer may need what the first one saves.
  const std::string sums = "\"name\": \"sums\"", all = "\"rows\": \"all\"";
  EXPECT_OK(create(changed(sums, sums + ", \"forward\": \"layer\"")));
  auto second = [&](const std::string &saved) {
    LayerOptions each;
    each.parallel = parallelOf(each);
    size_t at = each.parallel.find(sums);
    each.parallel.insert(at + sums.size(), ", \"forward\": \"layer\"");
    at = each.parallel.find(all, at);
    each.parallel.insert(at + all.size(), ", \"saved\": \"" + saved + "\"");
    return parallelMetadata(each);
  };
  EXPECT_REFUSED(second("now"), "values[0].saved is 'now', expected after or "
                                "before");
  EXPECT_REFUSED(second("before"), "values[0].saved is for 'xs', which layer "
                                   "'layer' does not save");
}

TEST_F(ParallelMetadata, RefusesCalls) {
  EXPECT_REFUSED(changed("\"call\": \"layer.part0\"", "\"call\": \"layer\""),
                 "steps[0].call names 'layer', which is no function that can "
                 "be called");
  EXPECT_REFUSED(changed("[\"ids\", \"placement\"]", "[\"ids\"]"),
                 "steps[0].inputs has 1 names, expected 2 for function "
                 "'layer.part0'");
  EXPECT_REFUSED(changed("[\"ids\", \"placement\"]", "[\"w\", \"placement\"]"),
                 "steps[0].inputs[0] names 'w' of type f32[T, 3], expected "
                 "i32[T, 3] as in function 'layer.part0'");
  EXPECT_REFUSED(changed("\"rslots\", \"received\"", "\"ids\", \"received\""),
                 "steps[2].inputs[1] names 'ids', which has other rows than "
                 "'rx'");
  EXPECT_REFUSED(changed("\"shape\": [8, 5, 5]", "\"shape\": [8, 5, 4]"),
                 "names function 'layer.part1' whose weight 'up' has type "
                 "f32[8, 5, 5], and the layer's has type f32[8, 5, 4]");
  EXPECT_REFUSED(changed("\"name\": \"bias\"", "\"name\": \"b\""),
                 "whose weight 'bias' has type f32[8, 5], and the layer has "
                 "none of that name");
  EXPECT_REFUSED(changed("\"max\": 1000", "\"max\": 1001"),
                 "steps[0].call names function 'layer.part0' for 0 to 1000 "
                 "rows, expected 0 to 1001 or more");
  EXPECT_REFUSED(changed("{\"call\": \"layer.part0\"",
                         "{\"own\": {}, \"call\": \"layer.part0\""),
                 "steps[0] has 2 of call, exchange, gather and own");
  EXPECT_REFUSED(changed("{\"call\": \"layer.part0\"", "{\"cull\": \"x\""),
                 "steps[0] has 0 of call");
}

TEST_F(ParallelMetadata, RefusesExchanges) {
  EXPECT_REFUSED(
      changed("\"results\": [\"rx\", \"rslots\"]", "\"results\": [\"rx\"]"),
      "results has 1 names for 2 sources");
  EXPECT_REFUSED(changed("\"counts\": \"counts\"", "\"counts\": \"index\""),
                 "counts names 'index' of type i32[T, 3], expected i32[8]");
  EXPECT_REFUSED(changed("\"index\": \"index\"", "\"index\": \"w\""),
                 "sources[0].index names 'w' of type f32[T, 3], expected i32");
  EXPECT_REFUSED(changed("{\"value\": \"slots\"}", "{\"value\": \"counts\"}"),
                 "sources[1].value names 'counts' of type i32[8], which has no "
                 "rows");
  EXPECT_REFUSED(changed("\"results\": [\"rx\"", "\"results\": [\"made\""),
                 "results[0] names 'made' of type f32[T, 3, 5], expected rows "
                 "of 'x' of type f32[T, 5], which are received");
  EXPECT_REFUSED(changed("\"results\": [\"back\"]", "\"results\": [\"y\"]"),
                 "results[0] names 'y', which is an output of the layer");
  EXPECT_REFUSED(changed("\"received\": \"received\"", "\"received\": \"rx\""),
                 "received makes 'rx' again");
  EXPECT_REFUSED(changed("\"expected\": \"expected\"", "\"expected\": \"w\""),
                 "expected names 'w' of type f32[T, 3], expected i32[8]");
  EXPECT_REFUSED(changed("\"rows\": \"home\"", "\"rows\": \"received\""),
                 "makes 'index' of received rows before an exchange");
  EXPECT_REFUSED(changed("\"source\": \"ys\"", "\"source\": \"x\""),
                 "own makes 'y' of type f32[T, 5] of 'x' of type f32[T, 5], "
                 "expected the same types with rows as the first extent, from "
                 "all ranks to home");
  EXPECT_REFUSED(changed("\"result\": \"xs\"", "\"result\": \"y\""),
                 "gather makes 'y'");
}

} // namespace
