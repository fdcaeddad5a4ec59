// RUN: moe-opt %s --split-input-file --allow-unregistered-dialect --moe-raise-routing --moe-raise-grouped | FileCheck %s

// The groups are others: those that are not the best.
// RUN: sed 's/comparison_direction NE/comparison_direction EQ/; s/dense<0xFF800000>/dense<0x7F800000>/' %s | moe-opt - --split-input-file --allow-unregistered-dialect --moe-raise-routing | FileCheck %s --check-prefix=NONE
// NONE-NOT: groups(

// A choice among the experts of the best groups, by scores with a bias; the
// weights are the scores without it (DeepSeek-V3), by take_along_axis.

// CHECK-LABEL: func.func public @take(
// CHECK:         %[[SCORES:.*]] = "stablehlo.divide"
// CHECK:         %[[BIASED:.*]] = "stablehlo.add"(%[[SCORES]],
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %[[BIASED]] top_k(2) score(none) groups(<count = 2, keep = 1, score = top2_sum>)
// CHECK:         linalg.generic {{.*}} ins(%[[IDS]] : tensor<12x2xi32>)
// CHECK:           tensor.extract %[[SCORES]][
// CHECK-NOT:     stablehlo.gather
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<4xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "take", sym_visibility = "public"}> ({
^bb0(%arg21: tensor<12x16xf32>, %arg22: tensor<4xf32>, %arg23: tensor<16x4xf32>, %arg24: tensor<4x16x24xf32>, %arg25: tensor<4x24x16xf32>):
  %127 = "stablehlo.constant"() <{value = dense<3> : tensor<1xi32>}> : () -> tensor<1xi32>
  %128 = "stablehlo.constant"() <{value = dense<true> : tensor<i1>}> : () -> tensor<i1>
  %129 = "stablehlo.constant"() <{value = dense<0x7FC00000> : tensor<f32>}> : () -> tensor<f32>
  %130 = "stablehlo.constant"() <{value = dense<24> : tensor<i32>}> : () -> tensor<i32>
  %131 = "stablehlo.constant"() <{value = dense<12> : tensor<i32>}> : () -> tensor<i32>
  %132 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %133 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %134 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %135 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %136 = "stablehlo.constant"() <{value = dense<2.500000e+00> : tensor<f32>}> : () -> tensor<f32>
  %137 = "stablehlo.constant"() <{value = dense<9.99999968E-21> : tensor<f32>}> : () -> tensor<f32>
  %138 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %139 = "stablehlo.constant"() <{value = dense<false> : tensor<i1>}> : () -> tensor<i1>
  %140 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %141 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %142 = "stablehlo.dot_general"(%arg21, %arg23) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<12x16xf32>, tensor<16x4xf32>) -> tensor<12x4xf32>
  %143 = "stablehlo.negate"(%142) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %144 = "stablehlo.exponential"(%143) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %145 = "stablehlo.broadcast_in_dim"(%141) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x4xf32>
  %146 = "stablehlo.add"(%145, %144) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %147 = "stablehlo.divide"(%145, %146) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %148 = "stablehlo.broadcast_in_dim"(%arg22) <{broadcast_dimensions = array<i64: 1>}> : (tensor<4xf32>) -> tensor<1x4xf32>
  %149 = "stablehlo.broadcast_in_dim"(%148) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xf32>) -> tensor<12x4xf32>
  %150 = "stablehlo.add"(%147, %149) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %151 = "stablehlo.reshape"(%150) : (tensor<12x4xf32>) -> tensor<12x2x2xf32>
  %152:2 = "stablehlo.composite"(%151) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x2x2xf32>) -> (tensor<12x2x2xf32>, tensor<12x2x2xi32>)
  %153 = "stablehlo.reduce"(%152#0, %140) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg42: tensor<f32>, %arg43: tensor<f32>):
    %245 = "stablehlo.add"(%arg42, %arg43) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%245) : (tensor<f32>) -> ()
  }) : (tensor<12x2x2xf32>, tensor<f32>) -> tensor<12x2xf32>
  %154:2 = "stablehlo.composite"(%153) <{composite_attributes = {k = 1 : i64}, decomposition = @chlo.top_k.impl_0, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x2xf32>) -> (tensor<12x1xf32>, tensor<12x1xi32>)
  %155 = "stablehlo.broadcast_in_dim"(%154#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xi32>) -> tensor<12x1x1xi32>
  %156 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x2xi32>
  %157 = "stablehlo.broadcast_in_dim"(%155) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<12x1x1xi32>) -> tensor<12x1x2xi32>
  %158 = "stablehlo.broadcast_in_dim"(%156) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x2xi32>) -> tensor<12x1x2xi32>
  %159 = "stablehlo.compare"(%157, %158) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<12x1x2xi32>, tensor<12x1x2xi32>) -> tensor<12x1x2xi1>
  %160 = "stablehlo.convert"(%159) : (tensor<12x1x2xi1>) -> tensor<12x1x2xf32>
  %161 = "stablehlo.broadcast_in_dim"(%140) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x1x2xf32>
  %162 = "stablehlo.compare"(%160, %161) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<12x1x2xf32>, tensor<12x1x2xf32>) -> tensor<12x1x2xi1>
  %163 = "stablehlo.reduce"(%162, %139) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg40: tensor<i1>, %arg41: tensor<i1>):
    %244 = "stablehlo.or"(%arg40, %arg41) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%244) : (tensor<i1>) -> ()
  }) : (tensor<12x1x2xi1>, tensor<i1>) -> tensor<12x2xi1>
  %164 = "stablehlo.broadcast_in_dim"(%163) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x2xi1>) -> tensor<12x2x2xi1>
  %165 = "stablehlo.reshape"(%164) : (tensor<12x2x2xi1>) -> tensor<12x4xi1>
  %166 = "stablehlo.convert"(%138) : (tensor<f32>) -> tensor<f32>
  %167 = "stablehlo.broadcast_in_dim"(%166) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x4xf32>
  %168 = "stablehlo.select"(%165, %150, %167) : (tensor<12x4xi1>, tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %169:2 = "stablehlo.composite"(%168) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl_1, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x4xf32>) -> (tensor<12x2xf32>, tensor<12x2xi32>)
  %170 = "stablehlo.broadcast_in_dim"(%135) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<12x2xi32>
  %171 = "stablehlo.compare"(%169#1, %170) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<12x2xi32>, tensor<12x2xi32>) -> tensor<12x2xi1>
  %172 = "stablehlo.broadcast_in_dim"(%134) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<12x2xi32>
  %173 = "stablehlo.add"(%169#1, %172) : (tensor<12x2xi32>, tensor<12x2xi32>) -> tensor<12x2xi32>
  %174 = "stablehlo.select"(%171, %173, %169#1) : (tensor<12x2xi1>, tensor<12x2xi32>, tensor<12x2xi32>) -> tensor<12x2xi32>
  %175 = "stablehlo.reshape"(%174) : (tensor<12x2xi32>) -> tensor<12x2x1xi32>
  %176 = "stablehlo.broadcast_in_dim"(%135) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<12x2x1xi32>
  %177 = "stablehlo.compare"(%175, %176) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<12x2x1xi32>, tensor<12x2x1xi32>) -> tensor<12x2x1xi1>
  %178 = "stablehlo.broadcast_in_dim"(%127) <{broadcast_dimensions = array<i64: 2>}> : (tensor<1xi32>) -> tensor<1x1x1xi32>
  %179 = "stablehlo.broadcast_in_dim"(%178) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x1xi32>) -> tensor<12x2x1xi32>
  %180 = "stablehlo.compare"(%175, %179) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LE>}> : (tensor<12x2x1xi32>, tensor<12x2x1xi32>) -> tensor<12x2x1xi1>
  %181 = "stablehlo.and"(%177, %180) : (tensor<12x2x1xi1>, tensor<12x2x1xi1>) -> tensor<12x2x1xi1>
  %182 = "stablehlo.reduce"(%181, %128) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg38: tensor<i1>, %arg39: tensor<i1>):
    %243 = "stablehlo.and"(%arg38, %arg39) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%243) : (tensor<i1>) -> ()
  }) : (tensor<12x2x1xi1>, tensor<i1>) -> tensor<12x2xi1>
  %183 = "stablehlo.gather"(%147, %175) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [1], operand_batching_dims = [0], start_indices_batching_dims = [0], start_index_map = [1], index_vector_dim = 2>, slice_sizes = array<i64: 1, 1>}> : (tensor<12x4xf32>, tensor<12x2x1xi32>) -> tensor<12x2xf32>
  %184 = "stablehlo.broadcast_in_dim"(%129) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x2xf32>
  %185 = "stablehlo.select"(%182, %183, %184) : (tensor<12x2xi1>, tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %186 = "stablehlo.reduce"(%185, %140) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg36: tensor<f32>, %arg37: tensor<f32>):
    %242 = "stablehlo.add"(%arg36, %arg37) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%242) : (tensor<f32>) -> ()
  }) : (tensor<12x2xf32>, tensor<f32>) -> tensor<12xf32>
  %187 = "stablehlo.broadcast_in_dim"(%186) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %188 = "stablehlo.broadcast_in_dim"(%137) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x1xf32>
  %189 = "stablehlo.add"(%187, %188) : (tensor<12x1xf32>, tensor<12x1xf32>) -> tensor<12x1xf32>
  %190 = "stablehlo.broadcast_in_dim"(%189) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x2xf32>
  %191 = "stablehlo.divide"(%185, %190) : (tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %192 = "stablehlo.broadcast_in_dim"(%136) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x2xf32>
  %193 = "stablehlo.multiply"(%191, %192) : (tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %194 = "stablehlo.reshape"(%169#1) : (tensor<12x2xi32>) -> tensor<24xi32>
  %195 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<24xi32>
  %196:2 = "stablehlo.sort"(%194, %195) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg32: tensor<i32>, %arg33: tensor<i32>, %arg34: tensor<i32>, %arg35: tensor<i32>):
    %241 = "stablehlo.compare"(%arg32, %arg33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%241) : (tensor<i1>) -> ()
  }) : (tensor<24xi32>, tensor<24xi32>) -> (tensor<24xi32>, tensor<24xi32>)
  %197 = "stablehlo.broadcast_in_dim"(%135) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<4xi32>
  %198 = "stablehlo.convert"(%135) : (tensor<i32>) -> tensor<i32>
  %199 = "stablehlo.broadcast_in_dim"(%198) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %200 = "stablehlo.maximum"(%199, %194) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %201 = "stablehlo.broadcast_in_dim"(%135) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %202 = "stablehlo.compare"(%200, %201) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %203 = "stablehlo.broadcast_in_dim"(%134) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %204 = "stablehlo.add"(%200, %203) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %205 = "stablehlo.select"(%202, %204, %200) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %206 = "stablehlo.broadcast_in_dim"(%205) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xi32>) -> tensor<24x1xi32>
  %207 = "stablehlo.broadcast_in_dim"(%133) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %208 = "stablehlo.scatter"(%197, %206, %207) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg30: tensor<i32>, %arg31: tensor<i32>):
    %240 = "stablehlo.add"(%arg30, %arg31) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%240) : (tensor<i32>) -> ()
  }) : (tensor<4xi32>, tensor<24x1xi32>, tensor<24xi32>) -> tensor<4xi32>
  %209 = "stablehlo.convert"(%132) : (tensor<i32>) -> tensor<i32>
  %210 = "stablehlo.broadcast_in_dim"(%209) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %211 = "stablehlo.divide"(%196#1, %210) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %212 = "stablehlo.sign"(%196#1) : (tensor<24xi32>) -> tensor<24xi32>
  %213 = "stablehlo.sign"(%209) : (tensor<i32>) -> tensor<i32>
  %214 = "stablehlo.broadcast_in_dim"(%213) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %215 = "stablehlo.compare"(%212, %214) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %216 = "stablehlo.remainder"(%196#1, %210) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %217 = "stablehlo.compare"(%216, %201) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %218 = "stablehlo.and"(%215, %217) : (tensor<24xi1>, tensor<24xi1>) -> tensor<24xi1>
  %219 = "stablehlo.subtract"(%211, %207) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %220 = "stablehlo.select"(%218, %219, %211) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %221 = "stablehlo.compare"(%220, %201) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %222 = "stablehlo.broadcast_in_dim"(%131) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %223 = "stablehlo.add"(%220, %222) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %224 = "stablehlo.select"(%221, %223, %220) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %225 = "stablehlo.broadcast_in_dim"(%224) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xi32>) -> tensor<24x1xi32>
  %226 = "stablehlo.gather"(%arg21, %225) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<12x16xf32>, tensor<24x1xi32>) -> tensor<24x16xf32>
  %227 = "stablehlo.composite"(%226, %arg24, %208) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<24x16xf32>, tensor<4x16x24xf32>, tensor<4xi32>) -> tensor<24x24xf32>
  %228 = "stablehlo.tanh"(%227) : (tensor<24x24xf32>) -> tensor<24x24xf32>
  %229 = "stablehlo.composite"(%228, %arg25, %208) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_2, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<24x24xf32>, tensor<4x24x16xf32>, tensor<4xi32>) -> tensor<24x16xf32>
  %230:2 = "stablehlo.sort"(%196#1, %195) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg26: tensor<i32>, %arg27: tensor<i32>, %arg28: tensor<i32>, %arg29: tensor<i32>):
    %239 = "stablehlo.compare"(%arg26, %arg27) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%239) : (tensor<i1>) -> ()
  }) : (tensor<24xi32>, tensor<24xi32>) -> (tensor<24xi32>, tensor<24xi32>)
  %231 = "stablehlo.compare"(%230#1, %201) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %232 = "stablehlo.broadcast_in_dim"(%130) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %233 = "stablehlo.add"(%230#1, %232) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %234 = "stablehlo.select"(%231, %233, %230#1) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %235 = "stablehlo.broadcast_in_dim"(%234) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xi32>) -> tensor<24x1xi32>
  %236 = "stablehlo.gather"(%229, %235) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<24x16xf32>, tensor<24x1xi32>) -> tensor<24x16xf32>
  %237 = "stablehlo.reshape"(%236) : (tensor<24x16xf32>) -> tensor<12x2x16xf32>
  %238 = "stablehlo.dot_general"(%237, %193) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x2x16xf32>, tensor<12x2xf32>) -> tensor<12x16xf32>
  "func.return"(%238) : (tensor<12x16xf32>) -> ()
}) : () -> ()

// -----

// By a one-hot mask; the mask of groups is scattered.

// CHECK-LABEL: func.func public @take_any(
// CHECK:         %[[SCORES:.*]] = "stablehlo.divide"
// CHECK:         %[[BIASED:.*]] = "stablehlo.add"(%[[SCORES]],
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %[[BIASED]] top_k(2) score(none) groups(<count = 2, keep = 1, score = top2_sum>)
// CHECK:         linalg.generic {{.*}} ins(%[[IDS]] : tensor<?x2xi32>)
// CHECK:           tensor.extract %[[SCORES]][
// CHECK-NOT:     stablehlo.gather
"func.func"() <{function_type = (tensor<?x16xf32>, tensor<4xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<?x16xf32>, sym_name = "take_any", sym_visibility = "public"}> ({
^bb0(%arg21: tensor<?x16xf32>, %arg22: tensor<4xf32>, %arg23: tensor<16x4xf32>, %arg24: tensor<4x16x24xf32>, %arg25: tensor<4x24x16xf32>):
  %177 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %178 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %179 = "stablehlo.constant"() <{value = dense<4> : tensor<1xi32>}> : () -> tensor<1xi32>
  %180 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %181 = "stablehlo.constant"() <{value = dense<2> : tensor<1xi32>}> : () -> tensor<1xi32>
  %182 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %183 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %184 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi32>}> : () -> tensor<1xi32>
  %185 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %186 = "stablehlo.constant"() <{value = dense<9.99999968E-21> : tensor<f32>}> : () -> tensor<f32>
  %187 = "stablehlo.constant"() <{value = dense<2.500000e+00> : tensor<f32>}> : () -> tensor<f32>
  %188 = "stablehlo.constant"() <{value = dense<16> : tensor<1xi32>}> : () -> tensor<1xi32>
  %189 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %190 = "stablehlo.get_dimension_size"(%arg21) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %191 = "stablehlo.dot_general"(%arg21, %arg23) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x4xf32>) -> tensor<?x4xf32>
  %192 = "stablehlo.negate"(%191) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %193 = "stablehlo.exponential"(%192) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %194 = "stablehlo.reshape"(%190) : (tensor<i32>) -> tensor<1xi32>
  %195 = "stablehlo.concatenate"(%194, %179) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %196 = "stablehlo.dynamic_broadcast_in_dim"(%177, %195) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x4xf32>
  %197 = "stablehlo.add"(%196, %193) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %198 = "stablehlo.divide"(%196, %197) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %199 = "stablehlo.broadcast_in_dim"(%arg22) <{broadcast_dimensions = array<i64: 1>}> : (tensor<4xf32>) -> tensor<1x4xf32>
  %200 = "stablehlo.dynamic_broadcast_in_dim"(%199, %195) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %201 = "stablehlo.add"(%198, %200) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %202 = "stablehlo.concatenate"(%194, %181, %181) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %203 = "stablehlo.dynamic_reshape"(%201, %202) : (tensor<?x4xf32>, tensor<3xi32>) -> tensor<?x2x2xf32>
  %204:2 = "stablehlo.composite"(%203) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x2x2xf32>) -> (tensor<?x2x2xf32>, tensor<?x2x2xi32>)
  %205 = "stablehlo.reduce"(%204#0, %182) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg42: tensor<f32>, %arg43: tensor<f32>):
    %315 = "stablehlo.add"(%arg42, %arg43) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%315) : (tensor<f32>) -> ()
  }) : (tensor<?x2x2xf32>, tensor<f32>) -> tensor<?x2xf32>
  %206:2 = "stablehlo.composite"(%205) <{composite_attributes = {k = 1 : i64}, decomposition = @chlo.top_k.impl_0, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x2xf32>) -> (tensor<?x1xf32>, tensor<?x1xi32>)
  %207 = "stablehlo.concatenate"(%194, %181) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %208 = "stablehlo.dynamic_broadcast_in_dim"(%182, %207) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x2xf32>
  %209 = "stablehlo.dynamic_iota"(%194) <{iota_dimension = 0 : i64}> : (tensor<1xi32>) -> tensor<?xi32>
  %210 = "stablehlo.dynamic_broadcast_in_dim"(%189, %194) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %211 = "stablehlo.multiply"(%210, %209) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %212 = "stablehlo.dynamic_broadcast_in_dim"(%183, %194) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %213 = "stablehlo.add"(%212, %211) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %214 = "stablehlo.concatenate"(%194, %184) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %215 = "stablehlo.dynamic_broadcast_in_dim"(%213, %214) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %216 = "stablehlo.convert"(%190) : (tensor<i32>) -> tensor<i32>
  %217 = "stablehlo.dynamic_broadcast_in_dim"(%183, %214) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x1xi32>
  %218 = "stablehlo.compare"(%215, %217) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi1>
  %219 = "stablehlo.dynamic_broadcast_in_dim"(%216, %214) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x1xi32>
  %220 = "stablehlo.add"(%215, %219) : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi32>
  %221 = "stablehlo.select"(%218, %220, %215) : (tensor<?x1xi1>, tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi32>
  %222 = "stablehlo.compare"(%206#1, %217) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi1>
  %223 = "stablehlo.dynamic_broadcast_in_dim"(%180, %214) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<2xi32>) -> tensor<?x1xi32>
  %224 = "stablehlo.add"(%206#1, %223) : (tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi32>
  %225 = "stablehlo.select"(%222, %224, %206#1) : (tensor<?x1xi1>, tensor<?x1xi32>, tensor<?x1xi32>) -> tensor<?x1xi32>
  %226 = "stablehlo.concatenate"(%194, %184, %184) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %227 = "stablehlo.dynamic_broadcast_in_dim"(%221, %226) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xi32>, tensor<3xi32>) -> tensor<?x1x1xi32>
  %228 = "stablehlo.dynamic_broadcast_in_dim"(%225, %226) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xi32>, tensor<3xi32>) -> tensor<?x1x1xi32>
  %229 = "stablehlo.concatenate"(%227, %228) <{dimension = 2 : i64}> : (tensor<?x1x1xi32>, tensor<?x1x1xi32>) -> tensor<?x1x2xi32>
  %230 = "stablehlo.dynamic_broadcast_in_dim"(%177, %214) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x1xf32>
  %231 = "stablehlo.scatter"(%208, %229, %230) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 2>}> ({
  ^bb0(%arg40: tensor<f32>, %arg41: tensor<f32>):
    "stablehlo.return"(%arg41) : (tensor<f32>) -> ()
  }) : (tensor<?x2xf32>, tensor<?x1x2xi32>, tensor<?x1xf32>) -> tensor<?x2xf32>
  %232 = "stablehlo.compare"(%231, %208) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xi1>
  %233 = "stablehlo.dynamic_broadcast_in_dim"(%232, %202) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi1>, tensor<3xi32>) -> tensor<?x2x2xi1>
  %234 = "stablehlo.dynamic_reshape"(%233, %195) : (tensor<?x2x2xi1>, tensor<2xi32>) -> tensor<?x4xi1>
  %235 = "stablehlo.convert"(%185) : (tensor<f32>) -> tensor<f32>
  %236 = "stablehlo.dynamic_broadcast_in_dim"(%235, %195) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x4xf32>
  %237 = "stablehlo.select"(%234, %201, %236) : (tensor<?x4xi1>, tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %238:2 = "stablehlo.composite"(%237) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl_1, name = "chlo.top_k", version = 1 : i32}> : (tensor<?x4xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)
  %239 = "stablehlo.concatenate"(%194, %181, %184) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %240 = "stablehlo.dynamic_broadcast_in_dim"(%238#1, %239) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x2xi32>, tensor<3xi32>) -> tensor<?x2x1xi32>
  %241 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %242 = "stablehlo.concatenate"(%194, %181, %179) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %243 = "stablehlo.dynamic_broadcast_in_dim"(%240, %242) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x2x1xi32>, tensor<3xi32>) -> tensor<?x2x4xi32>
  %244 = "stablehlo.dynamic_broadcast_in_dim"(%241, %242) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>, tensor<3xi32>) -> tensor<?x2x4xi32>
  %245 = "stablehlo.compare"(%243, %244) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<?x2x4xi32>, tensor<?x2x4xi32>) -> tensor<?x2x4xi1>
  %246 = "stablehlo.convert"(%245) : (tensor<?x2x4xi1>) -> tensor<?x2x4xf32>
  %247 = "stablehlo.concatenate"(%194, %184, %179) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %248 = "stablehlo.dynamic_broadcast_in_dim"(%198, %247) <{broadcast_dimensions = array<i64: 0, 2>}> : (tensor<?x4xf32>, tensor<3xi32>) -> tensor<?x1x4xf32>
  %249 = "stablehlo.dynamic_broadcast_in_dim"(%248, %242) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<?x1x4xf32>, tensor<3xi32>) -> tensor<?x2x4xf32>
  %250 = "stablehlo.multiply"(%246, %249) : (tensor<?x2x4xf32>, tensor<?x2x4xf32>) -> tensor<?x2x4xf32>
  %251 = "stablehlo.reduce"(%250, %182) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg38: tensor<f32>, %arg39: tensor<f32>):
    %314 = "stablehlo.add"(%arg38, %arg39) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%314) : (tensor<f32>) -> ()
  }) : (tensor<?x2x4xf32>, tensor<f32>) -> tensor<?x2xf32>
  %252 = "stablehlo.reduce"(%251, %182) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg36: tensor<f32>, %arg37: tensor<f32>):
    %313 = "stablehlo.add"(%arg36, %arg37) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%313) : (tensor<f32>) -> ()
  }) : (tensor<?x2xf32>, tensor<f32>) -> tensor<?xf32>
  %253 = "stablehlo.dynamic_broadcast_in_dim"(%252, %214) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xf32>, tensor<2xi32>) -> tensor<?x1xf32>
  %254 = "stablehlo.dynamic_broadcast_in_dim"(%186, %214) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x1xf32>
  %255 = "stablehlo.add"(%253, %254) : (tensor<?x1xf32>, tensor<?x1xf32>) -> tensor<?x1xf32>
  %256 = "stablehlo.dynamic_broadcast_in_dim"(%255, %207) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xf32>, tensor<2xi32>) -> tensor<?x2xf32>
  %257 = "stablehlo.divide"(%251, %256) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %258 = "stablehlo.dynamic_broadcast_in_dim"(%187, %207) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xi32>) -> tensor<?x2xf32>
  %259 = "stablehlo.multiply"(%257, %258) : (tensor<?x2xf32>, tensor<?x2xf32>) -> tensor<?x2xf32>
  %260 = "stablehlo.multiply"(%216, %180) : (tensor<i32>, tensor<i32>) -> tensor<i32>
  %261 = "stablehlo.reshape"(%260) : (tensor<i32>) -> tensor<1xi32>
  %262 = "stablehlo.dynamic_reshape"(%238#1, %261) : (tensor<?x2xi32>, tensor<1xi32>) -> tensor<?xi32>
  %263 = "stablehlo.dynamic_iota"(%261) <{iota_dimension = 0 : i64}> : (tensor<1xi32>) -> tensor<?xi32>
  %264:2 = "stablehlo.sort"(%262, %263) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg32: tensor<i32>, %arg33: tensor<i32>, %arg34: tensor<i32>, %arg35: tensor<i32>):
    %312 = "stablehlo.compare"(%arg32, %arg33) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%312) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %265 = "stablehlo.broadcast_in_dim"(%183) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<4xi32>
  %266 = "stablehlo.convert"(%183) : (tensor<i32>) -> tensor<i32>
  %267 = "stablehlo.dynamic_broadcast_in_dim"(%266, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %268 = "stablehlo.maximum"(%267, %262) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %269 = "stablehlo.dynamic_broadcast_in_dim"(%183, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %270 = "stablehlo.compare"(%268, %269) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %271 = "stablehlo.dynamic_broadcast_in_dim"(%178, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %272 = "stablehlo.add"(%268, %271) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %273 = "stablehlo.select"(%270, %272, %268) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %274 = "stablehlo.concatenate"(%261, %184) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %275 = "stablehlo.dynamic_broadcast_in_dim"(%273, %274) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %276 = "stablehlo.dynamic_broadcast_in_dim"(%189, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %277 = "stablehlo.scatter"(%265, %275, %276) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg30: tensor<i32>, %arg31: tensor<i32>):
    %311 = "stablehlo.add"(%arg30, %arg31) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%311) : (tensor<i32>) -> ()
  }) : (tensor<4xi32>, tensor<?x1xi32>, tensor<?xi32>) -> tensor<4xi32>
  %278 = "stablehlo.convert"(%180) : (tensor<i32>) -> tensor<i32>
  %279 = "stablehlo.dynamic_broadcast_in_dim"(%278, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %280 = "stablehlo.divide"(%264#1, %279) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %281 = "stablehlo.sign"(%264#1) : (tensor<?xi32>) -> tensor<?xi32>
  %282 = "stablehlo.sign"(%278) : (tensor<i32>) -> tensor<i32>
  %283 = "stablehlo.dynamic_broadcast_in_dim"(%282, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %284 = "stablehlo.compare"(%281, %283) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %285 = "stablehlo.remainder"(%264#1, %279) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %286 = "stablehlo.compare"(%285, %269) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %287 = "stablehlo.and"(%284, %286) : (tensor<?xi1>, tensor<?xi1>) -> tensor<?xi1>
  %288 = "stablehlo.subtract"(%280, %276) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %289 = "stablehlo.select"(%287, %288, %280) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %290 = "stablehlo.compare"(%289, %269) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %291 = "stablehlo.dynamic_broadcast_in_dim"(%216, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %292 = "stablehlo.add"(%289, %291) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %293 = "stablehlo.select"(%290, %292, %289) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %294 = "stablehlo.dynamic_broadcast_in_dim"(%293, %274) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %295 = "stablehlo.gather"(%arg21, %294) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %296 = "stablehlo.composite"(%295, %arg24, %277) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x16xf32>, tensor<4x16x24xf32>, tensor<4xi32>) -> tensor<?x24xf32>
  %297 = "stablehlo.tanh"(%296) : (tensor<?x24xf32>) -> tensor<?x24xf32>
  %298 = "stablehlo.composite"(%297, %arg25, %277) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_2, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<?x24xf32>, tensor<4x24x16xf32>, tensor<4xi32>) -> tensor<?x16xf32>
  %299:2 = "stablehlo.sort"(%264#1, %263) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg26: tensor<i32>, %arg27: tensor<i32>, %arg28: tensor<i32>, %arg29: tensor<i32>):
    %310 = "stablehlo.compare"(%arg26, %arg27) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%310) : (tensor<i1>) -> ()
  }) : (tensor<?xi32>, tensor<?xi32>) -> (tensor<?xi32>, tensor<?xi32>)
  %300 = "stablehlo.convert"(%260) : (tensor<i32>) -> tensor<i32>
  %301 = "stablehlo.compare"(%299#1, %269) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi1>
  %302 = "stablehlo.dynamic_broadcast_in_dim"(%300, %261) <{broadcast_dimensions = array<i64>}> : (tensor<i32>, tensor<1xi32>) -> tensor<?xi32>
  %303 = "stablehlo.add"(%299#1, %302) : (tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %304 = "stablehlo.select"(%301, %303, %299#1) : (tensor<?xi1>, tensor<?xi32>, tensor<?xi32>) -> tensor<?xi32>
  %305 = "stablehlo.dynamic_broadcast_in_dim"(%304, %274) <{broadcast_dimensions = array<i64: 0>}> : (tensor<?xi32>, tensor<2xi32>) -> tensor<?x1xi32>
  %306 = "stablehlo.gather"(%298, %305) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<?x16xf32>, tensor<?x1xi32>) -> tensor<?x16xf32>
  %307 = "stablehlo.concatenate"(%194, %181, %188) <{dimension = 0 : i64}> : (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
  %308 = "stablehlo.dynamic_reshape"(%306, %307) : (tensor<?x16xf32>, tensor<3xi32>) -> tensor<?x2x16xf32>
  %309 = "stablehlo.dot_general"(%308, %259) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<?x2x16xf32>, tensor<?x2xf32>) -> tensor<?x16xf32>
  "func.return"(%309) : (tensor<?x16xf32>) -> ()
}) : () -> ()

// -----

// By an einsum; groups by their largest score, as [T, G, S].

// CHECK-LABEL: func.func public @take_max(
// CHECK:         %[[SCORES:.*]] = "stablehlo.divide"
// CHECK:         %[[BIASED:.*]] = "stablehlo.add"(%[[SCORES]],
// CHECK:         %{{.*}}, %[[IDS:.*]] = moe.gate %[[BIASED]] top_k(2) score(none) groups(<count = 2, keep = 1>)
// CHECK:         linalg.generic {{.*}} ins(%[[IDS]] : tensor<12x2xi32>)
// CHECK:           tensor.extract %[[SCORES]][
// CHECK-NOT:     stablehlo.dot_general_
"func.func"() <{function_type = (tensor<12x16xf32>, tensor<4xf32>, tensor<16x4xf32>, tensor<4x16x24xf32>, tensor<4x24x16xf32>) -> tensor<12x16xf32>, sym_name = "take_max", sym_visibility = "public"}> ({
^bb0(%arg16: tensor<12x16xf32>, %arg17: tensor<4xf32>, %arg18: tensor<16x4xf32>, %arg19: tensor<4x16x24xf32>, %arg20: tensor<4x24x16xf32>):
  %122 = "stablehlo.constant"() <{value = dense<24> : tensor<i32>}> : () -> tensor<i32>
  %123 = "stablehlo.constant"() <{value = dense<12> : tensor<i32>}> : () -> tensor<i32>
  %124 = "stablehlo.constant"() <{value = dense<2> : tensor<i32>}> : () -> tensor<i32>
  %125 = "stablehlo.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %126 = "stablehlo.constant"() <{value = dense<4> : tensor<i32>}> : () -> tensor<i32>
  %127 = "stablehlo.constant"() <{value = dense<0> : tensor<i32>}> : () -> tensor<i32>
  %128 = "stablehlo.constant"() <{value = dense<2.500000e+00> : tensor<f32>}> : () -> tensor<f32>
  %129 = "stablehlo.constant"() <{value = dense<9.99999968E-21> : tensor<f32>}> : () -> tensor<f32>
  %130 = "stablehlo.constant"() <{value = dense<false> : tensor<i1>}> : () -> tensor<i1>
  %131 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %132 = "stablehlo.constant"() <{value = dense<0xFF800000> : tensor<f32>}> : () -> tensor<f32>
  %133 = "stablehlo.constant"() <{value = dense<1.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %134 = "stablehlo.dot_general"(%arg16, %arg18) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<12x16xf32>, tensor<16x4xf32>) -> tensor<12x4xf32>
  %135 = "stablehlo.negate"(%134) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %136 = "stablehlo.exponential"(%135) : (tensor<12x4xf32>) -> tensor<12x4xf32>
  %137 = "stablehlo.broadcast_in_dim"(%133) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x4xf32>
  %138 = "stablehlo.add"(%137, %136) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %139 = "stablehlo.divide"(%137, %138) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %140 = "stablehlo.broadcast_in_dim"(%arg17) <{broadcast_dimensions = array<i64: 1>}> : (tensor<4xf32>) -> tensor<1x4xf32>
  %141 = "stablehlo.broadcast_in_dim"(%140) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<1x4xf32>) -> tensor<12x4xf32>
  %142 = "stablehlo.add"(%139, %141) : (tensor<12x4xf32>, tensor<12x4xf32>) -> tensor<12x4xf32>
  %143 = "stablehlo.reshape"(%142) : (tensor<12x4xf32>) -> tensor<12x2x2xf32>
  %144 = "stablehlo.reduce"(%143, %132) <{dimensions = array<i64: 2>}> ({
  ^bb0(%arg35: tensor<f32>, %arg36: tensor<f32>):
    %227 = "stablehlo.maximum"(%arg35, %arg36) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%227) : (tensor<f32>) -> ()
  }) : (tensor<12x2x2xf32>, tensor<f32>) -> tensor<12x2xf32>
  %145:2 = "stablehlo.composite"(%144) <{composite_attributes = {k = 1 : i64}, decomposition = @chlo.top_k.impl, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x2xf32>) -> (tensor<12x1xf32>, tensor<12x1xi32>)
  %146 = "stablehlo.broadcast_in_dim"(%145#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xi32>) -> tensor<12x1x1xi32>
  %147 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x2xi32>
  %148 = "stablehlo.broadcast_in_dim"(%146) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<12x1x1xi32>) -> tensor<12x1x2xi32>
  %149 = "stablehlo.broadcast_in_dim"(%147) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x2xi32>) -> tensor<12x1x2xi32>
  %150 = "stablehlo.compare"(%148, %149) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<12x1x2xi32>, tensor<12x1x2xi32>) -> tensor<12x1x2xi1>
  %151 = "stablehlo.convert"(%150) : (tensor<12x1x2xi1>) -> tensor<12x1x2xf32>
  %152 = "stablehlo.broadcast_in_dim"(%131) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x1x2xf32>
  %153 = "stablehlo.compare"(%151, %152) <{compare_type = #stablehlo<comparison_type FLOAT>, comparison_direction = #stablehlo<comparison_direction GT>}> : (tensor<12x1x2xf32>, tensor<12x1x2xf32>) -> tensor<12x1x2xi1>
  %154 = "stablehlo.reduce"(%153, %130) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg33: tensor<i1>, %arg34: tensor<i1>):
    %226 = "stablehlo.or"(%arg33, %arg34) : (tensor<i1>, tensor<i1>) -> tensor<i1>
    "stablehlo.return"(%226) : (tensor<i1>) -> ()
  }) : (tensor<12x1x2xi1>, tensor<i1>) -> tensor<12x2xi1>
  %155 = "stablehlo.broadcast_in_dim"(%154) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x2xi1>) -> tensor<12x2x1xi1>
  %156 = "stablehlo.convert"(%132) : (tensor<f32>) -> tensor<f32>
  %157 = "stablehlo.broadcast_in_dim"(%155) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<12x2x1xi1>) -> tensor<12x2x2xi1>
  %158 = "stablehlo.broadcast_in_dim"(%156) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x2x2xf32>
  %159 = "stablehlo.select"(%157, %143, %158) : (tensor<12x2x2xi1>, tensor<12x2x2xf32>, tensor<12x2x2xf32>) -> tensor<12x2x2xf32>
  %160 = "stablehlo.reshape"(%159) : (tensor<12x2x2xf32>) -> tensor<12x4xf32>
  %161:2 = "stablehlo.composite"(%160) <{composite_attributes = {k = 2 : i64}, decomposition = @chlo.top_k.impl_0, name = "chlo.top_k", version = 1 : i32}> : (tensor<12x4xf32>) -> (tensor<12x2xf32>, tensor<12x2xi32>)
  %162 = "stablehlo.broadcast_in_dim"(%161#1) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x2xi32>) -> tensor<12x2x1xi32>
  %163 = "stablehlo.iota"() <{iota_dimension = 2 : i64}> : () -> tensor<1x1x4xi32>
  %164 = "stablehlo.broadcast_in_dim"(%162) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<12x2x1xi32>) -> tensor<12x2x4xi32>
  %165 = "stablehlo.broadcast_in_dim"(%163) <{broadcast_dimensions = array<i64: 0, 1, 2>}> : (tensor<1x1x4xi32>) -> tensor<12x2x4xi32>
  %166 = "stablehlo.compare"(%164, %165) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction EQ>}> : (tensor<12x2x4xi32>, tensor<12x2x4xi32>) -> tensor<12x2x4xi1>
  %167 = "stablehlo.convert"(%166) : (tensor<12x2x4xi1>) -> tensor<12x2x4xf32>
  %168 = "stablehlo.dot_general"(%167, %139) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1]>}> : (tensor<12x2x4xf32>, tensor<12x4xf32>) -> tensor<12x2xf32>
  %169 = "stablehlo.reduce"(%168, %131) <{dimensions = array<i64: 1>}> ({
  ^bb0(%arg31: tensor<f32>, %arg32: tensor<f32>):
    %225 = "stablehlo.add"(%arg31, %arg32) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "stablehlo.return"(%225) : (tensor<f32>) -> ()
  }) : (tensor<12x2xf32>, tensor<f32>) -> tensor<12xf32>
  %170 = "stablehlo.broadcast_in_dim"(%169) <{broadcast_dimensions = array<i64: 0>}> : (tensor<12xf32>) -> tensor<12x1xf32>
  %171 = "stablehlo.broadcast_in_dim"(%129) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x1xf32>
  %172 = "stablehlo.add"(%170, %171) : (tensor<12x1xf32>, tensor<12x1xf32>) -> tensor<12x1xf32>
  %173 = "stablehlo.broadcast_in_dim"(%172) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<12x1xf32>) -> tensor<12x2xf32>
  %174 = "stablehlo.divide"(%168, %173) : (tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %175 = "stablehlo.broadcast_in_dim"(%128) <{broadcast_dimensions = array<i64>}> : (tensor<f32>) -> tensor<12x2xf32>
  %176 = "stablehlo.multiply"(%174, %175) : (tensor<12x2xf32>, tensor<12x2xf32>) -> tensor<12x2xf32>
  %177 = "stablehlo.reshape"(%161#1) : (tensor<12x2xi32>) -> tensor<24xi32>
  %178 = "stablehlo.iota"() <{iota_dimension = 0 : i64}> : () -> tensor<24xi32>
  %179:2 = "stablehlo.sort"(%177, %178) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg27: tensor<i32>, %arg28: tensor<i32>, %arg29: tensor<i32>, %arg30: tensor<i32>):
    %224 = "stablehlo.compare"(%arg27, %arg28) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%224) : (tensor<i1>) -> ()
  }) : (tensor<24xi32>, tensor<24xi32>) -> (tensor<24xi32>, tensor<24xi32>)
  %180 = "stablehlo.broadcast_in_dim"(%127) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<4xi32>
  %181 = "stablehlo.convert"(%127) : (tensor<i32>) -> tensor<i32>
  %182 = "stablehlo.broadcast_in_dim"(%181) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %183 = "stablehlo.maximum"(%182, %177) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %184 = "stablehlo.broadcast_in_dim"(%127) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %185 = "stablehlo.compare"(%183, %184) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %186 = "stablehlo.broadcast_in_dim"(%126) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %187 = "stablehlo.add"(%183, %186) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %188 = "stablehlo.select"(%185, %187, %183) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %189 = "stablehlo.broadcast_in_dim"(%188) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xi32>) -> tensor<24x1xi32>
  %190 = "stablehlo.broadcast_in_dim"(%125) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %191 = "stablehlo.scatter"(%180, %189, %190) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%arg25: tensor<i32>, %arg26: tensor<i32>):
    %223 = "stablehlo.add"(%arg25, %arg26) : (tensor<i32>, tensor<i32>) -> tensor<i32>
    "stablehlo.return"(%223) : (tensor<i32>) -> ()
  }) : (tensor<4xi32>, tensor<24x1xi32>, tensor<24xi32>) -> tensor<4xi32>
  %192 = "stablehlo.convert"(%124) : (tensor<i32>) -> tensor<i32>
  %193 = "stablehlo.broadcast_in_dim"(%192) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %194 = "stablehlo.divide"(%179#1, %193) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %195 = "stablehlo.sign"(%179#1) : (tensor<24xi32>) -> tensor<24xi32>
  %196 = "stablehlo.sign"(%192) : (tensor<i32>) -> tensor<i32>
  %197 = "stablehlo.broadcast_in_dim"(%196) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %198 = "stablehlo.compare"(%195, %197) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %199 = "stablehlo.remainder"(%179#1, %193) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %200 = "stablehlo.compare"(%199, %184) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction NE>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %201 = "stablehlo.and"(%198, %200) : (tensor<24xi1>, tensor<24xi1>) -> tensor<24xi1>
  %202 = "stablehlo.subtract"(%194, %190) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %203 = "stablehlo.select"(%201, %202, %194) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %204 = "stablehlo.compare"(%203, %184) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %205 = "stablehlo.broadcast_in_dim"(%123) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %206 = "stablehlo.add"(%203, %205) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %207 = "stablehlo.select"(%204, %206, %203) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %208 = "stablehlo.broadcast_in_dim"(%207) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xi32>) -> tensor<24x1xi32>
  %209 = "stablehlo.gather"(%arg16, %208) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<12x16xf32>, tensor<24x1xi32>) -> tensor<24x16xf32>
  %210 = "stablehlo.composite"(%209, %arg19, %191) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<24x16xf32>, tensor<4x16x24xf32>, tensor<4xi32>) -> tensor<24x24xf32>
  %211 = "stablehlo.tanh"(%210) : (tensor<24x24xf32>) -> tensor<24x24xf32>
  %212 = "stablehlo.composite"(%211, %arg20, %191) <{composite_attributes = {precision_config = ["DEFAULT", "DEFAULT"], ragged_dot_dimension_numbers = [dense<> : tensor<0xi64>, dense<> : tensor<0xi64>, dense<1> : tensor<1xi64>, dense<1> : tensor<1xi64>, dense<0> : tensor<1xi64>, dense<0> : tensor<1xi64>]}, decomposition = @chlo.ragged_dot.impl_1, name = "chlo.ragged_dot", version = 1 : i32}> : (tensor<24x24xf32>, tensor<4x24x16xf32>, tensor<4xi32>) -> tensor<24x16xf32>
  %213:2 = "stablehlo.sort"(%179#1, %178) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%arg21: tensor<i32>, %arg22: tensor<i32>, %arg23: tensor<i32>, %arg24: tensor<i32>):
    %222 = "stablehlo.compare"(%arg21, %arg22) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<i32>, tensor<i32>) -> tensor<i1>
    "stablehlo.return"(%222) : (tensor<i1>) -> ()
  }) : (tensor<24xi32>, tensor<24xi32>) -> (tensor<24xi32>, tensor<24xi32>)
  %214 = "stablehlo.compare"(%213#1, %184) <{compare_type = #stablehlo<comparison_type SIGNED>, comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi1>
  %215 = "stablehlo.broadcast_in_dim"(%122) <{broadcast_dimensions = array<i64>}> : (tensor<i32>) -> tensor<24xi32>
  %216 = "stablehlo.add"(%213#1, %215) : (tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %217 = "stablehlo.select"(%214, %216, %213#1) : (tensor<24xi1>, tensor<24xi32>, tensor<24xi32>) -> tensor<24xi32>
  %218 = "stablehlo.broadcast_in_dim"(%217) <{broadcast_dimensions = array<i64: 0>}> : (tensor<24xi32>) -> tensor<24x1xi32>
  %219 = "stablehlo.gather"(%212, %218) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 16>}> : (tensor<24x16xf32>, tensor<24x1xi32>) -> tensor<24x16xf32>
  %220 = "stablehlo.reshape"(%219) : (tensor<24x16xf32>) -> tensor<12x2x16xf32>
  %221 = "stablehlo.dot_general"(%220, %176) <{dot_dimension_numbers = #stablehlo.dot<lhs_batching_dimensions = [0], rhs_batching_dimensions = [0], lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1]>}> : (tensor<12x2x16xf32>, tensor<12x2xf32>) -> tensor<12x16xf32>
  "func.return"(%221) : (tensor<12x16xf32>) -> ()
}) : () -> ()
