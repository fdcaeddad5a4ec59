// Each operation and attribute of the dialect, as it was written by the first
// version of the bytecode; bytecode.test reads the files of that version.

module {
  func.func @weighted_sum(%grouped: tensor<?x64xf32>,
                          %positions: tensor<?x2xi32>,
                          %weights: tensor<?x2xf32>) -> tensor<?x64xf32> {
    %y = moe.combine %grouped, %positions weights(%weights : tensor<?x2xf32>)
      : tensor<?x64xf32>, tensor<?x2xi32>
    return %y : tensor<?x64xf32>
  }
}

module {
  func.func @mxfp4(%blocks: tensor<8x96x2x16xi8>, %scales: tensor<8x96x2xi8>)
      -> tensor<8x96x64xbf16> {
    %w = moe.dequantize %blocks, %scales format(<
        codes = <element = f4E2M1FN, bits = [#moe.bits<width = 4>]>,
        scales = [#moe.field<element = f8E8M0FNU, operand = 1,
                             block = [1, 32]>]>)
      : tensor<8x96x2x16xi8>, tensor<8x96x2xi8> -> tensor<8x96x64xbf16>
    return %w : tensor<8x96x64xbf16>
  }

  func.func @fp8(%w: tensor<8x320x256xf8E4M3FN>, %scales: tensor<8x3x2xf32>)
      -> tensor<8x320x256xbf16> {
    %d = moe.dequantize %w, %scales format(<
        codes = <element = f8E4M3FN>,
        scales = [#moe.field<element = f32, operand = 1,
                             block = [128, 128]>]>)
      : tensor<8x320x256xf8E4M3FN>, tensor<8x3x2xf32>
      -> tensor<8x320x256xbf16>
    return %d : tensor<8x320x256xbf16>
  }
}

module {
  func.func @capacity(%x: tensor<?x64xf32>, %ids: tensor<?x2xi32>)
      -> (tensor<?x64xf32>, tensor<9xi32>, tensor<?x2xi32>) {
    %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      capacity(<factor = 2.5, rounding = floor, minimum = 4, at_most_tokens>)
      priority(choice) : tensor<?x64xf32>, tensor<?x2xi32>
    return %grouped, %offsets, %positions
      : tensor<?x64xf32>, tensor<9xi32>, tensor<?x2xi32>
  }
}

module {
  func.func @relu_mlp(%grouped: tensor<?x64xf32>, %offsets: tensor<9xi32>,
                      %up: tensor<8x64x128xf32>, %down: tensor<8x128x64xf32>)
      -> tensor<?x64xf32> {
    %y = moe.expert %grouped, %offsets
        params(%up, %down : tensor<8x64x128xf32>, tensor<8x128x64xf32>) {
    ^bb0(%rows: tensor<?x64xf32>, %u: tensor<64x128xf32>,
         %d: tensor<128x64xf32>):
      %c0 = arith.constant 0 : index
      %zero = arith.constant 0.0 : f32
      %n = tensor.dim %rows, %c0 : tensor<?x64xf32>
      %e0 = tensor.empty(%n) : tensor<?x128xf32>
      %z0 = linalg.fill ins(%zero : f32)
                        outs(%e0 : tensor<?x128xf32>) -> tensor<?x128xf32>
      %h = linalg.matmul ins(%rows, %u : tensor<?x64xf32>, tensor<64x128xf32>)
                         outs(%z0 : tensor<?x128xf32>) -> tensor<?x128xf32>
      %a = linalg.max ins(%h, %z0 : tensor<?x128xf32>, tensor<?x128xf32>)
                      outs(%e0 : tensor<?x128xf32>) -> tensor<?x128xf32>
      %e1 = tensor.empty(%n) : tensor<?x64xf32>
      %z1 = linalg.fill ins(%zero : f32)
                        outs(%e1 : tensor<?x64xf32>) -> tensor<?x64xf32>
      %o = linalg.matmul ins(%a, %d : tensor<?x128xf32>, tensor<128x64xf32>)
                         outs(%z1 : tensor<?x64xf32>) -> tensor<?x64xf32>
      moe.yield %o : tensor<?x64xf32>
    } : tensor<?x64xf32>, tensor<9xi32> -> tensor<?x64xf32>
    return %y : tensor<?x64xf32>
  }
}

module {
  func.func @router(%x: tensor<?x64xf32>, %w: tensor<1x64x8xf32>,
                    %init: tensor<?x8xf32>)
      -> (tensor<?x2xf32>, tensor<?x2xi32>) {
    %results:2 = moe.fused {
      %logits = moe.grouped_matmul %x weights(%w : tensor<1x64x8xf32>)
          outs(%init : tensor<?x8xf32>) {
      ^bb0(%accumulator: f32):
        moe.yield %accumulator : f32
      } : tensor<?x64xf32> -> tensor<?x8xf32>
      %weights, %ids = moe.gate %logits top_k(2) : tensor<?x8xf32>
      moe.yield %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
    } -> tensor<?x2xf32>, tensor<?x2xi32>
    return %results#0, %results#1 : tensor<?x2xf32>, tensor<?x2xi32>
  }
}

module {
  func.func @mixtral(%logits: tensor<?x8xf32>)
      -> (tensor<?x2xf32>, tensor<?x2xi32>) {
    %weights, %ids = moe.gate %logits top_k(2) normalize(<sum>)
      : tensor<?x8xf32>
    return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
  }
}

module {
  func.func @deepseek_v3(%logits: tensor<?x256xf32>, %bias: tensor<256xf32>)
      -> (tensor<?x8xf32>, tensor<?x8xi32>) {
    %weights, %ids = moe.gate %logits bias(%bias : tensor<256xf32>) top_k(8)
      score(sigmoid) groups(<count = 8, keep = 4, score = top2_sum>)
      normalize(<sum, epsilon = 1.0e-20>) scale(2.5)
      : tensor<?x256xf32>
    return %weights, %ids : tensor<?x8xf32>, tensor<?x8xi32>
  }
}

module {
  func.func @gather_sum(%rows: tensor<?x64xbf16>, %positions: tensor<?x2xi32>,
                        %weights: tensor<?x2xf32>, %init: tensor<?x64xbf16>)
      -> tensor<?x64xbf16> {
    %y = moe.gather_sum %rows, %positions weights(%weights : tensor<?x2xf32>)
      outs(%init : tensor<?x64xbf16>)
      : tensor<?x64xbf16>, tensor<?x2xi32> -> tensor<?x64xbf16>
    return %y : tensor<?x64xbf16>
  }
}

module {
  func.func @swiglu(%x: tensor<?x64xf32>, %tokens: tensor<?xi32>,
                    %offsets: tensor<9xi32>, %gate: tensor<8x64x128xf32>,
                    %up: tensor<8x64x128xf32>, %init: tensor<?x128xf32>)
      -> tensor<?x128xf32> {
    %h = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>)
        offsets(%offsets : tensor<9xi32>)
        weights(%gate, %up : tensor<8x64x128xf32>, tensor<8x64x128xf32>)
        outs(%init : tensor<?x128xf32>) {
    ^bb0(%g: f32, %u: f32):
      %one = arith.constant 1.0 : f32
      %n = arith.negf %g : f32
      %e = math.exp %n : f32
      %d = arith.addf %e, %one : f32
      %s = arith.divf %g, %d : f32
      %r = arith.mulf %s, %u : f32
      moe.yield %r : f32
    } : tensor<?x64xf32> -> tensor<?x128xf32>
    return %h : tensor<?x128xf32>
  }
}

module {
  func.func @scaled(%x: tensor<?x256xf8E4M3FN>, %x_scales: tensor<?x2xf32>,
                    %offsets: tensor<9xi32>, %w: tensor<8x384x256xf8E4M3FN>,
                    %w_scales: tensor<8x3x2xf32>, %init: tensor<?x384xbf16>)
      -> tensor<?x384xbf16> {
    %y = moe.grouped_matmul %x offsets(%offsets : tensor<9xi32>)
        weights(%w : tensor<8x384x256xf8E4M3FN>) transposed
        lhs_scales(%x_scales : tensor<?x2xf32>)
        weight_scales(%w_scales : tensor<8x3x2xf32>) blocks([128, 128])
        outs(%init : tensor<?x384xbf16>) {
    ^bb0(%sum: f32):
      %r = arith.truncf %sum : f32 to bf16
      moe.yield %r : bf16
    } : tensor<?x256xf8E4M3FN> -> tensor<?x384xbf16>
    return %y : tensor<?x384xbf16>
  }
}

module {
  func.func @pack(%w: tensor<8x24x40xbf16>, %init: tensor<8x1x12x64x2xbf16>)
      -> tensor<8x1x12x64x2xbf16> {
    %p = moe.pack %w panels(<matmuls = 1, columns = 64, depth = 2>)
      outs(%init : tensor<8x1x12x64x2xbf16>)
      : tensor<8x24x40xbf16> -> tensor<8x1x12x64x2xbf16>
    return %p : tensor<8x1x12x64x2xbf16>
  }
}

module {
  func.func @rows(%x: tensor<?x320xbf16>)
      -> (tensor<?x320xf8E4M3FN>, tensor<?x3xf32>) {
    %quantized, %scales = moe.quantize %x format(<
        codes = <element = f8E4M3FN>,
        scales = [#moe.field<element = f32, operand = 1, block = [1, 128]>]>)
      : tensor<?x320xbf16> -> tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
    return %quantized, %scales : tensor<?x320xf8E4M3FN>, tensor<?x3xf32>
  }

  func.func @weights(%w: tensor<8x96x64xbf16>)
      -> (tensor<8x96x32xi8>, tensor<8x96x2xf16>) {
    %quantized, %scales = moe.quantize %w format(<
        codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8,
        scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>)
      : tensor<8x96x64xbf16> -> tensor<8x96x32xi8>, tensor<8x96x2xf16>
    return %quantized, %scales : tensor<8x96x32xi8>, tensor<8x96x2xf16>
  }
}

module {
  func.func @quantize_rows(%x: tensor<?x64xbf16>, %init: tensor<?x96xi8>)
      -> tensor<?x96xi8> {
    %q = moe.quantize_rows %x outs(%init : tensor<?x96xi8>)
      : tensor<?x64xbf16> -> tensor<?x96xi8>
    return %q : tensor<?x96xi8>
  }
}

module {
  func.func @route(%ids: tensor<?x2xi32>)
      -> (tensor<9xi32>, tensor<?x2xi32>) {
    %tokens, %offsets, %positions = moe.route %ids experts(8)
      : tensor<?x2xi32>
    return %offsets, %positions : tensor<9xi32>, tensor<?x2xi32>
  }
}

module {
  func.func @identity(%grouped: tensor<?x4xf32>, %offsets: tensor<3xi32>)
      -> tensor<?x4xf32> {
    %y = moe.expert %grouped, %offsets {
    ^bb0(%rows: tensor<?x4xf32>):
      moe.yield %rows : tensor<?x4xf32>
    } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
    return %y : tensor<?x4xf32>
  }
}

module {
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
  func.func @groups() attributes {
      a = #moe.groups<keep = 4, fill = neg_inf, count = 8, score = max>,
      b = #moe.groups<count = 8, score = top2_sum, keep = 8>,
      c = #moe.groups<count = 1, keep = 1, fill = zero>} {
    return
  }
  func.func @normalize() attributes {
      a = #moe.normalize<sum, epsilon = 0.0, guard = add>,
      b = #moe.normalize<sum, guard = clamp, epsilon = 0.5>,
      c = #moe.normalize<norm>,
      d = #moe.normalize<norm, epsilon = 1.0, p = 3.0>,
      e = #moe.normalize<softmax>} {
    return
  }
  func.func @capacity() attributes {
      a = #moe.capacity<fixed = 0>,
      b = #moe.capacity<fixed = 2147483647>,
      c = #moe.capacity<at_most_tokens, minimum = 4, rounding = floor, factor = 1.25>,
      d = #moe.capacity<minimum = 0, rounding = ceil, factor = 2.0>} {
    return
  }
  module attributes {
    test.none = #moe.tile<unit = mma_sync, rows = 16, columns = 8, depth = 16, stages = 2, roles = cooperative, swap_ab = false, split = 1, gather_fence = producer>,
    test.some = #moe.tile<unit = wgmma, rows = 64, columns = 128, depth = 64, stages = 16, split = 16>,
    test.most = #moe.tile<unit = wgmma, rows = 128, columns = 256, depth = 64, stages = 4, roles = ping_pong, swap_ab = true, split = 8, gather_fence = consumer>
  } {}

  func.func private @plan(%x: tensor<?x64xf32>) attributes {
      moe.plan = #moe.plan<min = 0, max = 10, chunk = 4, workspace = 64,
        dispatches = [#moe.dispatch_plan<experts = 8, top_k = 2,
          rows = affine_map<(d0) -> (d0 * 2)>, fullest = affine_map<(d0) -> (d0)>,
          overflow = drop, ranges = [#moe.tile_range<min = 0, max = 10,
            variant = "rows6", rows = 6, tiles = affine_map<(d0) -> (d0)>,
            padding = affine_map<(d0) -> (d0 * 6)>, ragged = true>]>]>}
  func.func private @signature(%x: tensor<?x64xbf16>) attributes {
      moe.signature = #moe.signature<
        arguments = [
          #moe.argument<name = "x", role = input, type = tensor<?x64xbf16>>],
        dispatches = [
          #moe.dispatch_report<num_experts = 8, top_k = 2, offsets = "o">]>}
}
