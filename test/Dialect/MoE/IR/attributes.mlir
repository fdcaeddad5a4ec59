// RUN: moe-opt %s | FileCheck %s
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// Aliases stand for an attribute wherever it is short or long.
#capacity = #moe.capacity<factor = 1.25, rounding = floor, minimum = 4, at_most_tokens>
#normalize = #moe.normalize<sum, epsilon = 1.0e-20>
#groups = #moe.groups<count = 4, keep = 2>

// CHECK-LABEL: func.func @aliases(
// CHECK:         moe.gate %{{.*}} top_k(2) groups(<count = 4, keep = 2>)
// CHECK-SAME:      normalize(<sum, epsilon = 9.9999999999999995E-21>) :
// CHECK:         moe.dispatch %{{.*}} experts(8) capacity(<factor = 1.250000e+00, rounding = floor, minimum = 4, at_most_tokens>) :
func.func @aliases(%l: tensor<?x8xf32>, %x: tensor<?x4xf32>) {
  %w, %i = moe.gate %l top_k(2) groups(#groups) normalize(#normalize) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %i experts(8) capacity(#capacity) : tensor<?x4xf32>, tensor<?x2xi32>
  return
}

// CHECK-LABEL: func.func @enumerations()
// CHECK:         a00 = #moe<score none>
// CHECK-SAME:    a01 = #moe<score softmax>
// CHECK-SAME:    a02 = #moe<score sigmoid>
// CHECK-SAME:    a03 = #moe<score relu>
// CHECK-SAME:    a04 = #moe<score_axis experts>
// CHECK-SAME:    a05 = #moe<score_axis tokens>
// CHECK-SAME:    a06 = #moe<order score_then_select>
// CHECK-SAME:    a07 = #moe<order select_then_score>
// CHECK-SAME:    a08 = #moe<order score_each_choice>
// CHECK-SAME:    a09 = #moe<selection token_choice>
// CHECK-SAME:    a10 = #moe<selection expert_choice>
// CHECK-SAME:    a11 = #moe<group_score max>
// CHECK-SAME:    a12 = #moe<group_score top2_sum>
// CHECK-SAME:    a13 = #moe<group_fill neg_inf>
// CHECK-SAME:    a14 = #moe<group_fill zero>
// CHECK-SAME:    a15 = #moe<normalize_kind sum>
// CHECK-SAME:    a16 = #moe<normalize_kind norm>
// CHECK-SAME:    a17 = #moe<normalize_kind softmax>
// CHECK-SAME:    a18 = #moe<normalize_guard add>
// CHECK-SAME:    a19 = #moe<normalize_guard clamp>
// CHECK-SAME:    a20 = #moe<rounding ceil>
// CHECK-SAME:    a21 = #moe<rounding floor>
// CHECK-SAME:    a22 = #moe<priority position>
// CHECK-SAME:    a23 = #moe<priority choice>
// CHECK-SAME:    a24 = #moe<priority probability>
// CHECK-SAME:    a25 = #moe<overflow drop>
// CHECK-SAME:    a26 = #moe<overflow next_choice>
// CHECK-SAME:    a27 = #moe<uncovered undefined>
// CHECK-SAME:    a28 = #moe<uncovered zero>
func.func @enumerations() attributes {
    a00 = #moe<score none>, a01 = #moe<score softmax>, a02 = #moe<score sigmoid>, a03 = #moe<score relu>,
    a04 = #moe<score_axis experts>, a05 = #moe<score_axis tokens>,
    a06 = #moe<order score_then_select>, a07 = #moe<order select_then_score>, a08 = #moe<order score_each_choice>,
    a09 = #moe<selection token_choice>, a10 = #moe<selection expert_choice>,
    a11 = #moe<group_score max>, a12 = #moe<group_score top2_sum>,
    a13 = #moe<group_fill neg_inf>, a14 = #moe<group_fill zero>,
    a15 = #moe<normalize_kind sum>, a16 = #moe<normalize_kind norm>, a17 = #moe<normalize_kind softmax>,
    a18 = #moe<normalize_guard add>, a19 = #moe<normalize_guard clamp>,
    a20 = #moe<rounding ceil>, a21 = #moe<rounding floor>,
    a22 = #moe<priority position>, a23 = #moe<priority choice>, a24 = #moe<priority probability>,
    a25 = #moe<overflow drop>, a26 = #moe<overflow next_choice>,
    a27 = #moe<uncovered undefined>, a28 = #moe<uncovered zero>} {
  return
}

// Parameters in any order; those with their default value are not printed.
// CHECK-LABEL: func.func @groups()
// CHECK:         a = #moe.groups<count = 8, keep = 4>
// CHECK-SAME:    b = #moe.groups<count = 8, keep = 8, score = top2_sum>
// CHECK-SAME:    c = #moe.groups<count = 1, keep = 1, fill = zero>
func.func @groups() attributes {
    a = #moe.groups<keep = 4, fill = neg_inf, count = 8, score = max>,
    b = #moe.groups<count = 8, score = top2_sum, keep = 8>,
    c = #moe.groups<count = 1, keep = 1, fill = zero>} {
  return
}

// CHECK-LABEL: func.func @normalize()
// CHECK:         a = #moe.normalize<sum>
// CHECK-SAME:    b = #moe.normalize<sum, epsilon = 5.000000e-01, guard = clamp>
// CHECK-SAME:    c = #moe.normalize<norm, p = 2.000000e+00>
// CHECK-SAME:    d = #moe.normalize<norm, p = 3.000000e+00, epsilon = 1.000000e+00>
// CHECK-SAME:    e = #moe.normalize<softmax>
func.func @normalize() attributes {
    a = #moe.normalize<sum, epsilon = 0.0, guard = add>,
    b = #moe.normalize<sum, guard = clamp, epsilon = 0.5>,
    c = #moe.normalize<norm>,
    d = #moe.normalize<norm, epsilon = 1.0, p = 3.0>,
    e = #moe.normalize<softmax>} {
  return
}

// CHECK-LABEL: func.func @capacity()
// CHECK:         a = #moe.capacity<fixed = 0>
// CHECK-SAME:    b = #moe.capacity<fixed = 2147483647>
// CHECK-SAME:    c = #moe.capacity<factor = 1.250000e+00, rounding = floor, minimum = 4, at_most_tokens>
// CHECK-SAME:    d = #moe.capacity<factor = 2.000000e+00>
func.func @capacity() attributes {
    a = #moe.capacity<fixed = 0>,
    b = #moe.capacity<fixed = 2147483647>,
    c = #moe.capacity<at_most_tokens, minimum = 4, rounding = floor, factor = 1.25>,
    d = #moe.capacity<minimum = 0, rounding = ceil, factor = 2.0>} {
  return
}

// Numbers come back with the same bits, however long.
// CHECK-LABEL: func.func @bits()
// CHECK:         a = #moe.capacity<factor = 1.000000e-01>
// CHECK-SAME:    b = #moe.capacity<factor = 0.10000000000000002>
// CHECK-SAME:    c = #moe.capacity<factor = 1.7976931348623157E+308>
// CHECK-SAME:    d = #moe.capacity<factor = 4.940660e-324>
// CHECK-SAME:    e = #moe.capacity<factor = 3.0000000000000004>
func.func @bits() attributes {
    a = #moe.capacity<factor = 0.1>,
    b = #moe.capacity<factor = 0.10000000000000002>,
    c = #moe.capacity<factor = 1.7976931348623157e308>,
    d = #moe.capacity<factor = 4.9406564584124654e-324>,
    e = #moe.capacity<factor = 3.0000000000000004>} {
  return
}

// What is not given is not printed.
// CHECK-LABEL: func.func @signature()
// CHECK:         a = #moe.signature,
// CHECK-SAME:    b = #moe.signature<arguments = [#moe.argument<name = "x", role = input, type = tensor<?x2xi32>, num_experts = 8>,
// CHECK-SAME:      #moe.argument<name = "w", role = weight, type = tensor<2x3xbf16>, source = ["w.0", "w.1"], convert = true, retained = false, alignment = 16>,
// CHECK-SAME:      #moe.argument<name = "p", role = prepared, type = tensor<2x8xbf16>, prepare = "f__prepare0", sources = ["w"]>,
// CHECK-SAME:      #moe.argument<name = "o", role = offsets, type = tensor<3xi32>>],
// CHECK-SAME:      dispatches = [#moe.dispatch_report<num_experts = 2, top_k = 2, offsets = "o">]>
func.func @signature() attributes {
    a = #moe.signature,
    b = #moe.signature<dispatches = [#moe.dispatch_report<num_experts = 2, top_k = 2, offsets = "o">],
      arguments = [
        #moe.argument<type = tensor<?x2xi32>, num_experts = 8, role = input, name = "x", retained = true>,
        #moe.argument<name = "w", role = weight, type = tensor<2x3xbf16>, source = ["w.0", "w.1"],
                      convert = true, retained = false, alignment = 16>,
        #moe.argument<name = "p", role = prepared, type = tensor<2x8xbf16>, prepare = "f__prepare0",
                      sources = ["w"]>,
        #moe.argument<name = "o", role = offsets, type = tensor<3xi32>>]>} {
  return
}
