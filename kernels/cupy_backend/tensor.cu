// Products by tensor cores: operands rounded to tf32 or bf16 as a warp reads its fragments of them
// from block memory, sums in float32. Slabs, tails and sums of columns are those of products.cu.

#ifdef __CUDACC__
__device__ __forceinline__ unsigned to_tf32(float value) {
  unsigned word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
  return word;
}
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
// d += a b, a of 16 rows, b of 8 columns, by a warp; the fragments are described below.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4],
                                                 const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// What operands are rounded to: a register holds PACKED neighbouring terms, a multiplication takes
// 8 PACKED.
struct Tf32 {
  static constexpr int PACKED = 1;
  static __device__ __forceinline__ unsigned word(const Run<1> &terms) {
    return to_tf32(terms.at[0]);
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
    mma_m16n8k8_tf32(d, a, b);
  }
};
struct Bf16 {
  static constexpr int PACKED = 2;
  static __device__ __forceinline__ unsigned word(const Run<2> &terms) {
    return pack_bf16(terms.at[0], terms.at[1]);
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b);
  }
};

// Tiles of ROWS x COLUMNS: 2 x 4 warps, each of which makes a part of the tile in fragments of 16
// rows and 8 columns. Of a fragment, lane l holds
//   of a: rows l / 4 and 8 below, terms PACKED (l % 4) on, and the same 4 PACKED terms further;
//   of b: column l / 4, the same terms;
//   of the result: rows l / 4 and 8 below, columns 2 (l % 4) and its neighbour.
// The pads of lines, along and across the sums, are such that a warp reads 32 different banks.
template <class Format, int ROWS, int COLUMNS, int DEPTH, int STAGES_, int PAD_ALONG,
          int PAD_ACROSS, int SHARED>
struct TensorTile {
  static constexpr int DOWN = 2, ACROSS = THREADS / 32 / DOWN;
  static constexpr int WARP_ROWS = ROWS / DOWN, WARP_COLUMNS = COLUMNS / ACROSS;
  static constexpr int HIGH = WARP_ROWS / 16, WIDE = WARP_COLUMNS / 8;  // in fragments
  static constexpr int PACKED = Format::PACKED, TERMS = 8 * PACKED;
  static_assert(HIGH * 16 * DOWN == ROWS && WIDE * 8 * ACROSS == COLUMNS && DEPTH % TERMS == 0,
                "the tile is no multiple of fragments");

  template <bool TRANSPOSE_A, bool TRANSPOSE_B, class Tail>
  static __device__ __forceinline__ void product(Team team, int rows, int columns, int inner,
                                                 const Matrix<real> &a, const Matrix<real> &b,
                                                 const Tail &tail) {
    product_by_tiles<Sums<!TRANSPOSE_A, TRANSPOSE_B>>(team, rows, columns, inner, a, b, tail);
  }

  template <bool A_ALONG, bool B_ALONG> struct Sums {
    static constexpr int STAGES = STAGES_;
    using PanelA = Panel<ROWS, DEPTH, A_ALONG, A_ALONG ? PAD_ALONG : PAD_ACROSS>;
    using PanelB = Panel<COLUMNS, DEPTH, B_ALONG, B_ALONG ? PAD_ALONG : PAD_ACROSS>;
    static_assert(sizeof(real) * STAGES * (PanelA::SIZE + PanelB::SIZE) <= SHARED &&
                      sizeof(real) * THREADS <= SHARED,
                  "too little block memory");

    float sums[HIGH][WIDE][4] = {};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_row = warp / ACROSS * WARP_ROWS + lane / 4;
    const int first_column = warp % ACROSS * WARP_COLUMNS;
    const int first_term = lane % 4 * PACKED;

    __device__ __forceinline__ void add(const real *panel_a, const real *panel_b) {
#pragma unroll
      for (int step = 0; step < DEPTH; step += TERMS) {
        const int term = step + first_term;
        unsigned right[WIDE][2];
#pragma unroll
        for (int wide = 0; wide < WIDE; ++wide)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            right[wide][i] = word<PanelB, B_ALONG>(
                panel_b, first_column + wide * 8 + lane / 4, term + i * TERMS / 2);
#pragma unroll
        for (int high = 0; high < HIGH; ++high) {
          unsigned left[4];
#pragma unroll
          for (int i = 0; i < 4; ++i)
            left[i] = word<PanelA, A_ALONG>(panel_a, first_row + high * 16 + i % 2 * 8,
                                            term + i / 2 * TERMS / 2);
#pragma unroll
          for (int wide = 0; wide < WIDE; ++wide)
            Format::multiply(sums[high][wide], left, right[wide]);
        }
      }
    }

    // PACKED terms of a row (or column) as the tensor cores take them.
    template <class Panel, bool ALONG>
    static __device__ __forceinline__ unsigned word(const real *panel, int item, int term) {
      if (ALONG) return Format::word(run_at<PACKED>(Panel::at(panel, item, term)));
      Run<PACKED> terms;
#pragma unroll
      for (int i = 0; i < PACKED; ++i) terms.at[i] = *Panel::at(panel, item, term + i);
      return Format::word(terms);
    }

    // Hands the tile at (row, column) to the tail.
    template <class Tail>
    __device__ __forceinline__ void finish(int rows, int columns, int row, int column,
                                           const Tail &tail) const {
#pragma unroll
      for (int high = 0; high < HIGH; ++high)
#pragma unroll
        for (int wide = 0; wide < WIDE; ++wide)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int r = row + first_row + high * 16 + half * 8;
            const int c = column + first_column + wide * 8 + lane % 4 * 2;
            const Run<2> pair = {sums[high][wide][2 * half], sums[high][wide][2 * half + 1]};
            if (r < rows && c < columns) tail(r, c, pair, columns - c);
          }
    }
  };
};
