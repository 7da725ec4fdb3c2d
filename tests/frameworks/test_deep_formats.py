"""PyTorch, Transformers, Keras and CatBoost through the SDK: saved safely, loaded as they were, and what they would run refused.

Run by `make conformance`; a framework that is not installed is reported as not run.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import touchmark
from tests.served import serve
from touchmark import errors
from touchmark.client.loaders import load_model, save_model

# Before Keras is imported. Its NumPy backend needs JAX (Keras 3.15), which is not installed for these tests.
os.environ.setdefault("KERAS_BACKEND", "torch" if find_spec("torch") is not None else "numpy")

pytestmark = [pytest.mark.full, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[touchmark.Registry]:
    with serve(tmp_path_factory.mktemp("home"), "--no-log-requests") as served:
        opened = touchmark.connect(f"http://127.0.0.1:{served.port}")
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHMARK_CACHE", str(tmp_path / "cache"))


def list_files(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def load(folder: Path, **options: Any) -> Any:
    known = {name: options.pop(name) for name in ("allow_pickle", "trusted_types", "loader") if name in options}
    return load_model(folder, list_files(folder), options=options, **known)


def send(registry: touchmark.Registry, model: object, name: str) -> str:
    """Log and register a model; return the format it was saved in, having compared it with what the contents say."""
    logged = registry.log_model(model, name, registered_model_name=name)
    contents = registry.get_version(name, 1).contents
    assert contents is not None
    assert contents["framework"] == logged.format
    assert contents["flavors"][logged.format]["class"]
    assert contents["warnings"] == contents["pickles"] == []
    return logged.format


def save_twice(model: object, folder: Path) -> None:
    """Assert that saving a model again gives the same bytes."""
    save_model(model, folder / "one")
    save_model(model, folder / "two")
    names = list_files(folder / "one")
    assert [
        name for name in names if (folder / "one" / name).read_bytes() != (folder / "two" / name).read_bytes()
    ] == []


# ── CatBoost ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("class_name", ["CatBoostClassifier", "CatBoostRegressor", "CatBoost"])
def test_catboosts_models_come_back_as_what_they_were(
    registry: touchmark.Registry, tmp_path: Path, class_name: str
) -> None:
    catboost = pytest.importorskip("catboost")
    options = {"iterations": 5, "verbose": 0, "allow_writing_files": False}
    made = getattr(catboost, class_name)
    model = (made(options) if class_name == "CatBoost" else made(**options)).fit(X, Y)
    assert send(registry, model, class_name) == "catboost"
    loaded: Any = registry.load(f"models:/{class_name}/1")
    assert type(loaded) is made
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("content", [b"", b"CBM1", b"CBM1\xff\xff\xff\xff", b"CBM1" + bytes(range(256)), b"{}" * 50])
def test_a_file_that_is_no_catboost_model_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("catboost")
    (tmp_path / "model.cbm").write_bytes(content)
    with pytest.raises(errors.InvalidFieldError, match="CatBoost cannot read it"):
        load(tmp_path)


def test_a_catboost_model_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost")
    with pytest.raises(errors.InvalidFieldError, match="CatBoost cannot save it"):
        save_model(catboost.CatBoostClassifier(), tmp_path / "m")


# ── XGBoost ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", ["ubj", "json"])
@pytest.mark.parametrize("kind", ["trees", "linear", "dart", "many outputs", "categories"])
def test_every_kind_of_xgboost_model_passes_the_check_of_its_depth(tmp_path: Path, kind: str, suffix: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    pandas = pytest.importorskip("pandas")
    x, y = X, Y
    options: dict[str, Any] = {"n_estimators": 3}
    if kind == "linear":
        options["booster"] = "gblinear"
    elif kind == "dart":
        options["booster"] = "dart"
    elif kind == "many outputs":
        options |= {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
        y = np.c_[Y, 1 - Y]
    elif kind == "categories":
        x = pandas.DataFrame({"a": pandas.Categorical(["x", 'y"[{', "zé\\"] * 13 + ["x"]), "b": range(40)})
        options["enable_categorical"] = True
    model = xgboost.XGBRegressor(**options).fit(x, y)
    model.save_model(tmp_path / f"model.{suffix}")
    loaded = load(tmp_path, loader="xgboost")
    np.testing.assert_array_equal(
        loaded.predict(xgboost.DMatrix(x, enable_categorical=True)),
        model.get_booster().predict(xgboost.DMatrix(x, enable_categorical=True)),
    )


# ── PyTorch ──────────────────────────────────────────────────────────────────────────────────────────────────────


def make_net(torch: Any) -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def test_a_module_comes_back_as_its_state_or_fills_one_that_is_handed_over(registry: touchmark.Registry) -> None:
    torch = pytest.importorskip("torch")
    net = make_net(torch)
    assert send(registry, net, "net") == "torch"

    state: Any = registry.load("models:/net/1")
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())

    other = make_net(torch)
    with torch.no_grad():
        other[0].weight.zero_()
    filled: Any = registry.load("models:/net/1", into=other)
    assert filled is other
    assert torch.equal(filled(torch.from_numpy(X)), net(torch.from_numpy(X)))
    arrays: Any = registry.load("models:/net/1", loader="safetensors")
    np.testing.assert_array_equal(arrays["0.weight"], net[0].weight.detach().numpy())


def test_named_tensors_alone_come_and_fill_only_what_they_name(registry: touchmark.Registry) -> None:
    torch = pytest.importorskip("torch")
    net = make_net(torch)
    registry.log_model(net, "some", registered_model_name="some")
    assert sorted(registry.load("models:/some/1", tensors=["2.bias", "0.weight"])) == ["0.weight", "2.bias"]  # type: ignore[call-overload]

    other = make_net(torch)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(7)
    registry.load("models:/some/1", tensors=["2.bias"], into=other)
    assert torch.equal(other[2].bias, net[2].bias)
    assert torch.equal(other[0].bias, torch.full((8,), 7.0))
    with pytest.raises(errors.InvalidFieldError, match=r"there is no '9\.bias'"):
        registry.load("models:/some/1", tensors=["2.bias", "9.bias"])


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "transposed": base.T,
        "a part": base[1:3, ::2],
        "the whole": base,
        "the same": base,
        "bfloat": torch.randn(3).to(torch.bfloat16),
        "half": torch.randn(3).half(),
        "eight": torch.randn(3).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    assert save_model(tensors, tmp_path / "m") == "torch"
    loaded = load(tmp_path / "m")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        mine, theirs = (each.detach().contiguous().reshape(-1) for each in (loaded[name], tensor))
        assert torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))
        assert loaded[name].shape == tensor.shape
    assert loaded["the same"].data_ptr() == loaded["the whole"].data_ptr()
    save_twice(tensors, tmp_path)


def test_tied_weights_are_written_once_and_fill_a_module_that_ties_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Tied(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(100, 100), torch.nn.Linear(100, 100)
            self.second.weight = self.first.weight

    made, other = Tied(), Tied()
    save_model(made, tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors").stat().st_size < 1.2 * 40_000
    load(tmp_path / "m", into=other)
    assert torch.equal(other.second.weight, made.first.weight)
    (tmp_path / "m" / "touchmark.json").unlink()  # as files of others are, which say nothing of what is tied
    other = Tied()
    load(tmp_path / "m", into=other)
    assert torch.equal(other.second.weight, made.first.weight)


def test_a_module_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_model(make_net(torch), tmp_path / "m")
    for module in (
        torch.nn.Linear(4, 8),
        torch.nn.Sequential(torch.nn.Linear(5, 8)),
        make_net(torch).append(torch.nn.Linear(2, 2)),
    ):
        with pytest.raises(errors.InvalidFieldError, match="the module does not fit"):
            load(tmp_path / "m", into=module)
    with pytest.raises(errors.InvalidFieldError, match=r"not a torch\.nn\.Module"):
        load(tmp_path / "m", into="net")


def test_what_safetensors_cannot_hold_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Stateful(torch.nn.Module):  # type: ignore[misc, name-defined]
        def get_extra_state(self) -> Any:
            return {"a": 1}

    sparse = torch.eye(3).to_sparse()
    for number, model in enumerate((Stateful(), {"a": sparse}, {"a": torch.empty(3, device="meta")})):
        with pytest.raises(errors.InvalidFieldError, match=r"safetensors (cannot|holds)"):
            save_model(model, tmp_path / str(number))


def test_loading_maps_the_file_and_writing_to_a_tensor_leaves_it_as_it_was(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {f"t{number}": torch.full((4 * 1024 * 1024,), float(number)) for number in range(16)}  # 256 MiB
    save_model(tensors, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()[-16:]
    script = f"""
import resource, sys, torch
from pathlib import Path
from touchmark.client.loaders import load_model
files = {{"model.safetensors": 1, "touchmark.json": 1}}
load_model(Path({str(tmp_path / "m")!r}), files, options={{"tensors": []}})
begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state = load_model(Path({str(tmp_path / "m")!r}), files)
assert len(state) == 16 and state["t7"][0] == 7
state["t15"].fill_(-1)
assert state["t15"][-1] == -1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin) // 1024)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, env=environment, capture_output=True, text=True, timeout=120
    )
    assert int(told.stdout) < 64  # MiB: the tensor that was written to, not the sixteen
    assert (tmp_path / "m" / "model.safetensors").read_bytes()[-16:] == before


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "last.ckpt", "pytorch_model.bin", "adapter_model.bin"])
def test_what_torch_saved_is_refused_and_loads_with_leave(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "m").mkdir()
    torch.save({"a": torch.ones(2), "b": Bomb(tmp_path / "canary")}, tmp_path / "m" / name)
    for loader in (None, "pickle"):
        with pytest.raises(errors.UnsafeFormatError, match="allow_pickle"):
            load(tmp_path / "m", loader=loader)
    assert not (tmp_path / "canary").exists()
    assert torch.equal(load(tmp_path / "m", allow_pickle=True)["a"], torch.ones(2))
    assert (tmp_path / "canary").exists()


# ── Transformers ─────────────────────────────────────────────────────────────────────────────────────────────────


def make_bert(tmp_path: Path) -> tuple[Any, Any]:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]))
    return transformers.BertForSequenceClassification(config).eval(), transformers.BertTokenizer(str(vocabulary))


def test_a_transformers_model_comes_back_as_its_class(registry: touchmark.Registry, tmp_path: Path) -> None:
    model, _ = make_bert(tmp_path)
    import torch

    assert send(registry, model, "bert") == "transformers"
    loaded: Any = registry.load("models:/bert/1")
    asked = torch.tensor([[2, 5, 6, 3]])
    assert type(loaded) is type(model)
    assert torch.equal(loaded(asked).logits, model(asked).logits)
    save_twice(model, tmp_path)
    some: Any = registry.load("models:/bert/1", tensors=["classifier.bias"])
    assert list(some) == ["classifier.bias"]


def test_a_pipeline_comes_back_as_a_pipeline_and_a_dict_as_a_dict(registry: touchmark.Registry, tmp_path: Path) -> None:
    model, tokenizer = make_bert(tmp_path)
    import transformers

    piped = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    assert send(registry, piped, "piped") == "transformers"
    loaded: Any = registry.load("models:/piped/1")
    assert loaded("a b c") == piped("a b c")

    assert send(registry, {"model": model, "tokenizer": tokenizer}, "both") == "transformers"
    parts: Any = registry.load("models:/both/1")
    assert parts["tokenizer"]("a b")["input_ids"] == tokenizer("a b")["input_ids"]
    asked: Any = registry.load("models:/both/1", task="text-classification")
    assert asked("a b c") == piped("a b c")


def test_a_folder_of_transformers_with_code_kernels_or_pickles_is_refused(tmp_path: Path) -> None:
    model, tokenizer = make_bert(tmp_path)
    import torch

    folder = tmp_path / "m"
    save_model({"model": model, "tokenizer": tokenizer}, folder)
    code = f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\nclass Model: pass\n"
    (folder / "modeling.py").write_text(code)
    config, plain = folder / "config.json", (folder / "config.json").read_text()
    for said in (
        {"auto_map": {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Model"}},
        {"text_config": {"auto_map": {"AutoModel": "modeling.Model"}}},
        {"custom_pipelines": {"text-classification": {"impl": "modeling.Model"}}},
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": {"text_config": "somebody/kernel"}},
        {"transformers_weights": "pytorch_model.bin"},
    ):
        config.write_text(json.dumps({**json.loads(plain), **said}))
        for options in ({}, {"task": "text-classification"}, {"allow_pickle": True}):
            with pytest.raises(errors.UnsafeFormatError, match="trust_remote_code"):
                load(folder, **options)
    config.write_text(plain)

    told = folder / "tokenizer_config.json"
    kept = told.read_text()
    told.write_text(json.dumps({**json.loads(kept), "auto_map": {"AutoTokenizer": ["modeling.Model", None]}}))
    with pytest.raises(errors.UnsafeFormatError, match="tokenizer_config"):
        load(folder)
    told.write_text(kept)
    torch.save({"a": Bomb(tmp_path / "canary")}, folder / "vocab.pkl")
    with pytest.raises(errors.UnsafeFormatError, match=r"vocab\.pkl"):
        load(folder)
    (folder / "vocab.pkl").rename(folder / "pytorch_model.bin")  # beside safetensors, never opened
    assert type(load(folder)["model"]) is type(model)
    (folder / "model.safetensors").unlink()
    with pytest.raises(errors.UnsafeFormatError, match=r"pytorch_model\.bin"):
        load(folder)
    assert not (tmp_path / "canary").exists()


def test_code_of_a_folder_runs_when_it_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The counterpart of the test above: what it refuses is a real way to run code.
    model, _ = make_bert(tmp_path)
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "m"
    save_model(model, folder)
    (folder / "modeling.py").write_text(
        f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n"
        "from transformers import BertForSequenceClassification\nclass Mine(BertForSequenceClassification):\n    pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling.Mine"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(errors.UnsafeFormatError):
        load(folder)
    assert not (tmp_path / "canary").exists()
    assert type(load(folder, trust_remote_code=True)).__name__ == "Mine"
    assert (tmp_path / "canary").exists()


NAMES_ANOTHER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
import os

asked = []

class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
Thread(target=hub.serve_forever, daemon=True).start()
folder, os.environ["HF_HOME"] = Path(sys.argv[1]), sys.argv[2]
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"  # read when Transformers is imported
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(name, None)

import transformers
from touchmark import errors
from touchmark.client.loaders import load_model

small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
small["intermediate_size"] = 32
cross = {"cross_num_attention_heads": 2, "cross_num_key_value_heads": 2, "cross_head_dim": 8, "cross_hidden_size": 16}
ends = {"pad_token_id": 39, "eos_token_id": 38, "bos_token_id": 37}
decoder = {**small, **cross, "num_channels": 2, "vocab_size": 40}
config = transformers.DiaConfig(encoder_config=small, decoder_config=decoder, delay_pattern=[0, 1], **ends)
ratios = {"downsampling_ratios": [2, 2], "upsampling_ratios": [2, 2]}
codebooks = {"n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4}
codec = transformers.DacModel(transformers.DacConfig(encoder_hidden_size=8, decoder_hidden_size=8, **ratios, **codebooks))
codec.name_or_path = "somebody/else"
transformers.DiaForConditionalGeneration(config).save_pretrained(folder)
transformers.DiaProcessor(transformers.DiaFeatureExtractor(), transformers.DiaTokenizer(), codec).save_pretrained(folder)

def list_asked():
    told = [path for path in asked if "somebody/else" in path]
    asked.clear()
    return told

files = {path.name: path.stat().st_size for path in folder.iterdir()}
piped = load_model(folder, files, options={"task": "text-to-audio"})
assert type(piped) is transformers.TextToAudioPipeline, piped
assert list_asked() == []

(folder / "touchmark.json").write_text('{"format": "transformers", "parts": ["model", "processor"]}')
files["touchmark.json"] = 1
try:
    load_model(folder, files)
except errors.InvalidFieldError as error:
    assert "Transformers cannot load it" in str(error), error
else:
    raise AssertionError("its audio tokenizer is nowhere here")
assert list_asked() == []

transformers.pipeline("text-to-audio", model=str(folder))
assert list_asked(), "Transformers by itself asks a hub: if it no longer does, this test shows nothing"
"""


def test_what_a_processor_names_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    (tmp_path / "m").mkdir()
    script = tmp_path / "names_another.py"
    script.write_text(NAMES_ANOTHER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "m"), str(tmp_path / "hub")],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert told.returncode == 0, told.stderr


# ── Keras ────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_keras() -> tuple[Any, Any]:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(2, activation=keras.activations.softmax),
        ]
    )
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    return keras, model


def test_a_keras_model_comes_back(registry: touchmark.Registry, tmp_path: Path) -> None:
    _, model = make_keras()
    assert send(registry, model, "keras") == "keras"
    loaded: Any = registry.load("models:/keras/1")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert not registry.load("models:/keras/1", compile=False).compiled  # type: ignore[attr-defined]
    save_twice(model, tmp_path)


def test_a_functional_model_with_operations_and_text_comes_back(tmp_path: Path) -> None:
    keras, _ = make_keras()
    given = keras.Input((4,))
    first = keras.layers.Dense(3)(given)
    made = keras.Model(given, [keras.ops.relu(first) + 1, keras.layers.Concatenate()([first, given])])
    save_model(made, tmp_path / "m")
    for mine, theirs in zip(load(tmp_path / "m").predict(X, verbose=0), made.predict(X, verbose=0), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_every_layer_of_keras_that_holds_no_code_passes_the_check(tmp_path: Path) -> None:
    keras, _ = make_keras()
    given = keras.Input((16, 8))
    layers = [
        keras.layers.LSTM(4, return_sequences=True),
        keras.layers.Bidirectional(keras.layers.GRU(2, return_sequences=True)),
        keras.layers.MultiHeadAttention(2, 4),
        keras.layers.TimeDistributed(keras.layers.Dense(3, kernel_initializer=keras.initializers.HeNormal(seed=1))),
        keras.layers.LayerNormalization(),
        keras.layers.Conv1D(3, 3, kernel_constraint=keras.constraints.MaxNorm(2), padding="same"),
        keras.layers.LeakyReLU(),
        keras.layers.SpatialDropout1D(0.1),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Rescaling(0.5),
    ]
    value = given
    for layer in layers:
        value = layer(value, value) if isinstance(layer, keras.layers.MultiHeadAttention) else layer(value)
    made = keras.Model(given, value)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    made.compile(
        optimizer=keras.optimizers.SGD(schedule), loss=keras.losses.Huber(), metrics=[keras.metrics.MeanSquaredError()]
    )
    save_model(made, tmp_path / "m")
    asked = RNG.normal(size=(3, 16, 8)).astype(np.float32)
    np.testing.assert_array_equal(load(tmp_path / "m").predict(asked, verbose=0), made.predict(asked, verbose=0))


def test_a_lambda_layer_is_refused_by_name_and_runs_with_leave(tmp_path: Path) -> None:
    keras, _ = make_keras()
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 3)])
    save_model(model, tmp_path / "m")
    with pytest.raises(errors.UnsafeFormatError, match=r"keras\.layers\.Lambda") as refused:
        load(tmp_path / "m")
    types: Any = refused.value.fields["types"]
    assert types == ["__lambda__", "keras.layers.Lambda"]
    with pytest.raises(errors.UnsafeFormatError):
        load(tmp_path / "m", trusted_types=types[1:])
    for leave in ({"allow_pickle": True}, {"trusted_types": types}):
        np.testing.assert_allclose(load(tmp_path / "m", **leave).predict(X, verbose=0), X * 3, rtol=1e-6)


def test_a_layer_of_ones_own_loads_when_it_is_trusted_by_name(tmp_path: Path) -> None:
    keras, _ = make_keras()

    @keras.saving.register_keras_serializable("mine")
    class Triple(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, value: Any) -> Any:
            return value * 3

    model = keras.Sequential([keras.layers.Input((4,)), Triple()])
    save_model(model, tmp_path / "m")
    with pytest.raises(errors.UnsafeFormatError) as refused:
        load(tmp_path / "m")
    assert refused.value.fields["types"] == ["mine>Triple"]
    loaded = load(tmp_path / "m", trusted_types=["mine>Triple"])
    np.testing.assert_allclose(loaded.predict(X, verbose=0), X * 3, rtol=1e-6)


def test_weights_that_lie_in_other_files_are_refused(tmp_path: Path) -> None:
    _, model = make_keras()
    h5py = pytest.importorskip("h5py")
    save_model(model, tmp_path / "m")
    path = tmp_path / "m" / "model.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "secret").write_bytes(b"s" * 64)
    for kind in ("external storage", "external link", "soft link", "virtual"):
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "r+") as weights:
            group = weights["layers/dense/vars"]
            del group["1"]
            if kind == "external storage":
                group.create_dataset("1", (8,), "f4", external=[(str(tmp_path / "secret"), 0, 32)])
            elif kind == "external link":
                group["1"] = h5py.ExternalLink(str(tmp_path / "secret"), "/a")
            elif kind == "soft link":
                group["1"] = h5py.SoftLink("/layers")
            else:
                layout = h5py.VirtualLayout((8,), "f4")
                layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "a", (8,))
                group.create_virtual_dataset("1", layout)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**members, "model.weights.h5": content.getvalue()}.items():
                archive.writestr(name, data)
        with pytest.raises(errors.UnsafeFormatError, match=r"weights (in files|that link)"):
            load(tmp_path / "m")
