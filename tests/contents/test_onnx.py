"""ONNX models by their wire format, compared with what the `onnx` package wrote."""

from __future__ import annotations

import pytest
from onnx import TensorProto, ValueInfoProto, helper

from tests.contents.files import StoredFiles, facts_of, make_onnx, read_files


def test_a_model_is_its_own_signature(onnx_bytes: bytes) -> None:
    contents = read_files({"model.onnx": onnx_bytes})
    facts = facts_of(contents, "model.onnx")
    assert facts["ir_version"] == 8
    assert facts["producer"] == "tests"
    assert facts["graph_name"] == "linear"
    assert facts["opsets"] == {"ai.onnx": 17}
    assert facts["metadata"] == {"author": "somebody"}
    assert facts["initializers"] == {"count": 1, "parameters": 1000, "bytes": 4000, "dtypes": {"F32": 1000}}
    assert contents.schema == {
        "inputs": [{"name": "x", "type": "float32", "shape": ["batch", 10], "required": True}],
        "outputs": [{"name": "y", "type": "float32", "shape": ["batch", -1], "required": True}],
        "params": [],
    }
    assert contents.framework == "onnx"
    assert contents.warnings == []


def test_big_initializers_are_skipped_without_reading_them() -> None:
    stored = StoredFiles({"model.onnx": make_onnx(20_000_000).SerializeToString()})
    contents = stored.read()
    assert facts_of(contents, "model.onnx")["initializers"]["bytes"] == 20_000_000
    assert facts_of(contents, "model.onnx")["outputs"] != []
    assert stored.bytes_read < 64 * 1024
    assert stored.calls < 10


def test_an_initializer_among_the_inputs_is_a_weight_before_ir_4_and_a_default_since() -> None:
    old = read_files({"model.onnx": make_onnx(ir_version=3).SerializeToString()})
    assert old.schema is not None
    assert [column["name"] for column in old.schema["inputs"]] == ["x"]
    model = make_onnx()
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [10, 100]))
    new = read_files({"model.onnx": model.SerializeToString()})
    assert new.schema is not None
    assert [(column["name"], column["required"]) for column in new.schema["inputs"]] == [("x", True), ("W", False)]


def test_external_data_is_named_and_never_opened() -> None:
    stored = StoredFiles(
        {"onnx/model.onnx": make_onnx(external="w.bin").SerializeToString(), "onnx/w.bin": b"\0" * 4000}
    )
    contents = stored.read()
    assert facts_of(contents, "onnx/model.onnx")["external_paths"] == ["w.bin"]
    assert facts_of(contents, "onnx/model.onnx")["initializers"]["bytes"] == 4000
    assert contents.warnings == []


@pytest.mark.parametrize("place", ["../../etc/passwd", "/etc/passwd", "C:\\secret", "a\\..\\..\\b"])
def test_external_data_outside_the_model_is_reported(place: str) -> None:
    contents = read_files({"model.onnx": make_onnx(external=place).SerializeToString()})
    assert any("lies outside the model" in warning for warning in contents.warnings)
    assert any("is not among the files" in warning for warning in contents.warnings)


def test_sequences_maps_and_optionals_have_a_written_type() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.INT64, [3])
    mapping = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    values = [
        helper.make_value_info("a", helper.make_sequence_type_proto(mapping)),
        helper.make_value_info("b", helper.make_optional_type_proto(tensor)),
        helper.make_value_info("c", helper.make_sparse_tensor_type_proto(TensorProto.DOUBLE, [2, "n"])),
        ValueInfoProto(name="d"),
    ]
    model = helper.make_model(helper.make_graph([], "g", values, []))
    contents = read_files({"model.onnx": model.SerializeToString()})
    assert contents.schema is not None
    assert [(column["type"], column["shape"]) for column in contents.schema["inputs"]] == [
        ("sequence(map(string, float32))", None),
        ("optional(int64)", None),
        ("sparse(float64)", [2, "n"]),
        ("any", None),
    ]
    assert contents.warnings == []


def test_every_element_type_the_onnx_package_knows_has_a_name() -> None:
    kinds = [kind for name, kind in TensorProto.DataType.items() if name != "UNDEFINED"]
    values = [helper.make_tensor_value_info(f"v{kind}", kind, [1]) for kind in kinds]
    model = helper.make_model(helper.make_graph([], "g", values, []))
    contents = read_files({"model.onnx": model.SerializeToString()})
    assert contents.schema is not None
    assert not [column for column in contents.schema["inputs"] if str(column["type"]).startswith("type ")]


def test_two_graphs_give_no_signature(onnx_bytes: bytes) -> None:
    contents = read_files({"encoder.onnx": onnx_bytes, "decoder.onnx": onnx_bytes})
    assert contents.schema is None
    assert facts_of(contents, "encoder.onnx")["inputs"] != []


def test_every_truncation_gives_a_part_and_a_sentence(onnx_bytes: bytes) -> None:
    small = make_onnx(80).SerializeToString()
    whole = read_files({"model.onnx": small})
    for length in range(1, len(small)):
        contents = read_files({"model.onnx": small[:length]})
        assert facts_of(contents, "model.onnx")["format"] == "onnx"
        assert all("unforeseen" not in warning for warning in contents.warnings)
        if contents.schema == whole.schema:
            continue
        assert contents.warnings or length < 12
    assert any("only a part" in warning for warning in read_files({"model.onnx": onnx_bytes[:500]}).warnings)


def test_a_swarm_of_tiny_fields_ends_at_the_budget() -> None:
    contents = read_files({"model.onnx": b"\x08\x01" * 600_000})
    assert any("500000 fields" in warning for warning in contents.warnings)


def test_impossible_initializers_are_not_counted() -> None:
    model = make_onnx()
    model.graph.initializer.append(TensorProto(name="n", data_type=1, dims=[-5]))
    model.graph.initializer.append(TensorProto(name="m", data_type=1, dims=[2**62, 2**62]))
    contents = read_files({"model.onnx": model.SerializeToString()})
    assert facts_of(contents, "model.onnx")["initializers"]["count"] == 1
    assert "2 of its initializers" in contents.warnings[0]
