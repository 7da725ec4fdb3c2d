"""The main job, start to finish, on real models: register, point, overwrite, restart, load, check.

Everything happens in a fresh home in a temporary folder, through the embedded registry. Ends with status 0 only if every
step held.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import touchmark

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "tumour.classifier"
BIG_MIB = 100


@contextmanager
def step(title: str) -> Iterator[list[str]]:
    """Time a step and print it in a line, with whatever figures it adds."""
    figures: list[str] = []
    start = time.perf_counter()
    yield figures
    print(f"  {title:<58} {time.perf_counter() - start:6.2f} s   {', '.join(figures)}", flush=True)


def hold(fact: bool, sentence: str) -> None:  # noqa: FBT001 - reads as: hold(this, "that it is so")
    """End with status 1 unless a fact holds."""
    if not fact:
        sys.exit(f"It did not hold: {sentence}")


def main() -> None:
    """Do it all."""
    data = load_breast_cancer()
    train_x, test_x, train_y, test_y = train_test_split(data.data, data.target, random_state=7, stratify=data.target)
    with tempfile.TemporaryDirectory(prefix="touchmark-demo-") as folder:
        os.environ["TOUCHMARK_CACHE"] = str(Path(folder, "cache"))
        run_demo(Path(folder), train_x, test_x, train_y, test_y)
    print("All of it held.")


def run_demo(folder: Path, train_x: np.ndarray, test_x: np.ndarray, train_y: np.ndarray, test_y: np.ndarray) -> None:
    """Work in a folder, on breast cancer data that ships with scikit-learn."""
    home = folder / "home"
    print(f"Touchmark {touchmark.__version__}: an embedded registry in {home}")

    with step("open an embedded registry"):
        registry = touchmark.open(home)

    with step("train logistic regression, log it, register it at once") as figures:
        logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(train_x, train_y)
        auc = float(roc_auc_score(test_y, logistic.predict_proba(test_x)[:, 1]))
        with registry.start_run(experiment="tumours", name="logistic") as run_1:
            run_1.log_params({"C": 0.5, "model": "logistic regression"})
            run_1.log_metrics({"auc": auc})
            run_1.set_tags({"team": "risk"})
            run_1.log_dataset("breast-cancer", digest="sklearn-load_breast_cancer", context="training")
            logged = run_1.log_model(logistic, "classifier", registered_model_name=NAME)
        first = logged.version
        hold(first is not None and first.version == 1 and first.sealed, "the implicit registration is sealed version 1")
        assert first is not None
        figures += [f"{NAME}/1", f"auc {auc:.4f}", str(first.digest)[:19]]

    with step("train a support vector machine, register it explicitly") as figures:
        machine = make_pipeline(StandardScaler(), SVC(C=2.0)).fit(train_x, train_y)
        auc = float(roc_auc_score(test_y, machine.decision_function(test_x)))
        with registry.start_run(experiment="tumours", name="svc") as run_2:
            run_2.log_params({"C": 2.0, "model": "support vector machine"})
            run_2.log_metrics({"auc": auc})
            run_2.log_text("trained on 426 samples\n", "exported/notes.txt")
            source = folder / "svc"
            registry_files = save(machine, source)
            run_2.log_artifact(source, "exported/model")
        second = registry.register_model(f"runs:/{run_2.id}/exported/model", NAME, tags={"team": "risk"})
        hold(second.version == 2, "the explicit registration is version 2")
        figures += [f"{NAME}/2", f"auc {auc:.4f}", f"{registry_files} files"]

    with step(f"register a folder with {BIG_MIB} MiB of safetensors") as figures:
        weights = folder / "weights"
        weights.mkdir()
        rows = BIG_MIB << 18
        save_file({"embedding": np.random.default_rng(7).random(rows, dtype=np.float32)}, weights / "model.safetensors")
        start = time.perf_counter()
        big = registry.register_model(weights, "embeddings", description="a hundred mebibytes of float32")
        rate = BIG_MIB / (time.perf_counter() - start)
        start = time.perf_counter()
        again = registry.register_model("models:/embeddings/1", "embeddings")
        figures += [f"{rate:.0f} MiB/s", f"registered again in {1000 * (time.perf_counter() - start):.0f} ms"]
        hold(again.digest == big.digest and again.same_bytes_as == 1, "the same bytes have the same digest")

    with step("move aliases") as figures:
        registry.set_alias(NAME, "champion", 1)
        registry.set_alias(NAME, "challenger", 2)
        registry.set_alias(NAME, "champion", 2)
        moves = registry.history(f"{NAME}@champion")
        hold([(m.before, m.after) for m in moves] == [(1, 2), (None, 1)], "the history has every move")
        pinned = registry.resolve(f"models:/{NAME}@champion").pinned
        figures += [f"{len(moves)} moves kept", pinned[:40] + "…"]

    with step("overwrite the run's files, delete the run") as figures:
        run_2.log_text("not a model any more", "exported/model/model.skops")
        run_2.delete_artifact("exported/notes.txt")
        registry.delete_run(run_2.id)
        hold(registry.get_version(NAME, 2).digest == second.digest, "the version's digest did not change")
        pulled = registry.pull(f"models:/{NAME}@champion", folder / "pulled")
        hold((pulled / "model.skops").stat().st_size > 1000, "the version's files did not change")
        figures += ["version 2 is what it was"]

    with step("find versions by what is known of them") as figures:
        search = registry.search_versions("metrics.auc >= 0.9 AND framework = 'skops'", order_by="version")
        found = [f"{version.name}/{version.version}" for version in search]
        hold(found == [f"{NAME}/1", f"{NAME}/2"], "the search finds both classifiers")
        figures.extend(found)

    with step("stop the server, start it again"):
        registry.close()
        registry = touchmark.open(home)

    with step("load by alias and predict") as figures:
        champion = registry.load(f"models:/{NAME}@champion")
        same = bool(np.array_equal(champion.predict(test_x), machine.predict(test_x)))  # type: ignore[attr-defined]
        hold(same, "the loaded champion predicts what the trained one did")
        figures += [
            f"{len(test_y)} equal predictions",
            f"accuracy {float((champion.predict(test_x) == test_y).mean()):.3f}",
        ]  # type: ignore[attr-defined]
    registry.close()

    with step("fsck: rebuild the catalogue from its events, read every byte") as figures:
        command = [sys.executable, "-m", "touchmark", "fsck", "--deep", "--home", str(home)]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        hold(
            checked.returncode == 0,
            f"fsck finds nothing (status {checked.returncode}): {checked.stdout}{checked.stderr}",
        )
        figures += ["nothing to report"]


def save(model: object, target: Path) -> int:
    """Save a scikit-learn model into a folder with the SDK's own saver; return how many files it has."""
    from touchmark.client.loaders import save_model

    save_model(model, target)
    return sum(1 for file in target.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
