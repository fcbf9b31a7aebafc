"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import fastnn
import fastnn.kernels


def _modules() -> list[str]:
    names = ["fastnn"]
    for package in (fastnn, fastnn.kernels):
        # Not __path__ as a whole: in a checkout that includes tests/ and bench/.
        walk = pkgutil.walk_packages(package.__path__[:1], package.__name__ + ".")
        names += [module.name for module in walk if not module.name.endswith("__main__")]
    return sorted(set(names) | {"fastnn.kernels"})


@pytest.mark.parametrize("name", _modules())
def test_examples(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
