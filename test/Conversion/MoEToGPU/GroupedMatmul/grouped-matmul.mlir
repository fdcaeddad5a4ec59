// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s --check-prefix=HOST

// Rows of one expert, K-major weights. The kernel computes the number of tiles; blocks
// are persistent.
// CHECK:       gpu.module @kernels [#nvvm.target<O = 3, chip = "sm_80">] {
// CHECK-NEXT:    llvm.mlir.global external @moe_shared() {addr_space = 3 : i32, alignment = 1024 : i64} : !llvm.array<0 x i8>
// CHECK:         llvm.func @grouped_matmul(%[[X:.*]]: !llvm.ptr<1>, %[[W:.*]]: !llvm.ptr<1>, %[[Y:.*]]: !llvm.ptr<1>, %[[ROWS:.*]]: i32, %{{.*}}: i32)
// Three stages of (16 + 128) rows of 128 bytes.
// CHECK-SAME:      attributes {gpu.kernel, moe.shared_bytes = 55296 : i64, moe.work = {{.*}}, nvvm.kernel, nvvm.maxntid = array<i32: 256, 1, 1>, nvvm.minctasm = 1 : i32}
// CHECK-DAG:     %[[BLOCKS:.*]] = nvvm.read.ptx.sreg.nctaid.x
// CHECK-DAG:     %[[PADDED:.*]] = arith.addi %[[ROWS]], %c15_i32
// CHECK-DAG:     %[[TILES:.*]] = arith.divui %[[PADDED]], %c16_i32
// CHECK-DAG:     %[[BLOCK:.*]] = nvvm.read.ptx.sreg.ctaid.x
// CHECK:         scf.for %{{.*}} = %[[BLOCK]] to %[[TILES]] step %[[BLOCKS]]
// CHECK-NEXT:      nvvm.barrier
// The copies of a thread: half of the threads a chunk of the rows, all of them four of
// the weights; out-of-range columns and k are filled with zeros.
// CHECK:           %[[HAS:.*]] = arith.cmpi slt, %{{.*}}, %c16_i32
// CHECK:           %[[COLUMN:.*]] = arith.cmpi slt, %{{.*}}, %c96_i32
// CHECK:           llvm.getelementptr %[[W]][%{{.*}}] : {{.*}}, f16
// CHECK:           scf.if %[[HAS]] {
// CHECK-NEXT:        %[[INSIDE:.*]] = arith.cmpi slt, %{{.*}}, %c200_i32
// CHECK-NEXT:        %[[TO:.*]] = llvm.getelementptr %{{.*}} -> !llvm.ptr<3>, i8
// CHECK-NEXT:        %[[BYTES:.*]] = arith.select %[[INSIDE]], %c16_i32, %c0_i32
// CHECK-NEXT:        nvvm.cp.async.shared.global %[[TO]], %{{.*}}, 16, cache = cg, %[[BYTES]] :
// CHECK-NEXT:      }
// CHECK:           %[[BOTH:.*]] = arith.andi %[[COLUMN]], %{{.*}} : i1
// CHECK:           %[[BYTES:.*]] = arith.select %[[BOTH]], %c16_i32, %c0_i32
// CHECK:           nvvm.cp.async.shared.global %{{.*}}, %{{.*}}, 16, cache = cg, %[[BYTES]]
// CHECK-COUNT-3:   nvvm.cp.async.shared.global
// CHECK-NEXT:      nvvm.cp.async.commit.group
// CHECK-COUNT-5:   nvvm.cp.async.shared.global
// CHECK-NEXT:      nvvm.cp.async.commit.group
// Two steps ahead: the oldest group has completed, the other may be in flight.
// CHECK-NEXT:      %{{.*}}:9 = scf.for %[[STEP:.*]] = %c0_i32 to %c4_i32 step %c1_i32 iter_args(%[[STAGE:[a-z0-9]+]] = %c0_i32, %[[SUM:[a-z0-9]+]] = %cst
// CHECK-NEXT:        nvvm.cp.async.wait.group 1
// CHECK-NEXT:        nvvm.barrier
// CHECK-NEXT:        %[[AHEAD:.*]] = arith.addi %[[STEP]], %c2_i32
// CHECK-NEXT:        %[[MORE:.*]] = arith.cmpi slt, %[[AHEAD]], %c4_i32
// CHECK-NEXT:        scf.if %[[MORE]] {
// CHECK-COUNT-5:       nvvm.cp.async.shared.global
// CHECK-NEXT:        }
// CHECK-NEXT:        nvvm.cp.async.commit.group
// A row of the tile in shared memory is a row of lhs, or a column of the weights.
// CHECK:             nvvm.ldmatrix %{{.*}} {{.*}}layout = #nvvm.mma_layout<row>, num = 4 : i32
// CHECK:             nvvm.ldmatrix %{{.*}} {{.*}}layout = #nvvm.mma_layout<row>, num = 4 : i32
// CHECK-COUNT-6:     llvm.bitcast %{{.*}} : i32 to vector<2xf16>
// CHECK:             nvvm.mma.sync A[{{.*}}] B[{{.*}}] C[%[[SUM]], {{.*}}] {{.*}}shape = #nvvm.shape<m = 16, n = 8, k = 16>} : (vector<2xf16>, vector<2xf16>, f32)
// CHECK-COUNT-7:     nvvm.mma.sync
// CHECK-NOT:         nvvm.mma.sync
// CHECK:             %[[NEXT:.*]] = arith.addi %[[STAGE]], %c1_i32
// CHECK-NEXT:        %[[LAST:.*]] = arith.cmpi eq, %[[NEXT]], %c3_i32
// CHECK-NEXT:        arith.select %[[LAST]], %c0_i32, %[[NEXT]]
// CHECK:             scf.yield
// Two columns at a time, stored if the row and the columns are in range; no branch.
// CHECK-NOT:       scf.if
// CHECK:           %[[T0:.*]] = arith.truncf %{{.*}} : f32 to f16
// CHECK:           %[[T1:.*]] = arith.truncf %{{.*}} : f32 to f16
// CHECK:           %[[PLACE:.*]] = llvm.getelementptr %[[Y]][%{{.*}}] : {{.*}}, f16
// CHECK:           vector.from_elements %[[T0]], %[[T1]]
// CHECK:           %[[IN:.*]] = arith.cmpi slt, %{{.*}}, %c96_i32
// CHECK:           %[[STORES:.*]] = arith.andi %{{.*}}, %[[IN]] : i1
// CHECK:           %[[BIT:.*]] = arith.extui %[[STORES]]
// CHECK:           llvm.inline_asm has_side_effects {{.*}}@p st.global.b32 {{.*}} %[[BIT]], %[[PLACE]],
// CHECK-NOT:       scf.if
// CHECK:         llvm.return
// CHECK-LABEL: func.func @along_k(

// One wave of blocks, two per multiprocessor, or fewer.
// HOST-LABEL: func.func @along_k(
// HOST-SAME:    %[[X:.*]]: tensor<?x200xf16>, %[[W:.*]]: tensor<1x96x200xf16>, %[[INIT:.*]]: tensor<?x96xf16>)
// HOST-DAG:     %[[ROWS:.*]] = tensor.dim %[[INIT]], %c0
// HOST-DAG:     %[[SOURCES:.*]] = tensor.dim %[[X]], %c0
// HOST-DAG:     %[[TILES:.*]] = arith.ceildiv{{[us]i}} %[[ROWS]], %c16
// HOST-DAG:     %[[N:.*]] = moe_rt.multiprocessors
// HOST-DAG:     %[[MOST:.*]] = arith.muli %[[N]], %c2
// HOST-DAG:     %[[BLOCKS:.*]] = arith.minui %[[TILES]], %[[MOST]]
// HOST-DAG:     %[[R:.*]] = arith.index_cast %[[ROWS]] : index to i32
// HOST-DAG:     %[[S:.*]] = arith.index_cast %[[SOURCES]] : index to i32
// HOST:         %[[Y:.*]] = moe_rt.launch @kernels::@grouped_matmul blocks(%[[BLOCKS]]) ins(%[[X]], %[[W]] : {{.*}}) outs(%[[INIT]] : tensor<?x96xf16>) scalars(%[[R]], %[[S]] : i32, i32) -> tensor<?x96xf16>
// HOST-NEXT:    return %[[Y]]
func.func @along_k(%x: tensor<?x200xf16>, %w: tensor<1x96x200xf16>, %init: tensor<?x96xf16>) -> tensor<?x96xf16> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x96x200xf16>) transposed outs(%init : tensor<?x96xf16>) {
  ^bb0(%s: f32):
    %t = arith.truncf %s : f32 to f16
    moe.yield %t : f16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 3>]} : tensor<?x200xf16> -> tensor<?x96xf16>
  return %y : tensor<?x96xf16>
}

// -----

// Gathered rows of a range of experts, two GEMMs, MN-major weights, and epilogue
// operands. Extents that the tile divides need no bounds check.
// CHECK:       llvm.func @grouped_matmul(
// CHECK-SAME:    %[[X:[a-z0-9]*]]: !llvm.ptr<1>, %[[G:[a-z0-9]*]]: !llvm.ptr<1>, %[[O:[a-z0-9]*]]: !llvm.ptr<1>, %[[W:[a-z0-9]*]]: !llvm.ptr<1>, %[[V:[a-z0-9]*]]: !llvm.ptr<1>,
// CHECK-SAME:    %[[B:[a-z0-9]*]]: !llvm.ptr<1>, %[[Q:[a-z0-9]*]]: !llvm.ptr<1>, %[[Y:[a-z0-9]*]]: !llvm.ptr<1>, %[[ROWS:[a-z0-9]*]]: i32, %[[SOURCES:[a-z0-9]*]]: i32)
// Two stages and, behind them, the tile scheduler of two experts.
// CHECK-SAME:    moe.shared_bytes = 37168 : i64
// CHECK:         %[[STARTS:.*]] = llvm.getelementptr %{{.*}}[36864]
// CHECK:         %[[TILES:.*]] = llvm.getelementptr %[[STARTS]][12]
// The offsets are those of experts 3 and on, clamped to the rows that exist.
// CHECK:           %[[EXPERT:.*]] = arith.addi %{{.*}}, %c3_i32
// CHECK-NEXT:      %[[AT:.*]] = llvm.getelementptr %[[O]][%[[EXPERT]]]
// CHECK-NEXT:      %[[OFFSET:.*]] = llvm.load %[[AT]] : !llvm.ptr<1> -> i32
// CHECK-NEXT:      %[[LOW:.*]] = arith.maxsi %[[OFFSET]], %c0_i32
// CHECK-NEXT:      %[[START:.*]] = arith.minsi %[[LOW]], %[[ROWS]]
// An expert has ⌈rows / 16⌉ tiles; a thread has an expert, and the block scans them.
// CHECK:           %[[LENGTH:.*]] = arith.subi
// CHECK-NEXT:      %[[COUNT:.*]] = arith.maxsi %[[LENGTH]], %c0_i32
// CHECK:           %[[WHOLE:.*]] = arith.divui %{{.*}}, %c16_i32
// CHECK-NOT:       scf.for
// CHECK-COUNT-5:   nvvm.shfl.sync
// CHECK:         nvvm.barrier
// CHECK-NOT:       scf.for
// CHECK:           llvm.store
// CHECK:         nvvm.barrier
// CHECK:         %[[ALL:.*]] = llvm.getelementptr %[[TILES]][2]
// CHECK:         %[[TOTAL:.*]] = llvm.load %[[ALL]]
// CHECK:         scf.for %[[NUMBER:.*]] = %{{.*}} to %[[TOTAL]]
// An out-of-range index is clamped to the nearest row.
// CHECK:           %[[AT:.*]] = llvm.getelementptr %[[G]][%{{.*}}] : {{.*}}, i32
// CHECK-NEXT:      %[[ROW:.*]] = llvm.load %[[AT]]
// CHECK-NEXT:      %[[END:.*]] = arith.subi %[[SOURCES]], %c1_i32
// CHECK-NEXT:      %[[HELD:.*]] = arith.minsi %[[ROW]], %[[END]]
// CHECK-NEXT:      arith.maxsi %[[HELD]], %c0_i32
// CHECK:           llvm.getelementptr %[[X]][%{{.*}}] : {{.*}}, bf16
// CHECK:           arith.select %{{.*}}, %[[V]], %[[W]] : !llvm.ptr<1>
// CHECK:           nvvm.cp.async.shared.global %{{.*}}, %{{.*}}, 16, cache = cg :
// CHECK:           scf.for %{{.*}} = %c0_i32 to %c2_i32
// CHECK-NEXT:        nvvm.cp.async.wait.group 0
// MN-major weights are transposed by ldmatrix.
// CHECK:             nvvm.ldmatrix %{{.*}} {{.*}}layout = #nvvm.mma_layout<row>
// CHECK:             nvvm.ldmatrix %{{.*}} {{.*}}layout = #nvvm.mma_layout<col>
// CHECK:             %[[FIRST:.*]] = nvvm.mma.sync {{.*}}multiplicandAPtxType = #nvvm.mma_type<bf16>
// CHECK-COUNT-7:     nvvm.mma.sync
// CHECK-NOT:         nvvm.mma.sync
// Operands are read where the columns are in range.
// CHECK-NOT:         scf.if
// CHECK:             %[[IN:.*]] = arith.cmpi slt, %{{.*}}, %c40_i32
// CHECK:             %[[BP:.*]] = llvm.getelementptr %[[B]][%{{.*}}] : {{.*}}, f32
// CHECK:             %[[BIT:.*]] = arith.extui %[[IN]]
// CHECK:             %[[BITS:.*]] = llvm.inline_asm asm_dialect = {{.*}}@p ld.global.b32 {{.*}} %[[BIT]], %[[BP]] :
// CHECK:             %[[BIAS:.*]] = llvm.bitcast %[[BITS]] : i32 to f32
// CHECK:             %[[QP:.*]] = llvm.getelementptr %[[Q]][%{{.*}}] : {{.*}}, f16
// CHECK:             %[[BITS:.*]] = llvm.inline_asm asm_dialect = {{.*}}@p ld.global.b16 {{.*}} %[[BIT]], %[[QP]] :
// CHECK:             %[[SCALE:.*]] = llvm.bitcast %[[BITS]] : i16 to f16
// CHECK:             %[[F:.*]] = arith.extf %[[SCALE]] : f16 to f32
// CHECK:             %[[M:.*]] = arith.mulf %{{.*}}, %{{.*}} : f32
// CHECK:             %[[R0:.*]] = math.fma %[[M]], %[[F]], %[[BIAS]]
// CHECK:             %[[R1:.*]] = math.fma
// CHECK:             %[[PAIR:.*]] = vector.from_elements %[[R0]], %[[R1]]
// CHECK:             llvm.inline_asm has_side_effects {{.*}}@p st.global.b64
// CHECK-NOT:         scf.if
// CHECK-LABEL: func.func @along_n(

// Each expert with a row may have one partial tile.
// HOST-LABEL: func.func @along_n(
// HOST:         %[[ROWS:.*]] = tensor.dim %{{.*}} : tensor<?x40xf32>
// HOST-DAG:     %[[PARTIAL:.*]] = arith.minui %[[ROWS]], %c2
// HOST-DAG:     %[[FULL:.*]] = arith.divui %[[ROWS]], %c16
// HOST:         arith.addi %[[FULL]], %[[PARTIAL]]
// A single tile serves experts with any number of rows.
// HOST:         moe_rt.launch {{.*}} ins(%arg0, %arg1, %arg2, %arg3, %arg4, %arg5, %arg6 : {{.*}}) outs(%arg7 : {{.*}}) scalars(%{{.*}}, %{{.*}} : i32, i32)
func.func @along_n(%x: tensor<?x128xbf16>, %g: tensor<?xi32>, %o: tensor<9xi32>, %w: tensor<2x128x40xbf16>, %v: tensor<2x128x40xbf16>,
                   %b: tensor<2x40xf32>, %q: tensor<?xf16>, %init: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%o : tensor<9xi32>)
      weights(%w, %v : tensor<2x128x40xbf16>, tensor<2x128x40xbf16>) first(3)
      operands(%b, %q : tensor<2x40xf32>, tensor<?xf16>)
      maps([affine_map<(e, r, n) -> (e, n)>, affine_map<(e, r, n) -> (r)>]) outs(%init : tensor<?x40xf32>) {
  ^bb0(%s: f32, %u: f32, %bias: f32, %scale: f16):
    %f = arith.extf %scale : f16 to f32
    %m = arith.mulf %s, %u : f32
    %r = math.fma %m, %f, %bias : f32
    moe.yield %r : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x128xbf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

// One launch for each tile; one of them has blocks: the first tile that covers the mean
// rows of an expert. Each launch continues with the results of the one before.
// CHECK:       llvm.func @grouped_matmul({{.*}}moe.shared_bytes = 37184 :
// CHECK:       llvm.func @grouped_matmul_1({{.*}}moe.shared_bytes = 41280 :
// CHECK:       llvm.func @grouped_matmul_2({{.*}}moe.shared_bytes = 49472 :
// CHECK-LABEL: func.func @tiles(
// HOST-LABEL:  func.func @tiles(
// HOST-SAME:     %[[INIT:[a-z0-9]*]]: tensor<?x7xf32>)
// HOST-DAG:      %[[ROWS:.*]] = tensor.dim %[[INIT]], %c0
// HOST-DAG:      %[[MEAN:.*]] = arith.ceildiv{{[us]i}} %[[ROWS]], %c4
// HOST-DAG:      %[[SMALL:.*]] = arith.cmpi ule, %[[MEAN]], %c16
// HOST-DAG:      %[[B0:.*]] = arith.select %[[SMALL]], %{{.*}}, %c0
// HOST:          %[[Y0:.*]] = moe_rt.launch @kernels::@grouped_matmul blocks(%[[B0]]) {{.*}} outs(%[[INIT]] : {{.*}}) scalars(%{{.*}}, %{{.*}} : i32, i32)
// HOST-DAG:      %[[MORE:.*]] = arith.cmpi ugt, %[[MEAN]], %c16
// HOST-DAG:      %[[MEDIUM:.*]] = arith.cmpi ule, %[[MEAN]], %c32
// HOST-DAG:      %[[SUITS:.*]] = arith.andi %[[MEDIUM]], %[[MORE]]
// HOST-DAG:      %[[CHOSEN:.*]] = arith.ori %[[SMALL]], %[[MEDIUM]]
// HOST-DAG:      %[[B1:.*]] = arith.select %[[SUITS]], %{{.*}}, %c0
// HOST:          %[[Y1:.*]] = moe_rt.launch @kernels::@grouped_matmul_1 blocks(%[[B1]]) {{.*}} outs(%[[Y0]] : {{.*}})
// HOST:          %[[B2:.*]] = arith.select %[[CHOSEN]], %c0, %{{.*}}
// HOST:          %[[Y2:.*]] = moe_rt.launch @kernels::@grouped_matmul_2 blocks(%[[B2]]) {{.*}} outs(%[[Y1]] : {{.*}})
// HOST-NEXT:     return %[[Y2]]
func.func @tiles(%x: tensor<?x64xbf16>, %o: tensor<5xi32>, %w: tensor<4x7x64xbf16>, %init: tensor<?x7xf32>) -> tensor<?x7xf32> {
  %y = moe.grouped_matmul %x offsets(%o : tensor<5xi32>) weights(%w : tensor<4x7x64xbf16>) transposed outs(%init : tensor<?x7xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>,
                  #moe.tile<unit = mma_sync, rows = 32, columns = 128, depth = 64, stages = 2>,
                  #moe.tile<unit = mma_sync, rows = 64, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x7xf32>
  return %y : tensor<?x7xf32>
}

// -----

// Without offsets all rows are those of one expert.
// CHECK-LABEL: func.func @dense_tiles(
// HOST-LABEL:  func.func @dense_tiles(
// HOST:          %[[FEW:.*]] = arith.cmpi ule, %[[ALL:.*]], %c64
// HOST:          %[[B0:.*]] = arith.select %[[FEW]], %{{.*}}, %c0
// HOST:          moe_rt.launch @kernels::@grouped_matmul blocks(%[[B0]]) {{.*}} scalars(%{{.*}}, %{{.*}} : i32, i32)
// HOST:          %[[MANY:.*]] = arith.cmpi ugt, %[[ALL]], %c64
// HOST:          %[[B1:.*]] = arith.select %[[MANY]], %{{.*}}, %c0
// HOST:          moe_rt.launch @kernels::@grouped_matmul_1 blocks(%[[B1]]) {{.*}} scalars(%{{.*}}, %{{.*}} : i32, i32)
func.func @dense_tiles(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>, %init: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 64, columns = 128, depth = 64, stages = 2>,
                  #moe.tile<unit = mma_sync, rows = 128, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// -----

// With an odd number of columns, columns are stored one by one.
// CHECK:       llvm.func @grouped_matmul(
// CHECK-NOT:     vector.from_elements
// CHECK:         nvvm.mma.sync
// CHECK-DAG:     %[[FIRST:.*]] = arith.cmpi slt, %[[COLUMN:.*]], %c7_i32
// CHECK-DAG:     %[[SECOND:.*]] = arith.cmpi slt, %[[COLUMN]], %c6_i32
// CHECK:         arith.andi %{{.*}}, %[[FIRST]] : i1
// CHECK:         llvm.inline_asm has_side_effects {{.*}}@p st.global.b32
// CHECK:         arith.andi %{{.*}}, %[[SECOND]] : i1
// CHECK:         %[[PLACE:.*]] = llvm.getelementptr %{{.*}}[1] : {{.*}}, f32
// CHECK:         llvm.inline_asm has_side_effects {{.*}}@p st.global.b32 {{.*}}, %[[PLACE]],
// CHECK-NOT:     vector.from_elements
// CHECK-LABEL: func.func @odd(
func.func @odd(%x: tensor<?x64xbf16>, %w: tensor<1x7x64xbf16>, %init: tensor<?x7xf32>) -> tensor<?x7xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x7x64xbf16>) transposed outs(%init : tensor<?x7xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x7xf32>
  return %y : tensor<?x7xf32>
}

// -----

// Tiles divide the columns and stages divide k: only rows are checked.
// CHECK:       llvm.func @grouped_matmul(
// CHECK-NOT:     arith.andi {{.*}} : i1
// CHECK:         nvvm.cp.async.shared.global %{{.*}}, %{{.*}}, 16, cache = cg : !llvm.ptr<3>, !llvm.ptr<1>{{$}}
// CHECK-NOT:     nvvm.cp.async.shared.global {{.*}}, i32{{$}}
// CHECK-LABEL: func.func @whole(
func.func @whole(%x: tensor<?x64xbf16>, %w: tensor<1x64x256xbf16>, %init: tensor<?x256xf32>) -> tensor<?x256xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x64x256xbf16>) outs(%init : tensor<?x256xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 32, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x256xf32>
  return %y : tensor<?x256xf32>
}

// -----

// The epilogue reads a slice in place: row 1, columns 2 · n + 3 of 20.
// CHECK:       llvm.func @grouped_matmul(%{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %[[B:.*]]: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>,
// CHECK:         nvvm.mma.sync
// CHECK:         %[[N:.*]] = arith.extsi %{{.*}} : i32 to i64
// CHECK:         %[[TWICE:.*]] = arith.muli %[[N]], %c2_i64
// CHECK:         %[[ROW:.*]] = llvm.getelementptr %[[B]][%[[TWICE]]] : {{.*}}, f32
// CHECK-NEXT:    %[[PLACE:.*]] = llvm.getelementptr %[[ROW]][23] : {{.*}}, f32
// CHECK:         llvm.inline_asm {{.*}}@p ld.global.b32 {{.*}}, %[[PLACE]] :
// CHECK-LABEL: func.func @operand_slice(
// HOST-LABEL:  func.func @operand_slice(
// HOST:          moe_rt.launch {{.*}} ins(%arg0, %arg1, %arg2 : tensor<?x64xbf16>, tensor<1x64x8xbf16>, tensor<3x20xf32>)
func.func @operand_slice(%x: tensor<?x64xbf16>, %w: tensor<1x64x8xbf16>, %b: tensor<3x20xf32>, %init: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %slice = tensor.extract_slice %b[1, 3] [1, 8] [1, 2] : tensor<3x20xf32> to tensor<1x8xf32>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x64x8xbf16>) operands(%slice : tensor<1x8xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%init : tensor<?x8xf32>) {
  ^bb0(%s: f32, %bias: f32):
    %r = arith.addf %s, %bias : f32
    moe.yield %r : f32
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
