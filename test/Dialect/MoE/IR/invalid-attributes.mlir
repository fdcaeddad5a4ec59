// RUN: moe-opt %s -split-input-file -verify-diagnostics -allow-unregistered-dialect

//===----------------------------------------------------------------------===//
// moe.groups
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected at least one group, got 0}}
"test"() {a = #moe.groups<count = 0, keep = 0>} : () -> ()

// -----

// expected-error @+1 {{expected at least one group, got -4}}
"test"() {a = #moe.groups<count = -4, keep = -4>} : () -> ()

// -----

// expected-error @+1 {{expected to keep between 1 and 4 groups, got 0}}
"test"() {a = #moe.groups<count = 4, keep = 0>} : () -> ()

// -----

// expected-error @+1 {{expected to keep between 1 and 4 groups, got 5}}
"test"() {a = #moe.groups<count = 4, keep = 5>} : () -> ()

// -----

// expected-error @+1 {{missing required parameter: keep}}
"test"() {a = #moe.groups<count = 4>} : () -> ()

// -----

// expected-error @+2 {{expected one of [max, top2_sum]}}
// expected-error @+1 {{failed to parse MoE_GroupsAttr parameter 'score'}}
"test"() {a = #moe.groups<count = 4, keep = 1, score = best>} : () -> ()

// -----

//===----------------------------------------------------------------------===//
// moe.normalize
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected sum, norm or softmax, got 'product'}}
"test"() {a = #moe.normalize<product>} : () -> ()

// -----

// expected-error @+1 {{unknown parameter 'eps'}}
"test"() {a = #moe.normalize<sum, eps = 1.0>} : () -> ()

// -----

// expected-error @+1 {{duplicate parameter 'epsilon'}}
"test"() {a = #moe.normalize<sum, epsilon = 1.0, epsilon = 1.0>} : () -> ()

// -----

// expected-error @+1 {{unknown value 'max'}}
"test"() {a = #moe.normalize<sum, guard = max>} : () -> ()

// -----

// expected-error @+1 {{expected a finite p above 0, got 0.000000e+00}}
"test"() {a = #moe.normalize<norm, p = 0.0>} : () -> ()

// -----

// expected-error @+1 {{expected a finite p above 0, got -1.000000e+00}}
"test"() {a = #moe.normalize<norm, p = -1.0>} : () -> ()

// -----

// expected-error @+1 {{expected a finite p above 0, got INF}}
"test"() {a = #moe.normalize<norm, p = 0x7FF0000000000000>} : () -> ()

// -----

// expected-error @+1 {{expected a finite p above 0, got nan}}
"test"() {a = #moe.normalize<norm, p = 0x7FF8000000000000>} : () -> ()

// -----

// expected-error @+1 {{p is for norm, not for sum}}
"test"() {a = #moe.normalize<sum, p = 3.0>} : () -> ()

// -----

// expected-error @+1 {{p is for norm, not for softmax}}
"test"() {a = #moe.normalize<softmax, p = 1.0>} : () -> ()

// -----

// expected-error @+1 {{expected a finite epsilon of at least 0, got -1.000000e+00}}
"test"() {a = #moe.normalize<sum, epsilon = -1.0>} : () -> ()

// -----

// -0.0 would be printed, and so parsed again, as 0.0.
// expected-error @+1 {{expected a finite epsilon of at least 0, got -0.000000e+00}}
"test"() {a = #moe.normalize<sum, epsilon = -0.0>} : () -> ()

// -----

// expected-error @+1 {{expected a finite epsilon of at least 0, got INF}}
"test"() {a = #moe.normalize<sum, epsilon = 0x7FF0000000000000>} : () -> ()

// -----

// expected-error @+1 {{expected a finite epsilon of at least 0, got nan}}
"test"() {a = #moe.normalize<norm, epsilon = 0x7FF8000000000000>} : () -> ()

// -----

// expected-error @+1 {{epsilon and guard are for sum and norm, not for softmax}}
"test"() {a = #moe.normalize<softmax, epsilon = 0.5>} : () -> ()

// -----

// expected-error @+1 {{epsilon and guard are for sum and norm, not for softmax}}
"test"() {a = #moe.normalize<softmax, guard = clamp>} : () -> ()

// -----

//===----------------------------------------------------------------------===//
// moe.capacity
//===----------------------------------------------------------------------===//

// expected-error @+1 {{unknown parameter 'max'}}
"test"() {a = #moe.capacity<factor = 1.0, max = 4>} : () -> ()

// -----

// expected-error @+1 {{duplicate parameter 'factor'}}
"test"() {a = #moe.capacity<factor = 1.0, factor = 2.0>} : () -> ()

// -----

// expected-error @+1 {{duplicate parameter 'at_most_tokens'}}
"test"() {a = #moe.capacity<at_most_tokens, factor = 1.0, at_most_tokens>} : () -> ()

// -----

// expected-error @+1 {{unknown value 'nearest'}}
"test"() {a = #moe.capacity<factor = 1.0, rounding = nearest>} : () -> ()

// -----

// expected-error @+1 {{expected a fixed capacity of at least 0, got -1}}
"test"() {a = #moe.capacity<fixed = -1>} : () -> ()

// -----

// expected-error @+1 {{expected a fixed capacity of at most 2147483647, got 2147483648}}
"test"() {a = #moe.capacity<fixed = 2147483648>} : () -> ()

// -----

// expected-error @+1 {{integer value too large}}
"test"() {a = #moe.capacity<fixed = 18446744073709551616>} : () -> ()

// -----

// expected-error @+1 {{expected either a fixed capacity or a factor, got both}}
"test"() {a = #moe.capacity<fixed = 4, factor = 1.0>} : () -> ()

// -----

// expected-error @+1 {{rounding, minimum and at_most_tokens are for a capacity factor, not for a fixed capacity}}
"test"() {a = #moe.capacity<fixed = 4, minimum = 8>} : () -> ()

// -----

// expected-error @+1 {{rounding, minimum and at_most_tokens are for a capacity factor, not for a fixed capacity}}
"test"() {a = #moe.capacity<fixed = 4, rounding = floor>} : () -> ()

// -----

// expected-error @+1 {{rounding, minimum and at_most_tokens are for a capacity factor, not for a fixed capacity}}
"test"() {a = #moe.capacity<fixed = 4, at_most_tokens>} : () -> ()

// -----

// Neither of the two.
// expected-error @+1 {{expected a finite capacity factor above 0, got 0.000000e+00}}
"test"() {a = #moe.capacity<minimum = 4>} : () -> ()

// -----

// expected-error @+1 {{expected a finite capacity factor above 0, got -1.000000e+00}}
"test"() {a = #moe.capacity<factor = -1.0>} : () -> ()

// -----

// expected-error @+1 {{expected a finite capacity factor above 0, got INF}}
"test"() {a = #moe.capacity<factor = 1.0e999>} : () -> ()

// -----

// expected-error @+1 {{expected a finite capacity factor above 0, got nan}}
"test"() {a = #moe.capacity<factor = 0x7FF8000000000000>} : () -> ()

// -----

// expected-error @+1 {{expected a minimum between 0 and 2147483647, got -1}}
"test"() {a = #moe.capacity<factor = 1.0, minimum = -1>} : () -> ()

// -----

// expected-error @+1 {{expected a minimum between 0 and 2147483647, got 4611686018427387904}}
"test"() {a = #moe.capacity<factor = 1.0, minimum = 4611686018427387904>} : () -> ()

// -----

// expected-error @+1 {{expected valid keyword}}
"test"() {a = #moe.capacity<>} : () -> ()

// -----

// expected-error @+1 {{expected '='}}
"test"() {a = #moe.capacity<factor 1.0>} : () -> ()

// -----

// expected-error @+1 {{expected '<'}}
"test"() {a = #moe.capacity} : () -> ()

// -----

//===----------------------------------------------------------------------===//
// Enumerations
//===----------------------------------------------------------------------===//

// expected-error @+2 {{to be one of: none, softmax, sigmoid, relu}}
// expected-error @+1 {{failed to parse MoE_ScoreAttr}}
"test"() {a = #moe<score tanh>} : () -> ()

// -----

// expected-error @+1 {{unknown attribute `top_k` in dialect `moe`}}
"test"() {a = #moe<top_k 3>} : () -> ()

// -----

//===----------------------------------------------------------------------===//
// moe.panels
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected positive matmuls, columns and depth, got 0, 16 and 1}}
"test"() {a = #moe.panels<matmuls = 0, columns = 16, depth = 1>} : () -> ()

// -----

// expected-error @+1 {{expected positive matmuls, columns and depth, got 1, -16 and 1}}
"test"() {a = #moe.panels<matmuls = 1, columns = -16, depth = 1>} : () -> ()

// -----

// expected-error @+1 {{expected positive matmuls, columns and depth, got 1, 16 and 0}}
"test"() {a = #moe.panels<matmuls = 1, columns = 16, depth = 0>} : () -> ()

// -----

// expected-error @+1 {{expected columns that 3 matmuls share equally, got 16}}
"test"() {a = #moe.panels<matmuls = 3, columns = 16, depth = 1>} : () -> ()

// -----

// expected-error @+1 {{struct is missing required parameter: depth}}
"test"() {a = #moe.panels<matmuls = 1, columns = 16>} : () -> ()

// -----

//===----------------------------------------------------------------------===//
// moe.signature
//===----------------------------------------------------------------------===//

// expected-error @+1 {{expected arguments of #moe.argument, got "x"}}
"test"() {a = #moe.signature<arguments = ["x"]>} : () -> ()

// -----

// expected-error @+1 {{expected dispatches of #moe.dispatch_report, got 1 : i64}}
"test"() {a = #moe.signature<dispatches = [1]>} : () -> ()

// -----

// expected-error @+1 {{expected a name that is not empty}}
"test"() {a = #moe.argument<name = "", role = input, type = tensor<4xf32>>} : () -> ()

// -----

// expected-error @+1 {{expected 'x' to have elements that an artifact has, got 'tensor<4xi3>'}}
"test"() {a = #moe.argument<name = "x", role = input, type = tensor<4xi3>>} : () -> ()

// -----

// expected-error @+1 {{expected num_experts and alignment of 'x' to be at least 0, got -1 and 0}}
"test"() {a = #moe.argument<name = "x", role = input, type = tensor<4xi32>, num_experts = -1>} : () -> ()

// -----

// expected-error @+1 {{expected prepare and sources of 'p' if, and only if, its role is prepared}}
"test"() {a = #moe.argument<name = "p", role = prepared, type = tensor<4xf32>>} : () -> ()

// -----

// expected-error @+1 {{expected prepare and sources of 'w' if, and only if, its role is prepared}}
"test"() {a = #moe.argument<name = "w", role = weight, type = tensor<4xf32>, prepare = "f">} : () -> ()

// -----

// expected-error @+1 {{expected 'w' to have a source, as it has a source_format}}
"test"() {a = #moe.argument<name = "w", role = weight, type = tensor<4xi8>, source_format = "q4_K">} : () -> ()

// -----

// expected-error @+1 {{expected 'e', which measures a weight, to be a prepared vector of f32, got 'tensor<4x2xf32>'}}
"test"() {a = #moe.argument<name = "e", role = prepared, type = tensor<4x2xf32>, prepare = "f", sources = ["w"], measures = "w">} : () -> ()

// -----

// expected-error @+1 {{expected moe.signature of an operation to be a #moe.signature, got {}}}
"test"() {moe.signature = {}} : () -> ()
