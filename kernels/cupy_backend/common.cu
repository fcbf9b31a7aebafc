// What all device functions share: who works, how arrays lie, sums over a block.

// Which of how many blocks work together on an operation.
struct Team {
  int block, blocks;
  static __device__ __forceinline__ Team all() { return {(int)blockIdx.x, (int)gridDim.x}; }
};

// Rows of a batch: element (row, column) lies at data[row * stride + column].
template <typename Element> struct Matrix {
  Element *data;
  long long stride;
  __device__ __forceinline__ Element &operator()(long long row, int column) const {
    return data[row * stride + column];
  }
};

// The rows of a data set that a batch takes: those that `rows` names from `first` on.
struct Order {
  const long long *rows;  // nullptr for rows as they stand
  long long first;
  __device__ __forceinline__ long long operator()(int row) const {
    return rows ? rows[first + row] : first + row;
  }
};

// The order of the rows that a run works on now, from a row of its step on.
__device__ __forceinline__ Order order_of(const long long *progress, int first_row) {
  return {(const long long *)progress[ORDER], progress[FIRST] + first_row};
}

// Whether training has come to an end without a finite loss; never where there is no table.
__device__ __forceinline__ bool has_diverged(const long long *progress) {
  return progress && progress[DIVERGED];
}

// Where a dropout mask stands: the words of a Philox counter and key that its elements share.
struct Place {
  unsigned step, stream, key_low, key_high, threshold;
  int first_row;
  real scale;
};

// The place of a layer's mask in the step that a run works on now, from a row of its step on.
__device__ __forceinline__ Place place_of(const long long *progress, int first_row,
                                          unsigned layer, unsigned threshold, real scale) {
  const unsigned long long seed = progress[SEED];
  return {(unsigned)progress[STEP], 256u * (unsigned)progress[EPOCH] + layer, (unsigned)seed,
          (unsigned)(seed >> 32), threshold, first_row, scale};
}

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
  return fma(a, b, c);
}

#ifdef __CUDACC__
// The dynamic shared memory of the block.
__device__ __forceinline__ unsigned char *block_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
#endif

__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float size_of(float x) { return fabsf(x); }
__device__ __forceinline__ double size_of(double x) { return fabs(x); }
__device__ __forceinline__ real minus_infinity() { return real(-1) / real(0); }
__device__ __forceinline__ bool is_finite(real x) { return x - x == real(0); }

// How two partial results become one; the order of the two makes no difference.
struct Sum {
  __device__ __forceinline__ real operator()(real a, real b) const { return a + b; }
};
struct Largest {  // NaN where either is
  __device__ __forceinline__ real operator()(real a, real b) const {
    return a < b || b != b ? b : a;
  }
};
struct Least {
  __device__ __forceinline__ int operator()(int a, int b) const { return b < a ? b : a; }
};

// What all lanes together come to, for each of them: LANES lanes side by side of a warp, whose
// threads all come here; or all threads of a block, which takes THREADS / 32 numbers of block
// memory. The order is fixed.
template <int LANES, class Number, class Combine>
__device__ __forceinline__ Number over_lanes(Number value, Combine combine) {
  for (int step = (LANES < 32 ? LANES : 32) / 2; step > 0; step /= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
  if (LANES > 32) {
    Number *of_warps = (Number *)block_memory();
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) value = combine(value, of_warps[warp]);
    __syncthreads();
  }
  return value;
}

// The sum of number(0), ..., number(count - 1), made by a block for each of its threads, with
// several in flight a thread. Takes THREADS / 32 numbers of block memory.
template <class Of> __device__ __forceinline__ real block_total(int count, Of number) {
  constexpr int FLIGHT = 8;
  real sums[FLIGHT] = {};
  for (int first = threadIdx.x; first < count; first += FLIGHT * THREADS) {
#pragma unroll
    for (int k = 0; k < FLIGHT; ++k) {
      const long long place = first + (long long)k * THREADS;
      if (place < count) sums[k] += number((int)place);
    }
  }
  for (int k = 1; k < FLIGHT; ++k) sums[0] += sums[k];
  return over_lanes<THREADS>(sums[0], Sum());
}
