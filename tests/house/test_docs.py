"""The documents under test: what they list is what the code has, their links resolve, their examples run."""

from __future__ import annotations

import inspect
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest

import touchmark
from tests.house.source import PACKAGE, ROOT, list_modules, shown
from touchmark.client._registry import Registry
from touchmark.client._runs import ActiveRun
from touchmark.domain.errors import list_error_classes
from touchmark.domain.events import SUBJECTS, EventKind
from touchmark.domain.models import Unchanged
from touchmark.domain.search import FIELDS, KEYED, FieldKind, Op, Searchable
from touchmark.protocols.native.errors import status_of
from touchmark.server.settings import Settings

DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "changelog").glob("*.md"), *ROOT.glob("requirements/*.md")]
)
EXAMPLES = [
    ROOT / "README.md",
    DOCS / "tutorial" / "first-champion.md",
    DOCS / "howto" / "register-from-a-run.md",
    DOCS / "howto" / "move-aliases.md",
    DOCS / "howto" / "search.md",
]
"""Pages whose `python` and `sh` blocks are run, in their order, in an empty folder."""

SECTIONS = ["Context", "Options", "Decision", "Consequences", "Proof"]
"""Of a decision record: those of its template."""

LIMIT_NAME = re.compile(r"(MAX_\w+|\w*LIMIT\w*|LIFETIME_SECONDS|JSON_DEPTH)")
LIMIT_MODULES = ("domain.", "services.", "protocols.", "wire", "artifacts.manifests")


def read(page: str) -> str:
    """Return the text of a page below docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def list_rows(text: str) -> list[list[str]]:
    """Return the rows of every table of a page, as cells without blanks at their ends; headings are rows, too."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def list_codes(cell: str) -> list[str]:
    """Return what stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_error_is_in_the_reference_with_its_class_and_status() -> None:
    rows = {row[0]: row[1:3] for row in list_rows(read("reference/errors.md"))}

    expected = {
        f"`{cls.code}`": [f"`{cls.__name__}`", str(status_of(cls))]
        for cls in list_error_classes()
        if cls is not touchmark.errors.TouchmarkError
    }
    assert {code: rows.get(code) for code in expected} == expected
    assert [code for code in rows if code.startswith("`") and code not in expected] == []


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def list_limits() -> dict[str, int]:
    """Return every public limit of the folders that take input, by `module.NAME`."""
    found: dict[str, int] = {}
    for path in list_modules():
        module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        if not module.startswith(LIMIT_MODULES):
            continue
        for name in re.findall(r"^([A-Z][A-Z_]*)\b[^=\n]*= ", path.read_text(encoding="utf-8"), re.MULTILINE):
            if LIMIT_NAME.fullmatch(name):
                found[f"{module}.{name}"] = get_constant(f"{module}.{name}")
    return found


def get_constant(dotted: str) -> int:
    """Return the value of `module.NAME` below touchmark."""
    module, _, name = dotted.rpartition(".")
    value = getattr(import_module(f"touchmark.{module}"), name)
    assert isinstance(value, int)
    return value


def list_documented_limits(text: str) -> dict[str, int]:
    """Return the number each row with a place in the source says."""
    limits: dict[str, int] = {}
    for row in list_rows(text):
        places = list_codes(row[-1])
        if len(row) == 3 and places and re.fullmatch(r"[a-z_.]+\.[A-Z_]+", places[0]):
            number = re.match(r"[\d,]+", row[1])
            assert number, row
            limits[places[0]] = int(number[0].replace(",", ""))
    return limits


def test_every_limit_is_in_the_reference_with_the_number_the_code_has() -> None:
    documented = list_documented_limits(read("reference/names-and-limits.md"))

    assert {place: number for place, number in documented.items() if get_constant(place) != number} == {}
    assert len(list_limits()) > 30
    assert sorted(list_limits().keys() - documented.keys()) == []


def test_a_limit_that_is_documented_wrongly_is_found() -> None:
    wrong = "| name | 251 characters | `domain.names.NAME_LIMIT` |"

    assert list_documented_limits(wrong) == {"domain.names.NAME_LIMIT": 251}
    assert get_constant("domain.names.NAME_LIMIT") != 251


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_setting_is_in_the_reference_with_its_default_and_its_variable() -> None:
    rows = {row[0]: row for row in list_rows(read("reference/settings.md")) if len(row) == 5}
    defaults = Settings()

    for name in Settings.__dataclass_fields__:
        row = rows[f"`{name}`"]
        assert row[3] == f"`TOUCHMARK_{name.upper()}`"
        value = getattr(defaults, name)
        said = list_codes(row[1])
        if name == "home":
            assert said == ["~/.touchmark"]
        elif value is None or value == ():
            assert said == []
        else:
            assert said == [str(value).lower() if isinstance(value, bool) else str(value)]
    assert {row.strip("`") for row in rows} == {"setting", "---", *Settings.__dataclass_fields__}


def test_every_variable_the_source_reads_is_in_the_reference() -> None:
    text = read("reference/settings.md")
    source = "".join(path.read_text(encoding="utf-8") for path in list_modules())
    read_here = set(re.findall(r"environ\S*?\(?\"(TOUCHMARK_[A-Z]+)\"", source))

    assert {"TOUCHMARK_URL", "TOUCHMARK_HOME", "TOUCHMARK_CACHE"} <= read_here
    assert sorted(name for name in read_here if f"`{name}`" not in text) == []


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_entry_is_in_the_reference() -> None:
    first = [list_codes(row[0]) for row in list_rows(read("reference/log.md")) if len(row) == 2]

    assert {kind.value for kind in EventKind} == {code for codes in first for code in codes if "." in code}


def test_every_subject_is_in_the_reference_with_its_key_fields_and_texts() -> None:
    rows = {row[0].strip("`"): row for row in list_rows(read("reference/log.md")) if len(row) == 3}

    for kind, shape in SUBJECTS.items():
        _, key, fields = rows[kind.value]
        assert list_codes(key) == list(shape.key)
        assert list_codes(fields) == list(shape.fields)
        assert set(re.findall(r"\*`(\w+)`\*", fields)) == shape.texts
    assert rows.keys() - {kind.value for kind in SUBJECTS} == {"subject", "---"}


# ── the SDK ──────────────────────────────────────────────────────────────────────────────────────────────────────


def render_signature(function: Callable[..., Any]) -> str:
    """Return a method as the reference writes it: names and defaults, without types and without self."""
    parts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        text = ("**" if parameter.kind is parameter.VAR_KEYWORD else "") + parameter.name
        if isinstance(parameter.default, Unchanged):
            text += "=UNCHANGED"
        elif parameter.default is not parameter.empty:
            text += f"={parameter.default!r}"
        parts.append(text)
    return f"{function.__name__}({', '.join(parts)})"


@pytest.mark.parametrize("thing", [Registry, ActiveRun, touchmark])
def test_every_public_method_is_in_the_reference_with_its_signature(thing: type | ModuleType) -> None:
    text = read("reference/sdk.md")
    prefix, names = "touchmark.", ["open", "connect"]
    if isinstance(thing, type):
        prefix, names = "", [name for name in vars(thing) if not name.startswith("_")]
    methods = [getattr(thing, name) for name in names if callable(getattr(thing, name))]

    signatures = [f"`{prefix}{render_signature(method)}`" for method in methods]
    assert len(signatures) >= 2
    assert [signature for signature in signatures if f"**{signature}**" not in text] == []


def test_the_reference_of_the_sdk_names_no_method_that_is_not_there() -> None:
    documented = re.findall(r"\*\*`(?:touchmark\.)?(\w+)\(", read("reference/sdk.md"))
    known = {*vars(Registry), *vars(ActiveRun), "open", "connect"}

    assert len(documented) > 50
    assert [name for name in documented if name not in known] == []


# ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────


def list_field_rows(text: str, searchable: Searchable) -> dict[str, list[str]]:
    """Return the rows of "Fields of versions" or "Fields of models", by the field's name without its key."""
    section = text.partition(f"## Fields of {searchable.value}")[2].partition("\n## ")[0]
    return {row[0].strip("`").partition(".")[0]: row for row in list_rows(section) if row[0].startswith("`")}


@pytest.mark.parametrize("searchable", Searchable)
def test_every_field_of_search_is_in_the_reference_with_its_type_and_operators(searchable: Searchable) -> None:
    rows = list_field_rows(read("reference/search.md"), searchable)

    assert rows.keys() == {kind.value for kind in FIELDS[searchable]}
    for kind, rule in FIELDS[searchable].items():
        field, value_type, operators, sortable = rows[kind.value][:4]
        assert ("." in field) == (kind in KEYED)
        assert value_type == rule.type.value
        assert set(list_codes(operators)) == {op.value for op in rule.operators}
        assert sortable == ("yes" if rule.sortable else "no")


def test_a_missing_operator_would_be_found() -> None:
    text = "## Fields of models\n\n| `name` | text | `=` `!=` | yes | |\n"

    operators = set(list_codes(list_field_rows(text, Searchable.MODELS)["name"][2]))
    assert operators != {op.value for op in FIELDS[Searchable.MODELS][FieldKind.NAME].operators}
    assert Op.EQ.value in operators


# ── the HTTP API ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_operation_is_in_the_reference_with_its_parameters() -> None:
    rows = {row[0].strip("`"): row for row in list_rows(read("reference/http-api.md")) if len(row) == 4}
    document = json.loads((PACKAGE / "protocols" / "native" / "openapi.json").read_text(encoding="utf-8"))

    operations: dict[str, list[set[str]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in {"get", "put", "post", "patch", "delete"}:
                found = operation.get("parameters", [])
                operations[f"{method.upper()} {path}"] = [
                    {each["name"] for each in found if each["in"] == where} for where in ("query", "header")
                ]
    assert len(operations) > 40
    assert sorted(operations.keys() - rows.keys()) == []
    assert sorted(name for name in rows.keys() - operations.keys() if re.match("[A-Z]+ /", name)) == []
    for name, (query, headers) in operations.items():
        assert (set(list_codes(rows[name][2])), set(list_codes(rows[name][3]))) == (query, headers), name


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────


def strip_code(text: str) -> str:
    """Return Markdown without its fenced blocks and code spans: what looks like a link there is none."""
    return re.sub(r"(`+)[^`\n]*?\1", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def list_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def list_broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the links of a page that lead nowhere in the repository; addresses elsewhere are not asked."""
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", strip_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = unquote(target).partition("#")
        found = (page.parent / place).resolve() if place else page
        if not found.exists() or (
            anchor and found.suffix == ".md" and anchor not in list_anchors(found.read_text(encoding="utf-8"))
        ):
            yield f"{shown(page)}: {target}"


def test_links_between_documents_resolve() -> None:
    assert len(PAGES) > 30
    assert [link for page in PAGES for link in list_broken_links(page, page.read_text(encoding="utf-8"))] == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](missing.md) [b](README.md#no-such-heading) [c](README.md#licence) [d](https://example.org) `[e](f.md)`"

    assert list(list_broken_links(ROOT / "README.md", text)) == [
        "README.md: missing.md", "README.md: README.md#no-such-heading",
    ]  # fmt: skip


def test_every_document_of_the_house_is_reached_from_another() -> None:
    linked: set[Path] = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)", strip_code(page.read_text(encoding="utf-8"))):
            linked.add((page.parent / unquote(target)).resolve())
    reached = [page for page in DOCS.rglob("*.md") if page in linked or page.parent in linked]

    assert sorted(shown(page) for page in set(DOCS.rglob("*.md")) - set(reached)) == []


def test_decisions_are_numbered_without_gaps_and_have_every_section() -> None:
    pages = sorted(page for page in (DOCS / "adr").glob("*.md") if not page.name.startswith("0000"))

    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
        for place in re.findall(r"`((?:tests|src)/[\w/.]+)`", text):
            assert (ROOT / place).exists(), f"{shown(page)}: {place}"


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────────────────


def list_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page: language and text."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def find_free_port() -> int:
    """Return a port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Examples:
    """Runs a page's blocks: `python` in this process, all in one namespace; `sh` in a shell; `console` not.

    A `console` block that begins with `touchmark serve` starts a server, on a port of its own, for the blocks after it.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Work in `folder`."""
        self.namespace: dict[str, Any] = {}
        self.servers: list[subprocess.Popen[str]] = []
        self.monkeypatch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("TOUCHMARK_CACHE", str(folder / "cache"))
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        for name in ("TOUCHMARK_URL", "TOUCHMARK_HOME"):
            monkeypatch.delenv(name, raising=False)

    def run(self, language: str, text: str) -> None:
        """Run one block; whatever fails in it fails the test."""
        if language == "python":
            exec(compile(text, "<example>", "exec"), self.namespace)
        elif language == "sh":
            done = subprocess.run(["sh", "-eu", "-c", text], capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        elif text.startswith("touchmark serve --home ./registry\n"):
            self._serve()

    def _serve(self) -> None:
        port = find_free_port()
        server = subprocess.Popen(
            ["touchmark", "serve", "--home", "./registry", "--port", str(port), "--no-log-requests"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.servers.append(server)
        assert server.stdout is not None
        assert "ready" in server.stdout.readline()
        self.monkeypatch.setenv("TOUCHMARK_URL", f"http://127.0.0.1:{port}")

    def end(self) -> None:
        """End the servers."""
        for server in self.servers:
            server.terminate()
            assert server.stdout is not None
            server.stdout.close()
            assert server.wait(20) == 0


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Examples]:
    made = Examples(tmp_path, monkeypatch)
    yield made
    made.end()


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path, examples: Examples) -> None:
    blocks = list_blocks(page.read_text(encoding="utf-8"))

    assert any(language == "python" for language, _ in blocks)
    for language, text in blocks:
        examples.run(language, text)
