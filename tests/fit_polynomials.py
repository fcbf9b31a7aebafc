"""Prints the polynomials of kernels/tracing/vector.py.

Run with mpmath installed: python fit_polynomials.py
Each is the minimax fit, found by Remez's exchange, of the relative error of the function that it
serves; beside it the largest error of the fit in bits.
"""

from __future__ import annotations

from collections.abc import Callable

from mpmath import cos, erf, erfc, expm1, fabs, log, lu_solve, matrix, mp, mpf, pi, sqrt

mp.dps = 60
Function = Callable[[mpf], mpf]
NEAR_ZERO = mpf(10) ** -15  # where a quotient is replaced by its limit


def minimax(
    function: Function, weight: Function, low: float, high: float, degree: int, power: int
) -> tuple[list[mpf], mpf]:
    """Minimise the largest |weight(x) (function(x) - p(x**power))|; return p and that error."""
    middle, radius = (mpf(low) + high) / 2, (mpf(high) - low) / 2
    count = degree + 2
    grid = [middle - radius * cos(pi * i / (40 * count)) for i in range(40 * count + 1)]
    points = [middle - radius * cos(pi * (i + 0.5) / count) for i in range(count)]
    for _ in range(12):
        rows = [
            [(x**power) ** k for k in range(degree + 1)] + [(-1) ** i / weight(x)]
            for i, x in enumerate(points)
        ]
        solution = lu_solve(matrix(rows), matrix([function(x) for x in points]))
        fit = list(solution[: degree + 1])
        errors = [
            weight(x) * (function(x) - sum(c * x ** (power * k) for k, c in enumerate(fit)))
            for x in grid
        ]
        points = [grid[i] for i in _alternating_extrema(errors, count)]
    return fit, max(map(fabs, errors))


def _alternating_extrema(errors: list[mpf], count: int) -> list[int]:
    """Return where the largest errors of alternating sign stand."""
    extrema = [0]
    for i, error in enumerate(errors):
        if (error > 0) != (errors[extrema[-1]] > 0):
            extrema.append(i)
        elif fabs(error) > fabs(errors[extrema[-1]]):
            extrema[-1] = i
    while len(extrema) > count:
        extrema.pop(0 if fabs(errors[extrema[0]]) < fabs(errors[extrema[-1]]) else -1)
    return extrema


def exp_tail(r: mpf) -> mpf:
    """q in exp(r) = 1 + r + r² q(r)."""
    return (expm1(r) - r) / r**2 if fabs(r) > NEAR_ZERO else mpf(1) / 2


def log_tail(s: mpf) -> mpf:
    """w in 2 atanh(s) = 2 s + s³ w(s²)."""
    return (log((1 + s) / (1 - s)) - 2 * s) / s**3 if s > NEAR_ZERO else mpf(2) / 3


def erf_centre(x: mpf) -> mpf:
    """p in erf(x) = x + x p(x²)."""
    return erf(x) / x - 1 if x > NEAR_ZERO else 2 / sqrt(pi) - 1


def erfc_tail(x: mpf) -> mpf:
    """g in erfc(x) = exp(-g(x))."""
    return -log(erfc(x))


def show(name: str, *fit: object) -> None:
    """Print one fit as Python."""
    coefficients, error = minimax(*fit)
    print(f"{name}: {float(log(error) / log(2)):.1f} bits")
    print(f"    {tuple(float(c) for c in coefficients)}")


if __name__ == "__main__":
    # a little more than the range, since the reduction of the argument is rounded
    half_ln2, largest_s = mpf("0.3473"), mpf("0.1719")
    by_expm1 = lambda r: fabs(r) + mpf("1e-4")  # noqa: E731
    by_log = lambda s: s**2 / 2 + mpf("1e-5")  # noqa: E731
    by_erf = lambda x: erfc(x) / erf(x)  # noqa: E731
    for dtype, degrees, end in (("float32", (5, 2, 6, 6), 4), ("float64", (10, 6, 11, 17), 6)):
        show(f"{dtype} exp_tail", exp_tail, by_expm1, -half_ln2, half_ln2, degrees[0], 1)
        show(f"{dtype} log_tail", log_tail, by_log, 0, largest_s, degrees[1], 2)
        show(f"{dtype} erf_centre", erf_centre, lambda x: mpf(1), 0, 1, degrees[2], 2)
        show(f"{dtype} erfc_tail", erfc_tail, by_erf, mpf("0.98"), end, degrees[3], 1)
