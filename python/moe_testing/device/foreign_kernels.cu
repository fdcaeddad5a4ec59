//===- foreign_kernels.cu - CUDA kernels that judge the double ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Code of nvcc for them runs on hardware: test_nvcc_gpu.py runs it on the
// double of the CUDA driver.
//
//===----------------------------------------------------------------------===//

#include <cmath>
#include <cooperative_groups.h>
#include <cuda/atomic>
#include <cuda/barrier>
#include <cuda/ptx>
#include <cuda_bf16.h>
#include <cuda_fp8.h>

namespace cg = cooperative_groups;
namespace ptx = cuda::ptx;

// Each block of a cluster adds its part of a histogram into the block that owns
// the bin.
extern "C" __global__ void __cluster_dims__(4, 1, 1)
    cluster_histogram(const int *values, int count, int *bins) {
  __shared__ int own[32];
  cg::cluster_group cluster = cg::this_cluster();
  for (int i = threadIdx.x; i < 32; i += blockDim.x)
    own[i] = 0;
  cluster.sync();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count;
       i += gridDim.x * blockDim.x) {
    int bin = values[i] & 127;
    atomicAdd(cluster.map_shared_rank(own, bin / 32) + bin % 32, 1);
  }
  cluster.sync();
  for (int i = threadIdx.x; i < 32; i += blockDim.x)
    bins[cluster.block_rank() * 32 + i] = own[i];
}

// Reads a neighbour's shared memory, which has to outlive that.
extern "C" __global__ void __cluster_dims__(2, 1, 1)
    cluster_exchange(const int *in, int *out) {
  __shared__ int own[128];
  cg::cluster_group cluster = cg::this_cluster();
  int at = blockIdx.x * 128 + threadIdx.x;
  own[threadIdx.x] = in[at];
  cluster.sync();
  out[at] = *cluster.map_shared_rank(own + 127 - threadIdx.x,
                                     cluster.block_rank() ^ 1);
  cluster.sync();
}

// Bulk copies that complete on a cuda::barrier, and a bulk store.
extern "C" __global__ void bulk_copies(const int *in, int *out, int tiles) {
  using barrier = cuda::barrier<cuda::thread_scope_block>;
  __shared__ alignas(128) int tile[2][256];
  __shared__ alignas(128) int result[256];
#pragma nv_diag_suppress static_var_with_dynamic_init
  __shared__ barrier full[2];
  if (threadIdx.x == 0) {
    init(&full[0], blockDim.x);
    init(&full[1], blockDim.x);
    cuda::device::experimental::fence_proxy_async_shared_cta();
  }
  __syncthreads();
  auto start = [&](int t) {
    barrier::arrival_token token;
    if (threadIdx.x == 0) {
      cuda::device::experimental::cp_async_bulk_global_to_shared(
          tile[t % 2], in + (blockIdx.x * tiles + t) * 256, sizeof(tile[0]),
          full[t % 2]);
      token = cuda::device::barrier_arrive_tx(full[t % 2], 1, sizeof(tile[0]));
    } else {
      token = full[t % 2].arrive();
    }
    return token;
  };
  int sum = 0;
  for (int t = 0; t < tiles; ++t) {
    full[t % 2].wait(start(t));
    sum += tile[t % 2][(threadIdx.x * 5 + t) % 256];
    __syncthreads();
  }
  result[threadIdx.x] = sum;
  cuda::device::experimental::fence_proxy_async_shared_cta();
  __syncthreads();
  if (threadIdx.x == 0) {
    cuda::device::experimental::cp_async_bulk_shared_to_global(
        out + blockIdx.x * 256, result, sizeof(result));
    cuda::device::experimental::cp_async_bulk_commit_group();
    cuda::device::experimental::cp_async_bulk_wait_group_read<0>();
  }
}

// The last block to finish adds the partial sums of all, as in CUDA's sample.
__device__ unsigned finished;
extern "C" __global__ void last_block(const float *in, float *partial,
                                      float *out) {
  __shared__ bool last;
  cg::thread_block block = cg::this_thread_block();
  __shared__ float sums[4];
  float value = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step > 0; step /= 2)
    value += __shfl_xor_sync(~0u, value, step);
  if (threadIdx.x % 32 == 0)
    sums[threadIdx.x / 32] = value;
  block.sync();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
    __threadfence();
    last = atomicInc(&finished, gridDim.x) == gridDim.x - 1;
  }
  block.sync();
  if (last && threadIdx.x == 0) {
    __threadfence();
    float total = 0;
    for (unsigned b = 0; b < gridDim.x; ++b)
      total += partial[b];
    *out = total;
  }
}

// A release store and an acquire load.
extern "C" __global__ void hand_over(int *data, int *flag, int *out) {
  cuda::atomic_ref<int, cuda::thread_scope_device> ready(*flag);
  if (blockIdx.x == 0) {
    data[threadIdx.x] = 3 * threadIdx.x;
    __syncthreads();
    if (threadIdx.x == 0)
      ready.store(1, cuda::memory_order_release);
  } else {
    if (threadIdx.x == 0)
      while (ready.load(cuda::memory_order_acquire) == 0)
        ;
    __syncthreads();
    out[threadIdx.x] = data[threadIdx.x] + 1;
  }
}

// All blocks meet between two steps.
extern "C" __global__ void grid_barrier(int *values, int *arrived, int *out) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  int count = gridDim.x * blockDim.x;
  cuda::atomic_ref<int, cuda::thread_scope_device> all(*arrived);
  values[at] = at * at;
  __syncthreads();
  if (threadIdx.x == 0) {
    all.fetch_add(1, cuda::memory_order_release);
    while (all.load(cuda::memory_order_acquire) != gridDim.x)
      ;
  }
  __syncthreads();
  out[at] = values[count - 1 - at];
}

extern "C" __global__ void math(const float *x, float *y, int count) {
  int at = threadIdx.x;
  if (at >= count)
    return;
  y[at] = expf(x[at]);
  y[count + at] = logf(fabsf(x[at]));
  y[2 * count + at] = tanhf(x[at]);
  y[3 * count + at] = erff(x[at]);
  y[4 * count + at] = sqrtf(fabsf(x[at])) / (1.0f + x[at] * x[at]);
  y[5 * count + at] = static_cast<float>(__nv_fp8_e4m3(x[at]));
  y[6 * count + at] = __bfloat162float(__float2bfloat16(x[at]));
  y[7 * count + at] = sinf(x[at]);
}

extern "C" __global__ void integers(const long long *a, const long long *b,
                                    long long *out, int count) {
  int at = threadIdx.x;
  if (at >= count)
    return;
  out[at] = a[at] / b[at];
  out[count + at] = a[at] % b[at];
  out[2 * count + at] = a[at] * b[at];
  out[3 * count + at] = __mul64hi(a[at], b[at]);
  out[4 * count + at] = __clzll(a[at]) * 256 + __popcll(b[at]);
}

// A tile that one block loads for both of its cluster.
extern "C" __global__ void __cluster_dims__(2, 1, 1)
    multicast(const int *in, int *out) {
  __shared__ alignas(128) int tile[256];
  __shared__ uint64_t full, empty;
  unsigned rank = ptx::get_sreg_cluster_ctarank();
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&full, 1);
    ptx::mbarrier_init(&empty, 2);
    ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
  }
  cg::this_cluster().sync();
  int sum = 0;
  for (int t = 0; t < 4; ++t) {
    if (threadIdx.x == 0) {
      ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta,
                                     ptx::space_shared, &full, sizeof(tile));
      if (rank == 0) {
        if (t > 0)
          while (!ptx::mbarrier_try_wait_parity(
              ptx::sem_acquire, ptx::scope_cluster, &empty, (t - 1) & 1))
            ;
        ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, tile,
                           in + t * 256, sizeof(tile), &full,
                           static_cast<uint16_t>(3));
      }
    }
    while (!ptx::mbarrier_try_wait_parity(&full, t & 1))
      ;
    sum += tile[(threadIdx.x + rank) % 256];
    __syncthreads();
    if (threadIdx.x == 0)
      ptx::mbarrier_arrive(ptx::sem_release, ptx::scope_cluster,
                           ptx::space_cluster,
                           cg::this_cluster().map_shared_rank(&empty, 0));
  }
  out[rank * blockDim.x + threadIdx.x] = sum;
  cg::this_cluster().sync();
}
