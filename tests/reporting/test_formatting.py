"""Numbers for people: digits follow the error, marks follow the stream."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.reporting.formatting import (
    Style,
    human_bytes,
    human_count,
    human_flops,
    human_rate,
    interval,
    measured,
    rounded_like,
    style_for,
    to_ascii,
)


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (12.3456, 0.0789, "12.346 ± 0.079"),
        (12.3, 0.0996, "12.30 ± 0.10"),
        (123456.0, 678.0, "123460 ± 680"),
        (0.0123, 0.0003, "0.01230 ± 0.00030"),
        (1.23e-5, 4.5e-7, "(1.230 ± 0.045)e-5"),
        (-1.23e-5, 4.5e-7, "(-1.230 ± 0.045)e-5"),
        (1e-9, 3e-6, "(0.0 ± 3.0)e-6"),
        (7.1, None, "7.100"),
        (7.1, 0.0, "7.100 ± 0"),
        (0.0, None, "0"),
        (-1e-5, 0.1, "0.00 ± 0.10"),
        (-3.21, 0.1, "-3.21 ± 0.10"),
        (1234567.8, None, "1234568"),
        (1.5e-8, None, "1.500e-8"),
        (3e15, None, "3.000e15"),
        (3e-308, 1e-310, "(3.000 ± 0.010)e-308"),
    ],
)
def test_measured(value, error, expected):
    assert measured(value, error) == expected


@given(st.floats(-1e6, 1e6), st.floats(1e-300, 1e6))
def test_rounding_loses_less_than_a_twentieth_of_the_error(value, error):
    numbers = re.fullmatch(r"\(?(\S+) ± (\S+?)\)?(e-?\d+)?", measured(value, error))
    shown, shown_error = (float(numbers[i] + (numbers[3] or "")) for i in (1, 2))
    # Two digits: half a unit of the second one is at most 5 % of the error, itself rounded by 5 %.
    assert abs(shown - value) <= 0.06 * error + 1e-12 * abs(value)
    assert abs(shown_error - error) <= 0.051 * error


@pytest.mark.parametrize(
    ("low", "high", "value", "error", "expected"),
    [
        (12.1, 12.5, 12.3456, 0.0789, "[12.100, 12.500]"),
        (1.14e-5, 1.32e-5, 1.23e-5, 4.5e-7, "[1.140, 1.320]e-5"),
        (1.0, 3.0, 2.0, None, "[1.00, 3.00]"),
        (7.1, 7.1, 7.1, None, "[7.100, 7.100]"),
        (7.1, 7.1, 7.1, 0.0, "[7.100, 7.100]"),
    ],
)
def test_interval(low, high, value, error, expected):
    assert interval(low, high, value=value, error=error) == expected


@pytest.mark.parametrize(
    ("number", "error", "expected"),
    [(11.98765, 0.5, "11.99"), (11.98765, None, "11.99"), (1.1e-5, 1e-6, "1.10e-5")],
)
def test_rounded_like(number, error, expected):
    assert rounded_like(number, value=number, error=error) == expected


@pytest.mark.parametrize(
    ("function", "number", "expected"),
    [
        (human_count, 0, "0"),
        (human_count, 999, "999"),
        (human_count, 999.6, "1k"),
        (human_count, 35_713_027, "35.7M"),
        (human_count, 999_960, "1M"),
        (human_count, 1.5e9, "1.5G"),
        (human_bytes, 3 * 2**30, "3 GiB"),
        (human_bytes, 512, "512 B"),
        (human_flops, 12.4e9, "12.4 GFLOPs"),
        (human_flops, 6.1e13, "61 TFLOPs"),
        (human_rate, 1234.5, "1,234"),
        (human_rate, 99.99, "100"),
        (human_rate, 8.125, "8.12"),
        (human_rate, 0.5, "0.5"),
        (human_rate, 50, "50"),
    ],
)
def test_human_numbers(function, number, expected):
    assert function(number) == expected


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class AsciiTerminal(Terminal):
    encoding = "ascii"


class UnknownEncoding(io.StringIO):
    encoding = "no-such-codec"


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (Terminal(), {}, Style(bold=True)),
        (Terminal(), {"NO_COLOR": "1"}, Style()),
        (Terminal(), {"NO_COLOR": ""}, Style(bold=True)),
        (Terminal(), {"TERM": "dumb"}, Style()),
        (AsciiTerminal(), {}, Style(bold=True, unicode=False)),
        (UnknownEncoding(), {}, Style(unicode=False)),
        (io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), {}, Style()),
        (io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), {}, Style(unicode=False)),
    ],
)
def test_style_follows_the_stream(stream, environ, expected):
    assert style_for(stream, environ) == expected


def test_style_reads_the_process_environment(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style_for(Terminal()).bold


def test_bold_only_where_it_shows():
    assert Style(bold=True).strong("x") == "\x1b[1mx\x1b[0m"
    assert Style().strong("x") == "x"


@given(st.text())
def test_plain_text_cannot_steer_a_terminal(text):
    shown = Style().plain(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in shown)
    assert Style(unicode=False).plain(text).isascii()


def test_ascii_keeps_the_meaning():
    assert to_ascii("fid ↓ 1 ± 2 …") == "fid v 1 +/- 2 ..."
