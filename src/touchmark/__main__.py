"""`python -m touchmark` is the command line."""

from __future__ import annotations

from touchmark.cli import main

if __name__ == "__main__":
    main()
