"""No secret is written down with a command line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.record import redact_command

ENVIRON = {
    "HF_TOKEN": "hf_abcdef123",
    "API_KEY": "k1",
    "DB_PASSWORD": "",
    "HOME": "/home/someone",
    "MONKEYS": "many",
}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["run", "--n", "5"], ("run", "--n", "5")),
        (["--token", "x"], ("--token", "[redacted]")),
        (["--hf-token=x"], ("--hf-token=[redacted]",)),
        (["--api_key", "-x", "y"], ("--api_key", "[redacted]", "y")),
        (["PASSWORD=x"], ("PASSWORD=[redacted]",)),
        (["https://me:pw@host/x"], ("https://[redacted]@host/x",)),
        (
            ["https://me:p@w@host", "https://me:p/w@host/x"],
            ("https://[redacted]@host", "https://[redacted]@host/x"),
        ),
        (["https://host:8080/x@v1"], ("https://host:8080/x@v1",)),
        (["https://h/x?a=1&token=zzz&b=2"], ("https://h/x?a=1&token=[redacted]&b=2",)),
        (["pre-hf_abcdef123-post"], ("pre-[redacted]-post",)),
        (["k1"], ("[redacted]",)),
        (["rank1"], ("rank1",)),
        (["--out", "/home/someone"], ("--out", "/home/someone")),
        (["--max-tokens", "5"], ("--max-tokens", "5")),
        (["many"], ("many",)),
        (["caf\udce9"], ("caf\\udce9",)),
    ],
)
def test_redaction(argv, expected):
    assert redact_command(argv, ENVIRON) == expected


def test_redaction_reads_the_process_environment(monkeypatch):
    monkeypatch.setenv("MY_SECRET", "swordfish-1")
    assert redact_command(["swordfish-1"]) == ("[redacted]",)


@pytest.mark.fault("token")
@given(st.lists(st.text(max_size=12), max_size=5), st.text(min_size=6, max_size=12))
@settings(max_examples=50, deadline=None)
def test_no_secret_of_the_environment_survives(argv, secret):
    command = redact_command([*argv, f"x{secret}", secret], {"X_TOKEN": secret})
    if secret not in "x[redacted]":
        assert all(secret not in argument for argument in command)
