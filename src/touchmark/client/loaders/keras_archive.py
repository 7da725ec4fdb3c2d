"""What a `.keras` file would build, judged before Keras sees it; and such a file with the same bytes for the same model.

Keras builds what `config.json` names: any importable class or function has been one of them, and `safe_mode` was got around
more than once (CVE-2025-1550, CVE-2025-8747, CVE-2025-12058 read or ran what a config named). So what may be built is a
list of what is known to be safe, whatever the Keras that is installed. Source: Keras 3's `saving_lib` and
`serialization_lib`. Here: the archive. Not here: building the model.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

from touchmark.client.loaders.frameworks import MAX_DOCUMENT_BYTES, import_framework, parse_object
from touchmark.domain.errors import InvalidFieldError, InvalidPathError, UnsafeFormatError
from touchmark.domain.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_CONFIG = "config.json"
_METADATA = "metadata.json"
_TIME = (1980, 1, 1, 0, 0, 0)  # the first instant a zip entry can carry
_SAVED_AT = "1980-01-01@00:00:00"
_MAX_MEMBERS = 10_000
_MAX_GROWTH = 20
"""How much larger the members may be than the file: Keras stores them as they are, and numbers deflate to a half."""
_SMALL_BYTES = 64 * 1024 * 1024

_KINDS = "activations|constraints|dtype_policies|initializers|layers|losses|metrics|optimizers|quantizers|random|regularizers"
_SAFE_MODULE = re.compile(
    rf"keras|keras\.(src\.)?({_KINDS})(\.[\w.]+)?|keras\.src\.(ops|models)(\.[\w.]+)?|keras\.src\.backend\.\w+\.optimizers(\.[\w.]+)?"
)
_CODE = frozenset({"Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"})
"""Layers that hold a function as bytecode or a pickle, or run a graph that they read from elsewhere."""
_VALUES = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__"}
)
"""Names of Keras' own for plain values. Not among them: `__lambda__`, which is bytecode, and `__typespec__`."""
_FUNCTIONS = re.compile(r"keras\.(src\.)?(activations|losses|metrics|ops)(\.[\w.]+)?")
_MEMBER = re.compile(r"(config|metadata)\.json|[\w.-]+\.weights(\.json|\.h5)|assets/.+")


def check_archive(file: Path, path: str, *, allow_code: bool, trusted_types: Collection[str]) -> None:
    """Raise unless Keras can be handed the file.

    Raises InvalidFieldError for what is no Keras archive, InvalidPathError for a member that would lie outside; and unless
    `allow_code`, UnsafeFormatError for a config that names what is neither Keras' own, and harmless, nor in
    `trusted_types` (`module.Class`, or the name it is registered by), and for weights that lie in other files.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, file.stat().st_size, path)
            config = parse_object(_read_member(archive, _CONFIG), path)
            if not allow_code:
                _check_config(config, path, frozenset(trusted_types))
                _check_weights(archive, path)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise InvalidFieldError(field=path, reason=f"it is no .keras file ({error})") from error


def _check_members(archive: zipfile.ZipFile, size_bytes: int, path: str) -> None:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise InvalidFieldError(field=path, reason=f"it has more than {_MAX_MEMBERS} members")
    if len({info.filename for info in members}) != len(members):
        raise InvalidFieldError(field=path, reason="it has two members of one name")
    if sum(info.file_size for info in members) > _MAX_GROWTH * size_bytes + _SMALL_BYTES:
        raise InvalidFieldError(field=path, reason="it grows like a bomb when it is unpacked")
    for info in members:
        # Not is_dir(): it fails for a member without a name.
        name = info.filename.removesuffix("/")
        try:
            check_path(name)
        except InvalidPathError as error:
            raise InvalidPathError(path=f"{path}: {name}", reason=str(error.fields.get("reason"))) from None
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            raise InvalidPathError(path=f"{path}: {name}", reason="it is a symbolic link")
        if not info.is_dir() and _MEMBER.fullmatch(name) is None:
            raise InvalidFieldError(field=path, reason=f"no Keras model has a member {name[:200]!r}")


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        return member.read(MAX_DOCUMENT_BYTES + 1)


def _check_config(config: dict[str, Any], path: str, trusted: frozenset[str]) -> None:
    refused: set[str] = set()
    for node in _list_objects(config):
        if isinstance(node.get("vocabulary"), str):
            message = f"{path!r} has a layer that would read the file {node['vocabulary'][:200]!r} of this machine."
            raise UnsafeFormatError(message, path=path)
        name = node.get("class_name")
        if name is None:
            continue
        found = _find_type(node)
        if found is not None and found not in trusted:
            refused.add(found)
    if refused:
        types = sorted(refused)
        message = (
            f"{path!r} would build or run what is not Keras' own, or holds code: {', '.join(types)}. If you trust them, "
            f"pass trusted_types={types!r}; allow_pickle=True trusts everything, the code of Lambda layers included."
        )
        raise UnsafeFormatError(message, path=path, types=types)


def _find_type(node: dict[str, Any]) -> str | None:
    """Return what has to be trusted to build what a node of the config names, or None if it is harmless."""
    name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        return "a class without a name"
    if name in _VALUES:
        return None
    if name == "function":
        given = node.get("config")
        function = given if isinstance(given, str) else "a function without a name"
        known = module is not None and _FUNCTIONS.fullmatch(module)
        return None if known and function.isidentifier() else f"{module}.{function}"
    if module is not None and _SAFE_MODULE.fullmatch(module) and name.isidentifier() and name not in _CODE:
        # A class of the caller's own that is registered under the name of Keras' own would come first.
        return None if registered in (None, name) else registered
    return f"{module}.{name}" if module is not None and not (registered or "").count(">") else registered or name


def _list_objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON document. No recursion: the nesting is the file's to choose."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(child for child in node.values() if isinstance(child, (dict, list)))
        elif isinstance(node, list):
            waiting.extend(child for child in node if isinstance(child, (dict, list)))


def _check_weights(archive: zipfile.ZipFile, path: str) -> None:
    """Raise UnsafeFormatError for weights in HDF5 that point into other files, whose content would come with the model."""
    for name in archive.namelist():
        if not name.endswith(".h5"):
            continue
        h5py = import_framework("h5py", what="A Keras model", install="pip install keras")  # Keras itself needs it
        with archive.open(name) as member, h5py.File(member, "r") as weights:
            seen: set[int] = set()
            groups = [weights]
            while groups:
                group = groups.pop()
                for key in group:
                    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                        message = f"{path!r} has weights that link elsewhere ({key!r} in {name!r})."
                        raise UnsafeFormatError(message, path=path)
                    item = group[key]
                    if isinstance(item, h5py.Dataset):
                        if item.external or item.is_virtual:
                            message = f"{path!r} has weights in files of this machine ({key!r} in {name!r})."
                            raise UnsafeFormatError(message, path=path)
                    elif (place := h5py.h5o.get_info(item.id).addr) not in seen:
                        seen.add(place)
                        groups.append(item)


def write_canonical_archive(source: Path, target: Path) -> None:
    """Write the `.keras` file at `source` to `target` with nothing in it that differs from one saving to the next.

    Those are the times, and the numbers of shared objects, which are addresses in memory. Members are streamed.
    """
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as canonical:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if info.is_dir():
                continue
            entry = zipfile.ZipInfo(info.filename, _TIME)
            entry.create_system = 3  # otherwise it says which system wrote it
            entry.external_attr = 0o600 << 16
            entry.file_size = info.file_size
            if info.filename in (_CONFIG, _METADATA):
                text = _canonical_json(archive.read(info), is_config=info.filename == _CONFIG)
                entry.file_size = len(text)
                with canonical.open(entry, "w") as member:
                    member.write(text)
                continue
            with archive.open(info) as content, canonical.open(entry, "w") as member:
                shutil.copyfileobj(content, member, 1 << 20)


def _canonical_json(text: bytes, *, is_config: bool) -> bytes:
    document = json.loads(text)
    if is_config:
        numbers: dict[object, int] = {}
        for node in _list_in_order(document):
            if "shared_object_id" in node:
                node["shared_object_id"] = numbers.setdefault(node["shared_object_id"], len(numbers) + 1)
    elif "date_saved" in document:
        document["date_saved"] = _SAVED_AT
    return json.dumps(document).encode()


def _list_in_order(value: object) -> Iterator[dict[str, Any]]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield value
    for child in children:
        yield from _list_in_order(child)
