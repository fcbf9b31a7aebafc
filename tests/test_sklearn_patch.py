"""patch(), unpatch() and the command: scikit-learn's names, pickles of both kinds, scripts."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import sklearn.neural_network
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import all_estimators

import fastnn.sklearn
from fastnn.sklearn.__main__ import main

ORIGINAL = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}
FAST = {name: getattr(fastnn.sklearn, name) for name in ORIGINAL}
RNG_ESTIMATOR = {"hidden_layer_sizes": (3,), "max_iter": 2, "random_state": 0}
X, Y = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.5]], [0, 1, 1, 0]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
both = pytest.mark.parametrize("name", ORIGINAL)


@pytest.fixture(autouse=True)
def unpatched_afterwards() -> Iterator[None]:
    yield
    fastnn.sklearn.unpatch()
    assert {name: globals()[name] for name in ORIGINAL} == ORIGINAL


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Somebody's module, loaded."""
    return loaded("somebodys_module", monkeypatch)


def loaded(name: str, monkeypatch: pytest.MonkeyPatch, code: str = "") -> ModuleType:
    made = ModuleType(name)
    exec(code, vars(made))
    monkeypatch.setitem(sys.modules, name, made)
    return made


# Names


@both
def test_patch_replaces_what_is_looked_up(name: str, module: ModuleType) -> None:
    module.alias = ORIGINAL[name]
    fastnn.sklearn.patch()
    assert getattr(sklearn.neural_network, name) is FAST[name]
    assert module.alias is FAST[name]
    assert globals()[name] is FAST[name]  # this very module
    assert issubclass(FAST[name], ORIGINAL[name])


@both
def test_scikit_learn_lists_one_class(name: str) -> None:
    fastnn.sklearn.patch()
    assert [found for title, found in all_estimators() if title == name] == [FAST[name]]


def test_the_defining_module_keeps_its_classes() -> None:
    fastnn.sklearn.patch()
    home = sys.modules[ORIGINAL["MLPClassifier"].__module__]
    assert {name: getattr(home, name) for name in ORIGINAL} == ORIGINAL


def test_unpatch_restores_modules_imported_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    fastnn.sklearn.patch()
    code = "from sklearn.neural_network import MLPClassifier as Net"
    meanwhile = loaded("imported_meanwhile", monkeypatch, code)
    assert meanwhile.Net is FAST["MLPClassifier"]
    fastnn.sklearn.unpatch()
    assert meanwhile.Net is ORIGINAL["MLPClassifier"]
    assert sklearn.neural_network.MLPClassifier is ORIGINAL["MLPClassifier"]


def test_names_that_held_ours_keep_them(module: ModuleType) -> None:
    module.Ours, module.Theirs = FAST["MLPClassifier"], ORIGINAL["MLPClassifier"]
    fastnn.sklearn.patch()
    assert module.Theirs is module.Ours
    fastnn.sklearn.unpatch()
    assert module.Ours is FAST["MLPClassifier"]
    assert module.Theirs is ORIGINAL["MLPClassifier"]
    assert {name: getattr(fastnn.sklearn, name) for name in ORIGINAL} == FAST


def test_patch_twice_is_once(module: ModuleType) -> None:
    fastnn.sklearn.patch()
    module.got_hold_of_it = ORIGINAL["MLPRegressor"]
    fastnn.sklearn.patch()
    assert module.got_hold_of_it is FAST["MLPRegressor"]
    fastnn.sklearn.unpatch()
    assert module.got_hold_of_it is ORIGINAL["MLPRegressor"]
    assert sklearn.neural_network.MLPRegressor is ORIGINAL["MLPRegressor"]


def test_unpatch_alone_does_nothing(module: ModuleType) -> None:
    module.Ours = FAST["MLPClassifier"]
    fastnn.sklearn.unpatch()
    assert module.Ours is FAST["MLPClassifier"]


def test_odd_entries_among_the_modules(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> object:
            raise AssertionError("a module was loaded that waits until it is used")

    class Unequal:
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            raise AssertionError("a global was compared")

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))
    monkeypatch.setitem(sys.modules, "no_module", object())
    monkeypatch.setitem(sys.modules, "nothing", None)
    module.odd, module.Net = Unequal(), ORIGINAL["MLPClassifier"]
    fastnn.sklearn.patch()
    assert module.Net is FAST["MLPClassifier"]
    fastnn.sklearn.unpatch()
    assert module.Net is ORIGINAL["MLPClassifier"]


# Pickles


@both
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [ORIGINAL, FAST], ids=["original", "fast"])
def test_pickles_come_back_as_what_they_were(name: str, kind: dict, when: str) -> None:
    estimator = kind[name](**RNG_ESTIMATOR).fit(X, Y)
    if when == "before":
        data = pickle.dumps(estimator)
        fastnn.sklearn.patch()
    else:
        fastnn.sklearn.patch()
        data = pickle.dumps(estimator)
    patched = pickle.loads(data)
    fastnn.sklearn.unpatch()
    for copy in (patched, pickle.loads(data)):
        assert type(copy) is kind[name]
        assert (copy.predict(X) == estimator.predict(X)).all()


# The command


def command(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": path}, **options,
    )  # fmt: skip


REPORT = """
import os, pickle, sys, helper_beside
from sklearn.neural_network import MLPClassifier
class Own: pass
pickle.loads(pickle.dumps(Own()))
print(__name__, sys.argv[1:], os.path.basename(sys.argv[0]), MLPClassifier.__module__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "helper_beside.py").write_text("")
    (tmp_path / "report.py").write_text(REPORT)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("how", "where", "argv0"),
    [(["../report.py"], "elsewhere", "report.py"), (["-m", "report"], ".", "report.py"),
     (["-c", REPORT], ".", "-c")],
)  # fmt: skip
def test_runs_as_main_with_its_arguments(
    folder: Path, how: list[str], where: str, argv0: str
) -> None:
    done = command("-m", "fastnn.sklearn", *how, "a", "-m", "--help", cwd=folder / where)
    assert done.stderr == ""
    class_module = FAST["MLPClassifier"].__module__
    assert done.stdout.strip() == f"__main__ ['a', '-m', '--help'] {argv0} {class_module}"
    assert done.returncode == 0


FAILURES = {
    "exception": "def deeper():\n    raise ValueError('no good')\ndeeper()",
    "chained": "try:\n    1 / 0\nexcept ArithmeticError as error:\n    raise OSError from error",
    "syntax": "print('unreached')\nif:",
    "status": "import sys\nsys.exit(3)",
    "message": "import sys\nsys.exit('enough')",
    "hook": "import sys\nsys.excepthook = lambda *_: print('mine')\n1 / 0",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_fails_as_python_does(tmp_path: Path, failure: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAILURES[failure])
    with ThreadPoolExecutor(2) as pool:
        alone, under = pool.map(
            lambda how: command(*how, str(script), cwd=tmp_path), ([], ["-m", "fastnn.sklearn"])
        )
    assert (under.returncode, under.stdout) == (alone.returncode, alone.stdout)
    assert under.stderr == alone.stderr
    assert under.returncode != 0


@pytest.mark.parametrize("arguments", [[], ["-m"], ["-c"], ["--fast"], ["no_such_script.py"]])
def test_refuses_what_it_cannot_run(
    arguments: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fastnn.sklearn", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "usage: python -m fastnn.sklearn" in said.err
    assert said.out == ""
    assert (arguments or ["nothing"])[0] in said.err.splitlines()[-1]
    assert sklearn.neural_network.MLPClassifier is ORIGINAL["MLPClassifier"]


def test_help(tmp_path: Path) -> None:
    done = command("-m", "fastnn.sklearn", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m fastnn.sklearn")
