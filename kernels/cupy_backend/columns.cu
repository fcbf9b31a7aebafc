// Operations on columns: their sums, moments and normalisation.
//
// LANES threads side by side take columns side by side, and the block's THREADS / LANES of them
// take rows one below another: a tile. A matrix is cut into strips of LANES columns and chunks of
// rows, whose size its number of columns decides; a block works on one chunk of one strip.

// work(chunk, strip, first row, end of rows) for every chunk of every strip, by all threads of a
// block together. Without rows there is one chunk, an empty one.
template <int LANES, class Work>
__device__ __forceinline__ void each_chunk(Team team, int rows, int columns, int chunk_rows,
                                           Work work) {
  const int strips = (columns + LANES - 1) / LANES, chunks = (rows - 1) / chunk_rows + 1;
  for (long long item = team.block; item < (long long)strips * chunks; item += team.blocks) {
    const int chunk = (int)(item / strips), strip = (int)(item % strips);
    const int first = chunk * chunk_rows;
    work(chunk, strip, first, rows - first < chunk_rows ? rows : first + chunk_rows);
  }
}

// What is summed: the elements of a matrix, products of two, or squares of what is left of a
// column's mean.
struct Plain {
  Matrix<real> a;
  __device__ __forceinline__ real operator()(int row, int column) const { return a(row, column); }
};
struct Product {
  Matrix<real> a, b;
  __device__ __forceinline__ real operator()(int row, int column) const {
    return a(row, column) * b(row, column);
  }
};
struct SquaredDeviation {
  Matrix<real> a;
  const real *mean;
  __device__ __forceinline__ real operator()(int row, int column) const {
    const real deviation = a(row, column) - mean[column];
    return deviation * deviation;
  }
};

// What becomes of the sum of a chunk's column (or strip): a partial sum, which another call adds
// up, or, where one chunk holds all rows, the result.
struct Partial {
  Matrix<real> partials;
  __device__ __forceinline__ void operator()(int chunk, int place, real sum) const {
    partials(chunk, place) = sum;
  }
};
struct Assign {
  real *out;
  __device__ __forceinline__ void operator()(int, int place, real sum) const { out[place] = sum; }
};
struct Add {
  real *out;
  __device__ __forceinline__ void operator()(int, int place, real sum) const { out[place] += sum; }
};
struct Mean {
  real *out;
  int count;
  __device__ __forceinline__ void operator()(int, int place, real sum) const {
    out[place] = sum / real(count);
  }
};

// The sums of a chunk's columns or, with WHOLE, of a strip's: finish(chunk, column or strip, sum).
// A thread sums its rows in chains, then a tree over the block: an order that the shape
// decides. Takes THREADS numbers of block memory. Bytes: each element once.
template <int LANES, bool WHOLE, class Term, class Finish>
__device__ void column_sums(Team team, int rows, int columns, int chunk_rows, Term term,
                            Finish finish) {
  constexpr int HEIGHT = THREADS / LANES;
  real *memory = (real *)block_memory();
  const int thread = threadIdx.x, lane = thread % LANES;
  each_chunk<LANES>(team, rows, columns, chunk_rows, [=](int chunk, int strip, int row, int end) {
    const int column = strip * LANES + lane;
    real sums[IN_FLIGHT] = {};  // chains of a thread, of every IN_FLIGHT-th of its rows
    if (column < columns)
      for (row += thread / LANES; row < end; row += IN_FLIGHT * HEIGHT) {
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; ++k)
          if (k * HEIGHT < end - row) sums[k] += term(row + k * HEIGHT, column);
      }
    for (int k = 1; k < IN_FLIGHT; ++k) sums[0] += sums[k];
    memory[thread] = sums[0];
    __syncthreads();
    for (int half = THREADS / 2; half >= (WHOLE ? 1 : LANES); half /= 2) {
      if (thread < half) memory[thread] += memory[thread + half];
      __syncthreads();
    }
    if (thread < (WHOLE ? 1 : LANES) && column < columns)
      finish(chunk, WHOLE ? strip : column, memory[thread]);
    __syncthreads();
  });
}

// For every element: column_of(its column).write(row, column_of(its column).read(row)). What a
// column needs is made once for the rows that a thread has in flight.
template <int LANES, class ColumnOf>
__device__ __forceinline__ void down_columns(Team team, int rows, int columns,
                                             ColumnOf column_of) {
  constexpr int HEIGHT = THREADS / LANES, CHUNK_ROWS = IN_FLIGHT * HEIGHT;
  each_chunk<LANES>(team, rows, columns, CHUNK_ROWS, [=](int, int strip, int row, int end) {
    const int number = strip * LANES + threadIdx.x % LANES;
    if (number >= columns) return;
    const auto column = column_of(number);
    row += threadIdx.x / LANES;
    real values[IN_FLIGHT];
#pragma unroll
    for (int k = 0; k < IN_FLIGHT; ++k)
      if (k * HEIGHT < end - row) values[k] = column.read(row + k * HEIGHT);
#pragma unroll
    for (int k = 0; k < IN_FLIGHT; ++k)
      if (k * HEIGHT < end - row) column.write(row + k * HEIGHT, values[k]);
  });
}

struct NormalisedColumn {
  Matrix<real> x, x_hat, y;
  int column;
  real mean, inverse_deviation, gamma, beta;
  __device__ __forceinline__ real read(int row) const {
    return Formula::normalise(x(row, column), mean, inverse_deviation);
  }
  __device__ __forceinline__ void write(int row, real normalised) const {
    if (x_hat.data) x_hat(row, column) = normalised;
    y(row, column) = Formula::scale_shift(normalised, gamma, beta);
  }
};

// x_hat = (x - mean) / sqrt(variance + epsilon), where wanted; y = gamma x_hat + beta. Flops: four
// an element. Bytes: each matrix once.
template <int LANES>
__device__ void batch_norm(Team team, int rows, int columns, Matrix<real> x, const real *mean,
                           const real *variance, const real *gamma, const real *beta,
                           real epsilon, Matrix<real> x_hat, Matrix<real> y) {
  down_columns<LANES>(team, rows, columns, [=](int column) {
    const real inverse_deviation = Formula::inverse_deviation(variance[column], epsilon);
    return NormalisedColumn{
        x, x_hat, y, column, mean[column], inverse_deviation, gamma[column], beta[column]};
  });
}

struct NormalisedColumnGrad {
  Matrix<real> grad, x_hat;
  int column;
  real mean_grad, mean_grad_x_hat, factor;
  __device__ __forceinline__ real read(int row) const {
    return Formula::batch_norm_grad(grad(row, column), x_hat(row, column), mean_grad,
                                    mean_grad_x_hat, factor);
  }
  __device__ __forceinline__ void write(int row, real by_x) const { grad(row, column) = by_x; }
};

// The gradient by x in place of the gradient by y, whose column sums are grad_beta, and those of
// its product with x_hat grad_gamma. Flops: four an element. Bytes: two reads and a write.
template <int LANES>
__device__ void batch_norm_grad(Team team, int rows, int columns, Matrix<real> grad,
                                Matrix<real> x_hat, const real *variance, const real *gamma,
                                real epsilon, const real *grad_beta, const real *grad_gamma) {
  down_columns<LANES>(team, rows, columns, [=](int column) {
    const real inverse_deviation = Formula::inverse_deviation(variance[column], epsilon);
    const real count = real(rows);
    return NormalisedColumnGrad{grad, x_hat, column, grad_beta[column] / count,
                                grad_gamma[column] / count, gamma[column] * inverse_deviation};
  });
}

// The running statistics of columns move towards a batch's, whose variance is made unbiased;
// they stay where training has diverged (progress may be nullptr). Bytes: each array once.
__device__ void running_average(Team team, int rows, int columns, const real *mean,
                                const real *variance, real *running_mean, real *running_variance,
                                real momentum, const long long *progress) {
  if (has_diverged(progress)) return;
  for (int column = team.block * THREADS + threadIdx.x; column < columns;
       column += team.blocks * THREADS) {
    const real unbiased = variance[column] * real(rows) / real(rows - 1);
    running_mean[column] = Formula::running_average(running_mean[column], mean[column], momentum);
    running_variance[column] =
        Formula::running_average(running_variance[column], unbiased, momentum);
  }
}
