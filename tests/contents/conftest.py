"""Real files of each format, made by the packages that write them."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
import skops.io
from sklearn.linear_model import LogisticRegression

from tests.contents.files import MLMODEL, make_onnx, zip_of


@pytest.fixture(scope="session")
def classifier() -> LogisticRegression:
    return LogisticRegression().fit(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1]))


@pytest.fixture(scope="session")
def skops_bytes(classifier: LogisticRegression) -> bytes:
    return skops.io.dumps(classifier)


@pytest.fixture(scope="session")
def safetensors_bytes() -> bytes:
    tensors: dict[str, np.ndarray] = {
        "weight": np.zeros((3, 4), dtype=np.float32),
        "bias": np.zeros(4, dtype=np.float16),
    }
    return safetensors.numpy.save(tensors, metadata={"format": "np"})


@pytest.fixture(scope="session")
def onnx_bytes() -> bytes:
    return make_onnx().SerializeToString()


@pytest.fixture(scope="session")
def every_format(
    skops_bytes: bytes, safetensors_bytes: bytes, onnx_bytes: bytes, classifier: LogisticRegression
) -> dict[str, bytes]:
    """One real file of each format that is read in full."""
    arrays = io.BytesIO()
    np.savez(arrays, a=np.zeros(3), b=np.zeros(5))
    return {
        "MLmodel": MLMODEL.encode(),
        "requirements.txt": b"numpy==2.4.6\nscikit-learn\n",
        "conda.yaml": b"dependencies:\n- python=3.11.7\n- pip:\n  - mlflow==3.17.2\n  - numpy\n",
        "python_env.yaml": b"python: 3.11.7\ndependencies:\n- -r requirements.txt\n",
        "model.skops": skops_bytes,
        "model.safetensors": safetensors_bytes,
        "model.onnx": onnx_bytes,
        "arrays.npz": arrays.getvalue(),
        "model.pkl": pickle.dumps(classifier),
        "model.pt": zip_of({"archive/data.pkl": pickle.dumps([1]), "archive/data/0": b"\0" * 64}),
        "model.gguf": struct.pack("<4sIQQ", b"GGUF", 3, 291, 24),
    }
