"""What files of XGBoost, LightGBM, Keras, Transformers and `touchmark.json` say of themselves, told from their bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.contents.files import StoredFiles, facts_of, read_files, zip_of

TENSORS = safetensors.numpy.save({"a": np.ones(4, dtype=np.float32)})


def text(value: bytes) -> bytes:
    return b"L" + len(value).to_bytes(8, "big") + value


UBJ = (
    b"{" + text(b"learner") + b"{" + text(b"objective") + b"{" + text(b"name") + b"S" + text(b"multi:softprob")
    + text(b"softmax_multiclass_param") + b"{}}}" + text(b"version") + b"[#L" + (3).to_bytes(8, "big") + b"i\x03i\x02i\x00}"
)  # fmt: skip
XGB_JSON = b'{"learner":{"a":[1,2],"objective":{"name":"reg:squarederror"}},"version":[2,1,10]}'
LIGHTGBM = b"tree\nversion=v4\nnum_class=1\nmax_feature_idx=3\nobjective=binary sigmoid:1\nfeature_names=a b\n"


@pytest.mark.parametrize("name", ["model.ubj", "model.bin", "model"])
def test_xgboosts_files_say_what_they_are_for_and_who_wrote_them(name: str) -> None:
    found = read_files({name: UBJ, "other.json": XGB_JSON})
    assert found.framework == "xgboost"
    assert facts_of(found, name) == {
        "path": name, "format": "xgboost", "size_bytes": len(UBJ), "version": "3.2.0", "objective": "multi:softprob",
    }  # fmt: skip
    assert facts_of(found, "other.json")["version"] == "2.1.10"
    assert facts_of(found, "other.json")["objective"] == "reg:squarederror"
    assert found.pickles == found.warnings == []


def test_of_a_large_xgboost_file_the_two_ends_alone_are_read() -> None:
    head = UBJ.partition(text(b"objective"))[0]
    files = StoredFiles({"model.ubj": head + bytes(50_000_000) + UBJ[len(head) :]})
    assert facts_of(files.read(), "model.ubj")["version"] == "3.2.0"
    assert files.bytes_read <= 8192


def test_lightgbms_text_is_known_by_its_first_lines() -> None:
    found = read_files({"model.lgb.txt": LIGHTGBM})
    assert found.framework == "lightgbm"
    facts = facts_of(found, "model.lgb.txt")
    assert (facts["version"], facts["objective"], facts["max_feature_idx"]) == ("v4", "binary sigmoid:1", "3")


@pytest.mark.parametrize("content", [UBJ[:40], UBJ[:-3], b"tree\nversion=v\xff\n", b'{"learner":{', b"{" * 5000])
def test_a_native_file_cut_anywhere_gives_what_it_has(content: bytes) -> None:
    found = read_files({"model.ubj": content})
    assert found.framework in {"xgboost", "lightgbm"}
    assert found.warnings == []


def keras(config: Any) -> bytes:
    members = {
        "metadata.json": b'{"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}',
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": b"\x89HDF\r\n\x1a\n",
    }
    return zip_of(members)


def test_a_keras_file_says_its_class_its_version_and_whether_it_holds_code() -> None:
    plain = {"module": "keras", "class_name": "Sequential", "config": {"layers": []}}
    found = read_files({"model.keras": keras(plain)})
    assert found.framework == "keras"
    facts = facts_of(found, "model.keras")
    assert (facts["class"], facts["keras_version"], facts["code"]) == ("Sequential", "3.15.1", [])
    assert found.pickles == []

    layers = [{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {}}}}]
    found = read_files({"model.keras": keras({**plain, "config": {"layers": layers}})})
    assert facts_of(found, "model.keras")["code"] == ["Lambda", "__lambda__"]
    assert found.pickles == ["model.keras"]


@pytest.mark.parametrize("config", ["[]", "{", '{"a":' * 100_000], ids=len)
def test_a_keras_config_that_does_not_read_is_a_warning(config: str) -> None:
    members = {"config.json": config.encode(), "model.weights.h5": b"\x89HDF\r\n\x1a\n"}
    found = read_files({"model.keras": zip_of(members)})
    assert len(found.warnings) == 1


def test_a_folder_of_transformers_is_known_and_code_it_names_is_told() -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], "transformers_version": "5.1.0"}
    found = read_files({"config.json": json.dumps(config).encode(), "model.safetensors": TENSORS})
    assert found.framework == "transformers"
    facts = facts_of(found, "config.json")
    assert (facts["model_type"], facts["architectures"], facts["transformers_version"]) == (
        "bert",
        ["BertModel"],
        "5.1.0",
    )
    assert found.warnings == []

    config["auto_map"] = {"AutoModel": "code.Model"}  # type: ignore[assignment]
    found = read_files({"config.json": json.dumps(config).encode(), "model.safetensors": TENSORS})
    assert facts_of(found, "config.json")["code"] is True
    assert "trust_remote_code" in found.warnings[0]


def test_another_config_beside_tensors_is_only_json() -> None:
    for said in (b'{"architecture": "resnet"}', b"[1]"):
        found = read_files({"config.json": said, "model.safetensors": TENSORS})
        assert found.framework == "safetensors"
        assert facts_of(found, "config.json")["format"] == "json"


def test_a_description_names_the_format_and_the_versions_it_was_saved_with() -> None:
    described = {
        "class": "mine.Net", "format": "torch", "libraries": {"torch": "2.13.0", "odd": 7}, "python": "3.11", "schema": 1,
    }  # fmt: skip
    found = read_files({"touchmark.json": json.dumps(described).encode(), "model.safetensors": TENSORS})
    assert found.framework == "torch"
    assert found.flavors == {"torch": {"class": "mine.Net", "torch_version": "2.13.0"}}
    assert found.python_version == "3.11"
    deep = read_files({"sub/touchmark.json": json.dumps(described).encode(), "model.safetensors": TENSORS})
    assert (deep.framework, deep.flavors) == ("safetensors", {})


@pytest.mark.parametrize(
    "said",
    [b"[]", b'{"format": 7}', b'{"format": "../x"}', b'{"format": ""}', b"{", b'{"a":' * 100_000, b" " * 2_000_000],
    ids=len,
)
def test_a_description_that_says_nothing_usable_changes_nothing(said: bytes) -> None:
    found = read_files({"touchmark.json": said, "model.safetensors": TENSORS})
    assert (found.framework, found.flavors) == ("safetensors", {})
