// RUN: moe-opt %s --moe-split-at-exchanges | FileCheck %s

// CHECK:       module attributes {moe.programs = [{name = "layer"
// CHECK-SAME:    {call = "layer.part0", inputs = ["x"], outputs = ["%0"]}, {gather = {result = "%1", source = "%0"}}
// CHECK-SAME:    {call = "layer.part1", inputs = ["%1"], outputs = ["%2"]}, {own = {result = "y", source = "%2"}}
// CHECK-LABEL: func.func @layer.part0(
// CHECK:         arith.negf
// CHECK-LABEL: func.func @layer.part1(
// CHECK:         arith.addf
// CHECK-NOT:   func.func @layer(
func.func @layer(%x: tensor<?x4xf32> {moe.name = "x"}) -> tensor<?x4xf32> {
  %n = arith.negf %x : tensor<?x4xf32>
  %all = moe.all_gather %n : tensor<?x4xf32>
  %s = arith.addf %all, %all : tensor<?x4xf32>
  %own = moe.own_rows %s : tensor<?x4xf32>
  return %own : tensor<?x4xf32>
}
