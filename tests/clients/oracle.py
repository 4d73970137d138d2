"""What every client checks against: the exact law. Standard library only, since each client has its own environment."""

READINGS_FAHRENHEIT = (-40.0, 21.8, 32.0, 50.0, 81.9, 98.6, 212.0)
DOMAIN_FAHRENHEIT = (21.8, 81.9)
HALF_WIDTH_CELSIUS = 2.5
TOLERANCE_CELSIUS = 1e-4


def celsius(fahrenheit: float) -> float:
    """The exact law."""
    return (fahrenheit - 32.0) * 5.0 / 9.0


def check(given: object, expected: object, what: str) -> None:
    """Raise unless they are equal."""
    if given != expected:
        raise AssertionError(f"{what}: {given!r}, expected {expected!r}")


def check_celsius(given: "list[float]", readings: "tuple[float, ...]", what: str, offset: float = 0.0) -> None:
    """Raise unless these are the readings in °C."""
    check(len(given), len(readings), f"{what}: how many")
    for answer, reading in zip(given, readings, strict=True):
        if not abs(answer - celsius(reading) - offset) <= TOLERANCE_CELSIUS:
            raise AssertionError(f"{what}: {reading} °F gave {answer} °C, expected {celsius(reading) + offset}")


def inside(reading: float) -> bool:
    """Whether a reading lies in the range that the converter of the test was trained on."""
    return DOMAIN_FAHRENHEIT[0] <= reading <= DOMAIN_FAHRENHEIT[1]
