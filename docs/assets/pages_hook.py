"""Build hook of the site: the pages that are made from the code (causes, clauses, lab.yaml, labs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that lie in docs/."""
    from mkdocs.structure.files import File

    from labproof.cli.site_pages import pages

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files
