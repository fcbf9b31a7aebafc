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

// The sum over the threads of a block, in a fixed order, for every thread; takes 32 numbers of
// block memory.
__device__ __forceinline__ real block_sum(real value) {
  real *partial = (real *)block_memory();
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  real sum = real(0);
  for (int warp = 0; warp < THREADS / 32; ++warp) sum += partial[warp];
  __syncthreads();
  return sum;
}
