"""What the compiled code says about itself: no double in float32 kernels, no library calls."""

from __future__ import annotations

import functools
import re

import llvmlite.binding as llvm
import pytest

from fastnn.kernels import formulas
from fastnn.kernels.contract import Activation, Loss
from fastnn.kernels.numba_backend import columns, elementwise, library, objects, products, rows

DOUBLE = re.compile(r"\bdouble\b|\bf64\b")


@functools.cache
def kernels(dtype: str):
    """(name, text, names of what it calls from outside) of every kernel of ``dtype``."""
    return [
        (name, str(module), [each.name for each in module.functions if each.is_declaration])
        for name, module in modules(dtype)
    ]


def modules(dtype: str):
    """(name, module) of every kernel that computes in ``dtype``."""
    yield "products", products.module(dtype, products.ROWS, products.COLUMNS, products.EDGE)
    yield "multiply", elementwise.multiply_module(dtype)
    yield "gather", elementwise.gather_module(dtype, dtype)
    yield "gather uint8", elementwise.gather_module(dtype, "uint8")
    for name, make in library._PLAIN.items():
        yield name, make(dtype)
    for with_products in (False, True):
        yield "column_sums", columns.column_sums_module(dtype, products=with_products)
    for name, formula in formulas.ACTIVATIONS.items():
        settings = dict.fromkeys(formula.settings, 0.5)
        for dropout in (False, True):
            use = Activation(formula, tuple(settings.items()))
            yield (
                f"{name} slope",
                elementwise.map_module(
                    dtype, use.formula, use.keywords, slope=True, dropout=dropout
                ),
            )
    for name, formula in formulas.UPDATES.items():
        yield name, elementwise.update_module(dtype, formula, scaled=True, clipped=True)
        yield f"{name} outer", elementwise.outer_update_module(dtype, formula, 2, clipped=True)
        yield f"{name} sweep", elementwise.sweep_module(dtype, formula, clipped=True)
    for labels in (False, True):
        how = {"gradient": True, "limited": labels}
        yield "cross_entropy", rows.cross_entropy_module(dtype, labels=labels, **how)
    reported = (formulas.BINARY_LOG_LOSS, formulas.POISSON_DEVIANCE)
    for name, formula in (formulas.LOSSES | {it.name: it for it in reported}).items():
        use = Loss(formula, tuple((setting, 1.0) for setting in formula.settings))
        how = {"gradient": True, "limited": name == "binary_cross_entropy"}
        yield name, rows.elementwise_loss_module(dtype, formula, use.keywords, **how)


def test_no_double_in_float32_kernels():
    assert [name for name, text, _ in kernels("float32") if DOUBLE.search(text)] == []


def test_the_search_for_doubles_finds_one():
    assert DOUBLE.search(str(elementwise.multiply_module("float64")))
    assert DOUBLE.search(str(elementwise.gather_module("float32", "float64")))


def test_like_code_is_kept_in_memory_once():
    first, second = (elementwise.multiply_module("float32") for _ in range(2))
    assert first is not second
    assert objects.build(first) == objects.build(second)  # addresses


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_call_nothing_but_intrinsics(dtype):
    for name, _, declared in kernels(dtype):
        assert all(function.startswith("llvm.") for function in declared), (name, declared)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_fast_math_flags(dtype):
    flags = re.compile(r"\bf(add|sub|mul|div|cmp)\s+(fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)")
    assert [name for name, text, _ in kernels(dtype) if flags.search(text)] == []


@pytest.mark.parametrize("kind", [products.ROWS, products.COLUMNS, products.EDGE])
def test_products_walk_row_by_row(kind):
    machine = objects._target_machine()
    optimised = llvm.parse_assembly(str(products.module("float32", kind)))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(optimised, passes)
    for tile in products.tiles(kind):
        code = str(optimised.get_function(products.name(kind, tile)))
        assert code.count("@llvm.fma") == tile.rows * tile.vectors, tile
