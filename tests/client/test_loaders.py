"""What the savers and loaders of the SDK promise: the same model back, the same bytes each time, nothing run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import yaml
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from touchmark.client.loaders import list_loaders, load_model, save_model
from touchmark.client.loaders.pickles import is_pickle
from touchmark.domain.errors import (
    InvalidFieldError,
    InvalidPathError,
    MissingExtraError,
    NothingToRegisterError,
    UnsafeFormatError,
)

RNG = np.random.default_rng(7)
X = RNG.normal(size=(60, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
NAMES = np.array(["no", "yes"])[Y]
TEXTS = ["red green blue", "green blue", "red red", "blue"] * 15
TREE = "sklearn.tree._tree.Tree"
CSR = "scipy.sparse._csr.csr_matrix"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


NATIVE = ("xgboost", "lightgbm", "catboost", "onnx", "keras")


class Doubler(TransformerMixin, BaseEstimator):
    """A transformer of the user's own, which skops cannot know."""

    def fit(self, x: Any, y: Any = None) -> Doubler:
        """Learn nothing."""
        del x, y
        return self

    def transform(self, x: Any) -> Any:
        """Double."""
        return x * 2


class Plain:
    """An object of no framework."""

    def __init__(self, value: int) -> None:
        self.value = value


class Bomb:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.canary),))


def list_files(folder: Path) -> dict[str, int]:
    """Return what a manifest would say of a folder."""
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def load(folder: Path, **options: Any) -> Any:
    return load_model(folder, list_files(folder), **options)


def get_digests(folder: Path) -> dict[str, str]:
    return {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in list_files(folder)}


ESTIMATORS: dict[str, Any] = {
    "pipeline": (lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, NAMES), X, []),
    "columns": (
        lambda: make_pipeline(
            ColumnTransformer([("hot", OneHotEncoder(), [0]), ("scale", StandardScaler(), [1, 2])]), Ridge()
        ).fit(X.round(), Y),
        X.round(),
        [],
    ),
    "text": (lambda: make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, Y), TEXTS, []),
    "svm": (lambda: SVC().fit(X, Y), X, []),
    "svm on sparse": (lambda: SVC().fit(sparse.csr_array(X), Y), sparse.csr_array(X), [CSR]),
    "clusters": (lambda: KMeans(3, n_init=1, random_state=0).fit(X), X, []),
    "forest": (lambda: RandomForestClassifier(5, random_state=0).fit(X, Y), X, [TREE]),
    "boosting": (lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X, Y), X, [PREDICTOR]),
}


@pytest.fixture(params=sorted(ESTIMATORS))
def estimator(request: pytest.FixtureRequest) -> Any:
    return ESTIMATORS[request.param]


# ── scikit-learn ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_estimator_predicts_the_same_after_a_round_trip(estimator: Any, tmp_path: Path) -> None:
    make, data, trusted = estimator
    model = make()
    assert save_model(model, tmp_path / "m") == "skops"
    assert list(list_files(tmp_path / "m")) == ["model.skops", "touchmark.json"]
    loaded = load(tmp_path / "m", trusted_types=trusted)
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(data), model.predict(data))


def test_the_same_model_saved_twice_has_the_same_bytes_and_so_has_one_fitted_again(
    estimator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, _, _ = estimator
    model = make()
    save_model(model, tmp_path / "one")
    # A zip entry's time has steps of two seconds; another hour shows that the clock does not get in.
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    save_model(model, tmp_path / "two")
    save_model(make(), tmp_path / "again")
    assert get_digests(tmp_path / "one") == get_digests(tmp_path / "two") == get_digests(tmp_path / "again")


def test_another_process_with_another_hash_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from touchmark.client.loaders import save_model
words = {f"word {n}" for n in range(40)} | {b"bytes %d" % n for n in range(40)} | {(n, str(n)) for n in range(40)}
x = np.arange(12.0).reshape(6, 2)
model = make_pipeline(FunctionTransformer(kw_args={"words": words, 3: None}), Ridge())
model[-1].fit(x, x[:, 0])
save_model(model, Path(sys.argv[1]))
"""
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", script, tmp_path / seed], check=True, env=environment, timeout=120)
    assert get_digests(tmp_path / "1") == get_digests(tmp_path / "2")
    loaded = load(tmp_path / "1")
    assert len(loaded[0].kw_args["words"]) == 120
    assert list(loaded[0].kw_args) == ["words", 3]


def test_models_that_differ_in_one_number_have_different_bytes(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    save_model(model, tmp_path / "one")
    model.coef_[0, 0] = np.nextafter(model.coef_[0, 0], 10)
    save_model(model, tmp_path / "two")
    assert get_digests(tmp_path / "one")["model.skops"] != get_digests(tmp_path / "two")["model.skops"]


def test_what_was_one_array_is_one_array_again_and_equal_arrays_stay_two(tmp_path: Path) -> None:
    model = Ridge().fit(X, Y)
    model.one = model.same = np.ones(3)
    model.other = np.ones(3)
    model.raw = b"\x00\x01"
    model.words = {"file": "a", "__id__": 5, "__loader__": "SetNode", "content": ["z", "a"]}  # names skops uses itself
    save_model(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.one is loaded.same
    assert loaded.one is not loaded.other
    assert loaded.raw == b"\x00\x01"
    assert loaded.words == model.words


def test_the_description_says_what_the_model_was_made_with_and_nothing_of_when_or_where(tmp_path: Path) -> None:
    save_model(make_pipeline(Doubler(), Ridge()).fit(X, Y), tmp_path / "m")
    description = json.loads((tmp_path / "m" / "touchmark.json").read_bytes())
    assert set(description.pop("libraries")) == {"numpy", "scikit-learn", "scipy", "skops"}
    assert description == {
        "class": "sklearn.pipeline.Pipeline",
        "format": "skops",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "schema": 1,
        "untrusted_types": [f"{__name__}.Doubler"],
    }


def test_a_type_skops_does_not_know_is_named_in_the_refusal_and_can_be_trusted_alone(tmp_path: Path) -> None:
    model = make_pipeline(Doubler(), RandomForestClassifier(2, random_state=0)).fit(X, Y)
    save_model(model, tmp_path / "m")
    with pytest.raises(UnsafeFormatError, match="Doubler") as refused:
        load(tmp_path / "m")
    assert refused.value.fields == {"path": "model.skops", "types": sorted([TREE, f"{__name__}.Doubler"])}
    with pytest.raises(UnsafeFormatError) as refused:
        load(tmp_path / "m", trusted_types=[TREE])
    assert refused.value.fields["types"] == [f"{__name__}.Doubler"]
    for loaded in (
        load(tmp_path / "m", trusted_types=[TREE, f"{__name__}.Doubler", "never.Met"]),
        load(tmp_path / "m", allow_pickle=True),
    ):
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_a_function_of_the_system_in_a_skops_file_is_not_built(tmp_path: Path) -> None:
    save_model(FunctionTransformer(os.mkdir, kw_args={"mode": 0o700}), tmp_path / "m")
    with pytest.raises(UnsafeFormatError, match="mkdir"):
        load(tmp_path / "m")


def test_a_model_with_a_lambda_is_refused_when_it_is_saved_rather_than_when_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match=r"<lambda>"):
        save_model(FunctionTransformer(lambda x: x), tmp_path / "m")


def test_a_model_skops_cannot_hold_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = Ridge().fit(X, Y)
    model.stream = (n for n in range(3))
    with pytest.raises(InvalidFieldError, match="format='pickle'"):
        save_model(model, tmp_path / "m")


def test_a_pickle_under_the_name_of_a_skops_file_never_runs_even_with_allow_pickle(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.skops").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    for allowed in (False, True):
        with pytest.raises(UnsafeFormatError, match="is a pickle"):
            load(folder, allow_pickle=allowed)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("schema", [None, "[]", "{}", "not json", '{"protocol": 99}', '{"protocol": 0}'])
def test_a_skops_file_that_cannot_be_read_is_invalid_and_no_stack_trace(tmp_path: Path, schema: str | None) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    if schema is None:
        (folder / "model.skops").write_bytes(b"nothing of the kind")
    else:
        with zipfile.ZipFile(folder / "model.skops", "w") as archive:
            archive.writestr("schema.json", schema)
    with pytest.raises(InvalidFieldError, match="not a skops file"):
        load(folder)


# ── safetensors ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_arrays_come_back_equal_whatever_their_strides_shape_and_byte_order(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = {
        "transposed": base.T,
        "every other": base[:, ::2],
        "backwards": base[::-1],
        "fortran": np.asfortranarray(base),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), dtype=np.int8),
        "big endian": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
        "half": np.array([0.5], dtype=np.float16),
    }
    assert save_model(tensors, tmp_path / "m") == "safetensors"
    loaded = load(tmp_path / "m")
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape
        assert loaded[name].dtype == array.dtype.newbyteorder("=")


def test_the_order_of_a_dict_does_not_change_the_bytes(tmp_path: Path) -> None:
    tensors = {f"layer {n}": np.full(3, n, dtype=dtype) for n, dtype in enumerate(["f4", "i8", "f4", "f2"])}
    save_model(tensors, tmp_path / "one")
    save_model(dict(reversed(tensors.items())), tmp_path / "two")
    assert get_digests(tmp_path / "one") == get_digests(tmp_path / "two")


def test_many_safetensors_files_load_as_one_dict_and_a_name_held_twice_is_refused(tmp_path: Path) -> None:
    save_model({"a": np.ones(2), "b": np.zeros(1)}, tmp_path / "m" / "first")
    save_model({"c": np.ones(3)}, tmp_path / "m" / "second")
    (tmp_path / "m" / "config.json").write_text("{}")
    assert sorted(load(tmp_path / "m")) == ["a", "b", "c"]
    save_model({"b": np.ones(1)}, tmp_path / "m" / "third")
    with pytest.raises(InvalidFieldError, match=r"'b' is also in 'first/model\.safetensors'"):
        load(tmp_path / "m")
    assert load(tmp_path / "m", loader="files") == tmp_path / "m"


@pytest.mark.parametrize(
    "array",
    [
        np.array(["text"]),
        np.array([object()]),
        np.zeros(1, dtype=np.complex128),
        np.zeros(1, dtype="datetime64[D]"),
        np.ma.masked_array([1.0, 2.0], mask=[True, False]),
    ],
    ids=lambda array: array.dtype.name + type(array).__name__,
)
def test_an_array_safetensors_cannot_hold_is_refused(tmp_path: Path, array: Any) -> None:
    with pytest.raises(InvalidFieldError, match="safetensors cannot"):
        save_model({"a": array}, tmp_path / "m")


def test_a_damaged_safetensors_file_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InvalidFieldError, match="safetensors cannot read it"):
        load(tmp_path)


# ── pickles ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pickle_is_written_only_when_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match=r"Plain.*scikit-learn.*format='pickle'"):
        save_model(Plain(3), tmp_path / "m")
    assert list_files(tmp_path / "m") == {}
    assert save_model(Plain(3), tmp_path / "m", format="pickle") == "pickle"
    with pytest.raises(UnsafeFormatError, match="allow_pickle=True"):
        load(tmp_path / "m")
    assert load(tmp_path / "m", allow_pickle=True).value == 3


@pytest.mark.parametrize("name", ["model.pkl", "model.PICKLE", "deep/model.joblib"])
def test_a_malicious_pickle_does_not_run_unless_it_is_allowed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    for options in ({}, {"loader": "pickle"}, {"trusted_types": ["posix.mkdir"]}):
        with pytest.raises(UnsafeFormatError):
            load(tmp_path / "m", **options)
    assert load(tmp_path / "m", loader="files") == path
    assert not (tmp_path / "canary").exists()
    load(tmp_path / "m", allow_pickle=True)
    assert (tmp_path / "canary").exists()  # so the refusals above refused something


@pytest.mark.parametrize("name", ["model.json", "model.bin", "weights", "model.tflite", "model.pkl.txt"])
def test_a_pickle_under_another_name_comes_back_as_a_path_and_does_not_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    for allowed in (False, True):
        assert load(tmp_path / "m", allow_pickle=allowed) == tmp_path / "m" / name
    assert not (tmp_path / "canary").exists()


def test_a_pickle_under_the_name_of_an_onnx_model_is_refused_and_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.onnx").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    for allowed in (False, True):
        with pytest.raises(InvalidFieldError, match="cannot be read as ONNX"):
            load(tmp_path / "m", allow_pickle=allowed)
    assert not (tmp_path / "canary").exists()


def test_a_joblib_file_with_arrays_loads(tmp_path: Path) -> None:
    joblib.dump({"a": np.arange(5)}, tmp_path / "model.joblib", compress=3)
    np.testing.assert_array_equal(load(tmp_path, allow_pickle=True)["a"], np.arange(5))


def test_of_two_pickles_none_is_guessed_to_be_the_model(tmp_path: Path) -> None:
    for name in ("a.pkl", "b.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(1))
    with pytest.raises(InvalidFieldError, match=r"a\.pkl, b\.pkl"):
        load(tmp_path, allow_pickle=True)


def test_what_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="cannot be pickled"):
        save_model(lambda: 1, tmp_path / "m", format="pickle")


def test_a_pickle_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps([1], protocol=protocol))
        assert is_pickle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert is_pickle(path)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())  # a zip archive is read from its end
    assert is_pickle(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x01", b"\x80\x06", b"{}", b"PK\x03\x04 but no archive"])
def test_other_content_is_not_taken_for_a_pickle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_pickle(tmp_path / "file")


def test_an_archive_of_arrays_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", data=np.ones(3))
    assert not is_pickle(tmp_path / "arrays.npz")


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_kept_byte_for_byte_and_loads_as_its_path(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"\x08\x07")
    assert save_model(str(tmp_path / "model.tflite"), tmp_path / "m") == "files"
    loaded = load(tmp_path / "m")
    assert loaded == tmp_path / "m" / "model.tflite"
    assert loaded.read_bytes() == b"\x08\x07"


def test_a_folder_is_kept_as_it_stands_with_hidden_files_and_nothing_added(tmp_path: Path) -> None:
    content = {"a.txt": b"1", ".DS_Store": b"2", ".git/HEAD": b"3", "deep/er/__pycache__/x.pyc": b"4", "ü ñ": b""}
    for path, data in content.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_bytes(data)
    save_model(tmp_path / "source", tmp_path / "m")
    assert {path: (tmp_path / "m" / path).read_bytes() for path in list_files(tmp_path / "m")} == content
    assert load(tmp_path / "m") == tmp_path / "m"


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"abc" * 1_000_000)
    save_model(tmp_path / "source", tmp_path / "m")
    assert get_digests(tmp_path / "m") == get_digests(tmp_path / "source")
    assert not (tmp_path / "m" / "a").samefile(tmp_path / "source" / "a")


@pytest.mark.parametrize("target", ["secret", "folder", "nowhere", "source/a"])
def test_a_symbolic_link_in_a_folder_is_refused_before_anything_is_placed(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("key")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "key").write_text("key")
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "source" / "a").write_text("a")
    (tmp_path / "source" / "deep" / "link").symlink_to(tmp_path / target)
    with pytest.raises(InvalidPathError, match="symbolic link") as refused:
        save_model(tmp_path / "source", tmp_path / "m")
    assert refused.value.fields["path"] == "deep/link"
    assert list_files(tmp_path / "m") == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "pipe")
    for given in (tmp_path / "source", tmp_path / "source" / "pipe"):
        with pytest.raises(InvalidPathError, match="not a regular file"):
            save_model(given, tmp_path / "m")
    assert list_files(tmp_path / "m") == {}


def test_the_path_given_may_itself_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "v3").mkdir()
    (tmp_path / "v3" / "a.txt").write_text("a")
    (tmp_path / "current").symlink_to(tmp_path / "v3")
    (tmp_path / "alone").symlink_to(tmp_path / "v3" / "a.txt")
    save_model(tmp_path / "current", tmp_path / "m")
    save_model(tmp_path / "alone", tmp_path / "n")
    assert list_files(tmp_path / "m") == list_files(tmp_path / "n") == {"a.txt": 1}
    assert not (tmp_path / "n" / "a.txt").is_symlink()


def test_a_path_that_leads_nowhere_or_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="no file or folder"):
        save_model(str(tmp_path / "missing"), tmp_path / "m")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(NothingToRegisterError):
        save_model(tmp_path / "empty", tmp_path / "m")
    with pytest.raises(InvalidFieldError, match="inside the folder"):
        save_model(tmp_path, tmp_path / "m")


def test_a_folder_that_holds_something_is_not_mixed_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "left over").write_text("old")
    with pytest.raises(InvalidFieldError, match="not empty"):
        save_model(Ridge().fit(X, Y), tmp_path)


# ── MLflow ───────────────────────────────────────────────────────────────────────────────────────────────────────


# MLflow warns while it is imported and of models it saved itself: not ours to fix.
uses_mlflow = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.pyfunc
    import mlflow.sklearn

    return mlflow


@pytest.fixture
def save_with_mlflow(mlflow: Any, tmp_path: Path) -> Any:
    def save(model: Any, serialization_format: str, **options: Any) -> Path:
        mlflow.sklearn.save_model(
            model,
            str(tmp_path / "mlflow"),
            serialization_format=serialization_format,
            pip_requirements=["scikit-learn"],
            **options,
        )
        assert save_model(tmp_path / "mlflow", tmp_path / "m") == "files"
        return tmp_path / "m"

    return save


def edit_mlmodel(folder: Path, **pyfunc: object) -> None:
    document = yaml.safe_load((folder / "MLmodel").read_text())
    document["flavors"]["python_function"].update(pyfunc)
    (folder / "MLmodel").unlink()  # it may be a link to what was saved
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


@uses_mlflow
def test_an_mlflow_model_in_skops_format_loads_without_leave(save_with_mlflow: Any) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    loaded = load(save_with_mlflow(model, "skops"))
    assert type(loaded).__name__ == "PyFuncModel"
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@uses_mlflow
@pytest.mark.parametrize("serialization_format", ["pickle", "cloudpickle"])
def test_an_mlflow_model_that_is_a_pickle_needs_leave(save_with_mlflow: Any, serialization_format: str) -> None:
    model = LogisticRegression().fit(X, Y)
    folder = save_with_mlflow(model, serialization_format)
    with pytest.raises(UnsafeFormatError) as refused:
        load(folder)
    assert refused.value.fields["path"] == "model.pkl"
    np.testing.assert_array_equal(load(folder, allow_pickle=True).predict(X), model.predict(X))


@uses_mlflow
def test_types_that_mlmodel_trusts_are_not_trusted_for_that(save_with_mlflow: Any) -> None:
    model = RandomForestClassifier(3, random_state=0).fit(X, Y)
    folder = save_with_mlflow(model, "skops", skops_trusted_types=[TREE])
    with pytest.raises(UnsafeFormatError, match=TREE):
        load(folder)
    np.testing.assert_array_equal(load(folder, trusted_types=[TREE]).predict(X), model.predict(X))


@uses_mlflow
def test_a_python_model_needs_leave(mlflow: Any, tmp_path: Path) -> None:
    class Constant(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - MLflow acts on hints
            return [42] * len(model_input)

    mlflow.pyfunc.save_model(str(tmp_path / "m"), python_model=Constant(), pip_requirements=["numpy"])
    with pytest.raises(UnsafeFormatError) as refused:
        load(tmp_path / "m")
    assert refused.value.fields["path"] == "python_model.pkl"
    assert load(tmp_path / "m", allow_pickle=True).predict(np.ones((2, 1))) == [42, 42]


@uses_mlflow
@pytest.mark.parametrize(
    "pyfunc",
    [
        {"loader_module": "touchmark_canary"},
        {"loader_module": "touchmark_canary", "code": "code"},
        {"code": "code"},
        {"config": {"a": 1}},
        {"data": "code"},
        {"model_code_path": "code/touchmark_canary.py"},
        {"model_path": "../mlflow/model.skops"},
        {"model_path": "/etc/hosts"},
        {"model_path": None},
        {"loader_module": "mlflow.pyfunc.model"},
        {"loader_module": ["mlflow.sklearn"]},
    ],
    ids=str,
)
def test_an_mlmodel_that_could_run_code_is_refused_before_anything_runs(
    save_with_mlflow: Any, tmp_path: Path, pyfunc: dict[str, object]
) -> None:
    folder = save_with_mlflow(Ridge().fit(X, Y), "skops")
    (folder / "code").mkdir()
    canary = tmp_path / "canary"
    (folder / "code" / "touchmark_canary.py").write_text(
        f"import os\nos.mkdir({str(canary)!r})\n_load_pyfunc = lambda path: None\n"
    )
    edit_mlmodel(folder, **pyfunc)
    with pytest.raises(UnsafeFormatError):
        load(folder)
    assert not canary.exists()
    assert str(folder / "code") not in sys.path


@uses_mlflow
def test_the_code_an_mlmodel_brings_does_run_with_leave(
    save_with_mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counterpart of the test above: what it refuses is a real way to run code.
    folder = save_with_mlflow(Ridge().fit(X, Y), "skops")
    (folder / "code").mkdir()
    (folder / "code" / "touchmark_canary.py").write_text(
        f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n"
        "class Model:\n    predict = None\ndef _load_pyfunc(path):\n    return Model()\n"
    )
    edit_mlmodel(folder, loader_module="touchmark_canary", code="code")
    monkeypatch.setattr(sys, "path", list(sys.path))
    load(folder, allow_pickle=True)
    sys.modules.pop("touchmark_canary", None)
    assert (tmp_path / "canary").exists()


@uses_mlflow
def test_a_pickle_renamed_to_skops_in_an_mlflow_model_does_not_run(save_with_mlflow: Any, tmp_path: Path) -> None:
    folder = save_with_mlflow(Ridge().fit(X, Y), "skops")
    (folder / "model.skops").unlink()
    (folder / "model.skops").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    with pytest.raises(UnsafeFormatError) as refused:
        load(folder)
    assert refused.value.fields["path"] == "model.skops"
    (folder / "model.skops").write_bytes(pickle.dumps(Bomb(tmp_path / "canary"), protocol=0))  # has no signature
    with pytest.raises(InvalidFieldError, match="not a skops file"):
        load(folder)
    assert not (tmp_path / "canary").exists()


@uses_mlflow
@pytest.mark.parametrize("text", ["", "a: [", "flavors: 3", "flavors: {sklearn: {}}", "\x00", "- 1"])
def test_an_mlmodel_that_says_nothing_usable_is_invalid(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(InvalidFieldError, match="MLmodel"):
        load(tmp_path)
    assert load(tmp_path, loader="files") == tmp_path / "MLmodel"


# ── which loader ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_files_of_a_version_choose_its_loader() -> None:
    names = ["MLmodel", "model.skops", "a.safetensors", "model.pkl", "readme.txt"]
    chosen = []
    while names:
        files = dict.fromkeys(names, 1)
        chosen.append(next(loader.name for loader in list_loaders() if loader.can_load(files)))
        names.pop(0)
    assert chosen == ["mlflow", "skops", "safetensors", "pickle", "files"]


def test_a_version_without_files_and_a_loader_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="files"):
        load_model(tmp_path, {})
    with pytest.raises(
        InvalidFieldError,
        match="only mlflow, xgboost, lightgbm, catboost, onnx, keras, skops, transformers, safetensors, torch",
    ):
        load_model(tmp_path, {"a": 1}, loader="tensorflow")
    with pytest.raises(
        InvalidFieldError,
        match="only mlflow, xgboost, lightgbm, catboost, onnx, keras, skops, transformers, safetensors, torch",
    ):
        save_model(Ridge(), tmp_path / "m", format="tensorflow")


@pytest.mark.parametrize("name", ["mlflow", "skops", "safetensors", "pickle"])
def test_a_loader_asked_for_by_name_says_what_it_misses(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(InvalidFieldError, match="there is no"):
        load(tmp_path, loader=name, allow_pickle=True)


@pytest.mark.parametrize("name", ["mlflow", "skops", "safetensors", "files"])
def test_a_format_asked_for_by_name_refuses_what_it_does_not_take(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFieldError):
        save_model(Plain(1), tmp_path / "m", format=name)
    assert list_files(tmp_path / "m") == {}


def test_a_missing_framework_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Ridge().fit(X, Y)
    save_model(model, tmp_path / "sklearn")
    save_model({"a": np.ones(1)}, tmp_path / "tensors")
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "MLmodel").write_text("flavors: {}")
    for module in ("skops.io", "safetensors", "safetensors.numpy", "mlflow.pyfunc"):
        monkeypatch.setitem(sys.modules, module, None)  # what Python finds for a module it cannot import
    for folder, line in (("sklearn", r"touchmark\[sklearn\]"), ("tensors", r"touchmark\[safetensors\]")):
        with pytest.raises(MissingExtraError, match=line):
            load(tmp_path / folder)
    with pytest.raises(MissingExtraError, match="pip install mlflow"):
        load(tmp_path / "mlflow", allow_pickle=True)
    with pytest.raises(MissingExtraError, match=r"touchmark\[sklearn\]"):
        save_model(model, tmp_path / "m")
    with pytest.raises(MissingExtraError, match=r"touchmark\[safetensors\]"):
        save_model({"a": np.ones(1)}, tmp_path / "n")


def test_choosing_a_loader_imports_no_framework() -> None:
    script = """
import sys
from touchmark.client.loaders import list_loaders
for loader in list_loaders():
    for model in (object(), {"a": 1}, "path", [1]):
        loader.can_save(model)
    loader.can_load({"MLmodel": 1, "model.skops": 1, "a.safetensors": 1, "a.pkl": 1})
heavy = {"numpy", "sklearn", "skops", "safetensors", "mlflow", "yaml", "joblib", "pandas", "scipy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with entry points, as pip would lay it out, on a path of its own."""
    site = tmp_path / "site"
    info = site / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[touchmark.loaders]\nupper = touchmark_elsewhere:Upper\nskops = touchmark_elsewhere:Upper\n"
        "broken = touchmark_elsewhere:Missing\n"
    )
    (site / "touchmark_elsewhere.py").write_text(
        "class Upper:\n"
        "    name = 'upper'\n"
        "    def can_save(self, model):\n        return isinstance(model, bytes)\n"
        "    def save(self, model, folder):\n        (folder / 'model.upper').write_bytes(model.upper())\n"
        "    def can_load(self, files):\n        return 'model.upper' in files\n"
        "    def load(self, folder, files, *, allow_pickle, trusted_types):\n"
        "        return (folder / 'model.upper').read_bytes()\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "touchmark_elsewhere", raising=False)


@pytest.mark.usefixtures("other_package")
def test_another_package_adds_a_format_behind_the_safe_ones_and_cannot_replace_one(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="'broken'"):
        loaders = list_loaders()
    assert [loader.name for loader in loaders] == [
        "mlflow",
        *NATIVE,
        "skops",
        "transformers",
        "safetensors",
        "torch",
        "upper",
        "pickle",
        "files",
    ]
    assert type(loaders[6]).__module__ == "touchmark.client.loaders.skops_loader"
    with pytest.warns(RuntimeWarning):
        assert save_model(b"abc", tmp_path / "m") == "upper"
    with pytest.warns(RuntimeWarning):
        assert load(tmp_path / "m") == b"ABC"
