"""Every backend has exactly the operations of the contract, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

from fastnn.backend import get_backend
from fastnn.kernels import contract
from fastnn.kernels.cupy_backend.backend import CupyBackend
from fastnn.kernels.cupy_backend.run import CupyRun
from fastnn.kernels.numba_backend.backend import NumbaBackend
from fastnn.kernels.numba_backend.run import NumbaRun
from fastnn.kernels.numpy_backend import NumpyBackend
from fastnn.kernels.numpy_backend.run import NumpyRun

BACKENDS = {"numpy": NumpyBackend, "numba": NumbaBackend, "cupy": CupyBackend}
RUNS = (NumpyRun, NumbaRun, CupyRun)

every_backend = pytest.mark.parametrize("name", BACKENDS)


def _parameters(function) -> list[tuple]:
    """Names, kinds and defaults of what a caller may pass."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters if p.name != "self"]


def test_the_contract_names_operations():
    assert {"matmul", "linear", "loss", "update", "permutation", "start"} <= {*contract.OPERATIONS}
    assert "name" not in contract.OPERATIONS


@every_backend
def test_public_names(name):
    backend = get_backend(name)
    public = {attribute for attribute in dir(backend) if not attribute.startswith("_")}
    assert public == {*contract.OPERATIONS, *contract.Backend.__annotations__}
    assert backend.name == name and backend.chunk_rows >= 1
    assert backend.module.empty(3).shape == (3,)


@every_backend
@pytest.mark.parametrize("operation", contract.OPERATIONS)
def test_signature(name, operation):
    declared = getattr(contract.Backend, operation)
    assert _parameters(getattr(get_backend(name), operation)) == _parameters(declared)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_cpu_refuses_a_plan_whose_products_it_would_not_round(name, precision):
    plan = contract.Plan(
        "float32", 1, 1, 1, 1, (), (), (), (), (), "x", precision=precision
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"precision is '{precision}'.*{name} backend runs this"):
        BACKENDS[name]().start(plan, contract.Binding(None, {}))
    assert precision in str(plan)


def test_a_precision_for_float32_is_refused_for_float64():
    contract.check_precision("float32", "float64", "numba")
    contract.check_precision("bf16", "float32", "cupy")
    with pytest.raises(ValueError, match="'bf16', which is for float32; the dtype is float64"):
        contract.check_precision("bf16", "float64", "cupy")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("method", [name for name in vars(contract.Run) if name[0] != "_"])
def test_run(run, method):
    assert _parameters(getattr(run, method)) == _parameters(getattr(contract.Run, method))


@pytest.mark.parametrize("run", RUNS)
@every_backend
def test_methods_have_the_docstrings_of_the_contract(name, run):
    for operation in contract.OPERATIONS:
        documented = getattr(BACKENDS[name], operation)
        assert documented.__doc__ == getattr(contract.Backend, operation).__doc__
    assert run.begin.__doc__ == contract.Run.begin.__doc__
    assert run.__doc__ != contract.Run.__doc__
