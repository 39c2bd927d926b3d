"""What every server of this house has: errors of one line, a sign of life, and one look of its pages."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

import intarsia
from intarsia.server import routes_page
from intarsia.server.errors import error_of, install
from intarsia.server.parsing import StrictRoute

__all__ = ["STYLE", "application", "error_of"]


def application(name: str, **settings: Any) -> FastAPI:
    """An application without routes of its own but `GET /health` and `/docs`. Its errors are those of OpenAI's API.

    `settings`: FastAPI's."""
    api = FastAPI(title=f"Intarsia: {name}", version=intarsia.__version__, docs_url=None, redoc_url=None, **settings)
    api.router.route_class = StrictRoute
    install(api)
    routes_page.add(api)

    @api.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return api


STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#667;--line:#d5d9e0;--bar:#3b6ea8;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa3b2;--line:#39414f;--bar:#7aa7dc;--paper:#161a21}}
body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.2rem}textarea{width:100%;box-sizing:border-box;font:inherit;padding:.6rem;border:1px solid var(--line);
border-radius:.4rem;background:transparent;color:inherit}
button{font:inherit;padding:.4rem 1.2rem;margin:.6rem 0;border:0;border-radius:.4rem;background:var(--bar);color:#fff}
table{border-collapse:collapse;width:100%}td{padding:.35rem .5rem;border-top:1px solid var(--line);vertical-align:top}
td.label{white-space:nowrap;font-weight:600}td.bar{width:9rem}
.meter{height:.55rem;margin-top:.5rem;background:var(--line);border-radius:.3rem}
.meter div{height:100%;background:var(--bar);border-radius:.3rem}.soft{color:var(--soft)}
"""
