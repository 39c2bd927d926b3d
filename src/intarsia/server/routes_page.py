"""`/docs`: every route of an application, to read and to try. All of it comes from this server: Swagger UI's files are
those that the package fastapi-offline brings along."""

from __future__ import annotations

import html
import importlib.util
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response

PATH = "/docs"
FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
OPEN = frozenset({PATH, *(f"{PATH}/{name}" for name in FILES)})
"""What anybody may read."""
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'"
)


def add(api: FastAPI) -> None:
    """Add the routes."""
    files = _files()

    @api.get(PATH, include_in_schema=False)
    async def docs() -> HTMLResponse:
        if files is None:
            said = PLAIN.replace("{{title}}", html.escape(api.title))
            return HTMLResponse(said, headers={"content-security-policy": POLICY})
        made = get_swagger_ui_html(
            openapi_url=api.openapi_url or "", title=api.title,
            swagger_js_url=f"{PATH}/swagger-ui-bundle.js", swagger_css_url=f"{PATH}/swagger-ui.css",
            swagger_favicon_url=f"{PATH}/favicon.png",
        )  # fmt: skip
        made.headers["content-security-policy"] = POLICY
        return made

    if files is None:
        return
    for name, media in FILES.items():
        api.get(f"{PATH}/{name}", include_in_schema=False)(_given(files / name, media))


def _given(file: Path, media: str):  # type: ignore[no-untyped-def]
    async def given() -> Response:
        return FileResponse(file, media_type=media)

    return given


def _files() -> Path | None:
    """The folder of Swagger UI's files; None where they are not installed."""
    found = importlib.util.find_spec("fastapi_offline")
    folder = Path(found.origin).parent / "static" if found is not None and found.origin else None
    return folder if folder is not None and all((folder / name).is_file() for name in FILES) else None


PLAIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{title}}</title><h1>{{title}}</h1>
<p>All routes are in <a href="/openapi.json">/openapi.json</a>. The package <code>fastapi-offline</code>, which the
extra <code>server</code> brings, shows them here.</p></html>"""
