//===- cgroup_test.cpp - Limits of cgroups --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/cgroup.h"
#include "testing.h"

#include <filesystem>

using namespace moe::rt;
using namespace moe::test;

namespace {

/// A machine whose cgroups are files of the test.
class CgroupTest : public ::testing::Test {
protected:
  CgroupTest() {
    files = {directory / "groups", directory / "mounts"};
    writeFile(files.mounts, "");
  }

  void write(const std::string &name, const std::string &text) {
    std::filesystem::create_directories(
        std::filesystem::path(directory / name).parent_path());
    writeFile(directory / name, text);
  }
  /// A mount as /proc/self/mountinfo has it.
  void mount(const std::string &point, const std::string &root,
             const std::string &type, const std::string &options,
             const std::string &extra = "") {
    mounts += "31 23 0:28 " + root + " " + (directory / point) +
              " rw,relatime " + extra + "- " + type + " cgroup " + options +
              "\n";
    write("mounts", mounts);
  }
  void mountVersion2(const std::string &root = "/") {
    mount("v2", root, "cgroup2", "rw");
  }
  std::optional<int64_t> processors(const std::string &groups) {
    write("groups", groups);
    return cgroupProcessors(files);
  }

  TemporaryDirectory directory;
  CgroupFiles files;
  std::string mounts;
};

TEST_F(CgroupTest, NoLimit) {
  EXPECT_EQ(cgroupProcessors({"", ""}), std::nullopt);
  EXPECT_EQ(processors("0::/\n"), std::nullopt);
  mountVersion2();
  EXPECT_EQ(processors("0::/\n"), std::nullopt);
  for (const char *text :
       {"max 100000\n", "", "x", "100000", "100000 ", "0 100000", "-1 100000",
        "100000 0", "100000 -1", "99999999999999999999 100000"}) {
    write("v2/cpu.max", text);
    EXPECT_EQ(processors("0::/\n"), std::nullopt) << text;
  }
}

TEST_F(CgroupTest, RoundsUp) {
  mountVersion2();
  for (auto [quota, expected] :
       {std::pair(1, 1), std::pair(99999, 1), std::pair(100000, 1),
        std::pair(100001, 2), std::pair(350000, 4), std::pair(800000, 8)}) {
    write("v2/cpu.max", std::to_string(quota) + " 100000\n");
    EXPECT_EQ(processors("0::/\n"), expected) << quota;
  }
  write("v2/cpu.max", "9223372036854775807 9223372036854775807\n");
  EXPECT_EQ(processors("0::/\n"), 1);
}

TEST_F(CgroupTest, TheLeastOfNestedGroups) {
  mountVersion2();
  write("v2/a/b/c/cpu.max", "max 100000\n");
  write("v2/a/b/cpu.max", "300000 100000\n");
  write("v2/a/cpu.max", "500000 100000\n");
  EXPECT_EQ(processors("0::/a/b/c\n"), 3);
  EXPECT_EQ(processors("0::/a/b\n"), 3);
  EXPECT_EQ(processors("0::/a\n"), 5);
  EXPECT_EQ(processors("0::/\n"), std::nullopt);
  write("v2/a/cpu.max", "100000 50000\n");
  EXPECT_EQ(processors("0::/a/b/c\n"), 2);
  write("v2/a/b/c/cpu.max", "100000 100000\n");
  EXPECT_EQ(processors("0::/a/b/c\n"), 1);
  // A group of which only those around it are visible.
  EXPECT_EQ(processors("0::/a/b/x/y\n"), 2);
  EXPECT_EQ(processors("0::/z\n"), std::nullopt);
}

TEST_F(CgroupTest, MountsOfPartsOfTheTree) {
  // A container: its group is the root of the mount.
  mountVersion2("/docker/abc");
  write("v2/cpu.max", "200000 100000\n");
  write("v2/in/cpu.max", "100000 100000\n");
  EXPECT_EQ(processors("0::/docker/abc\n"), 2);
  EXPECT_EQ(processors("0::/docker/abc/in\n"), 1);
  // In a namespace of its own, or outside of it: what there is counts.
  EXPECT_EQ(processors("0::/\n"), 2);
  EXPECT_EQ(processors("0::/docker/abcd/in\n"), 2);
  EXPECT_EQ(processors("0::/../x\n"), 2);
  EXPECT_EQ(processors("0::/docker/abc/../in\n"), 2);
}

TEST_F(CgroupTest, Version1) {
  mount("memory", "/", "cgroup", "rw,memory");
  mount("cpu,cpuacct", "/", "cgroup", "rw,cpu,cpuacct", "shared:1 master:2 ");
  write("cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
  write("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  write("memory/a/cpu.cfs_quota_us", "100000\n");
  write("memory/a/cpu.cfs_period_us", "100000\n");
  const char *groups = "9:memory:/a\n4:cpuacct,cpu:/a/b\n3:cpuset:/\n";
  EXPECT_EQ(processors(groups), std::nullopt);
  write("cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n");
  EXPECT_EQ(processors(groups), 3);
  write("cpu,cpuacct/a/b/cpu.cfs_quota_us", "100000\n");
  EXPECT_EQ(processors(groups), 3) << "no period";
  write("cpu,cpuacct/a/b/cpu.cfs_period_us", "50000\n");
  EXPECT_EQ(processors(groups), 2);
  // Both versions side by side.
  mountVersion2();
  write("v2/cpu.max", "100000 100000\n");
  EXPECT_EQ(processors(groups), 2) << "not in a group of version 2";
  EXPECT_EQ(processors(groups + std::string("0::/\n")), 1);
}

TEST_F(CgroupTest, PathsWithBlanks) {
  mount("a\\040\\134b", "/c\\040d", "cgroup2", "rw");
  write("a \\b/e/cpu.max", "400000 100000\n");
  EXPECT_EQ(processors("0::/c d/e\n"), 4);
}

TEST_F(CgroupTest, WhatIsNoSuchFile) {
  write("v2/cpu.max", "100000 100000\n");
  for (const char *text : {"", "-", "\n\n", "1 2 3 - cgroup2", "- - - - - -",
                           "31 23 0:28 / /x rw - cgroup2\n",
                           "31 23 0:28 / /x rw cgroup2 cgroup rw\n"}) {
    write("mounts", text);
    EXPECT_EQ(processors("0::/\n"), std::nullopt) << text;
  }
  mounts = "";
  mountVersion2();
  for (const char *text : {"", ":", "::", "0:", "\n", "4:cpu", "cpu"})
    EXPECT_TRUE(processors(text).value_or(1) == 1) << text;
  EXPECT_EQ(processors("0::/"), 1);
}

} // namespace
