// Products of matrices. A block makes a tile of the result at a time: sums in registers, slabs of
// the operands in block memory, asked for some slabs ahead by asynchronous copies.
//
// An operand lies *along* the sums where numbers side by side are terms of one sum (x of x w), and
// *across* them where they belong to neighbouring sums (w of x w). Copies keep what they find; a
// thread reads runs of either kind. Rows, columns and terms outside the matrices are zeros in both
// operands, so no NaN reaches a sum that it is no term of.
//
// A product is 2 rows columns inner flops and reads each operand once for every tile along the
// other's side. Its operands lie in global memory; strips, at the end, read block memory too.

constexpr int VECTOR = 16 / sizeof(real);

// ---- runs: numbers side by side, read and written at once where they are aligned ----

template <int COUNT> struct alignas(COUNT * sizeof(real)) Run { real at[COUNT]; };

template <int COUNT> __device__ __forceinline__ bool is_aligned(const real *place) {
  return (unsigned long long)place % sizeof(Run<COUNT>) == 0;
}

// A run of block memory, which is aligned.
template <int COUNT> __device__ __forceinline__ Run<COUNT> run_at(const real *place) {
  return *(const Run<COUNT> *)place;
}

// The first `count` numbers of a run.
template <int COUNT> __device__ __forceinline__ Run<COUNT> read_run(const real *from, int count) {
  if (count >= COUNT && is_aligned<COUNT>(from)) return run_at<COUNT>(from);
  Run<COUNT> run;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) run.at[i] = i < count ? from[i] : real(0);
  return run;
}

template <int COUNT>
__device__ __forceinline__ void write_run(real *to, const Run<COUNT> &run, int count) {
  if (count >= COUNT && is_aligned<COUNT>(to)) {
    *(Run<COUNT> *)to = run;
    return;
  }
#pragma unroll
  for (int i = 0; i < COUNT; ++i)
    if (i < count) to[i] = run.at[i];
}

// ---- tails: what becomes of `count` finished sums of a row, from a column on ----
// A tail that SUMS_COLUMNS gets the sums of the right operand's columns as one row more.

struct Store {
  static constexpr bool SUMS_COLUMNS = false;
  Matrix<real> out;
  template <int COUNT>
  __device__ __forceinline__ void operator()(int row, int column, const Run<COUNT> &sums,
                                             int count) const {
    write_run(&out(row, column), sums, count);
  }
};

// A dropout mask that keeps everything.
struct NoDropout {
  static constexpr real scale = real(1);
};
__device__ __forceinline__ bool keeps(NoDropout, int, int) { return true; }

// y = f(sum + bias), and its slope if wanted; what the mask drops is 0 in both.
template <class Formula, class Mask> struct BiasActivation {
  static constexpr bool SUMS_COLUMNS = false;
  const real *bias;
  Matrix<real> y, slope;
  Mask mask;
  template <int COUNT>
  __device__ __forceinline__ void operator()(int row, int column, const Run<COUNT> &sums,
                                             int count) const {
    Run<COUNT> values = sums, slopes;
    if (bias) {
      const Run<COUNT> biases = read_run<COUNT>(bias + column, count);
#pragma unroll
      for (int i = 0; i < COUNT; ++i) values.at[i] += biases.at[i];
    }
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      real results[2];
      Formula::apply(values.at[i], nullptr, results);
      const bool kept = keeps(mask, row, column + i);
      values.at[i] = kept ? results[0] * mask.scale : real(0);
      slopes.at[i] = kept ? results[1] * mask.scale : real(0);
    }
    write_run(&y(row, column), values, count);
    if (slope.data) write_run(&slope(row, column), slopes, count);
  }
};

// The gradient by a layer's input, through the activation before it.
struct TimesSlope {
  static constexpr bool SUMS_COLUMNS = false;
  Matrix<real> slope, out;
  template <int COUNT>
  __device__ __forceinline__ void operator()(int row, int column, const Run<COUNT> &sums,
                                             int count) const {
    Run<COUNT> products = read_run<COUNT>(&slope(row, column), count);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) products.at[i] *= sums.at[i];
    write_run(&out(row, column), products, count);
  }
};

// A layer's gradients, stored or, for later chunks of a batch, added.
template <bool ADDS, bool BIAS> struct Gradient {
  static constexpr bool SUMS_COLUMNS = BIAS;
  int inputs;
  Matrix<real> weight;
  real *bias;
  template <int COUNT>
  __device__ __forceinline__ void operator()(int row, int column, const Run<COUNT> &sums,
                                             int count) const {
    real *out = BIAS && row == inputs ? bias + column : &weight(row, column);
    Run<COUNT> grads = sums;
    if (ADDS) {
      const Run<COUNT> before = read_run<COUNT>(out, count);
#pragma unroll
      for (int i = 0; i < COUNT; ++i) grads.at[i] += before.at[i];
    }
    write_run(out, grads, count);
  }
};

// An optimizer's step with the finished gradients, which are stored nowhere.
template <class Formula, bool BIAS> struct Updated {
  static constexpr bool SUMS_COLUMNS = BIAS;
  static constexpr int ARRAYS = 1 + Formula::SLOTS;  // the parameters, then their slots
  int inputs;
  Matrix<real> weights[ARRAYS];
  real *biases[ARRAYS];
  const real *weight_scalars, *bias_scalars;
  real clip, scale;
  template <int COUNT>
  __device__ __forceinline__ void operator()(int row, int column, const Run<COUNT> &sums,
                                             int count) const {
    const bool is_bias = BIAS && row == inputs;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      if (i >= count) return;
      real numbers[ARRAYS + 1];
#pragma unroll
      for (int array = 0; array < ARRAYS; ++array)
        numbers[array] = is_bias ? biases[array][column + i] : weights[array](row, column + i);
      Formula::apply(numbers[0], sums.at[i] * scale, numbers + 1,
                     is_bias ? bias_scalars : weight_scalars, clip);
#pragma unroll
      for (int array = 0; array < ARRAYS; ++array)
        (is_bias ? biases[array][column + i] : weights[array](row, column + i)) = numbers[array];
    }
  }
};

// ---- operands ----

#ifdef __CUDACC__
// Asynchronous copies into block memory; those asked for since the last commit form a group.
__device__ __forceinline__ unsigned shared_address(void *shared) {
  return (unsigned)__cvta_generic_to_shared(shared);
}
__device__ __forceinline__ void copy_async_4(void *to, const void *from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ __forceinline__ void copy_async_8(void *to, const void *from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ __forceinline__ void copy_async_16(void *to, const void *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most so many groups are under way.
template <int GROUPS> __device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
#endif

// Asks for the copy of a run, of which `inside` numbers lie in the matrix; zeros for the others.
__device__ __forceinline__ void copy_run(real *to, const real *from, int inside) {
  if (inside >= VECTOR && is_aligned<VECTOR>(from)) {
    copy_async_16(to, from);
    return;
  }
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    if (i >= inside)
      to[i] = real(0);
    else if (sizeof(real) == 4)
      copy_async_4(to + i, from + i);
    else
      copy_async_8(to + i, from + i);
  }
}

// Where a thread's item stands: runs of neighbours are dealt to so many threads in turn.
template <int RUN>
__device__ __forceinline__ int place_of_item(int thread, int threads, int item) {
  return (item / RUN * threads + thread) * RUN + item % RUN;
}

// Adds the products of so many terms of rows and columns to their sums, term by term.
template <int ROWS, int COLUMNS, int TERMS>
__device__ __forceinline__ void add_products(const real (&left)[ROWS][TERMS],
                                             const real (&right)[COLUMNS][TERMS],
                                             real (&sums)[ROWS][COLUMNS]) {
#pragma unroll
  for (int term = 0; term < TERMS; ++term)
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
#pragma unroll
      for (int column = 0; column < COLUMNS; ++column)
        sums[row][column] = multiply_add(left[row][term], right[column][term], sums[row][column]);
}

// How an operand lies in block memory: TERMS terms for each of EXTENT rows (of a) or columns (of b)
// of a tile, in lines with PAD numbers between.
template <int EXTENT_, int TERMS_, bool ALONG, int PAD> struct Panel {
  static constexpr int EXTENT = EXTENT_, TERMS = TERMS_;
  static constexpr int LINES = ALONG ? EXTENT : TERMS;
  static constexpr int LENGTH = ALONG ? TERMS : EXTENT;
  static constexpr int STRIDE = LENGTH + PAD;
  static constexpr int SIZE = LINES * STRIDE;
  static_assert(LENGTH % VECTOR == 0 && PAD % VECTOR == 0, "lines start between vectors");

  static __device__ __forceinline__ const real *at(const real *panel, int item, int term) {
    return panel + (ALONG ? item * STRIDE + term : term * STRIDE + item);
  }

  // Asks for the copy of the panel whose first row (or column) and term are given.
  static __device__ __forceinline__ void copy(real *panel, const Matrix<real> &from, int first,
                                              int term, int extent, int inner) {
    const int first_line = ALONG ? first : term, lines = ALONG ? extent : inner;
    const int start = ALONG ? term : first, length = ALONG ? inner : extent;
    constexpr int RUNS = LENGTH / VECTOR;
#pragma unroll 1  // else the addresses of all its copies fill a thread's registers
    for (int item = threadIdx.x; item < LINES * RUNS; item += THREADS) {
      const int line = item / RUNS, column = item % RUNS * VECTOR;
      const int inside = first_line + line < lines ? length - start - column : 0;
      copy_run(panel + line * STRIDE + column, &from(first_line + line, start + column), inside);
    }
  }

  // Reads COUNT terms of a thread's items into registers.
  template <int RUN, int ITEMS, int COUNT>
  static __device__ __forceinline__ void read(const real *panel, int thread, int threads,
                                              int term, real (&items)[ITEMS][COUNT]) {
    // in either case a run is read at once
    constexpr int LINES_READ = ALONG ? 1 : COUNT, LENGTH_READ = ALONG ? COUNT : RUN;
#pragma unroll
    for (int line = 0; line < LINES_READ; ++line)
#pragma unroll
      for (int item = 0; item < ITEMS; item += RUN) {
        const int place = place_of_item<RUN>(thread, threads, item);
        const Run<LENGTH_READ> run = run_at<LENGTH_READ>(at(panel, place, term + line));
#pragma unroll
        for (int i = 0; i < LENGTH_READ; ++i)
          items[ALONG ? item : item + i][ALONG ? i : line] = run.at[i];
      }
  }
};

// ---- tiles ----

// An item's place in a grid that is walked in bands of 8 rows, down each column of a band: blocks
// (or the threads of a warp) at work at one time share what they read of both operands.
struct GridPlace {
  int row, column;
};
__device__ __forceinline__ GridPlace banded(int item, int rows, int columns) {
  constexpr int BAND = 8;
  const int band = item / (BAND * columns), within = item % (BAND * columns);
  const int height = rows - band * BAND < BAND ? rows - band * BAND : BAND;
  return {band * BAND + within % height, within / height};
}

// Gives the slabs of a tile's operands, in order, to a function of the two panels. STAGES slabs lie
// in block memory, STAGES - 1 of them asked for ahead.
template <class PanelA, class PanelB, int STAGES, class Function>
__device__ __forceinline__ void each_slab(int rows, int columns, int inner, const Matrix<real> &a,
                                          const Matrix<real> &b, int row, int column,
                                          const Function &function) {
  static_assert(PanelA::TERMS == PanelB::TERMS, "the panels hold different terms");
  constexpr int SLAB = PanelA::TERMS;
  real *memory = (real *)block_memory();
  const auto panel_of = [=](int stage) { return memory + stage * (PanelA::SIZE + PanelB::SIZE); };
  const auto ask = [&](int slab, int stage) {
    if (slab * SLAB < inner) {
      PanelA::copy(panel_of(stage), a, row, slab * SLAB, rows, inner);
      PanelB::copy(panel_of(stage) + PanelA::SIZE, b, column, slab * SLAB, columns, inner);
    }
    commit_copies();
  };
  for (int slab = 0; slab < STAGES - 1; ++slab) ask(slab, slab);
  int stage = 0;
  for (int slab = 0; slab * SLAB < inner; ++slab) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    ask(slab + STAGES - 1, stage ? stage - 1 : STAGES - 1);
    function(panel_of(stage), panel_of(stage) + PanelA::SIZE);
    stage = stage + 1 < STAGES ? stage + 1 : 0;
  }
}

// The sums of the columns of b that a tile has: PARTS threads share each.
template <class PanelB> struct ColumnSums {
  static constexpr int COLUMNS = PanelB::EXTENT, PARTS = THREADS / COLUMNS;
  static_assert(PanelB::TERMS % PARTS == 0, "parts of different lengths");
  const int part = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS;
  real sum = real(0);

  __device__ __forceinline__ void add(const real *panel) {
#pragma unroll
    for (int term = 0; term < PanelB::TERMS; term += PARTS)
      sum += *PanelB::at(panel, column, term + part);
  }

  // Hands them to the tail as a row of the result.
  template <class Tail>
  __device__ __forceinline__ void finish(int row, int first_column, int columns,
                                         const Tail &tail) const {
    real *parts = (real *)block_memory();
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (part == 0 && first_column + column < columns) {
      Run<1> total = {parts[column]};
      for (int i = 1; i < PARTS; ++i) total.at[0] += parts[i * COLUMNS + column];
      tail(row, first_column + column, total, 1);
    }
  }
};

// A product by tiles whose sums are made by a struct of a tile's Sums.
template <class Sums, class Tail>
__device__ __forceinline__ void product_by_tiles(Team team, int rows, int columns, int inner,
                                                 const Matrix<real> &a, const Matrix<real> &b,
                                                 const Tail &tail) {
  using PanelA = typename Sums::PanelA;
  using PanelB = typename Sums::PanelB;
  // columns have sums even where there are no rows
  const int some_rows = Tail::SUMS_COLUMNS && rows == 0 ? 1 : rows;
  const int tile_rows = (some_rows + PanelA::EXTENT - 1) / PanelA::EXTENT;
  const int tile_columns = (columns + PanelB::EXTENT - 1) / PanelB::EXTENT;
  for (int item = team.block; item < tile_rows * tile_columns; item += team.blocks) {
    const GridPlace tile = banded(item, tile_rows, tile_columns);
    const int row = tile.row * PanelA::EXTENT, column = tile.column * PanelB::EXTENT;
    Sums sums;
    const auto run = [&](const auto &also) {
      each_slab<PanelA, PanelB, Sums::STAGES>(
          rows, columns, inner, a, b, row, column,
          [&](const real *panel_a, const real *panel_b) {
            sums.add(panel_a, panel_b);
            also(panel_b);
          });
      __syncthreads();
      sums.finish(rows, columns, row, column, tail);
      __syncthreads();
    };
    if constexpr (Tail::SUMS_COLUMNS) {
      ColumnSums<PanelB> column_sums;
      run([&](const real *panel_b) {
        if (row == 0) column_sums.add(panel_b);
      });
      if (row == 0) {
        column_sums.finish(rows, column, columns, tail);
        __syncthreads();
      }
    } else {
      run([](const real *) {});
    }
  }
}

// Tiles of ROWS x COLUMNS, each thread of a group making THREAD_ROWS x THREAD_COLUMNS of one.
// Where the threads make more than one group, each takes a share of the terms, ascending, and the
// groups' sums are added in order. A slab is DEPTH terms for each group; STAGES slabs and the
// groups' sums fit SHARED bytes of block memory.
template <int ROWS, int COLUMNS, int THREAD_ROWS, int THREAD_COLUMNS, int DEPTH, int STAGES_,
          int SHARED>
struct Tile {
  static constexpr int DOWN = ROWS / THREAD_ROWS, ACROSS = COLUMNS / THREAD_COLUMNS;
  static constexpr int GROUP = DOWN * ACROSS, GROUPS = THREADS / GROUP, SLAB = GROUPS * DEPTH;
  static_assert(GROUPS * GROUP == THREADS, "threads would idle");

  template <bool TRANSPOSE_A, bool TRANSPOSE_B, class Tail>
  static __device__ __forceinline__ void product(Team team, int rows, int columns, int inner,
                                                 const Matrix<real> &a, const Matrix<real> &b,
                                                 const Tail &tail) {
    product_by_tiles<Sums<!TRANSPOSE_A, TRANSPOSE_B>>(team, rows, columns, inner, a, b, tail);
  }

  template <bool A_ALONG, bool B_ALONG> struct Sums {
    static constexpr int STAGES = STAGES_;
    // an odd number of vectors to a line: those of neighbouring lines lie in different banks
    using PanelA = Panel<ROWS, SLAB, A_ALONG, VECTOR>;
    using PanelB = Panel<COLUMNS, SLAB, B_ALONG, VECTOR>;
    static constexpr int RUN_A = A_ALONG ? 1 : VECTOR, RUN_B = B_ALONG ? 1 : VECTOR;
    static_assert(sizeof(real) * STAGES * (PanelA::SIZE + PanelB::SIZE) <= SHARED &&
                      sizeof(real) * (GROUPS > 1 ? GROUPS : 0) * ROWS * COLUMNS <= SHARED &&
                      sizeof(real) * THREADS <= SHARED,
                  "too little block memory");

    real sums[THREAD_ROWS][THREAD_COLUMNS] = {};
    // neighbours of a warp form a square rather than a line: they read fewer different numbers
    static constexpr int LANES = ACROSS < 8 ? ACROSS : 8;
    const int thread = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
    const int thread_row = thread / LANES % DOWN;
    const int thread_column = thread / (LANES * DOWN) * LANES + thread % LANES;

    __device__ __forceinline__ void add(const real *panel_a, const real *panel_b) {
      // as many at a time as one read gives and registers hold
      constexpr int TERMS = A_ALONG && B_ALONG ? VECTOR / 2 : A_ALONG || B_ALONG ? VECTOR : 1;
#pragma unroll 2  // more would be read ahead than registers hold
      for (int step = 0; step < DEPTH; step += TERMS) {
        const int term = step * GROUPS + group * TERMS;
        real left[THREAD_ROWS][TERMS], right[THREAD_COLUMNS][TERMS];
        PanelA::template read<RUN_A>(panel_a, thread_row, DOWN, term, left);
        PanelB::template read<RUN_B>(panel_b, thread_column, ACROSS, term, right);
        add_products(left, right, sums);
      }
    }

    // Hands the tile at (row, column) to the tail.
    template <class Tail>
    __device__ __forceinline__ void finish(int rows, int columns, int row, int column,
                                           const Tail &tail) const {
      if constexpr (GROUPS == 1) {
        each_run([&](int r, int c, const Run<RUN_B> &sum) {
          if (row + r < rows && column + c < columns)
            tail(row + r, column + c, sum, columns - column - c);
        });
      } else {
        real *memory = (real *)block_memory();
        each_run([&](int r, int c, const Run<RUN_B> &sum) {
          *(Run<RUN_B> *)(memory + (group * ROWS + r) * COLUMNS + c) = sum;
        });
        __syncthreads();
#pragma unroll
        for (int item = threadIdx.x; item < ROWS * COLUMNS / VECTOR; item += THREADS) {
          Run<VECTOR> sum = run_at<VECTOR>(memory + item * VECTOR);
#pragma unroll
          for (int i = 1; i < GROUPS; ++i) {
            const Run<VECTOR> next = run_at<VECTOR>(memory + i * ROWS * COLUMNS + item * VECTOR);
#pragma unroll
            for (int j = 0; j < VECTOR; ++j) sum.at[j] += next.at[j];
          }
          const int r = row + item * VECTOR / COLUMNS, c = column + item * VECTOR % COLUMNS;
          if (r < rows && c < columns) tail(r, c, sum, columns - c);
        }
      }
    }

    // Gives the thread's own sums, in runs, to a function of the row and the column in the tile.
    template <class Function>
    __device__ __forceinline__ void each_run(const Function &function) const {
#pragma unroll
      for (int i = 0; i < THREAD_ROWS; ++i)
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; j += RUN_B) {
          Run<RUN_B> run;
#pragma unroll
          for (int item = 0; item < RUN_B; ++item) run.at[item] = sums[i][j + item];
          function(place_of_item<RUN_A>(thread_row, DOWN, i),
                   place_of_item<RUN_B>(thread_column, ACROSS, j), run);
        }
    }
  };
};

// ---- slices ----

// What results of few tiles and many terms are made of: slices of `share` terms, each a product of
// its own, whose sums (and then the sums of columns) lie below one another in `partial`.
template <class Way, bool TRANSPOSE_A, bool TRANSPOSE_B, bool SUMS_COLUMNS>
__device__ __forceinline__ void product_slices(Team team, int rows, int columns, int inner,
                                               int slices, int share, const Matrix<real> &a,
                                               const Matrix<real> &b,
                                               const Matrix<real> &partial) {
  const int apart = team.blocks < slices ? team.blocks : slices, first = team.block % apart;
  const Team part = {team.block / apart, (team.blocks - first + apart - 1) / apart};
  for (int slice = first; slice < slices; slice += apart) {
    const int term = slice * share < inner ? slice * share : inner;
    const int terms = inner - term < share ? inner - term : share;
    const Matrix<real> sliced_a = {TRANSPOSE_A ? &a(term, 0) : &a(0, term), a.stride};
    const Matrix<real> sliced_b = {TRANSPOSE_B ? &b(0, term) : &b(term, 0), b.stride};
    real *sums = &partial((long long)slice * (rows + SUMS_COLUMNS), 0);
    Way::template product<TRANSPOSE_A, TRANSPOSE_B>(
        part, rows, columns, terms, sliced_a, sliced_b,
        Gradient<false, SUMS_COLUMNS>{rows, {sums, partial.stride}, sums + rows * partial.stride});
  }
}

// Hands the sums of the slices, added in order, to the tail. A thread takes a run.
template <class Tail>
__device__ __forceinline__ void add_slices(Team team, int rows, int columns, int slices,
                                           const Matrix<real> &partial, const Tail &tail) {
  const int lines = rows + Tail::SUMS_COLUMNS, runs = (columns + VECTOR - 1) / VECTOR;
  for (int item = team.block * THREADS + threadIdx.x; item < lines * runs;
       item += team.blocks * THREADS) {
    const int row = item / runs, column = item % runs * VECTOR;
    Run<VECTOR> sum = {};
    for (int slice = 0; slice < slices; ++slice) {
      const real *from = &partial((long long)slice * lines + row, column);
      const Run<VECTOR> next = read_run<VECTOR>(from, columns - column);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) sum.at[i] += next.at[i];
    }
    tail(row, column, sum, columns - column);
  }
}

// ---- strips ----

// A product by strips, for small ones whose operands lie in block memory: each thread makes
// ROWS x COLUMNS sums, reading the operands where they lie. Where they are ALIGNED, their rows
// start at multiples of a vector, and so what follows a row's last number may be read.
template <int ROWS, int COLUMNS, bool ALIGNED> struct Strip {
  template <bool TRANSPOSE_A, bool TRANSPOSE_B, class Tail>
  static __device__ __forceinline__ void product(Team team, int rows, int columns, int inner,
                                                 Matrix<real> a, Matrix<real> b, Tail tail) {
    using SumsA = Reader<ROWS, !TRANSPOSE_A>;
    using SumsB = Reader<COLUMNS, TRANSPOSE_B>;
    constexpr int TERMS = ALIGNED && (!TRANSPOSE_A || TRANSPOSE_B) ? VECTOR : 1;
    const int down = (rows + ROWS - 1) / ROWS, across = (columns + COLUMNS - 1) / COLUMNS;
    const int strips = down * across, items = strips + (Tail::SUMS_COLUMNS ? columns : 0);
    for (int item = team.block * THREADS + threadIdx.x; item < items;
         item += team.blocks * THREADS) {
      if (item >= strips) {
        sum_column(inner, b, rows, item - strips, tail);
        continue;
      }
      const GridPlace strip = banded(item, across, down);
      const SumsA reader_a = {a, strip.column, down, rows};
      const SumsB reader_b = {b, strip.row, across, columns};
      real sums[ROWS][COLUMNS] = {};
      const int whole = inner - inner % TERMS;
      for (int term = 0; term < whole; term += TERMS)
        add<TERMS>(reader_a, reader_b, term, sums);
      for (int term = whole; term < inner; ++term) add<1>(reader_a, reader_b, term, sums);
#pragma unroll
      for (int i = 0; i < ROWS; ++i)
#pragma unroll
        for (int j = 0; j < COLUMNS; j += SumsB::RUN) {
          Run<SumsB::RUN> run;
#pragma unroll
          for (int k = 0; k < SumsB::RUN; ++k) run.at[k] = sums[i][j + k];
          const int row = reader_a.place(i), column = reader_b.place(j);
          if (row < rows && column < columns) tail(row, column, run, columns - column);
        }
    }
  }

  // Reads the numbers of a thread's ITEMS rows (or columns) of the result.
  template <int ITEMS, bool ALONG> struct Reader {
    static constexpr int RUN = ALONG || !ALIGNED ? 1 : ITEMS < VECTOR ? ITEMS : VECTOR;
    const Matrix<real> &from;
    int thread, threads, extent;

    __device__ __forceinline__ int place(int item) const {
      return place_of_item<RUN>(thread, threads, item);
    }

    template <int TERMS>
    __device__ __forceinline__ void read(int term, real (&items)[ITEMS][TERMS]) const {
      constexpr int LINES = ALONG ? 1 : TERMS, LENGTH = ALONG ? TERMS : RUN;
#pragma unroll
      for (int item = 0; item < ITEMS; item += RUN) {
        // what lies outside the result is read as its last item, and dropped in the end
        const int last = (extent - 1) / RUN * RUN, at = place(item) < last ? place(item) : last;
#pragma unroll
        for (int line = 0; line < LINES; ++line) {
          const real *start = ALONG ? &from(at, term) : &from(term + line, at);
          const Run<LENGTH> run = run_at<LENGTH>(start);
#pragma unroll
          for (int i = 0; i < LENGTH; ++i)
            items[ALONG ? item : item + i][ALONG ? i : line] = run.at[i];
        }
      }
    }
  };

  template <int TERMS, class SumsA, class SumsB>
  static __device__ __forceinline__ void add(const SumsA &a, const SumsB &b, int term,
                                             real (&sums)[ROWS][COLUMNS]) {
    real left[ROWS][TERMS], right[COLUMNS][TERMS];
    a.template read<TERMS>(term, left);
    b.template read<TERMS>(term, right);
    add_products(left, right, sums);
  }

  template <class Tail>
  static __device__ __forceinline__ void sum_column(int inner, const Matrix<real> &b, int row,
                                                    int column, const Tail &tail) {
    Run<1> sum = {real(0)};
    for (int term = 0; term < inner; ++term) sum.at[0] += b(term, column);
    tail(row, column, sum, 1);
  }
};

// The tail of a product whose sums lie in memory. Bytes: those of the sums and of the tail.
template <class Tail>
__device__ __forceinline__ void finish(Team team, int rows, int columns, Matrix<real> sums,
                                       const Tail &tail) {
  const int runs = (columns - 1) / VECTOR + 1;
  const long long items = (long long)rows * runs, stride = (long long)team.blocks * THREADS;
  for (long long item = (long long)team.block * THREADS + threadIdx.x; item < items;
       item += stride) {
    const int row = (int)(item / runs), column = (int)(item % runs) * VECTOR;
    tail(row, column, read_run<VECTOR>(&sums(row, column), columns - column), columns - column);
  }
}
