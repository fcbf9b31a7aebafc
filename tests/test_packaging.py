"""What an installation promises: light import, public names, one version, two commands."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from processes import run_python

import fastnn
from fastnn.optional import require

CHECKOUT = Path(__file__).parent.parent
in_checkout = pytest.mark.skipif(
    not (CHECKOUT / "README.md").exists(), reason="reads files of the checkout"
)


# Importing


def test_import_loads_neither_numba_nor_an_optional_package() -> None:
    heavy = ("numba", "llvmlite", "numpy", "cupy", "sklearn", "matplotlib", "tqdm")
    code = f"import sys, fastnn; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(code) == "[]"


@pytest.mark.parametrize("module", ["layers", "losses", "optim", "training", *fastnn._MODULES])
def test_building_a_model_loads_no_numba(module: str) -> None:
    code = f"import sys, fastnn.{module}; print('numba' in sys.modules)"
    assert run_python(code) == "False"


def test_imports_and_trains_where_nothing_can_be_written(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    code = (
        "import fastnn\n"
        "X, y = fastnn.data.digits()\n"
        "model = fastnn.Sequential(fastnn.Linear(64, 10), seed=0)\n"
        "print(model.fit(X[:64], y[:64], epochs=1) is model.history)"
    )
    unwritable = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR", "LOCALAPPDATA"), str(nowhere))
    assert run_python(code, PYTHONDONTWRITEBYTECODE="1", **unwritable) == "True"


# Public names


@pytest.mark.parametrize("name", fastnn.__all__)
def test_public_name(name: str) -> None:
    value = getattr(fastnn, name)
    assert value is getattr(fastnn, name)
    assert name in dir(fastnn)
    assert value.__doc__


@pytest.mark.parametrize("name", sorted(fastnn._HOME))
def test_no_module_takes_the_place_of_a_public_name(name: str) -> None:
    """Importing a module puts it into its package, under its own name."""
    assert importlib.util.find_spec(f"fastnn.{name}") is None


def test_type_checkers_see_exactly_the_public_names() -> None:
    tree = ast.parse(Path(fastnn.__file__).read_text(encoding="utf-8"))
    declared = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                assert alias.asname == alias.name
                declared[alias.name] = node.module
    homes = {**dict.fromkeys(fastnn._MODULES), **fastnn._HOME}
    assert declared == homes


@in_checkout
def test_type_check_covers_every_public_name() -> None:
    checked = (CHECKOUT / ".ci" / "public_api.py").read_text(encoding="utf-8")
    assert set(fastnn.__all__) - set(re.findall(r"\w+", checked)) == set()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastnn' has no attribute 'Lniear'"):
        fastnn.Lniear  # noqa: B018


# Optional packages


def test_missing_package_names_its_extra() -> None:
    with pytest.raises(ImportError, match=r"pip install 'fastnn-kernels\[plot\]'") as caught:
        require("no_such_package.pyplot", extra="plot")
    assert caught.value.name == "no_such_package"


def test_package_that_fails_to_load_gives_its_own_reason(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_package.py").write_text("import its_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_missing_dependency"):
        require("broken_package", extra="plot")


@in_checkout
def test_every_extra_in_a_message_exists() -> None:
    extras = project()["optional-dependencies"]
    named = set()
    for source in (CHECKOUT / "fastnn").rglob("*.py"):
        code = re.sub(r">>> .*", "", source.read_text(encoding="utf-8"))
        named |= set(re.findall(r"extra=\"(\w+)\"", code))
    assert named <= set(extras)


# The distribution


def project() -> dict:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@in_checkout
def test_version_stands_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?\w+)?", fastnn.__version__)
    assert "version" not in project() and "version" in project()["dynamic"]
    changelog = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {fastnn.__version__}" in changelog
    elsewhere = [
        path.name
        for folder in ("fastnn", "kernels")
        for path in (CHECKOUT / folder).rglob("*.py")
        if f'"{fastnn.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert elsewhere == ["__init__.py"]


@in_checkout
def test_wheel_holds_every_package() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    found = []
    for name, folder in settings["tool"]["setuptools"]["package-dir"].items():
        for path in (CHECKOUT / folder).rglob("__init__.py"):
            inside = path.parent.relative_to(CHECKOUT / folder).parts
            found.append(".".join((name, *inside)))
    assert sorted(listed) == sorted(found)


@in_checkout
def test_wheel_holds_every_file_beside_the_code() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = settings["tool"]["setuptools"]["package-data"]
    listed, found = set(), set()
    for name, folder in settings["tool"]["setuptools"]["package-dir"].items():
        root = CHECKOUT / folder
        files = (path for path in root.rglob("*") if path.is_file())
        found |= {path for path in files if path.suffix not in (".py", ".pyc")}
        for package in (package for package in globs if f"{package}.".startswith(f"{name}.")):
            inside = root.joinpath(*package.removeprefix(name).split(".")[1:])
            listed |= {path for glob in globs[package] for path in inside.glob(glob)}
    assert found
    assert found - listed == set()


# The README


@in_checkout
def test_readme_opens_with_the_two_commands() -> None:
    fences = [
        subprocess.run(
            [sys.executable, str(CHECKOUT / ".ci" / "fence.py"), number],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for number in ("1", "2")
    ]
    assert all(fence[:2] == ["python3 -m venv .venv", ". .venv/bin/activate"] for fence in fences)
    assert fences[0][2:] == ["pip install .", "fastnn train"]
    assert fences[1][2:] == ["pip install -e '.[test]'", "python -m pytest"]
