"""A version's identity: the exact bytes of a manifest, what is read from one, and which paths may stand in it."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from touchmark.artifacts.manifests import (
    CONFIG_BYTES,
    CONFIG_DIGEST,
    MAX_MANIFEST_BYTES,
    Manifest,
    build_manifest,
    content_digest,
    parse_manifest,
)
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import InvalidManifestError, InvalidPathError, LimitExceededError
from touchmark.domain.paths import MAX_PATHS, _find_fault, check_path, check_paths, fold_path
from touchmark.domain.versions import VersionFile

HELLO = digest_of(b"hello")
FILES = [
    VersionFile("model.pkl", 5, HELLO),
    VersionFile("MLmodel", 0, digest_of(b"")),
    VersionFile('данные/é "q".bin', 5, HELLO),
    VersionFile("a/b.txt", 3, digest_of(b"abc")),
]

# Written out, not computed: a change here changes the identity of every model ever registered.
GOLDEN = (
    '{"artifactType":"application/vnd.cncf.model.manifest.v1+json",'
    '"config":{"digest":"sha256:d53ca2a33cee5f79bca3acaf6276cde75f25ebb47c1861829f3179c6695b8985",'
    '"mediaType":"application/vnd.cncf.model.config.v1+json","size":70},'
    '"layers":['
    '{"annotations":{"org.cncf.model.filepath":"MLmodel"},'
    '"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",'
    '"mediaType":"application/vnd.cncf.model.weight.v1.raw","size":0},'
    '{"annotations":{"org.cncf.model.filepath":"a/b.txt"},'
    '"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",'
    '"mediaType":"application/vnd.cncf.model.weight.v1.raw","size":3},'
    '{"annotations":{"org.cncf.model.filepath":"model.pkl"},'
    '"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",'
    '"mediaType":"application/vnd.cncf.model.weight.v1.raw","size":5},'
    '{"annotations":{"org.cncf.model.filepath":"данные/é \\"q\\".bin"},'
    '"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",'
    '"mediaType":"application/vnd.cncf.model.weight.v1.raw","size":5}],'
    '"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}'
).encode()
GOLDEN_DIGEST = "sha256:c6f3154ff37100e75bab04b7b47c507dc1aac8912dff68d74ec060aecb5c1d9e"
# printf 'PATH\tSIZE\tHEX\n' for each file | LC_ALL=C sort | sha256sum
GOLDEN_CONTENT_DIGEST = "sha256:49b1d56ddecdf3e97b656ef41a45376f4eef031c4dc62af719c239aa628a41fd"

segments = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z", "M"], exclude_characters="/\\:."),
    min_size=1,
    max_size=12,
)
paths = st.lists(segments, min_size=1, max_size=4).map("/".join).map(lambda path: unicodedata.normalize("NFC", path))


@st.composite
def file_lists(draw: st.DrawFn) -> list[VersionFile]:
    """Draw the files of a model: good paths, none in the way of another, one size for each digest."""
    files: dict[str, VersionFile] = {}
    for path in draw(st.lists(paths, min_size=1, max_size=8)):
        try:
            check_paths([*(file.path for file in files.values()), path])
        except InvalidPathError:
            continue
        size_bytes = draw(st.integers(0, 2**63 - 1))
        files[path] = VersionFile(path, size_bytes, digest_of(b"%d" % size_bytes))
    assume(files)
    return list(files.values())


# ── building ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fixed_files_give_exactly_these_bytes_and_digests() -> None:
    manifest = build_manifest(FILES)

    assert manifest.bytes == GOLDEN
    assert manifest.digest == GOLDEN_DIGEST
    assert manifest.content_digest == content_digest(FILES) == GOLDEN_CONTENT_DIGEST
    assert [file.path for file in manifest.files] == ["MLmodel", "a/b.txt", "model.pkl", 'данные/é "q".bin']
    assert manifest.size_bytes == 13
    assert manifest.is_canonical


def test_the_config_blob_is_fixed() -> None:
    assert CONFIG_BYTES == b'{"config":{},"descriptor":{},"modelfs":{"diffIds":[],"type":"layers"}}'
    assert CONFIG_DIGEST == "sha256:d53ca2a33cee5f79bca3acaf6276cde75f25ebb47c1861829f3179c6695b8985"
    config = build_manifest(FILES).config
    assert (config.digest, config.size_bytes) == (CONFIG_DIGEST, 70)


@given(file_lists(), st.randoms())
def test_the_order_files_come_in_never_matters(files: list[VersionFile], random: Any) -> None:
    shuffled = files.copy()
    random.shuffle(shuffled)

    assert build_manifest(shuffled) == build_manifest(iter(files))
    assert content_digest(shuffled) == content_digest(files) == build_manifest(files).content_digest


@given(file_lists())
def test_a_built_manifest_is_read_back_as_itself(files: list[VersionFile]) -> None:
    manifest = build_manifest(files)

    assert parse_manifest(manifest.bytes) == manifest
    assert [file.path.encode() for file in manifest.files] == sorted(file.path.encode() for file in files)
    assert manifest.size_bytes == sum(file.size_bytes for file in files)


@given(file_lists())
def test_another_encoder_gives_the_same_canonical_bytes(files: list[VersionFile]) -> None:
    data = build_manifest(files).bytes

    assert msgspec.json.encode(msgspec.json.decode(data), order="sorted") == data


@given(file_lists(), st.data())
def test_any_change_to_a_file_changes_both_digests(files: list[VersionFile], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(files) - 1))
    file = files[index]
    changed = data.draw(
        st.sampled_from(
            [
                VersionFile(file.path + "_", file.size_bytes, file.digest),
                VersionFile(file.path, file.size_bytes, digest_of(b"other")),
                VersionFile(file.path, file.size_bytes ^ 1, digest_of(b"other")),
            ]
        )
    )
    before, after = build_manifest(files), build_manifest([*files[:index], changed, *files[index + 1 :]])

    assert before.digest != after.digest
    assert before.content_digest != after.content_digest


@given(file_lists())
def test_the_content_digest_is_what_its_docstring_says(files: list[VersionFile]) -> None:
    lines = [f"{file.path}\t{file.size_bytes}\t{file.digest.removeprefix('sha256:')}\n".encode() for file in files]

    assert content_digest(files) == "sha256:" + hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def test_a_manifest_without_files_is_refused() -> None:
    with pytest.raises(InvalidManifestError, match="no file"):
        build_manifest([])


@pytest.mark.parametrize("size_bytes", [-1, 2**63])
def test_a_size_no_row_can_hold_is_refused(size_bytes: int) -> None:
    with pytest.raises(InvalidManifestError, match="out of range"):
        build_manifest([VersionFile("a", size_bytes, HELLO)])


def test_one_digest_cannot_have_two_sizes() -> None:
    with pytest.raises(InvalidManifestError, match="two sizes"):
        build_manifest([VersionFile("a", 5, HELLO), VersionFile("b", 6, HELLO)])


def test_ten_thousand_files_are_allowed_and_one_more_is_refused_before_the_rest_is_read() -> None:
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield VersionFile(f"f{len(taken)}", 5, HELLO)

    assert len(build_manifest([VersionFile(f"f{number}", 5, HELLO) for number in range(MAX_PATHS)]).files) == MAX_PATHS
    with pytest.raises(LimitExceededError):
        build_manifest(endless())
    assert len(taken) == MAX_PATHS + 1


def test_a_manifest_above_four_mebibytes_is_refused() -> None:
    folder = "/".join(["x" * 200] * 4)

    with pytest.raises(LimitExceededError):
        build_manifest([VersionFile(f"{folder}/{number}", 5, HELLO) for number in range(5_000)])


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def foreign() -> dict[str, Any]:
    """Return what ORAS pushes for two files."""
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
            "data": "e30=",
        },
        "layers": [
            {
                "mediaType": "application/octet-stream",
                "digest": HELLO,
                "size": 5,
                "annotations": {"org.opencontainers.image.title": "weights/z.bin"},
            },
            {
                "mediaType": "application/vnd.cncf.model.weight.config.v1.raw",
                "digest": digest_of(b"abc"),
                "size": 3,
                "annotations": {"org.cncf.model.filepath": "a.json", "org.opencontainers.image.title": "ignored"},
            },
        ],
        "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
    }


def parse(document: Any) -> Manifest:
    return parse_manifest(json.dumps(document, indent=2).encode())


def test_a_foreign_manifest_is_kept_verbatim_and_its_files_are_read() -> None:
    data = json.dumps(foreign(), indent=2).encode()
    files = [VersionFile("a.json", 3, digest_of(b"abc")), VersionFile("weights/z.bin", 5, HELLO)]

    manifest = parse_manifest(data)

    assert manifest.bytes == data
    assert manifest.digest == digest_of(data)
    assert not manifest.is_canonical
    assert list(manifest.files) == files
    assert manifest.size_bytes == 8
    assert manifest.config.size_bytes == 2
    assert manifest.content_digest == build_manifest(files).content_digest
    assert manifest.digest != build_manifest(files).digest


def test_a_file_that_is_the_config_too_has_the_size_of_the_config() -> None:
    document = foreign()
    document["config"] |= {"digest": HELLO, "size": 5}
    assert parse(document).files[1].size_bytes == 5

    for wrong in (document["config"], document["layers"][0]):
        wrong["size"] = 6
        with pytest.raises(InvalidManifestError, match="two sizes"):
            parse(document)
        wrong["size"] = 5


def test_the_media_type_may_be_left_out_as_in_oci_1_0() -> None:
    document = foreign()
    del document["mediaType"], document["artifactType"], document["annotations"]

    assert len(parse(document).files) == 2


@pytest.mark.parametrize("change", [b" ", b"\n"])
def test_our_own_form_spelled_otherwise_is_not_canonical(change: bytes) -> None:
    manifest = parse_manifest(GOLDEN + change)

    assert not manifest.is_canonical
    assert manifest.content_digest == GOLDEN_CONTENT_DIGEST
    assert parse_manifest(GOLDEN).is_canonical


def remove(*keys: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


def put(value: Any, *keys: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


WRONG: dict[str, Callable[[Any], None]] = {
    "no schemaVersion": remove("schemaVersion"),
    "schemaVersion 1": put(1, "schemaVersion"),
    "schemaVersion as text": put("2", "schemaVersion"),
    "an index": put("application/vnd.oci.image.index.v1+json", "mediaType"),
    "a Docker manifest": put("application/vnd.docker.distribution.manifest.v2+json", "mediaType"),
    "no config": remove("config"),
    "config is text": put("x", "config"),
    "config without size": remove("config", "size"),
    "no layers": remove("layers"),
    "layers is an object": put({}, "layers"),
    "layers is empty": put([], "layers"),
    "a layer is null": put(None, "layers", 0),
    "a layer without digest": remove("layers", 0, "digest"),
    "a layer with another hash": put("sha512:" + "0" * 128, "layers", 0, "digest"),
    "a digest in capitals": put("sha256:" + "A" * 64, "layers", 0, "digest"),
    "a digest as number": put(1, "layers", 0, "digest"),
    "a size as text": put("5", "layers", 0, "size"),
    "a size that is true": put(True, "layers", 0, "size"),
    "a size with a fraction": put(5.0, "layers", 0, "size"),
    "a negative size": put(-1, "layers", 0, "size"),
    "a size beyond int64": put(2**63, "layers", 0, "size"),
    "a size of many digits": put(10**4000, "layers", 0, "size"),
    "a layer without media type": remove("layers", 0, "mediaType"),
    "a tar archive": put("application/vnd.cncf.model.weight.v1.tar", "layers", 0, "mediaType"),
    "a compressed archive": put("application/vnd.oci.image.layer.v1.tar+gzip", "layers", 0, "mediaType"),
    "a compressed file": put("application/vnd.cncf.model.weight.v1.raw+zstd", "layers", 0, "mediaType"),
    "annotations is a list": put([], "layers", 0, "annotations"),
    "a path as number": put({"org.cncf.model.filepath": 1}, "layers", 0, "annotations"),
    "a path that climbs": put({"org.cncf.model.filepath": "../x"}, "layers", 0, "annotations"),
    "half a surrogate pair": put({"org.cncf.model.filepath": "\ud800"}, "layers", 0, "annotations"),
    "a path twice": put({"org.cncf.model.filepath": "weights/z.bin"}, "layers", 1, "annotations"),
    "a path in the way": put({"org.cncf.model.filepath": "weights"}, "layers", 1, "annotations"),
    "one digest with two sizes": put(HELLO, "layers", 1, "digest"),
}


@pytest.mark.parametrize("change", [remove("layers", 0, "annotations"), put({"a": "b"}, "layers", 0, "annotations")])
def test_a_layer_without_a_path_is_called_by_its_digest(change: Callable[[Any], None]) -> None:
    document = foreign()
    change(document)

    digest = document["layers"][0]["digest"]
    assert digest.removeprefix("sha256:") in [file.path for file in parse(document).files]


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_a_manifest_of_another_shape_is_refused(change: Callable[[Any], None]) -> None:
    document = foreign()
    change(document)

    with pytest.raises(InvalidManifestError) as caught:
        parse(document)

    assert "{" not in caught.value.message
    caught.value.message.encode()  # no half surrogate: it can be sent


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"2",
        b"{",
        GOLDEN[:-1],
        GOLDEN + b"{}",
        b"\xef\xbb\xbf" + GOLDEN,
        GOLDEN.decode().encode("utf-16"),
        GOLDEN.replace("é".encode(), b"\xff"),
        GOLDEN.replace(b'"size":5', b'"size":NaN'),
        GOLDEN.replace(b'"size":5', b'"size":Infinity'),
        GOLDEN.replace(b'"size":5', b'"size":-Infinity'),
        GOLDEN.replace(b'"size":5', b'"size":1e999'),
        GOLDEN.replace(b'"size":5', b'"size":5,"size":5'),
        GOLDEN.replace(b'"size":5', b'"s\\u0069ze":6,"size":5'),
        GOLDEN[:-1] + b',"extra":NaN}',
        GOLDEN[:-1] + b',"extra":1e999}',
        GOLDEN[:-1] + b',"schemaVersion":2}',
        GOLDEN[:-1] + b',"extra":' + b"9" * 5_000 + b"}",
        GOLDEN[:-1] + b',"extra":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        GOLDEN[:-1] + b',"extra":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
        b"[" * MAX_MANIFEST_BYTES,
        GOLDEN + b" " * MAX_MANIFEST_BYTES,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_bytes_that_are_no_strict_json_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifestError):
        parse_manifest(data)


def test_a_manifest_of_too_many_files_is_refused() -> None:
    document = foreign()
    document["layers"] = [
        {"mediaType": "a/b", "digest": HELLO, "size": 5, "annotations": {"org.cncf.model.filepath": f"f{number}"}}
        for number in range(MAX_PATHS + 1)
    ]

    with pytest.raises(InvalidManifestError, match="10000 files"):
        parse_manifest(json.dumps(document, separators=(",", ":")).encode())


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(InvalidManifestError):
        parse_manifest(data)


@given(
    st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "digest", "size", "annotations"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_a_field_of_any_kind_is_refused_or_read(key: str, value: Any) -> None:
    document = foreign()
    (document["layers"][0] if key in ("digest", "size", "annotations") else document)[key] = value

    try:
        manifest = parse(document)
    except InvalidManifestError:
        return
    assert manifest.files


# ── paths ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "MLmodel",
        ".gitattributes",
        "a/.hidden/..b/...c",
        "model-00001-of-00004.safetensors",
        "with blank/and (brackets) [1] {2} #3 %20 ~ ! $ & ' \" * ? < > |",
        "step=3/time=12:30",
        "данные/модель.bin",
        "モデル/重み.bin",
        "naïve/é",
        "😀.txt",
        "CON",
        "x" * 255,
        "é" * 127,
        "/".join(["x" * 255] * 4)[:1024],
    ],
)
def test_a_good_path_is_returned_as_it_is(path: str) -> None:
    assert check_path(path) is path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/etc/passwd", "begins with /"),
        ("//host/share", "begins with /"),
        ("a//b", "empty segment"),
        ("a/", "empty segment"),
        (".", r"\. or \.\."),
        ("..", r"\. or \.\."),
        ("a/../b", r"\. or \.\."),
        ("a/./b", r"\. or \.\."),
        ("a\\b", "backslash"),
        ("\\\\host\\share", "backslash"),
        ("C:/windows", "drive"),
        ("c:file", "drive"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("a\u2028b", "control"),
        ("e\u0301", "form C"),
        ("\u212b", "form C"),  # the Angstrom sign
        ("gpj.\u202eexe", "invisible"),
        ("a\u200bb", "invisible"),
        ("a\u200db", "invisible"),
        ("a\u2066b", "invisible"),
        ("a\ufeffb", "invisible"),
        ("a\u00adb", "invisible"),
        ("a\ufe0f", "invisible"),
        ("a\U000e0041b", "invisible"),
        ("a\ud800b", "no character"),
        ("a\uffffb", "no character"),
        ("a\U0001fffeb", "no character"),
        ("a\U0010ffffb", "no character"),
        ("trailing.", "dot"),
        ("folder./a", "dot"),
        ("trailing ", "blank"),
        (" leading", "blank"),
        ("a/ b/c", "blank"),
        ("a\u00a0", "blank"),
        ("x" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("/".join(["x" * 200] * 6), "1024 bytes"),
        ("/".join(["é" * 100] * 6), "1024 bytes"),
        ("x/" * 511 + "xyz", "1024 bytes"),
    ],
)
def test_a_bad_path_is_refused_with_its_reason(path: str, reason: str) -> None:
    with pytest.raises(InvalidPathError, match=reason) as caught:
        check_path(path)

    str(caught.value.fields["path"]).encode()  # no half surrogate: it can be sent


@pytest.mark.parametrize("path", [None, b"bytes", 3, ["a"]])
def test_what_is_no_text_is_no_path(path: Any) -> None:
    with pytest.raises(InvalidPathError, match="text"):
        check_path(path)


def accepts(path: str) -> bool:
    try:
        check_path(path)
    except InvalidPathError:
        return False
    return True


@given(st.text(st.characters() | st.sampled_from("/.\\ :C\u200b"), max_size=30))
def test_a_path_that_is_accepted_stays_in_its_folder_and_shows_what_it_is(path: str) -> None:
    assume(accepts(path))

    path.encode()
    assert unicodedata.normalize("NFC", path) == path
    assert not path.startswith("/")
    assert not re.match("[A-Za-z]:", path)
    assert not {unicodedata.category(character) for character in path} & {"Cc", "Cs", "Zl", "Zp"}
    for segment in path.split("/"):
        assert segment not in ("", ".", "..")
        assert segment == segment.strip()
        assert "\\" not in segment


@given(st.text(st.sampled_from("aB_.-/ :\\=,@+\x00é"), max_size=12) | st.integers(250, 260).map("a".__mul__))
def test_the_quick_way_for_plain_paths_says_what_the_full_rule_says(path: str) -> None:
    assert accepts(path) is (_find_fault(path) is None)


def test_every_bidirectional_control_and_zero_width_character_is_refused() -> None:
    named = [
        chr(code)
        for code in range(0x110000)
        if re.search(
            "ZERO WIDTH|LEFT-TO-RIGHT|RIGHT-TO-LEFT|DIRECTIONAL|INVISIBLE|WORD JOINER|GRAPHEME JOINER|^TAG |VARIATION SELECTOR",
            unicodedata.name(chr(code), ""),
        )
        and unicodedata.category(chr(code)) in ("Cf", "Mn")
    ]

    assert len(named) > 300
    assert [f"U+{ord(character):04X}" for character in named if accepts(f"a{character}b")] == []


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("a", "a", "twice"),
        ("README", "readme", "upper and lower"),
        ("straße", "STRASSE", "upper and lower"),
        ("ΐ", "\u1fd3", "form C"),
        ("Σ", "ς", "upper and lower"),
        ("a", "a/b", "cannot hold"),
        ("a/b", "a", "cannot hold"),
        ("a/B", "A/b/c", "cannot hold"),
        ("x/y/z/w", "X/Y", "cannot hold"),
    ],
)
def test_two_paths_that_one_disk_would_confuse_are_refused(first: str, second: str, reason: str) -> None:
    with pytest.raises(InvalidPathError, match=reason):
        check_paths([first, second])


def test_paths_that_only_look_close_are_allowed_together() -> None:
    together = ["a", "ab", "a.b", "b/a", "B/c", "b/A2", "c/d/e", "c/d2", "c-d"]

    assert check_paths(iter(together)) == together
    assert check_paths([]) == []


@given(st.lists(st.lists(st.sampled_from("aAbß"), min_size=1, max_size=3).map("/".join), max_size=6))
def test_a_set_is_accepted_exactly_if_a_disk_that_ignores_case_can_hold_it(candidates: list[str]) -> None:
    folded = [fold_path(path) for path in candidates]
    fits = len(set(folded)) == len(folded) and not any(
        one.startswith(other + "/") for one in folded for other in folded
    )

    try:
        check_paths(candidates)
    except InvalidPathError:
        assert not fits
    else:
        assert fits


def test_ten_thousand_paths_are_the_most() -> None:
    many = [f"f{number}" for number in range(MAX_PATHS + 1)]

    assert len(check_paths(many[:-1])) == MAX_PATHS
    with pytest.raises(LimitExceededError, match="10000 files"):
        check_paths(many)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=6, unique=True))
def test_the_bytes_are_what_a_plain_encoding_of_their_meaning_gives(paths: list[str]) -> None:
    try:
        manifest = build_manifest([VersionFile(path, 5, HELLO) for path in paths])
    except (InvalidManifestError, InvalidPathError):
        return
    plain = json.dumps(json.loads(manifest.bytes), ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    assert manifest.bytes == plain.encode()
