// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

//===----------------------------------------------------------------------===//
// Attributes and operands
//===----------------------------------------------------------------------===//

// CHECK-LABEL: func.func @minimal(
// CHECK-SAME:    %[[X:.*]]: tensor<?x16xf32>, %[[I:.*]]: tensor<?x2xi32>)
// CHECK-NEXT:    %grouped, %offsets, %positions = moe.dispatch %[[X]], %[[I]] experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
// CHECK-NEXT:    return %grouped, %offsets, %positions : tensor<?x16xf32>, tensor<9xi32>, tensor<?x2xi32>
// GENERIC-LABEL: sym_name = "minimal"
// GENERIC:         "moe.dispatch"(%{{.*}}, %{{.*}}) <{
// GENERIC-SAME:      num_experts = 8 : i64,
// GENERIC-SAME:      overflow = #moe<overflow drop>,
// GENERIC-SAME:      priority = #moe<priority position>,
// GENERIC-SAME:      uncovered = #moe<uncovered undefined>}>
func.func @minimal(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>)
    -> (tensor<?x16xf32>, tensor<9xi32>, tensor<?x2xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  return %g, %o, %p : tensor<?x16xf32>, tensor<9xi32>, tensor<?x2xi32>
}

// CHECK-LABEL: func.func @defaults_are_elided(
// CHECK:         moe.dispatch %{{.*}}, %{{.*}} experts(8) : tensor
func.func @defaults_are_elided(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) priority(position)
    overflow(drop) uncovered(undefined) : tensor<?x16xf32>, tensor<?x2xi32>
  return
}

// CHECK-LABEL: func.func @attributes(
// CHECK-SAME:    %[[X:[^:]*]]: tensor<?x16xf32>, %[[I:[^:]*]]: tensor<?x4xi32>, %[[W:[^:]*]]: tensor<?x4xf16>
// CHECK:         moe.dispatch %[[X]], %[[I]] experts(8) capacity(<fixed = 64>) priority(choice) :
// CHECK:         moe.dispatch %[[X]], %[[I]] weights(%[[W]] : tensor<?x4xf16>) experts(8)
// CHECK-SAME:      capacity(<factor = 2.000000e+00>) priority(probability) :
// CHECK:         moe.dispatch %[[X]], %[[I]] experts(8) capacity(<fixed = 64>)
// CHECK-SAME:      overflow(next_choice) choices(2) uncovered(zero) :
// CHECK:         moe.dispatch %[[X]], %[[I]] weights(%[[W]] : tensor<?x4xf16>) experts(8) scale_rows :
func.func @attributes(%x: tensor<?x16xf32>, %ids: tensor<?x4xi32>, %w: tensor<?x4xf16>) {
  %g0, %o0, %p0 = moe.dispatch %x, %ids experts(8) capacity(<fixed = 64>)
    priority(choice) : tensor<?x16xf32>, tensor<?x4xi32>
  %g1, %o1, %p1 = moe.dispatch %x, %ids weights(%w : tensor<?x4xf16>) experts(8)
    capacity(<factor = 2.0>) priority(probability) : tensor<?x16xf32>, tensor<?x4xi32>
  %g2, %o2, %p2 = moe.dispatch %x, %ids experts(8) capacity(<fixed = 64>)
    overflow(next_choice) choices(2) uncovered(zero) : tensor<?x16xf32>, tensor<?x4xi32>
  %g3, %o3, %p3 = moe.dispatch %x, %ids weights(%w : tensor<?x4xf16>) experts(8)
    scale_rows : tensor<?x16xf32>, tensor<?x4xi32>
  return
}

//===----------------------------------------------------------------------===//
// Result types
//===----------------------------------------------------------------------===//

// R = T·K.
// CHECK-LABEL: func.func @static_tokens(
func.func @static_tokens(%x: tensor<6x16xbf16>, %ids: tensor<6x2xi32>)
    -> (tensor<12x16xbf16>, tensor<9xi32>, tensor<6x2xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<6x16xbf16>, tensor<6x2xi32>
  return %g, %o, %p : tensor<12x16xbf16>, tensor<9xi32>, tensor<6x2xi32>
}

// R = min(T·K, E·C).
// CHECK-LABEL: func.func @static_tokens_capacity(
func.func @static_tokens_capacity(%x: tensor<6x16xf32>, %ids: tensor<6x2xi32>)
    -> (tensor<8x16xf32>, tensor<12x16xf32>, tensor<0x16xf32>) {
  %g0, %o0, %p0 = moe.dispatch %x, %ids experts(8) capacity(<fixed = 1>) : tensor<6x16xf32>, tensor<6x2xi32>
  // ceil(1.5 · 6 / 8) = 2 rows for each of 8 experts: more than 12 choices.
  %g1, %o1, %p1 = moe.dispatch %x, %ids experts(8) capacity(<factor = 1.5>) : tensor<6x16xf32>, tensor<6x2xi32>
  %g2, %o2, %p2 = moe.dispatch %x, %ids experts(8) capacity(<fixed = 0>) : tensor<6x16xf32>, tensor<6x2xi32>
  return %g0, %g1, %g2 : tensor<8x16xf32>, tensor<12x16xf32>, tensor<0x16xf32>
}

// CHECK-LABEL: func.func @no_tokens(
func.func @no_tokens(%x: tensor<0x16xf32>, %ids: tensor<0x2xi32>)
    -> (tensor<0x16xf32>, tensor<2xi32>, tensor<0x2xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(1) : tensor<0x16xf32>, tensor<0x2xi32>
  return %g, %o, %p : tensor<0x16xf32>, tensor<2xi32>, tensor<0x2xi32>
}

// The ids say how many tokens there are, and nothing needs H.
// CHECK-LABEL: func.func @dynamic_hidden(
func.func @dynamic_hidden(%x: tensor<?x?xf32>, %ids: tensor<6x2xi32>) -> tensor<12x?xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x?xf32>, tensor<6x2xi32>
  return %g : tensor<12x?xf32>
}

// Nothing of the size of E or of E·C is made or overflows here.
// CHECK-LABEL: func.func @many_experts(
func.func @many_experts(%x: tensor<6x16xf32>, %ids: tensor<6x2xi32>)
    -> (tensor<12x16xf32>, tensor<2147483647xi32>) {
  %g, %o, %p = moe.dispatch %x, %ids experts(2147483646) capacity(<fixed = 2147483647>)
    : tensor<6x16xf32>, tensor<6x2xi32>
  return %g, %o : tensor<12x16xf32>, tensor<2147483647xi32>
}

// CHECK-LABEL: func.func @large_factor(
func.func @large_factor(%x: tensor<6x16xf32>, %ids: tensor<6x2xi32>) -> tensor<12x16xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(1000000000) capacity(<factor = 1.0e308>)
    : tensor<6x16xf32>, tensor<6x2xi32>
  return %g : tensor<12x16xf32>
}
