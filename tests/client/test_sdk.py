"""The SDK against a real private server: what a data scientist does, and what it says when something is wrong."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import touchmark
from touchmark import errors


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[touchmark.Registry]:
    home = tmp_path_factory.mktemp("sdk")
    os.environ["TOUCHMARK_CACHE"] = str(home / "cache")
    with touchmark.open(home / "home") as opened:
        yield opened
    del os.environ["TOUCHMARK_CACHE"]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name[:200]


def log_arrays(registry: touchmark.Registry, name: str, value: float = 1.0) -> touchmark.ModelVersion:
    with registry.start_run("sdk") as run:
        run.log_params({"c": value})
        run.log_metrics({"auc": value})
        logged = run.log_model({"w": np.full(3, value)}, "weights", registered_model_name=name)
    assert logged.version is not None
    return logged.version


def test_a_model_is_registered_while_it_is_logged(registry: touchmark.Registry, name: str) -> None:
    version = log_arrays(registry, name, 0.5)

    assert (version.version, version.sealed, version.state) == (1, True, "READY")
    assert version.origin["params"] == {"c": "0.5"}
    assert version.metrics == {"auc": 0.5}
    assert version.contents is not None
    assert version.contents["framework"] == "safetensors"


def test_a_run_remembers_what_it_was_told(registry: touchmark.Registry) -> None:
    with registry.start_run("sdk", name="first", tags={"a": 1}) as run:
        run.log_param("c", 1)
        run.log_metric("loss", 2.0, step=0)
        run.log_metric("loss", math.inf, step=1)
        run.log_dataset("iris", "abc", context="training")
    found = registry.get_run(run.id)

    assert (found.status, found.name, found.params, found.tags) == ("FINISHED", "first", {"c": "1"}, {"a": "1"})
    assert found.metrics["loss"].value == math.inf
    assert found.datasets[0].name == "iris"


def test_a_run_that_breaks_is_marked_failed(registry: touchmark.Registry) -> None:
    with pytest.raises(ZeroDivisionError), registry.start_run("sdk") as run:
        raise ZeroDivisionError
    assert registry.get_run(run.id).status == "FAILED"


def test_a_param_is_written_once(registry: touchmark.Registry) -> None:
    with registry.start_run("sdk") as run:
        run.log_params({"c": 1})
        run.log_params({"c": 1})
        with pytest.raises(errors.ParamChangedError) as caught:
            run.log_params({"c": 2})
    assert caught.value.fields == {"key": "c", "old": "1", "new": "2"}


@pytest.mark.parametrize("as_text", [True, False])
def test_a_folder_is_registered_and_pulled(
    registry: touchmark.Registry, name: str, tmp_path: Path, as_text: bool
) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "sub" / "b.bin").write_bytes(b"\x00\x01")
    version = registry.register_model(str(folder) if as_text else folder, name)
    pulled = registry.pull(f"{name}/1", tmp_path / "here")

    assert version.file_count == 2
    assert (pulled / "a.txt").read_text() == "one"
    assert (pulled / "sub" / "b.bin").read_bytes() == b"\x00\x01"
    assert [p.name for p in registry.pull(f"{name}/1/sub", tmp_path / "part").rglob("*") if p.is_file()] == ["b.bin"]
    with pytest.raises(errors.ArtifactNotFoundError):
        registry.pull(f"{name}/1/nothing", tmp_path / "none")


def test_a_second_pull_fetches_nothing_and_mends_what_changed(
    registry: touchmark.Registry, name: str, tmp_path: Path
) -> None:
    log_arrays(registry, name)
    file = registry.pull(f"{name}/1", tmp_path) / "model.safetensors"
    before = file.stat().st_mtime_ns
    registry.pull(f"{name}/1", tmp_path)
    assert file.stat().st_mtime_ns == before

    right = file.read_bytes()
    changed = b"x" * len(right)
    file.write_bytes(changed)
    with pytest.raises(errors.InvalidFieldError, match="it holds something else"):
        registry.pull(f"{name}/1", tmp_path)
    assert file.read_bytes() == changed
    registry.pull(f"{name}/1", tmp_path, force=True)
    assert file.read_bytes() == right


def test_a_folder_that_holds_other_things_is_left_as_it_is(
    registry: touchmark.Registry, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_arrays(registry, name)
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "notes.txt").write_text("mine")

    with pytest.raises(errors.InvalidFieldError, match=r"deep/notes\.txt"):
        registry.pull(f"{name}/1", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["deep"]
    assert (registry.pull(f"{name}/1", tmp_path / "mine", force=True) / "model.safetensors").is_file()
    assert (tmp_path / "mine" / "deep" / "notes.txt").read_text() == "mine"
    monkeypatch.chdir(tmp_path)
    assert registry.pull(f"{name}/1") == Path(f"{name}-1")
    assert (tmp_path / f"{name}-1" / "model.safetensors").is_file()


@pytest.mark.parametrize("below", [".", "blobs", "blobs/new"], ids=["itself", "below", "new"])
def test_a_home_is_never_pulled_into(registry: touchmark.Registry, name: str, tmp_path: Path, below: str) -> None:
    log_arrays(registry, name)
    touchmark.open(tmp_path / "home").close()
    before = sorted((tmp_path / "home").rglob("*"))

    with pytest.raises(errors.InvalidFieldError, match="home of a registry"):
        registry.pull(f"{name}/1", tmp_path / "home" / below, force=True)

    assert sorted((tmp_path / "home").rglob("*")) == before


def test_a_link_does_not_lead_a_pull_into_a_home(registry: touchmark.Registry, name: str, tmp_path: Path) -> None:
    log_arrays(registry, name)
    touchmark.open(tmp_path / "home").close()
    (tmp_path / "link").symlink_to(tmp_path / "home" / "blobs")
    before = sorted((tmp_path / "home").rglob("*"))

    with pytest.raises(errors.InvalidFieldError, match="home of a registry"):
        registry.pull(f"{name}/1", tmp_path / "link", force=True)

    assert sorted((tmp_path / "home").rglob("*")) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("below", ["file", "file/new", "file/new/er"], ids=["itself", "below", "deep"])
def test_a_pull_to_where_a_file_is_says_so(
    registry: touchmark.Registry, name: str, tmp_path: Path, below: str, *, force: bool
) -> None:
    log_arrays(registry, name)
    (tmp_path / "file").write_text("mine")

    with pytest.raises(errors.InvalidFieldError, match="is a file: choose a folder") as caught:
        registry.pull(f"{name}/1", tmp_path / below, force=force)

    assert caught.value.fields["field"] == "target"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_in_a_folder_is_refused_before_anything_is_made(
    registry: touchmark.Registry, name: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "secret").symlink_to("/etc/hostname")
    with pytest.raises(errors.InvalidPathError):
        registry.register_model(tmp_path / "model", name)
    with pytest.raises(errors.ModelNotFoundError):
        registry.get_model(name)


def test_loading_gives_the_object_back(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name, 3.0)
    registry.set_alias(name, "champion", 1)

    assert np.array_equal(registry.load(f"models:/{name}@champion")["w"], np.full(3, 3.0))  # type: ignore[index]


def test_a_damaged_cache_is_noticed_and_fetched_again(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name, 4.0)
    registry.load(f"{name}/1")
    blob = Path(os.environ["TOUCHMARK_CACHE"], "blobs", "sha256", registry.list_files(f"{name}/1").files[0].digest[7:])
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1])

    assert np.array_equal(registry.load(f"{name}/1")["w"], np.full(3, 4.0))  # type: ignore[index]


def test_what_the_run_does_later_does_not_reach_a_version(
    registry: touchmark.Registry, name: str, tmp_path: Path
) -> None:
    with registry.start_run("sdk") as run:
        run.log_text("first", "model/a.txt")
        registry.register_model(f"runs:/{run.id}/model", name)
        run.log_text("second", "model/a.txt")
        second = registry.register_model(f"runs:/{run.id}/model", name)
        run.delete_artifact("model")
    registry.delete_run(run.id)

    assert second.version == 2
    assert (registry.pull(f"{name}/1", tmp_path / "1") / "a.txt").read_text() == "first"
    assert (registry.pull(f"{name}/2", tmp_path / "2") / "a.txt").read_text() == "second"


def test_aliases_move_with_a_history_and_a_condition(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name)
    log_arrays(registry, name, 2.0)
    seen = registry.set_alias(name, "champion", 1, expected=-1)
    middle = registry.get_alias(name, "champion").moved_at
    registry.set_alias(name, "champion", 2, expected=seen.log_index)
    with pytest.raises(errors.AliasMovedError):
        registry.set_alias(name, "champion", 1, expected=seen.log_index)

    assert [(m.before, m.after) for m in registry.history(f"{name}@champion")] == [(1, 2), (None, 1)]
    assert registry.get_alias(name, "champion", as_of=middle).version == 1
    assert registry.resolve(f"{name}@champion").version == 2
    registry.delete_alias(name, "champion")
    with pytest.raises(errors.AliasNotFoundError):
        registry.resolve(f"{name}@champion")
    assert [move.after for move in registry.history(f"{name}@champion")] == [None, 2, 1]
    with pytest.raises(errors.AliasNotFoundError, match="'champoin'"):
        registry.history(f"{name}@champoin")


def test_a_renamed_model_is_found_by_its_old_name(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name)
    registry.rename_model(name, name + " new")
    found = registry.resolve(f"{name}/1")

    assert (found.name, found.moved_to) == (name + " new", name + " new")
    with pytest.raises(errors.NameTakenError):
        registry.create_model(name)


def test_a_deprecated_version_warns_and_is_not_latest(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name)
    log_arrays(registry, name, 2.0)
    registry.deprecate(name, 2, "trained on the wrong quarter", replaced_by=f"{name}/1")
    with pytest.warns(touchmark.DeprecatedVersionWarning, match="wrong quarter"):
        registry.resolve(f"{name}/2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.resolve(f"{name}/latest").version == 1


def test_a_deleted_version_comes_back(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name)
    registry.delete_version(name, 1)
    with pytest.raises(errors.VersionNotFoundError):
        registry.get_version(name, 1)
    assert registry.get_version(name, 1, include_deleted=True).deleted_at is not None
    registry.restore_version(name, 1)
    assert registry.resolve(f"{name}/1").version == 1


def test_later_results_are_recorded_beside_the_frozen_origin(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name, 0.5)
    registry.record_evaluation(name, 1, {"auc": 0.75, "drift": math.nan}, dataset="q3")
    version = registry.get_version(name, 1)

    assert version.origin["metrics"]["auc"]["value"] == "0.5"
    assert version.metrics["auc"] == 0.75
    assert math.isnan(version.metrics["drift"])
    assert registry.list_evaluations(name, 1)[0]["dataset"] == "q3"


def test_search_walks_every_page(registry: touchmark.Registry, name: str) -> None:
    first = log_arrays(registry, name)
    for _ in range(129):
        registry.register_model(f"models:/{name}/{first.version}", name, tags={"many": "yes"})
    found = [v.version for v in registry.search_versions(f"name = '{name}' AND tags.many = 'yes'", order_by="version")]

    assert found == list(range(2, 131))
    assert len(list(registry.search_versions(f"name = '{name}'", limit=7))) == 7
    with pytest.raises(errors.InvalidFilterError) as caught:
        next(registry.search_versions("tags.many = "))
    assert caught.value.fields["position"]


def test_two_versions_are_compared(registry: touchmark.Registry, name: str) -> None:
    log_arrays(registry, name, 1.0)
    log_arrays(registry, name, 2.0)
    difference = registry.diff(f"{name}/1", f"{name}/2")

    assert difference["params"]["changed"] == {"c": {"left": "1.0", "right": "2.0"}}
    assert [file["path"] for file in difference["files"]["changed"]] == ["model.safetensors"]
    assert not difference["same_bytes"]


def test_lineage_reaches_the_run_and_the_copies(registry: touchmark.Registry, name: str) -> None:
    version = log_arrays(registry, name)
    registry.register_model(f"models:/{name}/1", name + " copy")
    labels = {node["label"] for node in registry.lineage(f"{name}/1")["nodes"]}

    assert f"{name} copy/1" in labels
    assert any(
        node["kind"] == "run" and node["key"] == version.run_id for node in registry.lineage(f"{name}/1")["nodes"]
    )


def test_errors_are_the_same_classes_as_on_the_server(registry: touchmark.Registry) -> None:
    with pytest.raises(errors.ModelNotFoundError) as caught:
        registry.get_model("nobody/knows".replace("/", " "))
    assert caught.value.fields == {"name": "nobody knows"}
    assert touchmark.ModelNotFoundError is errors.ModelNotFoundError


def test_a_source_on_the_server_is_refused(registry: touchmark.Registry, name: str) -> None:
    with pytest.raises(errors.InvalidSourceError):
        registry._session.register("file:///etc/passwd", name)
    with pytest.raises(errors.InvalidError):
        registry._session.register("models:/../../etc/passwd", name)


def test_a_missing_path_says_so(registry: touchmark.Registry, name: str) -> None:
    with pytest.raises(errors.ArtifactNotFoundError):
        registry.register_model("./not/there", name)


CHILD = """
import sys, time, touchmark
registry = touchmark.open(sys.argv[1])
registry.create_model("kept")
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.processes
def test_the_private_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    servers = psutil.Process(child.pid).children(recursive=True)
    assert servers
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    gone, alive = psutil.wait_procs(servers, timeout=20)

    assert gone
    assert not alive
    with touchmark.open(tmp_path / "home") as registry:
        assert registry.get_model("kept").name == "kept"


@pytest.mark.processes
def test_two_processes_share_one_home(registry: touchmark.Registry, tmp_path: Path) -> None:
    _ = registry
    home = tmp_path / "home"
    script = "import sys, touchmark\nwith touchmark.open(sys.argv[1]) as r:\n for i in range(20): r.register_model(sys.argv[2], 'shared')"
    file = tmp_path / "model.txt"
    file.write_text("weights")
    both = [subprocess.Popen([sys.executable, "-c", script, str(home), str(file)]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    with touchmark.open(home) as opened:
        assert sorted(v.version for v in opened.list_versions("shared")) == list(range(1, 41))


def test_a_server_that_is_not_there_says_how_to_start_one() -> None:
    start = time.monotonic()
    with pytest.raises(errors.ServerUnreachableError, match="touchmark serve"):
        touchmark.connect("http://127.0.0.1:9").resolve("churn/1")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("url", ["", "ftp://x", "http://user:secret@host", "localhost:5000", "unix://"])
def test_an_address_may_not_be(url: str) -> None:
    with pytest.raises(errors.InvalidFieldError):
        touchmark.connect(url or "http:")


def test_a_version_is_a_number_and_a_closed_registry_says_that_it_is(tmp_path: Path) -> None:
    registry = touchmark.open(tmp_path / "home")
    registry.create_model("net")
    for wrong in ("2", True, 1.0):
        with pytest.raises(errors.InvalidFieldError, match="write a number such as 3"):
            registry.set_alias("net", "champion", wrong)  # type: ignore[arg-type]
    registry.close()

    with pytest.raises(errors.ServerUnreachableError, match="This registry was closed"):
        registry.get_model("net")


@pytest.mark.parametrize("alias", ["", "a/b", "latest", "v3"], ids=["empty", "path", "latest", "number"])
def test_an_alias_that_cannot_be_is_called_so_wherever_it_is_given(
    registry: touchmark.Registry, name: str, alias: str
) -> None:
    registry.create_model(name)

    with pytest.raises(errors.InvalidAliasError):
        registry.set_alias(name, alias, 1)
    with pytest.raises(errors.InvalidAliasError):
        registry.get_alias(name, alias)
    with pytest.raises(errors.InvalidAliasError):
        registry.delete_alias(name, alias)


def test_an_id_that_is_empty_is_called_so_and_not_a_route(registry: touchmark.Registry) -> None:
    for ask in (registry.get_run, registry.delete_run, registry.get_logged_model, registry.list_artifacts):
        with pytest.raises(errors.InvalidFieldError, match="it is empty"):
            ask("")


def test_an_empty_folder_is_told_as_one(registry: touchmark.Registry, name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(errors.NothingToRegisterError, match="There is no file under"):
        registry.register_model(tmp_path / "empty", name)
