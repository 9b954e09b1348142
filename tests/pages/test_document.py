"""The frame of every page: one file whose policy admits exactly what was built in."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape

from evalkit.pages.document import asset, document, templates, visible


def page(**changes: object) -> str:
    return document(**{"title": "Scores", "body": Markup("<h1>Scores</h1>"), **changes})


def element(html: str, name: str) -> str:
    found = re.findall(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def policy(html: str) -> dict[str, str]:
    content = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert content
    return {name: value for name, _, value in (part.partition(" ") for part in content[1].split("; "))}


def test_everything_but_the_built_in_is_forbidden() -> None:
    found = policy(page())
    assert found["default-src"] == found["base-uri"] == found["form-action"] == "'none'"
    assert found["img-src"] == "data:"
    assert "unsafe" not in str(found)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_hashes_are_of_what_a_browser_reads(end: str) -> None:
    html = page(style=f"h1 {{{end} color: teal }}", script=f"void 0;{end}void 1;")
    assert "\r" not in html  # a browser turns it into LF before it hashes
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(element(html, name).encode()).digest()).decode()
        assert policy(html)[f"{name}-src"] == f"'sha256-{digest}'"


def test_own_style_and_script_follow_the_base_ones() -> None:
    html = page(style="h1 { color: teal }", script="void 1;")
    assert element(html, "style") == asset("evalkit.pages", "base.css") + "h1 { color: teal }"
    assert element(html, "script") == asset("evalkit.pages", "base.js") + "void 1;"


def test_the_policy_stands_before_what_it_governs() -> None:
    html = page()
    assert html.index("Content-Security-Policy") < html.index("<style>") < html.index("<script>")


@pytest.mark.parametrize("text", ["</style>", "</SCRIPT >", "<!-- x", "a</Style\n>"])
def test_text_that_would_end_its_element_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        page(style=text)
    with pytest.raises(ValueError, match="cannot stand"):
        page(script=text)


@given(st.text())
def test_no_title_leaves_its_element(title: str) -> None:
    html = page(title=title)
    assert f"<title>{escape(visible(title))}</title>" in html
    assert html.count("<h1>") == 1


def test_what_utf8_cannot_hold_is_written_as_an_escape() -> None:
    assert b"<title>a\\udcff</title>" in page(title="a\udcff").encode()


def test_html_is_nested_properly() -> None:
    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.opened: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in {"meta", "link"}:
                self.opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.opened.pop() == tag

    parser = Balance()
    parser.feed(page(lang="de"))
    assert parser.opened == []
    assert '<html lang="de">' in page(lang="de")


def test_the_language_cannot_break_out() -> None:
    assert 'lang="&#34;&gt;&lt;b&gt;"' in page(lang='"><b>')


@given(st.text())
def test_visible_text_has_neither_control_characters_nor_reversals(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


def test_templates_escape_and_refuse_unknown_names() -> None:
    environment = templates("evalkit.leaderboard")
    assert environment.from_string("{{ x }}").render(x="<b>\u202e") == "&lt;b&gt; "
    assert environment.from_string("{{ x }}").render(x=Markup("<b>")) == "<b>"
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ misspelt }}").render()
