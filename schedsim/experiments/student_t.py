"""Student's t distribution in plain Python: importing scipy costs seconds, and it is no dependency.

The tail is a regularised incomplete beta function, by its continued fraction (NIST DLMF 8.17.22).
"""

import math

_TINY = 1e-300
_PRECISION = 1e-15
_MOST_TERMS = 10_000


def two_sided_p(t: float, freedom: float) -> float:
    """The chance of a value at least as far from 0 as `t`, with `freedom` degrees of freedom."""
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def critical_value(level: float, freedom: float) -> float:
    """The t whose `two_sided_p` is `level`, 0 < level < 1; by halving, to the last bit."""
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > level:
        high *= 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        low, high = (middle, high) if two_sided_p(middle, freedom) > level else (low, middle)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast below this
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta)
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction, by Lentz's method."""
    c = 1.0
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + numerator * d)
            c = _away_from_zero(1 + numerator / c)
            value *= c * d
        if abs(c * d - 1) < _PRECISION:
            return value
    raise AssertionError(f"no convergence at a={a}, b={b}, x={x}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
