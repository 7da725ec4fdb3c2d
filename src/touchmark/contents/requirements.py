"""What a model says it needs: requirements.txt, conda.yaml, python_env.yaml.

Source: pip's requirements file format, PEP 508, MLflow's environment files. Here: reading their lines. Not here:
resolving or installing. Options (index addresses) and the user part of URLs are dropped: they carry passwords.
"""

from __future__ import annotations

import re

from touchmark.contents.documents import clean_text, parse_yaml

REQUIREMENTS = 500
_LINE_CHARS = 300

_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTIONS = re.compile(r"\s--?[A-Za-z].*$")
_EDITABLE = re.compile(r"^(-e|--editable)[\s=]+")
_USER = re.compile(r"://[^/\s]*@")
_CONDA_PYTHON = re.compile(r"python\s*={1,2}\s*([0-9][0-9.]*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_requirements(data: bytes) -> list[str]:
    """Return the requirements of a requirements.txt, without comments, options, hashes and passwords."""
    lines = re.sub(r"\\\r?\n", " ", data.decode("utf-8", "replace")).splitlines()
    return _tidy(lines)


def read_conda(data: bytes) -> tuple[list[str], str | None]:
    """Return the requirements (pip's, and conda's own but python and pip) and the Python version of a conda.yaml.

    Raises InvalidError if it is no YAML.
    """
    document = parse_yaml(data)
    listed = document.get("dependencies") if isinstance(document, dict) else None
    lines: list[str] = []
    python: str | None = None
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict):
            inner = entry.get("pip")
            lines.extend(line for line in inner if isinstance(line, str)) if isinstance(inner, list) else None
        elif isinstance(entry, str):
            match = _CONDA_PYTHON.match(entry)
            if match is not None:
                python = clean_text(match.group(1), 50)
            elif requirement_name(entry) not in ("python", "pip"):
                lines.append(entry)
    return _tidy(lines), python


def read_python_env(data: bytes) -> str | None:
    """Return the Python version of a python_env.yaml. Raises InvalidError if it is no YAML."""
    document = parse_yaml(data)
    version = document.get("python") if isinstance(document, dict) else None
    return clean_text(version, 50) if isinstance(version, str) else None


def requirement_name(requirement: str) -> str:
    """Return the normalised name (PEP 503) a requirement begins with, or all of it if it begins with none."""
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match.group()).lower() if match is not None else requirement


def _tidy(lines: list[str]) -> list[str]:
    found: set[str] = set()
    for line in lines:
        text = _EDITABLE.sub("", _COMMENT.sub("", line).strip())
        if text.startswith("-"):
            continue
        text = _USER.sub("://", _OPTIONS.sub("", text)).strip()
        if text:
            found.add(clean_text(text, _LINE_CHARS))
    return sorted(found)
