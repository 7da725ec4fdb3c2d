"""What is decided about a version before its framework is asked: which loader takes it, and what is refused.

Nothing here needs the framework it is about: a refusal that needed it would come too late.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from touchmark.client.loaders import list_loaders, load_model, save_model
from touchmark.client.loaders.keras_archive import check_archive
from touchmark.client.loaders.xgboost_file import MAX_DEPTH, check_nesting
from touchmark.domain.errors import (
    InvalidFieldError,
    InvalidPathError,
    MissingExtraError,
    UnsafeFormatError,
)


def put(folder: Path, **files: bytes | str) -> Path:
    """Write files, `__` standing for the dot in their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def load(folder: Path, **given: Any) -> Any:
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    known = {name: given.pop(name) for name in ("allow_pickle", "trusted_types", "loader") if name in given}
    return load_model(folder, files, options=given, **known)


# ── which loader ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "loader"),
    [
        (["model.ubj", "touchmark.json"], "xgboost"),
        (["deep/churn.ubj"], "xgboost"),
        (["a.ubj", "b.ubj"], "files"),
        (["model.json"], "files"),
        (["model.lgb.txt"], "lightgbm"),
        (["model.cbm"], "catboost"),
        (["model.onnx", "model.onnx.data"], "onnx"),
        (["model.keras"], "keras"),
        (["model.h5"], "files"),
        (["model.skops", "config.json", "model.safetensors"], "skops"),
        (["config.json", "model.safetensors", "tokenizer.json"], "transformers"),
        (["config.json", "model-00001-of-00002.safetensors"], "transformers"),
        (["config.json", "pytorch_model.bin"], "transformers"),
        (["config.json", "vae/model.safetensors"], "safetensors"),
        (["sub/config.json", "sub/model.safetensors"], "safetensors"),
        (["adapter_config.json", "adapter_model.safetensors"], "safetensors"),
        (["model.pt"], "pickle"),
        (["weights.PTH"], "pickle"),
        (["last.ckpt"], "pickle"),
        (["pytorch_model-00001-of-00002.bin"], "pickle"),
        (["model.bin"], "files"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_names_choose_the_loader(names: list[str], loader: str) -> None:
    files = dict.fromkeys(names, 1)
    assert next(each.name for each in list_loaders() if each.can_load(files)) == loader


def test_a_description_chooses_among_the_loaders_that_take_the_files(tmp_path: Path) -> None:
    save_model({"a": np.ones(2)}, tmp_path / "m")
    for said, kind in (("safetensors", dict), ("files", Path), ("no such", dict), (7, dict), (["files"], dict)):
        put(tmp_path / "m", touchmark__json=json.dumps({"format": said}))
        assert isinstance(load(tmp_path / "m"), kind)
    for text in ("", "[" * 100_000, "[]", '{"format": ', "\xff"):
        put(tmp_path / "m", touchmark__json=text)
        assert isinstance(load(tmp_path / "m"), dict)


def test_a_description_cannot_make_a_pickle_run(tmp_path: Path) -> None:
    save_model({"a": np.ones(2)}, tmp_path / "m")
    put(tmp_path / "m", touchmark__json='{"format": "pickle"}', model__pkl=pickle.dumps(1))
    with pytest.raises(UnsafeFormatError):
        load(tmp_path / "m")


def test_an_option_is_given_to_a_loader_that_has_it_and_refused_by_others(tmp_path: Path) -> None:
    save_model({"a": np.ones(2), "b": np.zeros(3)}, tmp_path / "m")
    put(tmp_path / "m", config__json='{"model_type": "bert"}')  # a folder of Transformers, whose loader has no tensors=
    assert list(load(tmp_path / "m", tensors=["b"])) == ["b"]
    with pytest.raises(InvalidFieldError, match="loader 'files' takes no options"):
        load(tmp_path / "m", loader="files", tensors=["b"])
    with pytest.raises(InvalidFieldError, match="loader 'safetensors' takes tensors"):
        load(tmp_path / "m", loader="safetensors", into=1)


def test_saving_chooses_by_names_and_imports_no_framework() -> None:
    script = """
import sys
from touchmark.client.loaders import list_loaders

def make(module, name, *bases):
    return type(name, bases or (object,), {"__module__": module})

nn = make("torch.nn.modules.module", "Module")
estimator = make("sklearn.base", "BaseEstimator")
keras = make("keras.src.models.model", "Model", nn)
bert = make("transformers.modeling_utils", "PreTrainedModel", nn)
tensor = make("torch", "Tensor")
cases = {
    "torch": [make("mine", "Net", nn)(), {"a": make("torch.nn.parameter", "Parameter", tensor)()}],
    "keras": [make("mine", "Net", keras)()],
    "transformers": [make("mine", "Bert", bert)(), {"model": bert(), "tokenizer": 1}, make("transformers.pipelines.base", "Pipeline")()],
    "xgboost": [make("xgboost.sklearn", "XGBClassifier", make("xgboost.sklearn", "XGBModel", estimator))()],
    "lightgbm": [make("lightgbm.sklearn", "LGBMClassifier", make("lightgbm.sklearn", "LGBMModel", estimator))()],
    "catboost": [make("catboost.core", "CatBoostClassifier", make("catboost.core", "CatBoost"))()],
    "onnx": [make("onnx.onnx_ml_pb2", "ModelProto")()],
    "skops": [make("mine", "Forest", estimator)()],
    None: [object(), {}, {"a": 1}, {"a": tensor(), "b": 1}, {"model": bert(), "other": 1}, make("mytorch", "Module")()],
}
for name, models in cases.items():
    for model in models:
        assert next((each.name for each in list_loaders() if each.can_save(model)), None) == name, (name, model)
heavy = {"numpy", "sklearn", "skops", "safetensors", "mlflow", "torch", "keras", "transformers", "xgboost", "onnx", "h5py"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.cbm", b"CBM1"), ("model.lgb.txt", b"tree\n"), ("model.ubj", b"{}")],
)
def test_a_missing_framework_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    for module in ("catboost", "lightgbm", "xgboost"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MissingExtraError, match=r"pip install (catboost|lightgbm|xgboost)"):
        load(tmp_path)


# ── safetensors ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_arrays_map_the_file_and_writing_to_one_leaves_it_as_it_was(tmp_path: Path) -> None:
    save_model({"a": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 2))}, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    before = path.read_bytes()
    arrays = load(tmp_path / "m")
    mapped = arrays["a"]
    while isinstance(mapped, np.ndarray) and not isinstance(mapped, np.memmap):
        mapped = mapped.base
    assert isinstance(mapped, np.memmap)
    arrays["a"][0, 0] = 99
    assert path.read_bytes() == before
    assert load(tmp_path / "m")["a"][0, 0] == 0
    path.unlink()  # as a cache does that makes room: what is mapped stays
    assert arrays["a"].sum() == 99 + 15


def test_only_named_tensors_come_in_the_order_they_were_named(tmp_path: Path) -> None:
    save_model({"a": np.ones(2), "b": np.zeros(1)}, tmp_path / "m" / "first")
    save_model({"c": np.full(3, 7)}, tmp_path / "m" / "second")
    assert list(load(tmp_path / "m", tensors=["c", "a", "c"])) == ["c", "a"]
    assert load(tmp_path / "m", tensors=[]) == {}
    with pytest.raises(InvalidFieldError, match="there is no 'd'"):
        load(tmp_path / "m", tensors=["c", "d"])
    with pytest.raises(InvalidFieldError, match="not a list"):
        load(tmp_path / "m", tensors="abc")


def test_a_file_with_unaligned_numbers_is_read(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    content = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -2)
    assert (8 + len(header)) % 4
    put(tmp_path, model__safetensors=content)
    np.testing.assert_array_equal(load(tmp_path)["a"], [1.5, -2])


def entry(begin: int = 0, end: int = 8, *, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": entry()}, 8, 2**64 - 1),
        ({"a": entry()}, 8, 100_000_001),
        ({"a": entry()}, 8, 4),
        ({"a": entry()}, 0, None),
        ({"a": entry()}, 16, None),
        ({"a": entry(), "b": entry(4, 12)}, 12, None),
        ({"a": entry(), "b": entry(16, 24)}, 24, None),
        ({"a": entry(8, 0)}, 8, None),
        ({"a": entry(-8, 0)}, 8, None),
        ({"a": entry(shape=(3,))}, 8, None),
        ({"a": entry(shape=(2**40, 2**40))}, 8, None),
        ({"a": entry(shape=(-2,))}, 8, None),
        ({"a": entry(dtype="F31")}, 8, None),
        ({"a": entry(dtype="O")}, 8, None),
        ({"a": {"dtype": "F32"}}, 8, None),
        ({"a": 3}, 8, None),
        ([], 8, None),
        ({"a": entry(dtype="BF16", shape=(4,))}, 8, None),
        ({"a": entry(dtype="F8_E4M3", shape=(8,))}, 8, None),
    ],
    ids=str,
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: Any, data: int, length: int | None) -> None:
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)
    put(tmp_path, model__safetensors=content)
    with pytest.raises(InvalidFieldError, match=r"safetensors"):
        load(tmp_path)


def test_a_header_of_nothing_but_brackets_or_of_100_mb_is_refused_within_seconds(tmp_path: Path) -> None:
    for text in (b"[" * 1_000_000, b'{"a":' * 1_000_000, b'{"' + b"a" * 100_000_001 + b'":1}'):
        put(tmp_path, model__safetensors=struct.pack("<Q", len(text)) + text)
        with pytest.raises(InvalidFieldError, match="safetensors cannot read it"):
            load(tmp_path)


# ── XGBoost ──────────────────────────────────────────────────────────────────────────────────────────────────────


def ubj_text(text: bytes) -> bytes:
    return b"L" + len(text).to_bytes(8, "big") + text


@pytest.mark.parametrize(
    "content",
    [
        b"{" + (ubj_text(b"a") + b"{") * 100_000,
        b"{" + ubj_text(b"a") + b"[" * 100_000,
        b"{" + ubj_text(b"a") + (b"[#" + b"L" + (1).to_bytes(8, "big")) * 100_000,
        b"{" + ubj_text(b"a") + b"[$d#L" + (2**40).to_bytes(8, "big"),
        b"{" + ubj_text(b"a") + b"[$d#L" + (2**64 - 1).to_bytes(8, "big"),
        b"{" + ubj_text(b"a") + b"[$Q#L" + (1).to_bytes(8, "big"),
        b"{L" + (2**62).to_bytes(8, "big"),
        b"{" + ubj_text(b"a") + b"Sq",
        b"{" + ubj_text(b"a"),
        b"{",
        b"",
        b"N",
    ],
)
def test_a_ubjson_file_that_would_end_the_process_is_refused(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, model__ubj=content)
    with pytest.raises(InvalidFieldError, match="XGBoost cannot read it"):
        load(tmp_path)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"a}]":[', '[{"\\"]}":'])
def test_a_json_file_of_xgboost_that_is_nested_too_deeply_is_refused(tmp_path: Path, opening: str) -> None:
    put(tmp_path, model__json=opening * 1_000_000)
    with pytest.raises(InvalidFieldError, match=f"deeper than {MAX_DEPTH}"):
        load(tmp_path, loader="xgboost")


def test_brackets_in_texts_and_numbers_are_no_nesting(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"a": ["[" * 500, '"{' * 500, "\\"], "b": [[1]] * 500}))
    check_nesting(path, path.name)
    numbers = b"[$d#L" + (1000).to_bytes(8, "big") + b"[{[{" * 1000
    path = tmp_path / "model.ubj"
    path.write_bytes(b"{" + ubj_text(b"[" * 500) + numbers + ubj_text(b"b") + b"S" + ubj_text(b"{" * 500) + b"}")
    check_nesting(path, path.name)


# ── files of torch.save ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["model__pt", "net__pth", "last__ckpt", "pytorch_model__bin"])
def test_a_file_of_torch_save_is_refused_without_pytorch(tmp_path: Path, name: str) -> None:
    put(tmp_path, **{name: pickle.dumps({"a": 1})})
    with pytest.raises(UnsafeFormatError, match="allow_pickle=True"):
        load(tmp_path)
    assert load(tmp_path, loader="files") == tmp_path / name.replace("__", ".")


# ── Transformers ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "files",
    [
        {"config__json": '{"model_type": "a", "auto_map": {"AutoModel": "code.Model"}}'},
        {"config__json": '{"model_type": "a", "vision_config": {"auto_map": {"AutoModel": "them/there--code.Model"}}}'},
        {"config__json": '{"model_type": "a", "custom_pipelines": {"x": {}}}'},
        {"config__json": '{"model_type": "a", "_attn_implementation": "them/kernel"}'},
        {"config__json": '{"model_type": "a", "experts_implementation": {"": "them/kernel"}}'},
        {"config__json": '{"model_type": "a", "transformers_weights": "adapter_model.bin"}'},
        {"tokenizer_config__json": '{"auto_map": {"AutoTokenizer": ["code.Tokenizer", null]}}'},
        {"processor_config__json": '{"auto_map": {"AutoProcessor": "code.Processor"}}'},
        {"adapter_config__json": '{"base_model_name_or_path": "them/model"}'},
    ],
    ids=str,
)
def test_a_folder_that_names_code_from_elsewhere_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    save_model({"a": np.ones(1)}, tmp_path / "m")
    put(tmp_path / "m", **{"config__json": '{"model_type": "a"}', **files})
    for given in ({}, {"allow_pickle": True}, {"task": "text-generation"}):
        with pytest.raises(UnsafeFormatError, match="trust_remote_code=True"):
            load(tmp_path / "m", **given)
    assert list(load(tmp_path / "m", loader="safetensors")) == ["a"]


@pytest.mark.parametrize("name", ["vocab__pkl", "tokenizer__model", "merges__txt", "spiece__dat"])
def test_a_vocabulary_that_is_a_pickle_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    save_model({"a": np.ones(1)}, tmp_path / "m")
    put(tmp_path / "m", config__json='{"model_type": "a"}', **{name: pickle.dumps({"a": 1})})
    with pytest.raises(UnsafeFormatError, match="is a pickle"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "shard", ["../../secret.safetensors", "/etc/passwd", "model.bin", "absent.safetensors", ["a"], 3]
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, shard: object) -> None:
    save_model({"a": np.ones(1)}, tmp_path / "m")
    put(tmp_path / "m", config__json='{"model_type": "a"}', model__bin=b"x")
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(InvalidFieldError, match="no weights of this version"):
        load(tmp_path / "m")


def test_a_configuration_that_is_not_of_transformers_leaves_the_arrays(tmp_path: Path) -> None:
    save_model({"a": np.ones(1)}, tmp_path / "m")
    put(tmp_path / "m", config__json='{"architecture": "resnet"}')
    assert list(load(tmp_path / "m")) == ["a"]
    for text in ("", "[" * 100_000, "[]", "\x00"):
        put(tmp_path / "m", config__json=text)
        with pytest.raises(InvalidFieldError, match=r"config\.json"):
            load(tmp_path / "m")


# ── Keras ────────────────────────────────────────────────────────────────────────────────────────────────────────


def keras_object(class_name: str, module: str | None = "keras.layers", **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": {}, "registered_name": None, **more}


def write_keras(path: Path, config: object, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def check(path: Path, *trusted: str, allow_code: bool = False) -> None:
    check_archive(path, path.name, allow_code=allow_code, trusted_types=trusted)


@pytest.mark.parametrize(
    ("node", "refused"),
    [
        (keras_object("Lambda"), "keras.layers.Lambda"),
        (keras_object("Lambda", "keras.src.layers.core.lambda_layer", registered_name="Lambda"), "Lambda"),
        (keras_object("TorchModuleWrapper"), "keras.layers.TorchModuleWrapper"),
        (keras_object("TFSMLayer"), "keras.layers.TFSMLayer"),
        ({"class_name": "__lambda__", "config": {"value": "4wEA"}}, "__lambda__"),
        (keras_object("system", "os"), "os.system"),
        (keras_object("Popen", "subprocess"), "subprocess.Popen"),
        (keras_object("get_file", "keras.utils"), "keras.utils.get_file"),
        (keras_object("get_file", "keras.src.utils.file_utils"), "keras.src.utils.file_utils.get_file"),
        (keras_object("load_model", "keras.src.saving.saving_api"), "keras.src.saving.saving_api.load_model"),
        (keras_object("a.b"), "keras.layers.a.b"),
        (keras_object("Dense", "keras.layers", registered_name="mine>Dense"), "mine>Dense"),
        (keras_object("Dense", None), "Dense"),
        (keras_object("Mine", "my.layers"), "my.layers.Mine"),
        (keras_object("function", "builtins", config="eval"), "builtins.eval"),
        (keras_object("function", "keras.utils", config="get_file"), "keras.utils.get_file"),
        (keras_object("function", "keras.layers", config={"a": 1}), "a function without a name"),
        ({"class_name": {"a": 1}, "config": {}}, "a class without a name"),
        ({"class_name": "__typespec__", "config": {}}, "__typespec__"),
    ],
    ids=str,
)
def test_a_keras_config_that_names_what_could_run_is_refused_wherever_it_stands(
    tmp_path: Path, node: dict[str, Any], refused: str
) -> None:
    places: list[object] = [
        node,
        keras_object("Sequential", "keras", config={"layers": [keras_object("Dense"), node]}),
        keras_object("Sequential", "keras", compile_config={"loss": {"a": [node]}}),
        keras_object("Dense", config={"kernel_initializer": node}),
    ]
    for place in places:
        path = write_keras(tmp_path / "model.keras", place)
        with pytest.raises(UnsafeFormatError) as error:
            check(path)
        types: Any = error.value.fields["types"]
        assert any(refused in name for name in types)
        assert "allow_pickle=True" in error.value.message
        check(path, *types)
        check(path, allow_code=True)
        with pytest.raises(UnsafeFormatError):
            load(tmp_path)


def test_a_layer_that_would_read_a_file_of_this_machine_is_refused(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "model.keras", keras_object("StringLookup", config={"vocabulary": "/etc/passwd"}))
    with pytest.raises(UnsafeFormatError, match="/etc/passwd"):
        check(path, "keras.layers.StringLookup")
    check(write_keras(tmp_path / "model.keras", keras_object("StringLookup", config={"vocabulary": ["a"]})))


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/etc/cron.d/evil", "assets/../../evil", "assets\\..\\evil", "C:/evil", "a//b", ""],
)
def test_a_member_that_would_lie_outside_is_refused_whatever_is_allowed(tmp_path: Path, name: str) -> None:
    path = write_keras(tmp_path / "model.keras", keras_object("Dense"))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # ZipInfo itself would mend it
        archive.writestr(info, b"x")
    for allow_code in (False, True):
        with pytest.raises((InvalidPathError, InvalidFieldError)):
            check(path, allow_code=allow_code)


def test_an_archive_that_is_no_keras_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    for content in (b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", pickle.dumps(1)):
        path.write_bytes(content)
        with pytest.raises(InvalidFieldError, match=r"no \.keras file"):
            check(path)
    for text in ("", "[]", "[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(InvalidFieldError, match=r"model\.keras"):
            check(write_keras(path, text))
    with pytest.raises(InvalidFieldError, match="no Keras model has a member"):
        check(write_keras(path, "{}", **{"model.weights.npz": b"x"}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("assets/zeros", bytes(200 * 1024 * 1024))
    with pytest.raises(InvalidFieldError, match="like a bomb"):
        check(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("config.json", json.dumps(keras_object("Lambda")))
    with pytest.raises(InvalidFieldError, match="two members"):
        check(path)
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidPathError, match="symbolic link"):
        check(path)


# ── ONNX ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("location", ["../secret", "sub/../../secret", "{root}/secret", "link"])
def test_weights_of_onnx_outside_the_version_are_refused(tmp_path: Path, location: str) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location.format(root=tmp_path)), ("offset", "0"), ("length", "16")):
        said = tensor.external_data.add()
        said.key, said.value = key, value
    value_info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", value_info[:1], value_info[1:], [tensor]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = put(tmp_path / "m", model__onnx=model.SerializeToString())
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidFieldError, match="cannot be read as ONNX"):
        load(folder)
    assert onnx.load_model_from_string(model.SerializeToString()).graph.initializer[0].name == "w"
