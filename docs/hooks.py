"""MkDocs hook: the pages that follow from the catalog are generated at each build, so they cannot fall behind it."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site, and the techniques to the navigation."""
    from intarsia.cli.docs import pages

    generated = pages()
    for path, text in generated.items():
        files.append(File.generated(config, path, content=text))
    techniques = [path for path in generated if path.startswith("techniques/")]
    for section in config.nav or []:
        if isinstance(section, dict) and "Techniques" in section:
            section["Techniques"] = ["catalog.md", *techniques]
    return files
