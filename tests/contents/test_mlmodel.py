"""MLmodel files and what stands beside them."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from tests.contents.files import MLMODEL, facts_of, read_files, read_folder
from touchmark.contents import documents
from touchmark.domain.errors import LimitExceededError


@pytest.mark.mlflow
@pytest.mark.filterwarnings("ignore")  # mlflow warns while it is imported and about what it saves
def test_a_model_saved_by_mlflow_is_described(tmp_path: Path) -> None:
    import mlflow.sklearn
    from mlflow.models.signature import infer_signature

    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0], "visits": [1, 2, 3, 4]})
    target = np.array([0, 1, 0, 1])
    model = LogisticRegression().fit(frame, target)
    signature = infer_signature(frame, target, params={"threshold": 0.5})
    mlflow.sklearn.save_model(
        model, str(tmp_path / "m"), signature=signature, pip_requirements=["scikit-learn==1.9.1"],
        serialization_format="skops",
    )  # fmt: skip
    contents = read_folder(tmp_path / "m")
    assert contents.framework == "sklearn"
    assert contents.flavors["sklearn"]["serialization_format"] == "skops"
    assert contents.flavors["python_function"]["loader_module"] == "mlflow.sklearn"
    assert contents.schema == {
        "inputs": [
            {"name": "age", "type": "double", "shape": None, "required": True},
            {"name": "visits", "type": "long", "shape": None, "required": True},
        ],
        "outputs": [{"name": "", "type": "int64", "shape": [-1], "required": True}],
        "params": [{"name": "threshold", "type": "double", "shape": None, "required": False, "default": "0.5"}],
    }
    assert "scikit-learn==1.9.1" in contents.requirements
    assert contents.python_version is not None
    assert contents.python_version.startswith("3.")
    assert facts_of(contents, "MLmodel")["mlflow_version"] == mlflow.__version__
    assert facts_of(contents, "model.skops")["root"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert contents.pickles == []
    assert contents.warnings == []


@pytest.mark.mlflow
@pytest.mark.filterwarnings("ignore")  # mlflow warns while it is imported and about what it saves
def test_a_python_function_saved_by_mlflow_is_known_to_hold_a_pickle(tmp_path: Path) -> None:
    import mlflow.pyfunc
    from mlflow.models.signature import infer_signature

    signature = infer_signature(np.zeros((3, 4), dtype=np.float32))
    with warnings.catch_warnings(record=True):  # mlflow turns its own warnings on again

        class Echo(mlflow.pyfunc.PythonModel):
            def predict(self, context: object, model_input: object, params: object = None) -> object:
                return model_input

        mlflow.pyfunc.save_model(
            str(tmp_path / "m"), python_model=Echo(), signature=signature, pip_requirements=["numpy"]
        )
    contents = read_folder(tmp_path / "m")
    assert contents.framework == "python_function"
    assert contents.pickles == ["python_model.pkl"]
    assert contents.schema is not None
    assert contents.schema["inputs"] == [{"name": "", "type": "float32", "shape": [-1, 4], "required": True}]


def test_nested_column_types_are_written_as_one_line_and_versions_keep_their_spelling() -> None:
    contents = read_files({"MLmodel": MLMODEL.encode()})
    assert contents.schema is not None
    assert contents.schema["inputs"][1] == {
        "name": "turns", "type": "array(object{note?: string, role: string})", "shape": None, "required": False,
    }  # fmt: skip
    assert contents.python_version == "3.10"
    assert "code" not in contents.flavors["sklearn"]
    assert facts_of(contents, "MLmodel")["run_id"] == "0123456789abcdef0123456789abcdef"
    assert contents.warnings == []


def test_the_outermost_mlmodel_speaks_for_the_model() -> None:
    inner = b"flavors: {xgboost: {xgb_version: 3.0.0}}\n"
    contents = read_files(
        {
            "model/MLmodel": MLMODEL.encode(),
            "model/requirements.txt": b"numpy\n",
            "model/steps/one/MLmodel": inner,
            "model/steps/one/requirements.txt": b"xgboost\n",
        }
    )
    assert contents.framework == "sklearn"
    assert contents.requirements == ["numpy"]
    assert contents.file_count == 4


def test_a_broken_signature_leaves_the_rest_readable() -> None:
    for broken in ("'[{'", "'{}'", "[a]", "'[3]'", '\'[{"name": "x", "name": "x"}]\''):
        text = f"flavors: {{sklearn: {{sklearn_version: '1'}}}}\nsignature:\n  inputs: {broken}\n"
        contents = read_files({"MLmodel": text.encode()})
        assert contents.framework == "sklearn"
        assert contents.schema == {"inputs": [], "outputs": [], "params": []}
        assert len(contents.warnings) == 1
        assert contents.warnings[0].startswith("MLmodel: the inputs of its signature cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b"- just\n- a list\n",
        b"flavors: [unclosed\n",
        b"a: 1\n---\nb: 2\n",
        b"a: *nowhere\n",
        b"a: &a [*a]\n",
        b"? [1, 2]\n: x\n",
        b"a: " + b"[" * 40 + b"]" * 40,
        b"a: " + b"[" * 100_000,
        b"a:\n" + b"- x\n" * 60_000,
        b"x" * (1024 * 1024 + 1),
        b"",
    ],
)
def test_yaml_that_cannot_be_taken_is_said_and_the_file_stays_recognised(text: bytes) -> None:
    contents = read_files({"MLmodel": text})
    assert facts_of(contents, "MLmodel")["format"] == "mlmodel"
    assert len(contents.warnings) == 1
    assert contents.warnings[0].startswith("MLmodel could not be read: ")
    assert "unforeseen" not in contents.warnings[0]


def test_yaml_reads_the_same_without_its_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = read_files({"MLmodel": MLMODEL.encode()})
    monkeypatch.setattr(documents, "_Loader", yaml.SafeLoader)
    assert read_files({"MLmodel": MLMODEL.encode()}).to_bytes() == quick.to_bytes()


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    begun = time.monotonic()
    contents = read_files({"MLmodel": "\n".join(lines).encode()})
    assert time.monotonic() - begun < 30
    assert "aliases written out" in contents.warnings[0]


def test_a_few_aliases_as_pyyaml_writes_them_are_fine() -> None:
    contents = read_files({"conda.yaml": b"pins: &id001\n- numpy\ndependencies:\n- python=3.12\n- pip: *id001\n"})
    assert contents.requirements == ["numpy"]
    assert contents.python_version == "3.12"
    assert contents.warnings == []


def test_yaml_tags_build_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    text = f"flavors:\n  sklearn: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]\n"
    contents = read_files({"MLmodel": text.encode()})
    assert not mark.exists()
    assert contents.flavors == {"sklearn": {}}


def test_requirements_lose_options_comments_hashes_and_passwords() -> None:
    text = (
        b"# made by hand\n--index-url https://me:secret@example.org/simple\n-r more.txt\n\n"
        b"numpy==2.0 \\\n    --hash=sha256:abc \\\n    --hash=sha256:def\n"
        b"pandas>=2  # frames\nmine @ https://token:secret@example.org/mine.whl\n"
        b"-e git+https://secret@example.org/x.git#egg=x\nnumpy==2.0\n"
    )
    contents = read_files({"requirements.txt": text})
    assert contents.requirements == [
        "git+https://example.org/x.git#egg=x",
        "mine @ https://example.org/mine.whl",
        "numpy==2.0",
        "pandas>=2",
    ]
    assert b"secret" not in contents.to_bytes()


def test_conda_and_python_env_are_used_where_requirements_are_missing() -> None:
    contents = read_files(
        {
            "conda.yaml": b"dependencies:\n- python=3.11.7\n- pip<=23\n- openblas\n- pip:\n  - mlflow==3\n  - 7\n",
            "python_env.yaml": b"python: 3.11.8\n",
        }
    )
    assert contents.requirements == ["7", "mlflow==3", "openblas"]
    assert contents.python_version == "3.11.8"


def test_text_no_database_could_hold_is_made_storable() -> None:
    text = 'flavors: {"a\\0b": {"k\\x01": "v\\x02"}}\nsignature:\n  inputs: \'[{"type": "long", "name": "\\ud800\\u0000"}]\'\n'
    contents = read_files({"MLmodel": text.encode()})
    assert contents.flavors == {"a\ufffdb": {"k\ufffd": "v\ufffd"}}
    assert contents.schema is not None
    assert contents.schema["inputs"][0]["name"] == "\ufffd\ufffd"
    assert b"\\u0000" not in contents.to_bytes()


def test_directives_are_few_and_never_compared_with_each_other_for_seconds() -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    handles = [f"%TAG !{a}{b}{c}! x\n" for a in names for b in names for c in names]
    began = time.perf_counter()

    for text in ("".join(handles), "".join(handles).replace("\n", "\r"), "# a\n" + "".join(handles)):
        with pytest.raises(LimitExceededError, match="at most 100 directives"):
            documents.parse_yaml((text + "---\nflavors: {}\n").encode())

    assert time.perf_counter() - began < 1
    assert documents.parse_yaml(b"%YAML 1.1\n%TAG !a! x\n---\na: b\n") == {"a": "b"}
