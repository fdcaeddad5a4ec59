/* Kernels of peaks.py, which measure the peaks of the machine. Each returns a
   value that depends on all of its work, so that none is optimised away. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));
enum { LANES = VECTOR_BYTES / 4, CHAINS = 12 };

/* Makes a value in a register opaque to the optimiser. */
#if defined(__x86_64__)
#define OPAQUE(v) __asm__ volatile("" : "+x"(v))
#else
#define OPAQUE(v) __asm__ volatile("" : "+w"(v))
#endif

static float sum(vector v) {
  float total = 0;
  for (int i = 0; i < LANES; ++i)
    total += v[i];
  return total;
}

/* Operations of fma_f32(1). */
int64_t fma_f32_flops(void) { return 2 * CHAINS * LANES; }

/* Independent chains of fused multiply-adds in registers. */
float fma_f32(int64_t iterations) {
  vector accumulators[CHAINS];
  vector a = (vector){0} + 0.999f, b = (vector){0} + 0.001f;
  OPAQUE(a);
  OPAQUE(b);
  for (int c = 0; c < CHAINS; ++c)
    accumulators[c] = (vector){0} + (float)c;
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; ++c)
      accumulators[c] = accumulators[c] * a + b;
  vector total = {0};
  for (int c = 0; c < CHAINS; ++c)
    total += accumulators[c];
  return sum(total);
}

#if defined(__AVX512BF16__)
#include <immintrin.h>

/* Operations of dot_bf16(1); 0 without such an instruction. */
int64_t dot_bf16_flops(void) { return 4 * CHAINS * 16; }

/* Independent chains of dot products of bf16 pairs in each lane (vdpbf16ps). */
float dot_bf16(int64_t iterations) {
  __m512 accumulators[CHAINS];
  __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  __m512bh b = (__m512bh)_mm512_set1_epi32(0x3c003c00);
  OPAQUE(a);
  OPAQUE(b);
  for (int c = 0; c < CHAINS; ++c)
    accumulators[c] = _mm512_set1_ps((float)c);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; ++c)
      accumulators[c] = _mm512_dpbf16_ps(accumulators[c], a, b);
  __m512 total = _mm512_setzero_ps();
  for (int c = 0; c < CHAINS; ++c)
    total = _mm512_add_ps(total, accumulators[c]);
  return _mm512_reduce_add_ps(total);
}
#else
int64_t dot_bf16_flops(void) { return 0; }
float dot_bf16(int64_t iterations) { return (float)iterations; }
#endif

/* Reads all of `data`, aligned to a vector, in several streams. */
float read_bytes(const void *data, size_t bytes) {
  enum { STREAMS = 4, STEP = 4 };
  size_t part = bytes / STREAMS / (STEP * VECTOR_BYTES) * STEP;
  const vector *v = data;
  vector totals[STREAMS][STEP] = {0};
  for (size_t i = 0; i < part; i += STEP)
#pragma GCC unroll 4
    for (size_t s = 0; s < STREAMS; ++s)
#pragma GCC unroll 4
      for (size_t j = 0; j < STEP; ++j)
        totals[s][j] += v[s * part + i + j];
  vector total = {0};
  for (int s = 0; s < STREAMS; ++s)
    for (int j = 0; j < STEP; ++j)
      total += totals[s][j];
  return sum(total);
}

/* Reads all of `data` in one stream. */
float read_bytes_in_order(const void *data, size_t bytes) {
  enum { STEP = 8 };
  size_t count = bytes / (STEP * VECTOR_BYTES) * STEP;
  const vector *v = data;
  vector totals[STEP] = {0};
  for (size_t i = 0; i < count; i += STEP)
#pragma GCC unroll 8
    for (size_t j = 0; j < STEP; ++j)
      totals[j] += v[i + j];
  vector total = {0};
  for (int j = 0; j < STEP; ++j)
    total += totals[j];
  return sum(total);
}

float copy_bytes(void *to, const void *from, size_t bytes) {
  memcpy(to, from, bytes);
  return ((const float *)to)[bytes / 8];
}
