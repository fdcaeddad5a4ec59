// RUN: moe-opt %s -split-input-file | moe-opt -split-input-file | FileCheck %s
// RUN: moe-opt %s -split-input-file --mlir-print-op-generic | moe-opt -split-input-file | FileCheck %s

// CHECK-LABEL: func.func @ids(
// CHECK:         %[[KEPT:.*]] = moe.keep %{{.*}} weights(%{{.*}} : tensor<?x2xf32>) experts(8) capacity(<fixed = 3>) priority(probability) : tensor<?x2xi32>
// CHECK:         %[[SLOTS:.*]] = moe.place %[[KEPT]], %{{.*}} : tensor<?x2xi32>, tensor<8x1xi32>
// CHECK:         %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} = moe.partition %[[SLOTS]] slots(4) ranks(8) : tensor<?x2xi32>
// CHECK:         moe.collect %{{.*}}, %{{.*}} : tensor<?x2xi32>, tensor<8xi32>
func.func @ids(%ids: tensor<?x2xi32>, %w: tensor<?x2xf32>, %placement: tensor<8x1xi32>)
    -> (tensor<?x2xi32>, tensor<8xi32>) attributes {moe.parallel = #moe.parallel<slots = 4>} {
  %kept = moe.keep %ids weights(%w : tensor<?x2xf32>) experts(8) capacity(<fixed = 3>) priority(probability) : tensor<?x2xi32>
  %slots = moe.place %kept, %placement : tensor<?x2xi32>, tensor<8x1xi32>
  %tokens, %local, %send, %home, %returns = moe.partition %slots slots(4) ranks(8) : tensor<?x2xi32>
  %order, %back = moe.collect %home, %send : tensor<?x2xi32>, tensor<8xi32>
  return %order, %back : tensor<?x2xi32>, tensor<8xi32>
}

// -----

// Nothing removes an exchange whose results are not used.
// CHECK-LABEL: func.func @exchanges(
// CHECK:         moe.exchange %{{.*}}, %{{.*}} gather(%{{.*}} : tensor<?x2xi32>) send(%{{.*}} : tensor<8xi32>) : tensor<?x16xf32>, tensor<?x2x2xi32> -> tensor<?x16xf32>, tensor<?x2xi32> received tensor<8xi32>
// CHECK:         moe.exchange %{{.*}} send(%{{.*}} : tensor<8xi32>) expect(%{{.*}} : tensor<8xi32>) : tensor<?x16xf32> -> tensor<?x2x16xf32>
// CHECK:         moe.all_gather %{{.*}} : tensor<?x2xi32>
// CHECK:         moe.own_rows %{{.*}} : tensor<?x2xi32>
func.func @exchanges(%x: tensor<?x16xf32>, %tokens: tensor<?x2xi32>, %local: tensor<?x2x2xi32>, %send: tensor<8xi32>) {
  %rows, %ids, %received = moe.exchange %x, %local gather(%tokens : tensor<?x2xi32>) send(%send : tensor<8xi32>)
    : tensor<?x16xf32>, tensor<?x2x2xi32> -> tensor<?x16xf32>, tensor<?x2xi32> received tensor<8xi32>
  %home = moe.exchange %rows send(%received : tensor<8xi32>) expect(%send : tensor<8xi32>) : tensor<?x16xf32> -> tensor<?x2x16xf32>
  %all = moe.all_gather %tokens : tensor<?x2xi32>
  %own = moe.own_rows %all : tensor<?x2xi32>
  return
}

// -----

// Defaults are not printed.
// CHECK-LABEL: func.func @options()
// CHECK-SAME:    moe.parallel = #moe.parallel<slots = 4, reduce = per_rank, scope = rank>
func.func @options() attributes {moe.parallel = #moe.parallel<slots = 4, replicas = 1, reduce = per_rank, scope = rank>} { return }
// CHECK-LABEL: func.func @defaults()
// CHECK-SAME:    moe.parallel = #moe.parallel<slots = 4>
func.func @defaults() attributes {moe.parallel = #moe.parallel<slots = 4, reduce = ordered, scope = group>} { return }
