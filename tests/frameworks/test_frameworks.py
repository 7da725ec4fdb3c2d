"""Models of real frameworks through MLflow's unmodified client: logged, registered, sealed, loaded, served.

Run by `make conformance`; a framework that is not installed is reported as not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest

from tests import postgres
from tests.conformance.mlflow.doors import Door
from tests.served import find_port, serve

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(600)]

Train = Callable[[Any, Any], Any]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with ExitStack() as stack:
        flags = ["--no-log-requests"]
        if request.param == "postgres":
            server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
            flags += ["--database", stack.enter_context(server.open_database())]
        served = stack.enter_context(serve(tmp_path_factory.mktemp("home"), *flags))
        yield Door(f"http://127.0.0.1:{served.port}", is_touchmark=True)


@pytest.fixture(autouse=True)
def pointed(door: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(door.uri)
    yield
    while mlflow.active_run():
        mlflow.end_run()


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return x.astype(np.float32), y


def log_sklearn(x: Any, y: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return mlflow.sklearn.log_model(
        LogisticRegression(max_iter=500).fit(x, y), name="m", registered_model_name="sklearn"
    )


def log_xgboost(x: Any, y: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=2).fit(x, y)
    return mlflow.xgboost.log_model(model, name="m", registered_model_name="xgboost")


def log_lightgbm(x: Any, y: Any) -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(x, y)
    return mlflow.lightgbm.log_model(model, name="m", registered_model_name="lightgbm")


def log_onnx(x: Any, y: Any) -> Any:
    skl2onnx = pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    from sklearn.linear_model import LogisticRegression

    made = skl2onnx.to_onnx(LogisticRegression(max_iter=500).fit(x, y), x[:1], options={"zipmap": False})
    return mlflow.onnx.log_model(made, name="m", registered_model_name="onnx")


def log_pyfunc(_x: Any, _y: Any) -> Any:
    class Halves(mlflow.pyfunc.PythonModel):  # in here: MLflow looks at its hints, and warns, as soon as it is defined
        def predict(self, context: Any, model_input: Any) -> Any:
            return np.asarray(model_input)[:, 0] / 2

    return mlflow.pyfunc.log_model(name="m", python_model=Halves(), registered_model_name="pyfunc")


def log_pytorch(x: Any, y: Any) -> Any:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(4, 3)
    best = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(3):
        best.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        best.step()
        mlflow.log_metric("loss", loss.item(), step=epoch)
    # Since MLflow 3.17 a module is saved as a traced graph, for which it wants an input.
    return mlflow.pytorch.log_model(net, name="m", registered_model_name="pytorch", input_example=x[:2])


def make_pipeline() -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    vocabulary = Path("vocab.txt")
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]))
    return transformers.pipeline(
        "text-classification",
        model=transformers.BertForSequenceClassification(config).eval(),  # else it drops out at random
        tokenizer=transformers.BertTokenizer(str(vocabulary)),
    )


def log_transformers(_x: Any, _y: Any) -> Any:
    return log_pipeline(make_pipeline())


def log_pipeline(made: Any) -> Any:
    # What MLflow would list by itself names torchvision, which a model of texts does not need and nobody has to install.
    return mlflow.transformers.log_model(
        made, name="m", registered_model_name="transformers", pip_requirements=["transformers", "torch"]
    )


LOGGERS: dict[str, Train] = {
    "sklearn": log_sklearn,
    "xgboost": log_xgboost,
    "lightgbm": log_lightgbm,
    "onnx": log_onnx,
    "pyfunc": log_pyfunc,
    "pytorch": log_pytorch,
    "transformers": log_transformers,
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("framework", LOGGERS)
def test_a_model_is_registered_sealed_and_predicts_the_same_after_its_run_was_tampered_with(
    door: Door, framework: str
) -> None:
    x, y = digits()
    client = door.client
    with mlflow.start_run() as run:
        info = LOGGERS[framework](x, y)
    asked: Any = ["a b c"] if framework == "transformers" else x[:20]
    before = mlflow.pyfunc.load_model(info.model_uri).predict(asked)
    client.set_registered_model_alias(framework, "champion", "1")
    second = mlflow.register_model(f"runs:/{run.info.run_id}/m", framework)
    third = mlflow.register_model(info.model_uri, f"{framework}.other")
    copied = mlflow.register_model(f"models:/{framework}@champion", f"{framework}.copy")
    digests = {door.digest_of(version) for version in (second, third, copied)}

    first = client.get_model_version(framework, "1")
    door.check_sealed(first)

    assert digests == {door.digest_of(first)}
    for reference in (f"models:/{framework}@champion", f"models:/{framework}/2", f"models:/{framework}.copy/1"):
        after = mlflow.pyfunc.load_model(reference).predict(asked)
        assert str(after) == str(before)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("form", ["pt2", "pickle"])
def test_a_module_of_pytorch_comes_back_as_one(door: Door, form: str) -> None:
    torch = pytest.importorskip("torch")
    x, _ = digits()
    asked = torch.from_numpy(x)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    name = f"module.{form}"
    mlflow.pytorch.log_model(net, name="m", registered_model_name=name, input_example=x[:2], serialization_format=form)
    door.check_sealed(door.client.get_model_version(name, "1"))

    loaded = mlflow.pytorch.load_model(f"models:/{name}/1")
    found = loaded(asked)
    assert found.shape == (len(x), 3)
    torch.testing.assert_close(found, net(asked))


@pytest.mark.filterwarnings("default")
def test_a_pipeline_of_transformers_comes_back_as_one(door: Door) -> None:
    made = make_pipeline()
    version = log_pipeline(made).registered_model_version
    door.check_sealed(door.client.get_model_version("transformers", str(version)))

    loaded = mlflow.transformers.load_model(f"models:/transformers/{version}")
    assert type(loaded) is type(made)
    assert loaded("a b c") == made("a b c")


@pytest.mark.filterwarnings("default")
def test_a_training_with_lightning_is_logged_by_itself(door: Door) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    import torch

    x, y = digits()
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, value: Any) -> Any:
            return self.layer(value)

        def training_step(self, batch: Any, _index: int) -> Any:
            loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    net = Net()
    mlflow.pytorch.autolog(registered_model_name="lightning", checkpoint=False)
    try:
        with mlflow.start_run() as run:
            trainer = lightning.Trainer(
                max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
            )
            trainer.fit(net, torch.utils.data.DataLoader(data, batch_size=50))
    finally:
        mlflow.pytorch.autolog(disable=True)

    found = door.client.get_run(run.info.run_id)
    assert found.data.params["lr"] == "0.1"
    assert len(door.client.get_metric_history(run.info.run_id, "loss_epoch")) == 3
    door.check_sealed(door.client.get_model_version("lightning", "1"))
    loaded = mlflow.pytorch.load_model("models:/lightning/1")
    torch.testing.assert_close(loaded(torch.from_numpy(x)), net(torch.from_numpy(x)))


@pytest.mark.filterwarnings("default")
def test_training_is_logged_by_itself(door: Door) -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = digits()
    mlflow.xgboost.autolog(registered_model_name="auto")
    try:
        with mlflow.start_run() as run:
            xgboost.XGBClassifier(n_estimators=3).fit(x, y, eval_set=[(x, y)], verbose=False)
    finally:
        mlflow.xgboost.autolog(disable=True)

    assert len(door.client.get_metric_history(run.info.run_id, "validation_0-mlogloss")) == 3
    assert door.look(door.client.get_model_version("auto", "1"))["sealed"]


@pytest.mark.filterwarnings("default")
def test_a_champion_predicts_and_is_served_from_the_command_line(door: Door, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    x, y = digits()
    with mlflow.start_run():
        log_pyfunc(x, y)
    door.client.set_registered_model_alias("pyfunc", "served", "1")
    here = str(Path(sys.executable).parent)  # where the client looks for uvicorn
    environ = {**os.environ, "MLFLOW_TRACKING_URI": door.uri, "PATH": f"{here}:{os.environ['PATH']}"}
    data = tmp_path / "in.csv"
    data.write_text("a\n4\n6\n")
    words = [sys.executable, "-m", "mlflow", "models"]
    model = ["-m", "models:/pyfunc@served", "--env-manager", "local"]

    done = subprocess.run(
        [*words, "predict", *model, "-i", str(data), "-t", "csv"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[2.0, 3.0]" in done.stdout

    port = find_port()
    server = subprocess.Popen(
        [*words, "serve", *model, "-p", str(port), "-w", "1"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 90
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ping", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.3)
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"inputs": [[4.0], [6.0]]}, timeout=30)
        assert answer.json() == {"predictions": [2.0, 3.0]}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait(20)
