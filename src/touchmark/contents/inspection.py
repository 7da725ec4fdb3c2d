"""Reading a whole model: look at the start of every file, then read the headers worth reading, within one budget.

Here: which files are read, in what order, and how their facts are joined. Not here: any format's details.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from zipfile import ZipInfo

from touchmark.contents import mlmodel, natives, onnx, requirements, safetensors, skops
from touchmark.contents.archives import Archive
from touchmark.contents.contents import READER_VERSION, Contents
from touchmark.contents.documents import YAML_BYTES, clean_text
from touchmark.contents.pickles import (
    TORCH_SUFFIXES,
    has_pickle_name,
    holds_objects,
    is_pickle,
    peek_compressed,
)
from touchmark.contents.reading import HEAD_BYTES, BoundedFile, Budget, FileEntry, ReadAt
from touchmark.contents.sniff import COMPRESSED, MODEL_FORMATS, interest, sniff_format, split_name
from touchmark.contents.tensors import MAX_INT64, Tally
from touchmark.domain.errors import InvalidError, LimitExceededError, TouchmarkError

INSPECTED_FILES = 64
"""Files whose header is read in full."""

SNIFFED_FILES = INSPECTED_FILES + 64
"""Files of which the first 4 KiB are read."""

_WARNINGS = 200
_PATH_CHARS = 4096
_LISTED_PICKLES = 1000
_NUMPY_HEADER_BYTES = 64 * 1024
_SNIFFED_MEMBERS = 32
_FACTS_CHARS = 512 * 1024
_GGUF = struct.Struct("<4sIQQ")


def read_contents(files: Sequence[FileEntry], read_at: ReadAt) -> Contents:
    """Describe a model from its list of files, reading at most 32 MiB in at most 4,096 calls of `read_at`.

    Never raises for what the files hold: a broken file gives a warning. Whatever `read_at` raises escapes.
    """
    return _Inspection(files, Budget(read_at)).run()


class _Seen:
    """A file that was looked at, and the facts about it."""

    def __init__(self, file: BoundedFile, format_name: str | None) -> None:
        self.file = file
        self.format = format_name
        self.facts: dict[str, object] = {}


class _Inspection:
    def __init__(self, files: Sequence[FileEntry], budget: Budget) -> None:
        self._files = sorted(files, key=lambda f: (interest(f.path), f.path.count("/"), f.path))
        self._paths = {entry.path for entry in files}
        self._budget = budget
        self._base = _find_base(self._files)
        self._seen: list[_Seen] = []
        self._pickles: set[str] = set()
        self._warnings: list[str] = []
        self._hidden_warnings = 0
        self._mlmodel = mlmodel.MLmodel()
        self._requirements: list[str] = []
        self._conda: tuple[list[str], str | None] = ([], None)
        self._python_env: str | None = None
        self._tensors: Tally | None = None
        self._graphs: list[onnx.OnnxModel] = []
        self._described: natives.Described | None = None
        self._is_transformers = False

    def run(self) -> Contents:
        self._sniff_all()
        self._inspect_all()
        return self._join()

    # ── looking ──

    def _warn(self, sentence: str) -> None:
        if len(self._warnings) < _WARNINGS:
            self._warnings.append(clean_text(sentence, 1000))
        else:
            self._hidden_warnings += 1

    def _attempt(self, path: str, action: Callable[[], None]) -> bool:
        """Do something with a file; say what is wrong with it. Returns False if it failed."""
        try:
            action()
        except Exception as problem:  # noqa: BLE001 - no file may stop a registration; `read_at` is asked after first
            if self._budget.failure is not None:
                raise self._budget.failure from None
            reason = problem.message.rstrip(".") if isinstance(problem, TouchmarkError) else _unforeseen(problem)
            self._warn(f"{clean_text(path)} could not be read: {reason}.")
            return False
        if self._budget.failure is not None:
            raise self._budget.failure
        return True

    def _sniff_all(self) -> None:
        for entry in self._files[:SNIFFED_FILES]:
            self._attempt(entry.path, partial(self._sniff, entry))
        unseen = self._files[SNIFFED_FILES:]
        self._pickles.update(entry.path for entry in unseen if _may_be_pickle(entry.path))
        if unseen:
            self._warn(f"{len(unseen)} of {len(self._files)} files were not looked at: {SNIFFED_FILES} is the limit.")

    def _sniff(self, entry: FileEntry) -> None:
        file = BoundedFile(entry, self._budget)
        head = file.read_head()
        if len(head) < min(file.size_bytes, HEAD_BYTES):
            self._warn(f"{clean_text(entry.path)} is shorter than its size says.")
        seen = _Seen(file, sniff_format(entry.path, head, file.size_bytes))
        self._seen.append(seen)
        if _is_pickle_start(head, file.size_bytes) or (seen.format in COMPRESSED and _hides_pickle(head)):
            self._pickles.add(entry.path)
        elif has_pickle_name(entry.path) and head and (seen.format is None or seen.format in COMPRESSED):
            self._pickles.add(entry.path)  # joblib in lz4, say: nothing but an unpickler opens such a name
        elif seen.format in COMPRESSED or seen.format == "tar":
            self._warn(f"{clean_text(entry.path)} is compressed or an archive and was not looked into.")
        elif seen.format == "numpy" and head.startswith(b"\x93NUMPY"):
            if holds_objects(head) and holds_objects(file.read(0, _NUMPY_HEADER_BYTES)):
                self._pickles.add(entry.path)
        elif seen.format == "gguf" and len(head) >= _GGUF.size:
            _, version, tensors, entries = _GGUF.unpack_from(head)
            seen.facts |= {
                "gguf_version": version,
                "tensor_count": min(tensors, MAX_INT64),
                "metadata_count": min(entries, MAX_INT64),
            }

    # ── reading ──

    def _inspect_all(self) -> None:
        inspectors: dict[str, Callable[[_Seen], None]] = {
            "mlmodel": self._inspect_mlmodel,
            "requirements": self._inspect_requirements,
            "conda": self._inspect_conda,
            "python_env": self._inspect_python_env,
            "safetensors": self._inspect_safetensors,
            "onnx": self._inspect_onnx,
            "zip": self._inspect_zip,
            "skops": self._inspect_zip,
            "touchmark": self._inspect_description,
            "json": self._inspect_configuration,
            "xgboost": self._inspect_xgboost,
            "lightgbm": self._inspect_lightgbm,
        }
        waiting = [seen for seen in self._seen if seen.format in inspectors and self._is_wanted(seen)]
        done = 0
        for seen in waiting:
            if done >= INSPECTED_FILES or self._budget.is_spent:
                break
            done += 1
            if not self._attempt(seen.file.path, partial(inspectors[str(seen.format)], seen)):
                self._distrust(seen)
        for seen in waiting[done:]:
            self._distrust(seen)
        if waiting[done:]:
            limit = "the reading budget is spent" if self._budget.is_spent else f"{INSPECTED_FILES} is the limit"
            self._warn(f"The headers of {len(waiting) - done} recognised files were not read: {limit}.")

    def _is_wanted(self, seen: _Seen) -> bool:
        """Answer whether a file speaks for the whole model: of environment files, only those beside the MLmodel."""
        if seen.format == "touchmark":
            return seen.file.path == "touchmark.json"
        if seen.format == "json":
            return seen.file.path == "config.json" and any(
                path.endswith((".safetensors", ".bin")) for path in self._paths
            )
        if seen.format not in ("mlmodel", "requirements", "conda", "python_env"):
            return True
        return str(PurePosixPath(seen.file.path).parent) == self._base

    def _distrust(self, seen: _Seen) -> None:
        """List an archive that could not be looked into, if its name says that it may hold a pickle."""
        if seen.format == "zip" and _may_be_pickle(seen.file.path):
            self._pickles.add(seen.file.path)

    def _read_text(self, seen: _Seen) -> bytes:
        if seen.file.size_bytes > YAML_BYTES:
            raise LimitExceededError(what="A text file that describes a model", limit=YAML_BYTES, unit="bytes")
        return seen.file.read(0, YAML_BYTES)

    def _about(self, seen: _Seen) -> Callable[[str], None]:
        return lambda reason: self._warn(f"{clean_text(seen.file.path)}: {reason.rstrip('.')}.")

    def _inspect_mlmodel(self, seen: _Seen) -> None:
        self._mlmodel = mlmodel.read_mlmodel(self._read_text(seen), self._about(seen))
        seen.facts |= self._mlmodel.facts

    def _inspect_requirements(self, seen: _Seen) -> None:
        self._requirements = requirements.read_requirements(self._read_text(seen))

    def _inspect_conda(self, seen: _Seen) -> None:
        self._conda = requirements.read_conda(self._read_text(seen))

    def _inspect_python_env(self, seen: _Seen) -> None:
        self._python_env = requirements.read_python_env(self._read_text(seen))

    def _read_document(self, seen: _Seen) -> bytes:
        limit = natives.DOCUMENT_BYTES
        if seen.file.size_bytes > limit:
            raise LimitExceededError(what="A JSON file that describes a model", limit=limit, unit="bytes")
        return seen.file.read(0, limit)

    def _inspect_description(self, seen: _Seen) -> None:
        self._described = natives.read_description(self._read_document(seen))

    def _inspect_configuration(self, seen: _Seen) -> None:
        found = natives.read_transformers(self._read_document(seen))
        if found is not None:
            self._is_transformers = True
            seen.format = "transformers"
            seen.facts |= found
            if found["code"]:
                self._about(seen)("it names code of its own, which runs only with trust_remote_code")

    def _inspect_xgboost(self, seen: _Seen) -> None:
        begin = max(seen.file.size_bytes - natives.TAIL_BYTES, 0)
        seen.facts |= natives.read_xgboost(seen.file.read(begin, natives.TAIL_BYTES))

    def _inspect_lightgbm(self, seen: _Seen) -> None:
        seen.facts |= natives.read_lightgbm(seen.file.read_head())

    def _inspect_safetensors(self, seen: _Seen) -> None:
        header = safetensors.read_safetensors(seen.file, self._about(seen))
        seen.facts["tensors"] = header.tensors.to_json()
        if header.metadata:
            seen.facts["metadata"] = header.metadata
        self._tensors = self._tensors or Tally()
        self._tensors.add_all(header.tensors)

    def _inspect_onnx(self, seen: _Seen) -> None:
        graph = onnx.read_onnx(seen.file, self._about(seen))
        self._graphs.append(graph)
        seen.facts |= {
            "ir_version": graph.ir_version,
            "producer": f"{graph.producer} {graph.producer_version}".strip(),
            "graph_name": graph.graph_name,
            "opsets": dict(sorted(graph.opsets.items())),
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            "initializers": graph.initializers.to_json(),
        }
        if graph.metadata:
            seen.facts["metadata"] = dict(sorted(graph.metadata.items()))
        if graph.external_paths:
            seen.facts["external_paths"] = graph.external_paths
            beside = PurePosixPath(seen.file.path).parent
            for path in graph.external_paths:
                if str(beside / path) not in self._paths:
                    self._about(seen)(f"its external data {path!r} is not among the files")

    def _inspect_zip(self, seen: _Seen) -> None:
        archive = Archive(seen.file)
        names = {info.filename for info in archive.members if not _is_folder(info)}
        seen.facts["member_count"] = len(archive.members)
        if any(PurePosixPath(name).name == "data.pkl" for name in names):
            seen.format = "torch"
            self._pickles.add(seen.file.path)
        elif any(has_pickle_name(name) for name in names):
            self._pickles.add(seen.file.path)
        else:
            # Of skops files the arrays are left out (500 in a small forest): skops never unpickles an array.
            arrays = ".npy" if seen.file.path.endswith(".skops") else None
            self._sniff_members(seen, archive, without=arrays)
        if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
            seen.format = "keras"
            seen.facts |= natives.read_keras(archive)
            if seen.facts.get("code"):  # bytecode or a pickle: loading it runs code, as loading a pickle does
                self._pickles.add(seen.file.path)
        elif names and all(name.endswith(".npy") for name in names):
            seen.format = "numpy"
        elif seen.file.path.endswith(".skops") or skops.is_skops(archive):
            seen.format = "skops"
            found = skops.read_skops(archive, self._about(seen))
            seen.facts |= {
                "root": found.root,
                "types": found.types,
                "skops_version": found.skops_version,
                "protocol": found.protocol,
            }

    def _sniff_members(self, seen: _Seen, archive: Archive, *, without: str | None) -> None:
        """Look at the first bytes of the members, both of two with one name: readers differ in which they take."""
        members = [
            info
            for info in archive.members
            if not _is_folder(info) and not (without and info.filename.endswith(without))
        ]
        unread = nested = 0
        for info in members[:_SNIFFED_MEMBERS]:
            try:
                head = archive.read_member(info, HEAD_BYTES)
            except InvalidError:
                if self._budget.is_spent or self._budget.failure is not None:
                    raise
                unread += 1
                continue
            holds = head.startswith(b"\x93NUMPY") and holds_objects(head)
            if holds or is_pickle(head, is_whole=len(head) < HEAD_BYTES):
                self._pickles.add(seen.file.path)
                return
            nested += head.startswith(b"PK\x03\x04")
        if unread:
            self._distrust(seen)
            self._about(seen)(f"{unread} of its members cannot be read")
        if nested:
            self._about(seen)(f"{nested} archives inside it were not looked into")
        if len(members) > _SNIFFED_MEMBERS:
            self._about(seen)(f"only {_SNIFFED_MEMBERS} of its {len(members)} members were looked at")

    # ── joining ──

    def _join(self) -> Contents:
        conda_requirements, conda_python = self._conda
        needed = self._requirements or conda_requirements
        if len(needed) > requirements.REQUIREMENTS:
            self._warn(f"Only {requirements.REQUIREMENTS} of {len(needed)} requirements are shown.")
        flavors, described = self._mlmodel.flavors, self._described
        if not flavors and described is not None:
            flavors = {described.format: described.facts}
        python = flavors.get("python_function", {}).get("python_version")
        pickles = sorted(self._pickles)
        if len(pickles) > _LISTED_PICKLES:
            self._warn(f"Only {_LISTED_PICKLES} of {len(pickles)} pickles are listed.")
        recognised = sorted((seen for seen in self._seen if seen.format is not None), key=lambda s: s.file.path)
        files = self._list_files(recognised)
        if self._hidden_warnings:
            self._warnings.append(f"{self._hidden_warnings} more warnings are not shown.")
        return Contents(
            reader_version=READER_VERSION,
            file_count=len(self._files),
            size_bytes=sum(max(entry.size_bytes, 0) for entry in self._files),
            framework=mlmodel.name_framework(flavors)
            or ("transformers" if self._is_transformers else _largest_format(recognised)),
            python_version=python
            or self._python_env
            or conda_python
            or (described.python_version if described else None),
            flavors=flavors,
            schema=self._mlmodel.schema or self._schema_of_graph(),
            requirements=needed[: requirements.REQUIREMENTS],
            tensors=None if self._tensors is None else self._tensors.to_json(),
            files=files,
            pickles=[clean_text(path, _PATH_CHARS) for path in pickles[:_LISTED_PICKLES]],
            warnings=self._warnings,
        )

    def _list_files(self, recognised: Sequence[_Seen]) -> list[dict[str, object]]:
        """Return the entries of files; when their facts grow large together, the later ones are left out."""
        files: list[dict[str, object]] = []
        chars = without = 0
        for seen in recognised:
            path = clean_text(seen.file.path, _PATH_CHARS)
            entry: dict[str, object] = {"path": path, "format": seen.format, "size_bytes": seen.file.size_bytes}
            chars += len(json.dumps(seen.facts))
            if chars <= _FACTS_CHARS:
                entry |= seen.facts
            elif seen.facts:
                without += 1
            files.append(entry)
        if without:
            self._warn(f"What the headers of {without} files say is left out: it is more than can be kept.")
        return files

    def _schema_of_graph(self) -> dict[str, list[dict[str, object]]] | None:
        """Return the signature of a lone ONNX graph; of several (encoder, decoder) none speaks for the model."""
        if len(self._graphs) != 1 or not (self._graphs[0].inputs or self._graphs[0].outputs):
            return None
        return {"inputs": self._graphs[0].inputs, "outputs": self._graphs[0].outputs, "params": []}


def _find_base(files: Sequence[FileEntry]) -> str:
    """Return the folder of the outermost MLmodel (`.` if there is none): its files speak for the model."""
    found = [PurePosixPath(entry.path) for entry in files if split_name(entry.path)[0] == "MLmodel"]
    return str(min(found, key=lambda path: (len(path.parts), path)).parent) if found else "."


def _is_folder(info: ZipInfo) -> bool:
    return info.filename.endswith("/")  # ZipInfo.is_dir fails for a member without a name


def _is_pickle_start(head: bytes, size_bytes: int) -> bool:
    return is_pickle(head, is_whole=len(head) >= size_bytes)


def _may_be_pickle(path: str) -> bool:
    return has_pickle_name(path) or split_name(path)[1] in TORCH_SUFFIXES


def _hides_pickle(head: bytes) -> bool:
    inside = peek_compressed(head)
    return inside is not None and is_pickle(inside, is_whole=False)


def _largest_format(recognised: Sequence[_Seen]) -> str | None:
    sizes: dict[str, int] = {}
    for seen in recognised:
        if seen.format is not None and seen.format in MODEL_FORMATS:
            sizes[seen.format] = sizes.get(seen.format, 0) + seen.file.size_bytes
    return max(sorted(sizes), key=sizes.__getitem__, default=None)


def _unforeseen(problem: Exception) -> str:
    return f"unforeseen damage ({type(problem).__name__})"
