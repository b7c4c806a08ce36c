"""The main of ``tools/manuals``."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.documentation import configuration
from tools.documentation.commands import ROOT, modules, page_of, parser_of
from tools.documentation.page import Page
from tools.documentation.roff import roff


def pages() -> Iterator[Page]:
    """One for each program that is installed, and that of the configuration."""
    for module in modules().values():
        yield page_of(parser_of(module))
    yield configuration.page()


def documents() -> Mapping[Path, str]:
    """Every file that is made, with its text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = f"{project['name']} {project['version']}"
    made = {ROOT / "docs/man" / page.file: roff(page, source) for page in pages()}
    return {**made, ROOT / "docs/configuration.md": configuration.document()}


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="tools/manuals",
        description="Write docs/man/ and docs/configuration.md anew; a page of no program is removed.",
    )


def main() -> None:
    parser().parse_args()
    made = documents()
    for page in (ROOT / "docs/man").glob("*"):
        if page not in made:
            page.unlink()
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
