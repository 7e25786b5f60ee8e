"""Says what is still missing before a release: facts in release.toml, and the version at the head of the changelog."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


def missing(root: Path) -> list[str]:
    """Return a sentence for everything that is missing.

    :param root: folder of the project.
    """
    facts = tomllib.loads((root / "release.toml").read_text(encoding="utf-8"))
    found = [f"release.toml: {name} is empty" for name, value in facts.items() if not value]
    package = (root / "airflow_provider_quickbi" / "__init__.py").read_text(encoding="utf-8")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    (version,) = VERSION.findall(package)
    newest = next(iter(re.findall(r"^## (\S+)", changelog, re.MULTILINE)), "nothing")
    if newest != version:
        found.append(f"CHANGELOG.md: starts with {newest}, but the version is {version}")
    return found


def main() -> int:
    """Print what is missing; with ``--strict`` the exit code is 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything is missing")
    strict = parser.parse_args().strict
    found = missing(ROOT)
    print("Missing before a release:" if found else "Nothing is missing before a release.")
    for sentence in found:
        print(f"  {sentence}")
    return 1 if found and strict else 0


if __name__ == "__main__":
    sys.exit(main())
