"""scikit-learn's own tests of its multi-layer perceptrons, and its checks of any estimator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastnn.sklearn import MLPClassifier, MLPRegressor

OWN_TESTS = "sklearn.neural_network.tests.test_mlp"
LEAST_TESTS, LEAST_TRAININGS = 50, 100
"""As many as the oldest scikit-learn that fastnn takes has, and as its tests train."""


def test_its_own_tests_pass_under_the_patch(tmp_path: Path) -> None:
    """Not one is left out, and fastnn did the work."""
    done = run_own_tests(tmp_path)
    report = done.stdout
    assert done.returncode == 0, report + done.stderr
    for skip in re.findall(r"^SKIPPED .*$", report, re.MULTILINE):
        assert skip.endswith("No module named 'pandas'"), skip
    passed, *others = re.findall(r"(\d+) (\w+)", report.splitlines()[-1])
    assert int(passed[0]) >= LEAST_TESTS
    assert {kind for _, kind in others} <= {"skipped", "warnings"}, report
    (line,) = re.findall(r"^trained by: (.*)$", report, re.MULTILINE)
    trained = {engine: int(count) for engine, count in re.findall(r"(\S+) (\d+)", line)}
    assert sum(trained.values()) >= LEAST_TRAININGS
    assert trained["fastnn"] >= 0.9 * sum(trained.values()), line


def run_own_tests(folder: Path) -> subprocess.CompletedProcess:
    """Run them in a process of their own, with pytest's defaults for settings."""
    settings = folder / "pytest.ini"
    settings.write_text("[pytest]\naddopts =\n", encoding="utf-8")
    path = [str(Path(__file__).parent), *(entry or os.getcwd() for entry in sys.path)]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "sklearn_patched",
         "-p", "no:cacheprovider", "-c", str(settings), "--rootdir", str(folder),
         "--pyargs", OWN_TESTS],
        cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


checks = parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])


@pytest.mark.filterwarnings("ignore")
# a list: older versions give pytest a generator, which it no longer takes
@pytest.mark.parametrize(checks.args[0], list(checks.args[1]), **checks.kwargs)
def test_estimator_checks(estimator: Any, check: Any) -> None:
    """All of them: none is expected to fail."""
    check(estimator)
