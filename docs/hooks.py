"""MkDocs hook: the pages that follow from the catalog are generated at each build, so they cannot fall behind it."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    from intarsia.cli.docs import pages

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
