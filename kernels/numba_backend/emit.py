"""The words in which kernels are written as LLVM IR: functions, loops, vectors, masks.

A kernel takes integers and pointers (both 64 bits wide) and returns nothing or an integer, so that
compiled control code can call it by address with plain integers. Addresses inside are made by
``gep`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

from .machine import target

NAME = "kernel"
"""What the only function of a module is called."""
I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
POINTER = ir.PointerType()
ELEMENTS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
ITEMSIZE = {"float32": 4, "float64": 8}


def integer(value: int) -> ir.Constant:
    """A 64-bit constant."""
    return ir.Constant(I64, value)


def only_kernel(arguments: str, dtype: str, returns: bool = False) -> Kernel:
    """A kernel over this CPU's vectors, the only one of a module of its own; see `Kernel`."""
    return Kernel(ir.Module(NAME), NAME, arguments, dtype, target().lanes(dtype), returns)


class Kernel:
    """One function under construction over vectors of ``lanes`` elements of ``dtype``.

    Parameters
    ----------
    module : ir.Module
        Where the function goes.
    name : str
    arguments : str
        A letter an argument: ``p`` for a pointer, ``i`` for an integer.
    dtype : "float32" or "float64"
    lanes : int
        Elements of a vector.
    returns : bool, default False
        Whether it returns an integer, rather than nothing.

    Attributes
    ----------
    builder : ir.IRBuilder
        At the end of what has been emitted.
    element, vector_type, mask_type : ir.Type
    """

    def __init__(
        self,
        module: ir.Module,
        name: str,
        arguments: str,
        dtype: str,
        lanes: int,
        returns: bool = False,
    ) -> None:
        types = [POINTER if letter == "p" else I64 for letter in arguments]
        signature = ir.FunctionType(I64 if returns else ir.VoidType(), types)
        self.function = ir.Function(module, signature, name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.dtype, self.lanes = dtype, lanes
        self.element = ELEMENTS[dtype]
        self.itemsize = ITEMSIZE[dtype]
        self.vector_type = ir.VectorType(self.element, lanes)
        self.mask_type = ir.VectorType(I1, lanes)

    @property
    def arguments(self) -> tuple[ir.Value, ...]:
        """The values that the function is called with."""
        return self.function.args

    # -- constants and conversions --

    def scalar(self, value: float) -> ir.Constant:
        """A number of the kernel's dtype."""
        return ir.Constant(self.element, float(value))

    def constant(self, value: float) -> ir.Constant:
        """A number of the kernel's dtype in every lane."""
        return ir.Constant(self.vector_type, [float(value)] * self.lanes)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """The scalar (of any type) in every lane."""
        vector = ir.VectorType(scalar.type, self.lanes)
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, I32(0))
        return self.builder.shuffle_vector(single, undefined, zeros)

    # -- addresses, loads, stores --

    def at(
        self, pointer: ir.Value, *offsets: ir.Value | int, element: ir.Type | None = None
    ) -> ir.Value:
        """The address of the element that lies the sum of ``offsets`` behind ``pointer``."""
        for offset in offsets:
            if isinstance(offset, int):
                offset = integer(offset)
            pointer = self.builder.gep(pointer, [offset], source_etype=element or self.element)
        return pointer

    def is_given(self, pointer: ir.Value) -> ir.Value:
        """Whether a pointer is not null."""
        return self.builder.icmp_unsigned("!=", self.builder.ptrtoint(pointer, I64), integer(0))

    def load(self, pointer: ir.Value, element: ir.Type | None = None) -> ir.Value:
        """The number at an address, of the kernel's dtype by default."""
        return self.builder.load(pointer, typ=element or self.element)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """A number to an address."""
        self.builder.store(value, pointer)

    def load_vector(
        self,
        pointer: ir.Value,
        mask: ir.Value | None = None,
        element: ir.Type | None = None,
    ) -> ir.Value:
        """A vector from any address; lanes outside ``mask`` are zero and not read."""
        vector = ir.VectorType(element, self.lanes) if element else self.vector_type
        size = self.itemsize if element is None else _size(element)
        if mask is None:
            return self.builder.load(pointer, align=size, typ=vector)
        zero = ir.Constant(vector, None)
        name = f"llvm.masked.load.{_suffix(vector)}.p0"
        return self.call(name, vector, pointer, I32(size), mask, zero)

    def store_vector(
        self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None
    ) -> None:
        """A vector to any address; lanes outside ``mask`` are not touched."""
        size = _size(value.type.element)
        if mask is None:
            self.builder.store(value, pointer, align=size)
            return
        name = f"llvm.masked.store.{_suffix(value.type)}.p0"
        self.call(name, ir.VoidType(), value, pointer, I32(size), mask)

    def call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Call an LLVM intrinsic, declared on first use."""
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(result, [argument.type for argument in arguments]), name
        )
        return self.builder.call(function, arguments)

    def zero_outside(self, mask: ir.Value | None, vector: ir.Value) -> ir.Value:
        """The vector with zeros in the lanes outside ``mask``."""
        return vector if mask is None else self.builder.select(mask, vector, self.constant(0.0))

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once."""
        return self.call(f"llvm.fma.{_suffix(a.type)}", a.type, a, b, c)

    # -- control --

    @contextmanager
    def loop(self, count: ir.Value, step: int = 1, first: ir.Value | int = 0) -> Iterator[ir.Value]:
        """Run the body for ``first``, ``first + step``, ... below ``count``."""
        builder = self.builder
        if isinstance(first, int):
            first = integer(first)
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(first, before)
        builder.cbranch(builder.icmp_signed("<", index, count), body, after)
        builder.position_at_end(body)
        yield index
        index.add_incoming(builder.add(index, integer(step)), builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def columns(self, count: ir.Value, body: Callable[[ir.Value, ir.Value | None], None]) -> None:
        """Emit ``body(column, mask)`` for whole vectors (mask None), then for a masked rest."""
        builder = self.builder
        whole = builder.and_(count, integer(-self.lanes))
        with self.loop(whole, self.lanes) as column:
            body(column, None)
        rest = builder.sub(count, whole)
        with builder.if_then(builder.icmp_signed("!=", rest, integer(0))):
            body(whole, self.first_lanes(rest))

    def column_groups(
        self,
        count: ir.Value,
        vectors: int,
        body: Callable[[list[tuple[ir.Value, ir.Value | None]]], None],
    ) -> None:
        """Emit ``body`` for groups of ``vectors`` neighbours, then for one vector after another.

        ``body`` is given (column, mask) of each vector of the group, as in `columns`.
        """
        step = vectors * self.lanes
        whole = self.builder.and_(count, integer(-step))
        with self.loop(whole, step) as column:
            places = [self.builder.add(column, integer(i * self.lanes)) for i in range(vectors)]
            body([(place, None) for place in places])
        rest = self.builder.sub(count, whole)
        self.columns(rest, lambda column, mask: body([(self.builder.add(whole, column), mask)]))

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """A mask of the first ``count`` lanes."""
        return self.builder.icmp_signed("<", self.lane_numbers(), self.splat(self.narrow(count)))

    def lane_numbers(self) -> ir.Constant:
        """0, 1, ... below the number of lanes, 32 bits wide."""
        return ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes)))

    def narrow(self, value: ir.Value) -> ir.Value:
        """The low 32 bits."""
        return self.builder.trunc(value, I32)

    def variable(self, value: ir.Value) -> ir.Value:
        """A slot on the stack that the optimiser turns into a register."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(value.type)
        self.builder.store(value, slot)
        return slot

    def array(self, element: ir.Type, count: int) -> ir.Value:
        """Room on the stack for so many values, nothing in it; aligned to whole vectors."""
        with self.builder.goto_entry_block():
            room = self.builder.alloca(element, size=count)
        room.align = self.lanes * self.itemsize
        return room

    # -- across lanes --

    def sum_lanes(self, vector: ir.Value) -> ir.Value:
        """The sum of all lanes, halves added to halves: one order, whatever the surroundings."""
        return self._fold(vector, lambda a, b: self.builder.fadd(a, b))

    def max_lanes(self, vector: ir.Value) -> ir.Value:
        """The largest lane; NaN where any lane is NaN."""
        return self._fold(vector, self.maximum)

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The larger of the two; NaN where either is NaN."""
        keep = self.builder.fcmp_unordered(">", a, b)
        b_is_nan = self.builder.fcmp_unordered("uno", b, b)
        a_wins = self.builder.and_(keep, self.builder.not_(b_is_nan))
        return self.builder.select(a_wins, a, b)

    def _fold(self, vector: ir.Value, combine: Callable) -> ir.Value:
        lanes = vector.type.count
        while lanes > 1:
            lanes //= 2
            low, high = (
                self.builder.shuffle_vector(
                    vector,
                    ir.Constant(vector.type, ir.Undefined),
                    ir.Constant(ir.VectorType(I32, lanes), list(range(begin, begin + lanes))),
                )
                for begin in (0, lanes)
            )
            vector = combine(low, high)
        return self.builder.extract_element(vector, I32(0))

    def turned_over(self, square: list[ir.Value]) -> list[ir.Value]:
        """A square of vectors transposed: at each stage, blocks of half the size change places."""
        lanes, size = self.lanes, self.lanes // 2
        while size:
            orders = [
                [i if i & size == 0 else lanes + i - size for i in range(lanes)],
                [i + size if i & size == 0 else lanes + i for i in range(lanes)],
            ]
            masks = [ir.Constant(ir.VectorType(I32, lanes), order) for order in orders]
            turned = list(square)
            for i in range(lanes):
                if i & size == 0:
                    for place, mask in ((i, masks[0]), (i + size, masks[1])):
                        turned[place] = self.builder.shuffle_vector(
                            square[i], square[i + size], mask
                        )
            square, size = turned, size // 2
        return square

    def finish(self, result: ir.Value | None = None) -> None:
        """End the function."""
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result)


def _size(element: ir.Type) -> int:
    if isinstance(element, ir.IntType):
        return max(1, element.width // 8)
    return {ir.HalfType: 2, ir.FloatType: 4, ir.DoubleType: 8}[type(element)]


def _suffix(vector: ir.Type) -> str:
    """The type as LLVM spells it in the names of intrinsics."""
    if isinstance(vector, ir.VectorType):
        return f"v{vector.count}{_suffix(vector.element)}"
    if isinstance(vector, ir.IntType):
        return f"i{vector.width}"
    return {ir.HalfType: "f16", ir.FloatType: "f32", ir.DoubleType: "f64"}[type(vector)]
