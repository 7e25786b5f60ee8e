"""Completes the package's metadata with the facts in release.toml, and makes the README fit for a package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)\s]+)\)")


def absolute_links(text: str, source_url: str, file_path: str) -> str:
    """Return Markdown whose links work anywhere.

    :param text: Markdown with links relative to the repository.
    :param source_url: address of the repository; empty if not known, and then such a link becomes plain text.
    :param file_path: what follows it in the address of a file.
    """
    target = rf"[\1]({source_url.rstrip('/')}{file_path}\2)" if source_url else r"\1"
    return _RELATIVE_LINK.sub(target, text)


class CustomMetadataHook(MetadataHookInterface):
    """Sets ``readme``, ``authors`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add to the metadata what is known.

        :param metadata: the ``project`` table, to be changed in place.
        """
        root = Path(self.root)
        facts = tomllib.loads((root / "release.toml").read_text(encoding="utf-8"))
        readme = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(readme, facts["source_url"], facts["file_path"]),
        }
        author = {"name": facts["author_name"], "email": facts["author_email"]}
        metadata["authors"] = [known] if (known := {key: value for key, value in author.items() if value}) else []
        source = facts["source_url"].rstrip("/")
        urls = {
            "Source": source,
            "Documentation": facts["documentation_url"],
            "Changelog": f"{source}{facts['file_path']}CHANGELOG.md" if source else "",
            "Issues": facts["issues_url"],
        }
        metadata["urls"] = {name: url for name, url in urls.items() if url}
