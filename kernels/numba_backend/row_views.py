"""How rows lie in vectors, for kernels to which a row is a whole.

One row after the other, its columns in the lanes; but rows of few columns would leave most lanes
empty, so there every lane has a row to itself, unless there is but one. Sums are made in the same
order either way, so that no bit of a row's result tells which way it went.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from llvmlite import ir

from .emit import I32, I64, Kernel, integer

RowAddress = Callable[[ir.Value], ir.Value]
"""From the number of a row to the address of its first column."""


def each_row(
    kernel: Kernel, rows: ir.Value, columns: ir.Value, body: Callable[[RowView], None]
) -> None:
    """Emit ``body(view)`` for all rows, the view a row or up to as many as there are lanes."""
    builder, lanes = kernel.builder, kernel.lanes
    # and not none: a sum begins with the first column
    are_few = builder.icmp_unsigned("<", builder.sub(columns, integer(1)), integer(lanes))
    rest_is_one = builder.icmp_signed("==", builder.and_(rows, integer(lanes - 1)), integer(1))
    together = builder.sub(rows, builder.zext(rest_is_one, I64))
    together = builder.select(are_few, together, integer(0))
    with kernel.loop(together, lanes) as row:
        body(_RowInEachLane(kernel, row, columns, together))
    with kernel.loop(rows, first=together) as row:
        body(_OneRow(kernel, row, columns))


class Matrix(ABC):
    """The rows of one matrix, as a view shows them."""

    @abstractmethod
    def load(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        """A vector of the view."""

    @abstractmethod
    def store(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        """A vector of the view, which `load` then gives."""

    @abstractmethod
    def flush(self) -> None:
        """See that what was stored is in memory."""


class Sum(ABC):
    """A sum over the columns of each row."""

    @abstractmethod
    def add(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        """Add a vector of the view; to be called once for each."""

    @abstractmethod
    def total(self) -> ir.Value:
        """The sum of a lane's row, in each lane."""


class RowView(ABC):
    """Some rows as vectors; a lane's row is the one that it has a column of."""

    def __init__(self, kernel: Kernel, row: ir.Value, count: ir.Value) -> None:
        self.kernel, self.row, self.count = kernel, row, count

    @abstractmethod
    def columns(self, body: Callable[[ir.Value, ir.Value | None], None]) -> None:
        """Emit ``body(column, mask)`` for all vectors of the rows."""

    @abstractmethod
    def numbers(self, column: ir.Value) -> ir.Value:
        """The column that each lane stands for, 32 bits wide."""

    @abstractmethod
    def read(self, address: RowAddress) -> Matrix:
        """The rows of a matrix, to be loaded."""

    @abstractmethod
    def write(self, address: RowAddress) -> Matrix:
        """The rows of a matrix, to be stored, then flushed."""

    @abstractmethod
    def number(self, make: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """``make(row)``, a number, of each lane's row."""

    @abstractmethod
    def put(self, vector: ir.Value, base: ir.Value) -> None:
        """Store a number a row, the same in all lanes of a row, at its place behind ``base``."""

    @abstractmethod
    def sum(self) -> Sum:
        """A sum over the columns of each row."""

    @abstractmethod
    def largest(self, vector: ir.Value) -> ir.Value:
        """The largest among the lanes of a row; NaN where any is."""

    @abstractmethod
    def lowest(self, numbers: ir.Value) -> ir.Value:
        """The lowest unsigned number among the lanes of a row."""

    @abstractmethod
    def any(self, mask: ir.Value) -> ir.Value:
        """Whether the mask holds in any lane of a row."""


class _OneRow(RowView):
    """A row, its columns in the lanes."""

    def columns(self, body: Callable[[ir.Value, ir.Value | None], None]) -> None:
        self.kernel.columns(self.count, body)

    def numbers(self, column: ir.Value) -> ir.Value:
        kernel = self.kernel
        return kernel.builder.add(kernel.splat(kernel.narrow(column)), kernel.lane_numbers())

    def read(self, address: RowAddress) -> Matrix:
        return _InMemory(self.kernel, address(self.row))

    write = read

    def number(self, make: Callable[[ir.Value], ir.Value]) -> ir.Value:
        return self.kernel.splat(make(self.row))

    def put(self, vector: ir.Value, base: ir.Value) -> None:
        single = self.kernel.builder.extract_element(vector, I32(0))
        self.kernel.store(single, self.kernel.at(base, self.row))

    def sum(self) -> Sum:
        return _SumOfLanes(self.kernel)

    def largest(self, vector: ir.Value) -> ir.Value:
        return self.kernel.splat(self.kernel.max_lanes(vector))

    def lowest(self, numbers: ir.Value) -> ir.Value:
        name = f"llvm.vector.reduce.umin.v{self.kernel.lanes}i32"
        return self.kernel.splat(self.kernel.call(name, I32, numbers))

    def any(self, mask: ir.Value) -> ir.Value:
        builder = self.kernel.builder
        bits = builder.bitcast(mask, ir.IntType(self.kernel.lanes))
        return self.kernel.splat(builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0)))


class _InMemory(Matrix):
    """Columns of a row as they lie."""

    def __init__(self, kernel: Kernel, row: ir.Value) -> None:
        self.kernel, self.row = kernel, row

    def load(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        return self.kernel.load_vector(self.kernel.at(self.row, column), mask)

    def store(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        self.kernel.store_vector(value, self.kernel.at(self.row, column), mask)

    def flush(self) -> None:
        """It is there."""


class _SumOfLanes(Sum):
    """Lanes apart until the end, then halves added to halves."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.parts = kernel, kernel.variable(kernel.constant(0.0))

    def add(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        kernel, builder = self.kernel, self.kernel.builder
        value = kernel.zero_outside(mask, value)
        builder.store(builder.fadd(builder.load(self.parts), value), self.parts)

    def total(self) -> ir.Value:
        return self.kernel.splat(self.kernel.sum_lanes(self.kernel.builder.load(self.parts)))


class _RowInEachLane(RowView):
    """Rows side by side, as many as there are lanes or all up to ``end``: vectors are columns.

    There are no more columns than lanes. Lanes without a row hold anything.
    """

    def __init__(self, kernel: Kernel, row: ir.Value, count: ir.Value, end: ir.Value) -> None:
        super().__init__(kernel, row, count)
        rest = kernel.builder.sub(end, row)
        is_whole = kernel.builder.icmp_signed(">=", rest, integer(kernel.lanes))
        self.rows = kernel.builder.select(is_whole, integer(kernel.lanes), rest)

    def columns(self, body: Callable[[ir.Value, ir.Value | None], None]) -> None:
        with self.kernel.loop(self.count) as column:
            body(column, None)

    def numbers(self, column: ir.Value) -> ir.Value:
        return self.kernel.splat(self.kernel.narrow(column))

    def read(self, address: RowAddress) -> Matrix:
        return _TurnedOver(self, address).fetched()

    def write(self, address: RowAddress) -> Matrix:
        return _TurnedOver(self, address)

    def number(self, make: Callable[[ir.Value], ir.Value]) -> ir.Value:
        kernel = self.kernel
        with kernel.loop(self.rows) as lane:
            number = make(kernel.builder.add(self.row, lane))
            room = kernel.array(number.type, kernel.lanes)
            kernel.store(number, kernel.at(room, lane, element=number.type))
        return kernel.load_vector(room, element=number.type)

    def put(self, vector: ir.Value, base: ir.Value) -> None:
        mask = self.kernel.first_lanes(self.rows)
        self.kernel.store_vector(vector, self.kernel.at(base, self.row), mask)

    def sum(self) -> Sum:
        return _SumOfVectors(self.kernel, self.count)

    def largest(self, vector: ir.Value) -> ir.Value:
        return vector

    def lowest(self, numbers: ir.Value) -> ir.Value:
        return numbers

    def any(self, mask: ir.Value) -> ir.Value:
        return mask


class _Vectors:
    """Room for a vector a column."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.room = kernel.array(kernel.vector_type, kernel.lanes)

    def at(self, number: ir.Value | int) -> ir.Value:
        return self.kernel.at(self.room, number, element=self.kernel.vector_type)


class _TurnedOver(Matrix):
    """A square of a matrix, transposed on its way from memory and to it."""

    def __init__(self, view: _RowInEachLane, address: RowAddress) -> None:
        self.view, self.kernel, self.address = view, view.kernel, address
        self.valid = self.kernel.first_lanes(view.count)
        self.vectors = _Vectors(self.kernel)

    def fetched(self) -> Matrix:
        kernel, vectors = self.kernel, self.vectors
        with kernel.loop(self.view.rows) as lane:
            address = self.address(kernel.builder.add(self.view.row, lane))
            kernel.store_vector(kernel.load_vector(address, self.valid), vectors.at(lane))
        self._turn_over()
        return self

    def flush(self) -> None:
        kernel, vectors = self.kernel, self.vectors
        self._turn_over()
        with kernel.loop(self.view.rows) as lane:
            address = self.address(kernel.builder.add(self.view.row, lane))
            kernel.store_vector(kernel.load_vector(vectors.at(lane)), address, self.valid)

    def load(self, column: ir.Value, mask: ir.Value | None) -> ir.Value:
        return self.kernel.load_vector(self.vectors.at(column))

    def store(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        self.kernel.store_vector(value, self.vectors.at(column))

    def _turn_over(self) -> None:
        kernel, places = self.kernel, [self.vectors.at(i) for i in range(self.kernel.lanes)]
        square = kernel.turned_over([kernel.load_vector(place) for place in places])
        for vector, place in zip(square, places, strict=True):
            kernel.store_vector(vector, place)


class _SumOfVectors(Sum):
    """The additions that `_SumOfLanes` makes, but for those of zeros in lanes without a column."""

    def __init__(self, kernel: Kernel, count: ir.Value) -> None:
        self.kernel, self.count = kernel, count
        self.vectors = _Vectors(kernel)

    def add(self, value: ir.Value, column: ir.Value, mask: ir.Value | None) -> None:
        kernel = self.kernel
        begun = kernel.builder.fadd(kernel.constant(0.0), value)  # which makes of -0 a 0
        kernel.store_vector(begun, self.vectors.at(column))

    def total(self) -> ir.Value:
        kernel, builder, vectors = self.kernel, self.kernel.builder, self.vectors
        end, size = self.count, kernel.lanes // 2
        while size:
            with kernel.loop(end, first=size) as high:
                low = vectors.at(builder.sub(high, integer(size)))
                halves = (kernel.load_vector(place) for place in (low, vectors.at(high)))
                kernel.store_vector(builder.fadd(*halves), low)
            is_smaller = builder.icmp_signed("<", end, integer(size))
            end, size = builder.select(is_smaller, end, integer(size)), size // 2
        return kernel.load_vector(vectors.at(0))
