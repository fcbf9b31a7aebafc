// Operations on each element of a matrix: activations with dropout, products, rows of the data.

// Four elements of a row that a thread works on at once: columns c, c + 16, c + 32 and c + 48,
// those that share a block of random words (contract.Dropout). Threads side by side touch
// elements side by side, four loads are in flight a thread, and no thread idles in narrow rows.
constexpr int FOUR = 4, APART = 16;

// The fours that a thread works on, one after another, through all rows.
struct Fours {
  long long row;
  int place, a_row, step_rows, step_places;

  __device__ __forceinline__ Fours(Team team, int columns) {
    constexpr int WIDE = FOUR * APART;
    const int rest = columns % WIDE;
    a_row = columns / WIDE * APART + (rest < APART ? rest : APART);
    const int first = team.block * THREADS + threadIdx.x, step = team.blocks * THREADS;
    row = first / a_row, place = first % a_row;
    step_rows = step / a_row, step_places = step % a_row;
  }
  __device__ __forceinline__ int column() const {
    return place / APART * (FOUR * APART) + place % APART;
  }
  __device__ __forceinline__ void next() {
    row += step_rows;
    place += step_places;
    if (place >= a_row) {
      place -= a_row;
      ++row;
    }
  }
};

// write(row, column, read(row, column)) for every element.
template <class Read, class Write>
__device__ __forceinline__ void each_element(Team team, int rows, int columns, Read read,
                                             Write write) {
  if (columns == 0) return;
  for (Fours at(team, columns); at.row < rows; at.next()) {
    decltype(read(0, 0)) values[FOUR];
#pragma unroll
    for (int k = 0; k < FOUR; ++k) {
      const int column = at.column() + k * APART;
      if (column < columns) values[k] = read(at.row, column);
    }
#pragma unroll
    for (int k = 0; k < FOUR; ++k) {
      const int column = at.column() + k * APART;
      if (column < columns) write(at.row, column, values[k]);
    }
  }
}

// The four words of the block that decides about an element and those 16 columns apart from it.
struct Words {
  unsigned of[FOUR];
};
__device__ __forceinline__ Words words_of(const Place &place, int row, int column) {
  constexpr int WIDE = FOUR * APART;
  const unsigned group = column / WIDE * APART + column % APART;
  Words words;
  Formula::philox(place.first_row + row, group, place.step, place.stream, place.key_low,
                  place.key_high, words.of, words.of + 1, words.of + 2, words.of + 3);
  return words;
}

// Whether dropout keeps an element: an integer comparison.
__device__ __forceinline__ bool keeps(const Place &place, int row, int column) {
  const Words words = words_of(place, row, column);
  const int number = column / APART % FOUR;
  const unsigned low = number == 0 ? words.of[0] : words.of[1];
  const unsigned high = number == 2 ? words.of[2] : words.of[3];
  return Formula::keep(number < 2 ? low : high, place.threshold);
}

// A learned number of an activation: one a column (step 1) or one in all (step 0), and where the
// slopes by it go.
struct Learned {
  const real *numbers;
  int step;
  Matrix<real> slopes;
};

// y = f(x), and where wanted its slope and its slopes by learned numbers, with dropout on all of
// them. A thread takes four elements; y may be x. Bytes: each array once.
template <class Activation, bool DROPS, class... Numbers>
__device__ void map(Team team, int rows, int columns, Matrix<real> x, Matrix<real> y,
                    Matrix<real> slope, Place place, Numbers... numbers) {
  constexpr int LEARNED = Activation::LEARNED;
  const Learned learned[LEARNED + 1] = {numbers...};
  if (columns == 0) return;
  for (Fours at(team, columns); at.row < rows; at.next()) {
    Words words = {};
    if (DROPS) words = words_of(place, at.row, at.column());
    real inputs[FOUR];
#pragma unroll
    for (int k = 0; k < FOUR; ++k) {
      const int column = at.column() + k * APART;
      if (column < columns) inputs[k] = x(at.row, column);
    }
#pragma unroll
    for (int k = 0; k < FOUR; ++k) {
      const int column = at.column() + k * APART;
      if (column < columns) {
        real own[LEARNED + 1], results[LEARNED + 2];
        for (int n = 0; n < LEARNED; ++n)
          own[n] = learned[n].numbers[(long long)column * learned[n].step];
        if (slope.data)
          Activation::apply(inputs[k], own, results);
        else
          results[0] = Activation::value(inputs[k], own);
        const bool kept = !DROPS || Formula::keep(words.of[k], place.threshold);
        const auto dropped = [&](real value) {
          return !DROPS ? value : kept ? value * place.scale : real(0);
        };
        y(at.row, column) = dropped(results[0]);
        if (slope.data) slope(at.row, column) = dropped(results[1]);
        for (int n = 0; n < LEARNED; ++n)
          if (learned[n].slopes.data) learned[n].slopes(at.row, column) = dropped(results[2 + n]);
      }
    }
  }
}

// grad *= slope. Bytes: two reads and a write an element.
__device__ void multiply(Team team, int rows, int columns, Matrix<real> grad, Matrix<real> slope) {
  each_element(
      team, rows, columns,
      [=](int row, int column) { return grad(row, column) * slope(row, column); },
      [=](int row, int column, real product) { grad(row, column) = product; });
}

// out = the rows of x in an order, as reals. Bytes: each element once.
template <class Source>
__device__ void gather(Team team, int rows, int columns, Matrix<Source> x, Order order,
                       Matrix<real> out) {
  each_element(
      team, rows, columns, [=](int row, int column) { return (real)x(order(row), column); },
      [=](int row, int column, real value) { out(row, column) = value; });
}

// A half-precision number from its bits, exactly.
__device__ __forceinline__ float from_half(unsigned short bits) {
  const unsigned infinite = 0x7c00, size = bits & 0x7fff;
  const float scaled = __uint_as_float(size << 13) * 5.192296858534828e33f;  // 2^112
  const float value = size < infinite ? scaled : __uint_as_float(size << 13 | 0x7f800000);
  return bits & 0x8000 ? -value : value;
}

// The same for rows of half-precision numbers.
__device__ void gather_halves(Team team, int rows, int columns, Matrix<unsigned short> x,
                              Order order, Matrix<real> out) {
  each_element(
      team, rows, columns,
      [=](int row, int column) { return (real)from_half(x(order(row), column)); },
      [=](int row, int column, real value) { out(row, column) = value; });
}

// The rows of `outputs` to their places in an order. Bytes: each element once.
__device__ void copy_out(Team team, int rows, int columns, Matrix<real> outputs, Order order,
                         Matrix<real> out) {
  each_element(
      team, rows, columns, [=](int row, int column) { return outputs(row, column); },
      [=](int row, int column, real value) { out(order.first + row, column) = value; });
}

template <class Element>
__device__ __forceinline__ bool is_finite(Element value) {
  return value - value == Element(0);
}

// Of the bits of a half-precision number.
__device__ __forceinline__ bool is_finite(unsigned short bits) { return (~bits & 0x7C00) != 0; }

// flag[0] = 1 where an element is NaN or infinite; else it stays. Bytes: each element once.
template <class Element>
__device__ void find_not_finite(Team team, int rows, int columns, Matrix<Element> x, int *flag) {
  each_element(
      team, rows, columns, [=](int row, int column) { return x(row, column); },
      [=](int, int, Element value) {
        if (!is_finite(value)) *flag = 1;  // whoever writes, writes the same
      });
}
