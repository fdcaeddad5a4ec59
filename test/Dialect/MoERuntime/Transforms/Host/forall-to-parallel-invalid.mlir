// RUN: moe-opt %s -moe-forall-to-parallel -verify-diagnostics

func.func @on_tensors(%n: index, %t: tensor<?xf32>) -> tensor<?xf32> {
  // expected-error @+1 {{expected a parallel loop on buffers; bufferize it before moe-forall-to-parallel}}
  %y = scf.forall (%i) in (%n) shared_outs(%o = %t) -> tensor<?xf32> {
    %s = tensor.extract_slice %o[%i] [1] [1] : tensor<?xf32> to tensor<1xf32>
    scf.forall.in_parallel {
      tensor.parallel_insert_slice %s into %o[%i] [1] [1] : tensor<1xf32> into tensor<?xf32>
    }
  }
  return %y : tensor<?xf32>
}
