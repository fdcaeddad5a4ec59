// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_80 -split-input-file | FileCheck %s --check-prefixes=CHECK,MMA
// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -split-input-file | FileCheck %s --check-prefixes=CHECK,WGMMA
// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_90a -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// Rows of 16 bits: TMA has a map of the side that is not gathered. A launch without rows, of which
// there is no map, is replaced by one that stores zeros.

// MMA:           llvm.func @grouped_contract(
// MMA:             nvvm.cp.async.shared.global
// MMA:             nvvm.ldmatrix {{.*}}layout = #nvvm.mma_layout<col>
// MMA:             nvvm.mma.sync
// WGMMA:         llvm.func @grouped_contract_wgmma(
// WGMMA:           nvvm.cp.async.bulk.tensor.shared.cluster.global
// WGMMA:           nvvm.cp.async.shared.global
// WGMMA:           nvvm.wgmma.mma_async {{.*}}A[<bf16>, <one>, <col>], B[<bf16>, <one>, <row>]
// CHECK-LABEL:   func.func @gathered(
// MMA:             moe_rt.launch @kernels::@grouped_contract blocks
// WGMMA:           moe_rt.launch @kernels::@grouped_contract_wgmma {{.*}} maps([#moe_rt.tensor_map<input = 2
// WGMMA:           moe_rt.launch @kernels::@grouped_contract_elements
func.func @gathered(%x: tensor<?x64xbf16>, %g: tensor<?xi32>, %y: tensor<?x136xbf16>, %o: tensor<4xi32>, %i: tensor<3x64x136xf32>) -> tensor<3x64x136xf32> {
  %r = moe.grouped_contract %x gather(%g : tensor<?xi32>), %y offsets(%o : tensor<4xi32>) outs(%i : tensor<3x64x136xf32>)
    : tensor<?x64xbf16>, tensor<?x136xbf16> -> tensor<3x64x136xf32>
  return %r : tensor<3x64x136xf32>
}

// -----

// Parts of one tensor are written in place.
// CHECK-LABEL:   func.func @halves(
// CHECK-NOT:       tensor.insert_slice
// CHECK:           return
func.func @halves(%x: tensor<?x8xbf16>, %y: tensor<?x16xbf16>, %z: tensor<?x16xbf16>, %o: tensor<4xi32>) -> tensor<3x8x32xbf16> {
  %e = tensor.empty() : tensor<3x8x16xbf16>
  %w = tensor.empty() : tensor<3x8x32xbf16>
  %a = moe.grouped_contract %x, %y offsets(%o : tensor<4xi32>) outs(%e : tensor<3x8x16xbf16>)
    : tensor<?x8xbf16>, tensor<?x16xbf16> -> tensor<3x8x16xbf16>
  %b = moe.grouped_contract %x, %z offsets(%o : tensor<4xi32>) outs(%e : tensor<3x8x16xbf16>)
    : tensor<?x8xbf16>, tensor<?x16xbf16> -> tensor<3x8x16xbf16>
  %p = tensor.insert_slice %a into %w[0, 0, 0] [3, 8, 16] [1, 1, 2] : tensor<3x8x16xbf16> into tensor<3x8x32xbf16>
  %q = tensor.insert_slice %b into %p[0, 0, 1] [3, 8, 16] [1, 1, 2] : tensor<3x8x16xbf16> into tensor<3x8x32xbf16>
  return %q : tensor<3x8x32xbf16>
}

// -----

// MISSED: NoTensorCores | Category:moe-gpu | Function=wide | Remark="'moe.grouped_contract' lowered to a GPU kernel without tensor cores: rows that are neither f16 nor bf16"
// MISSED: NoTensorCores | Category:moe-gpu {{.*}}: rows of a length that is not a multiple of 8"
// CHECK:         llvm.func @grouped_contract_elements(
// CHECK-LABEL:   func.func @wide(
// CHECK-COUNT-2:   moe_rt.launch @kernels::@grouped_contract_elements
func.func @wide(%x: tensor<?x8xf32>, %y: tensor<?x9xf16>, %i: tensor<1x8x8xf32>, %j: tensor<1x9x9xf32>) -> (tensor<1x8x8xf32>, tensor<1x9x9xf32>) {
  %r = moe.grouped_contract %x, %x accumulate outs(%i : tensor<1x8x8xf32>) : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<1x8x8xf32>
  %s = moe.grouped_contract %y, %y outs(%j : tensor<1x9x9xf32>) : tensor<?x9xf16>, tensor<?x9xf16> -> tensor<1x9x9xf32>
  return %r, %s : tensor<1x8x8xf32>, tensor<1x9x9xf32>
}
