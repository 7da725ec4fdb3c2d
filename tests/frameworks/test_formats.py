"""Models of real frameworks through the SDK: saved in the framework's own safe format, registered, loaded, and the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import touchmark
from tests.served import serve
from touchmark import errors

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[touchmark.Registry]:
    with serve(tmp_path_factory.mktemp("home"), "--no-log-requests") as served:
        opened = touchmark.connect(f"http://127.0.0.1:{served.port}")
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHMARK_CACHE", str(tmp_path / "cache"))


def data() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x.astype(np.float32), y


def send(registry: touchmark.Registry, model: object, name: str) -> tuple[str, Any]:
    """Log, register and load a model; return the format it was saved in, and what came back."""
    logged = registry.log_model(model, name, registered_model_name=name)
    return logged.format, registry.load(f"models:/{name}/1")


def test_xgboosts_estimator_comes_back_as_what_it_was(registry: touchmark.Registry) -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = data()
    model = xgboost.XGBClassifier(n_estimators=5).fit(x, y)
    saved_as, loaded = send(registry, model, "xgb-estimator")

    assert saved_as == "xgboost"
    assert type(loaded) is xgboost.XGBClassifier
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))


def test_xgboosts_booster_comes_back(registry: touchmark.Registry) -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = data()
    rows = xgboost.DMatrix(x, label=y)
    model = xgboost.train({"objective": "multi:softprob", "num_class": 3}, rows, num_boost_round=5)
    saved_as, loaded = send(registry, model, "xgb-booster")

    assert (saved_as, type(loaded)) == ("xgboost", xgboost.Booster)
    np.testing.assert_array_equal(loaded.predict(rows), model.predict(rows))


def test_lightgbms_models_come_back_as_a_booster(registry: touchmark.Registry) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    x, y = data()
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(x, y)
    saved_as, loaded = send(registry, model, "lgb")

    assert (saved_as, type(loaded)) == ("lightgbm", lightgbm.Booster)
    np.testing.assert_array_equal(loaded.predict(x), model.booster_.predict(x))
    assert send(registry, loaded, "lgb-booster")[0] == "lightgbm"


def test_an_onnx_model_comes_back_as_a_session(registry: touchmark.Registry) -> None:
    skl2onnx, runtime = pytest.importorskip("skl2onnx"), pytest.importorskip("onnxruntime")
    from sklearn.linear_model import LogisticRegression

    x, y = data()
    model = LogisticRegression(max_iter=500).fit(x, y)
    saved_as, loaded = send(registry, skl2onnx.to_onnx(model, x[:1]), "onnx")

    assert saved_as == "onnx"
    assert isinstance(loaded, runtime.InferenceSession)
    labels = loaded.run(None, {loaded.get_inputs()[0].name: x})[0]
    np.testing.assert_array_equal(labels, model.predict(x))


@pytest.mark.parametrize(("framework", "model"), [("xgboost", "XGBRegressor"), ("lightgbm", "LGBMRegressor")])
def test_a_model_that_is_not_fitted_is_refused(registry: touchmark.Registry, framework: str, model: str) -> None:
    unfitted = getattr(pytest.importorskip(framework), model)()
    with pytest.raises(errors.InvalidFieldError, match="cannot save it"):
        registry.log_model(unfitted, "unfitted")


@pytest.mark.parametrize(
    ("framework", "path"), [("xgboost", "model.ubj"), ("lightgbm", "model.lgb.txt"), ("onnxruntime", "model.onnx")]
)
@pytest.mark.parametrize("content", [b"", b"x", b"{" * 100_000, b"tree\nversion=v4\n", bytes(range(256)) * 40])
def test_a_file_that_is_no_model_is_refused(
    registry: touchmark.Registry, tmp_path: Path, framework: str, path: str, content: bytes
) -> None:
    pytest.importorskip(framework)
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / path).write_bytes(content)
    version = registry.register_model(str(folder), "bad")
    with pytest.raises(errors.InvalidFieldError, match=r"cannot (be )?read"):
        registry.load(f"models:/bad/{version.version}")


def test_a_description_names_no_class_but_the_frameworks_own(registry: touchmark.Registry, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = data()
    folder = tmp_path / "said"
    folder.mkdir()
    xgboost.XGBClassifier(n_estimators=2).fit(x, y).save_model(folder / "model.ubj")
    for said in ('{"class": "os.system"}', '{"class": "xgboost.DMatrix"}', '{"class": 7}', "[" * 100_000, "not json"):
        (folder / "touchmark.json").write_text(said)
        version = registry.register_model(str(folder), "said")

        assert type(registry.load(f"models:/said/{version.version}")) is xgboost.Booster
