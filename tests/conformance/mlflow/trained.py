"""Small models that are logged as users log theirs, without what takes seconds and tests nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import numpy as np
from mlflow.models.model import ModelInfo
from sklearn.linear_model import LinearRegression

REQUIREMENTS = ["scikit-learn"]
"""Given, because MLflow otherwise starts a Python of its own to find them: 3 s a model."""
INPUTS = np.array([[1.0], [2.0], [5.0]])


def fit(slope: float = 2.0) -> LinearRegression:
    """Return a model that multiplies by `slope`."""
    inputs = np.array([[1.0], [2.0], [3.0]])
    return LinearRegression().fit(inputs, inputs[:, 0] * slope)


def log_model(name: str | None = None, slope: float = 2.0, **more: Any) -> ModelInfo:
    """Log a model in the active run, or one of its own, and register it as `name` if one is given."""
    return mlflow.sklearn.log_model(
        fit(slope), name="model", registered_model_name=name, pip_requirements=REQUIREMENTS, **more
    )


def predict(uri: str) -> list[float]:
    """Load a model from an address and return what it says about INPUTS, rounded."""
    return [round(float(value), 6) for value in mlflow.pyfunc.load_model(uri).predict(INPUTS)]


def times(slope: float) -> list[float]:
    """Return what `predict` must return for a model of this slope."""
    return [round(float(value) * slope, 6) for value in INPUTS[:, 0]]


def write_files(folder: Path) -> Path:
    """Write a small tree of files and return its root: nested, empty, with blanks and other letters in the names."""
    for path, data in (
        ("a.txt", b"alpha"),
        ("nested/deeper/b.bin", bytes(range(256)) * 64),
        ("nested/empty", b""),
        ("with blank/é ü.txt", "é".encode()),
        ("with blank/100% 1.csv", b"a,b\n1,2\n"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
