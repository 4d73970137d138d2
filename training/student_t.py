"""Student's t distribution, for whole degrees of freedom. All functions are pure."""

import math


def student_t_tail(t: float, degrees: int) -> float:
    """Probability that Student's t exceeds `t`: the finite series for whole degrees of freedom.

    Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4.
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    angle = math.atan2(t, math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    term = 1.0 if degrees % 2 == 0 else math.cos(angle)
    total = term if degrees > 1 else 0.0
    for place in range(2 if degrees % 2 == 0 else 3, degrees, 2):
        term *= square * (place - 1) / place
        total += term
    inside = sine * total if degrees % 2 == 0 else 2 / math.pi * (angle + sine * total)
    return (1.0 - inside) / 2.0


def student_t_quantile(tail: float, degrees: int) -> float:
    """The t that Student's exceeds with probability `tail`, by bisection to about 1e-9. `tail` is at most 1/2."""
    low, high = 0.0, 1.0
    while student_t_tail(high, degrees) > tail:
        high *= 2
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_tail(middle, degrees) > tail else (low, middle)
    return high
