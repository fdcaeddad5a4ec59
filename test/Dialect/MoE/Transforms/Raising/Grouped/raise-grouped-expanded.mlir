// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s

// jax.lax.ragged_dot after StableHLO's chlo-legalize-to-stablehlo: for each of
// three groups a product of all rows, those of others 0, and their sum.

// CHECK-LABEL: func.func public @expanded(
// CHECK:         scf.for
// CHECK:         %[[INIT:.*]] = linalg.fill
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %arg0 offsets(%{{.*}} : tensor<4xi32>) weights(%arg1 : tensor<3x4x5xf32>) outs(%[[INIT]]
// CHECK-NOT:     stablehlo.dot_general
// CHECK:         return %[[Y]]

// The second group has the weights of the first one; the third begins where the
// second does; rows up to the end, its row too; a group that starts at 1; the
// second group twice; the size of another group.
// RUN: sed 's/limit_indices = array<i64: 2, 4, 5>, start_indices = array<i64: 1, 0, 0>/limit_indices = array<i64: 1, 4, 5>, start_indices = array<i64: 0, 0, 0>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%35 = "stablehlo.compare"(%9, %21)/%35 = "stablehlo.compare"(%9, %8)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/comparison_direction LT/comparison_direction LE/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/value = dense<0> : tensor<i64>/value = dense<1> : tensor<i64>/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.add"(%29, %41)/"stablehlo.add"(%29, %28)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/"stablehlo.add"(%20, %32)/"stablehlo.add"(%20, %19)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE

// NONE-NOT: moe.grouped_matmul

"func.func"() <{function_type = (tensor<10x4xf32>, tensor<3x4x5xf32>, tensor<3xi32>) -> tensor<10x5xf32>, res_attrs = [{jax.result_info = "result"}], sym_name = "expanded", sym_visibility = "public"}> ({
^bb0(%arg0: tensor<10x4xf32>, %arg1: tensor<3x4x5xf32>, %arg2: tensor<3xi32>):
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<10x4xf32>}> : () -> tensor<10x4xf32>
  %1 = "stablehlo.constant"() <{value = dense<0> : tensor<i64>}> : () -> tensor<i64>
  %2 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<10x1xi64>
  %3 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %4 = "stablehlo.reshape"(%3) : (tensor<1xi32>) -> tensor<i32>
  %5 = "stablehlo.convert"(%4) : (tensor<i32>) -> tensor<i64>
  %6 = "stablehlo.add"(%1, %5) : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %7 = "stablehlo.broadcast_in_dim"(%1) <{broadcast_dimensions = array<i64>}> : (tensor<i64>) -> tensor<10x4xi64>
  %8 = "stablehlo.broadcast_in_dim"(%6) <{broadcast_dimensions = array<i64>}> : (tensor<i64>) -> tensor<10x4xi64>
  %9 = "stablehlo.broadcast_in_dim"(%2) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<10x1xi64>) -> tensor<10x4xi64>
  %10 = "stablehlo.compare"(%9, %7) <{comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<10x4xi64>, tensor<10x4xi64>) -> tensor<10x4xi1>
  %11 = "stablehlo.compare"(%9, %8) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x4xi64>, tensor<10x4xi64>) -> tensor<10x4xi1>
  %12 = "stablehlo.and"(%10, %11) : (tensor<10x4xi1>, tensor<10x4xi1>) -> tensor<10x4xi1>
  %13 = "stablehlo.select"(%12, %arg0, %0) : (tensor<10x4xi1>, tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %14 = "stablehlo.slice"(%arg1) <{limit_indices = array<i64: 1, 4, 5>, start_indices = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x4x5xf32>) -> tensor<1x4x5xf32>
  %15 = "stablehlo.reshape"(%14) : (tensor<1x4x5xf32>) -> tensor<4x5xf32>
  %16 = "stablehlo.dot_general"(%13, %15) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>, precision_config = [#stablehlo<precision DEFAULT>, #stablehlo<precision DEFAULT>]}> : (tensor<10x4xf32>, tensor<4x5xf32>) -> tensor<10x5xf32>
  %17 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 2>, start_indices = array<i64: 1>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %18 = "stablehlo.reshape"(%17) : (tensor<1xi32>) -> tensor<i32>
  %19 = "stablehlo.convert"(%18) : (tensor<i32>) -> tensor<i64>
  %20 = "stablehlo.add"(%6, %19) : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %21 = "stablehlo.broadcast_in_dim"(%20) <{broadcast_dimensions = array<i64>}> : (tensor<i64>) -> tensor<10x4xi64>
  %22 = "stablehlo.compare"(%9, %8) <{comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<10x4xi64>, tensor<10x4xi64>) -> tensor<10x4xi1>
  %23 = "stablehlo.compare"(%9, %21) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x4xi64>, tensor<10x4xi64>) -> tensor<10x4xi1>
  %24 = "stablehlo.and"(%22, %23) : (tensor<10x4xi1>, tensor<10x4xi1>) -> tensor<10x4xi1>
  %25 = "stablehlo.select"(%24, %arg0, %0) : (tensor<10x4xi1>, tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %26 = "stablehlo.slice"(%arg1) <{limit_indices = array<i64: 2, 4, 5>, start_indices = array<i64: 1, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x4x5xf32>) -> tensor<1x4x5xf32>
  %27 = "stablehlo.reshape"(%26) : (tensor<1x4x5xf32>) -> tensor<4x5xf32>
  %28 = "stablehlo.dot_general"(%25, %27) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>, precision_config = [#stablehlo<precision DEFAULT>, #stablehlo<precision DEFAULT>]}> : (tensor<10x4xf32>, tensor<4x5xf32>) -> tensor<10x5xf32>
  %29 = "stablehlo.add"(%16, %28) : (tensor<10x5xf32>, tensor<10x5xf32>) -> tensor<10x5xf32>
  %30 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 3>, start_indices = array<i64: 2>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %31 = "stablehlo.reshape"(%30) : (tensor<1xi32>) -> tensor<i32>
  %32 = "stablehlo.convert"(%31) : (tensor<i32>) -> tensor<i64>
  %33 = "stablehlo.add"(%20, %32) : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %34 = "stablehlo.broadcast_in_dim"(%33) <{broadcast_dimensions = array<i64>}> : (tensor<i64>) -> tensor<10x4xi64>
  %35 = "stablehlo.compare"(%9, %21) <{comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<10x4xi64>, tensor<10x4xi64>) -> tensor<10x4xi1>
  %36 = "stablehlo.compare"(%9, %34) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<10x4xi64>, tensor<10x4xi64>) -> tensor<10x4xi1>
  %37 = "stablehlo.and"(%35, %36) : (tensor<10x4xi1>, tensor<10x4xi1>) -> tensor<10x4xi1>
  %38 = "stablehlo.select"(%37, %arg0, %0) : (tensor<10x4xi1>, tensor<10x4xf32>, tensor<10x4xf32>) -> tensor<10x4xf32>
  %39 = "stablehlo.slice"(%arg1) <{limit_indices = array<i64: 3, 4, 5>, start_indices = array<i64: 2, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x4x5xf32>) -> tensor<1x4x5xf32>
  %40 = "stablehlo.reshape"(%39) : (tensor<1x4x5xf32>) -> tensor<4x5xf32>
  %41 = "stablehlo.dot_general"(%38, %40) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>, precision_config = [#stablehlo<precision DEFAULT>, #stablehlo<precision DEFAULT>]}> : (tensor<10x4xf32>, tensor<4x5xf32>) -> tensor<10x5xf32>
  %42 = "stablehlo.add"(%29, %41) : (tensor<10x5xf32>, tensor<10x5xf32>) -> tensor<10x5xf32>
  "func.return"(%42) : (tensor<10x5xf32>) -> ()
}) : () -> ()

