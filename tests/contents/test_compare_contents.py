"""What differs between two versions."""

from __future__ import annotations

from tests.contents.files import MLMODEL, make_onnx, raw_safetensors, read_files
from touchmark.contents import compare_contents

NOTHING: dict[str, list[object]] = {"added": [], "removed": [], "changed": []}


def test_a_model_does_not_differ_from_itself(every_format: dict[str, bytes]) -> None:
    contents = read_files(every_format).to_json()
    assert compare_contents(contents, contents) == {
        "schema": {"inputs": NOTHING, "outputs": NOTHING, "params": NOTHING},
        "flavors": NOTHING, "requirements": NOTHING, "tensors": NOTHING, "facts": NOTHING, "pickles": NOTHING,
    }  # fmt: skip


def test_columns_flavors_requirements_and_tensors_are_compared_by_name() -> None:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    left = read_files(
        {
            "MLmodel": MLMODEL.encode(),
            "requirements.txt": b"Scikit_Learn==1.8\nold\nnumpy\n",
            "m.safetensors": raw_safetensors({"a": tensor}, b"\0" * 8),
        }
    ).to_json()
    right = read_files(
        {
            "MLmodel": MLMODEL.replace('"double", "name": "age"', '"long", "name": "age"')
            .replace("turns", "history")
            .replace("sklearn_version: 1.9.1", "sklearn_version: 2.0.0")
            .replace("0.5", "0.6")
            .encode(),
            "requirements.txt": b"scikit-learn==1.9\nnumpy\nnew\n",
            "m.safetensors": raw_safetensors({"a": tensor | {"dtype": "F16", "shape": [4]}}, b"\0" * 8),
            "extra.pkl": b"\x80\x04K\x01.",
        }
    ).to_json()
    found = compare_contents(left, right)
    inputs = found["schema"]["inputs"]
    assert [entry["name"] for entry in inputs["added"]] == ["history"]
    assert [entry["name"] for entry in inputs["removed"]] == ["turns"]
    assert [(e["name"], e["before"]["type"], e["after"]["type"]) for e in inputs["changed"]] == [
        ("age", "double", "long")
    ]
    assert found["schema"]["outputs"] == NOTHING
    assert found["schema"]["params"]["changed"][0]["after"]["default"] == "0.6"
    assert [entry["name"] for entry in found["flavors"]["changed"]] == ["sklearn"]
    assert found["requirements"] == {
        "added": [{"name": "new", "after": "new"}],
        "removed": [{"name": "old", "before": "old"}],
        "changed": [{"name": "scikit-learn", "before": "Scikit_Learn==1.8", "after": "scikit-learn==1.9"}],
    }
    assert found["tensors"] == {
        "added": [{"name": "dtypes.F16", "after": 4}],
        "removed": [{"name": "dtypes.F32", "before": 2}],
        "changed": [{"name": "parameters", "before": 2, "after": 4}],
    }
    assert [entry["name"] for entry in found["pickles"]["added"]] == ["extra.pkl"]


def test_nameless_and_repeated_columns_do_not_hide_each_other() -> None:
    def one(*columns: tuple[str, str]) -> dict[str, object]:
        return {"schema": {"inputs": [{"name": name, "type": kind} for name, kind in columns]}}

    found = compare_contents(one(("", "a"), ("x", "b"), ("x", "c")), one(("", "d"), ("x", "b"), ("x", "e")))
    assert [entry["name"] for entry in found["schema"]["inputs"]["changed"]] == ["#0", "x #2"]


def test_a_description_without_a_part_is_compared_as_empty() -> None:
    full = read_files({"model.onnx": make_onnx().SerializeToString()}).to_json()
    found = compare_contents({}, full)
    assert [entry["name"] for entry in found["schema"]["inputs"]["added"]] == ["x"]
    assert {entry["name"] for entry in found["facts"]["added"]} == {"framework", "size_bytes", "file_count"}
