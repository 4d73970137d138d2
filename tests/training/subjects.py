"""Fitted models for the tests of figures and pages: real fits, of few epochs, made once."""

import dataclasses
import functools

import numpy as np

from training import report
from training.dataset import Dataset, Split, built_in, published_split, seeded_split
from training.figures import Subject
from training.options import default_options

EPOCHS = 60


@functools.cache
def published() -> tuple[Subject, Subject]:
    """Both models on the built-in readings, scaled by 0.1."""
    return fitted(built_in(), published_split())


@functools.cache
def crowd() -> tuple[Subject, Subject]:
    """Both models on 130 noisy readings of -20 … 250 °F, standardised: more than are drawn one by one or left out."""
    random = np.random.default_rng(7)
    fahrenheit = random.uniform(-20, 250, 130)
    celsius = (fahrenheit - 32) * 5 / 9 + random.normal(0, 1, 130)
    return fitted(Dataset(fahrenheit[:, None], celsius, ("fahrenheit",), "crowd.csv"), seeded_split(130, 0))


def fitted(dataset: Dataset, split: Split) -> tuple[Subject, Subject]:
    """The report's two subjects on some data, after a few epochs."""
    simple, flexible = (
        report.judge(
            name,
            dataset,
            split,
            dataclasses.replace(default_options(architecture.kind, built_in=dataset.is_built_in), epochs=EPOCHS),
            0.8,
        )
        for name, architecture in report.ARCHITECTURES.items()
    )
    return simple, flexible
