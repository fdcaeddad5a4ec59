//===- PlanReport.h - A capacity plan for people and programs ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_PLANREPORT_H
#define MOE_ANALYSIS_PLANREPORT_H

#include "moe/Analysis/CapacityPlan.h"
#include "moe/Analysis/KernelModel.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

#include <functional>

namespace mlir::moe {

/// Reports what a function with a plan costs, at several T.
class PlanReport {
public:
  /// `workspace` gives the bytes for T, none above 64 bits; `rowsOfExperts` a
  /// model of rows that no dispatch of the function has made.
  PlanReport(func::FuncOp function, const FunctionCost &cost,
             ArrayRef<RowDistribution> rows, StringRef imbalance,
             const PlanTarget &target, std::vector<LaunchWork> launches,
             const std::function<std::optional<int64_t>(int64_t)> &workspace,
             const RowsOfExperts &rowsOfExperts);

  void print(llvm::raw_ostream &os) const;
  llvm::json::Object toJSON() const;

private:
  /// One dispatch at one T.
  struct DispatchPoint {
    std::string variant;
    /// For every routing; none above 64 bits.
    std::optional<int64_t> rows, tiles, padding;
    /// Under the model.
    double active, fullest, padded, overflow, dropped;
    int64_t fullestBound;
    Method method;
  };
  struct Point {
    int64_t tokens;
    std::optional<int64_t> flops, workspace;
    /// Bytes of what a backward function takes.
    std::optional<int64_t> saved;
    double bytes, seconds;
    std::vector<DispatchPoint> dispatches;
    /// Of a GPU: the launches that run and whose work is known.
    std::vector<PredictedLaunch> launches;
    /// Those of which nothing is known.
    int64_t unknown = 0;
  };

  DispatchPoint at(size_t dispatch, int64_t tokens) const;
  Point at(int64_t tokens) const;
  /// The kernels of the launches, with how often each is launched.
  llvm::MapVector<StringRef, int64_t> countKernels() const;
  void printLaunches(const Point &point, llvm::raw_ostream &os) const;

  std::string name, imbalance;
  PlanAttr plan;
  const FunctionCost &cost;
  ArrayRef<RowDistribution> rows;
  const PlanTarget &target;
  /// Of a GPU, in order.
  std::vector<LaunchWork> launches;
  /// Element type of most matmuls, and of contractions outside of experts.
  Type elementType;
  std::function<std::optional<int64_t>(int64_t)> workspace;
  RowsOfExperts rowsOfExperts;
  /// How rows enter matmuls of quantised weights; empty if there are none.
  std::string activations;
  std::vector<Point> points;
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_PLANREPORT_H
