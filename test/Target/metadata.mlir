// RUN: moe-compile %s -o %t.moe
// RUN: %python -c "import json, struct, sys; file = open(sys.argv[1], 'rb').read(); \
// RUN:   offset, size = struct.unpack('<QQ', file[-40:-24]); \
// RUN:   print(json.dumps(json.loads(file[offset:offset + size]), separators=(',', ':')))" %t.moe > %t.json
// RUN: FileCheck %s --input-file=%t.json
// RUN: moe-compile %s --emit=llvm-dialect -o %t.llvm.mlir
// A module that a pipeline has brought to LLVM may be compiled without one.
// RUN: moe-compile %t.llvm.mlir '--pipeline=builtin.module(canonicalize)' -o %t.again.moe
// RUN: cmp %t.moe %t.again.moe

// What moe-export recorded, as JSON: functions in their order, with the names of
// their entry points.
// CHECK:      {"format":2,"producer":"moe-compile {{[^"]*}}","variants":[{"functions":[{"arguments":[
// CHECK-SAME: {"dtype":"f16","name":"x","role":"input","shape":[-1,4]},
// CHECK-SAME: {"dtype":"i32","name":"ids","num_experts":8,"role":"input","shape":[-1,1]},
// CHECK-SAME: {"dtype":"f16","name":"rows","role":"output","shape":[-1,4]},
// CHECK-SAME: {"dtype":"i32","name":"offsets0","role":"offsets","shape":[9]},
// CHECK-SAME: {"dtype":"i64","name":"counters0","role":"counters","shape":[2]}],
// CHECK-SAME: "dispatches":[{"counters":"counters0","num_experts":8,"offsets":"offsets0","top_k":1}],
// CHECK-SAME: "entry":"moe_entry_group","name":"group","stages":[{{.*}}],"tokens":{"max":512,"min":1},"workspace":"moe_workspace_group"},
// CHECK-SAME: {"arguments":[
// CHECK-SAME: {"dtype":"f32","name":"a \"quoted\" name, \u00e9","role":"weight","shape":[4],"source":["a.b","c"]},
// CHECK-SAME: {"dtype":"f32","name":"y","role":"output","shape":[4]}],"dispatches":[],
// CHECK-SAME: "entry":"moe_entry_same","name":"same","tokens":{"max":2147483647,"min":0},"workspace":"moe_workspace_same"}],
// CHECK-SAME: "target":{"cpu":"{{.*}}","features":[{{.*}}],"triple":"{{.*}}"}}]}
func.func @group(%x: tensor<?x4xf16> {moe.name = "x"}, %ids: tensor<?x1xi32> {moe.name = "ids"})
    -> (tensor<?x4xf16> {moe.name = "rows"}) attributes {moe.tokens = [1, 512]} {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf16>, tensor<?x1xi32>
  return %g : tensor<?x4xf16>
}
func.func @same(%w: tensor<4xf32> {moe.name = "a \"quoted\" name, \C3\A9", moe.role = "weight",
                                   moe.source = ["a.b", "c"]}) -> tensor<4xf32> {
  return %w : tensor<4xf32>
}
