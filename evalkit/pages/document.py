"""A whole HTML page in one string: nothing is fetched, and nothing runs but what was built in.

    document(title="Scores", body=Markup("<h1>Scores</h1>"), style="h1 { color: teal }")

The content-security-policy admits one style sheet and one script by their SHA-256, and images as data: URIs.
It refuses ``style="…"`` and ``onclick="…"`` attributes, so what a record smuggled in stays dead even if an
escape were forgotten somewhere.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import re

import jinja2
from markupsafe import Markup, escape

from evalkit.reporting.formatting import Style
from evalkit.spreadsheets import utf8_text

_PLAIN = Style()
_END_OF_ELEMENT = re.compile(r"</(style|script)|<!--", re.IGNORECASE)
_PAGE = """\
<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<button type="button" class="theme" id="theme" hidden>Dark</button>
{body}
<script>{script}</script>
</body>
</html>
"""


def document(*, title: str, body: Markup, style: str = "", script: str = "", lang: str = "en") -> str:
    """Return a whole HTML5 file around ``body``, in the base style sheet (light, dark, print).

    ``style`` and ``script`` follow the base ones. ``body`` may have neither style attributes nor inline
    handlers: browsers ignore both here. A class ``js`` on the root element says that scripts run.

    Raises:
        ValueError: ``style`` or ``script`` would end its own element.
    """
    sheet = _checked(f"{asset('evalkit.pages', 'base.css')}{style}")
    code = _checked(f"{asset('evalkit.pages', 'base.js')}{script}")
    policy = (
        f"default-src 'none'; style-src '{_digest(sheet)}'; script-src '{_digest(code)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _PAGE.format(
        lang=escape(lang), policy=policy, title=escape(visible(title)), style=sheet, body=body, script=code
    )
    return utf8_text(page)


@functools.cache
def asset(package: str, name: str) -> str:
    """Return a text file that ships inside ``package``, with line ends as LF."""
    return importlib.resources.files(package).joinpath(name).read_text(encoding="utf-8")


def templates(package: str) -> jinja2.Environment:
    """Return the templates in the folder ``templates`` of ``package``.

    Every text is escaped and rid of control characters (which can reverse or hide what follows them); a name
    that a template misspells is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def visible(text: str) -> str:
    """Return ``text`` with a blank in place of each control character and each override of direction."""
    # What is printable holds none of them: a page of ten thousand rows has a million texts.
    return text if text.isprintable() else _PLAIN.plain(text)


def _finalize(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _checked(text: str) -> str:
    # The hash is taken of what a browser reads: it turns every CRLF and CR into LF first.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := _END_OF_ELEMENT.search(text):
        raise ValueError(f"{found[0]!r} cannot stand in a style sheet or script of a page")
    return text


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
