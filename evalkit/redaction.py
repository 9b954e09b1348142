"""Keep secrets out of what is written down: values of secret variables, ``--token x``, ``user:pass@host``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

REDACTED = "[redacted]"

# "key" ends other words too (monkey): it counts alone or after a word that makes it secret.
_KEY = r"(?:(?<![A-Za-z])|(?<=API)|(?<=ACCESS)|(?<=PRIVATE)|(?<=AUTH))KEY"
_WORDS = rf"(?:{_KEY}|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CREDENTIALS)"
_VARIABLE = re.compile(rf"{_WORDS}S?(?:_|$)", re.IGNORECASE)
_FLAG = re.compile(rf"-{{1,2}}[\w-]*{_WORDS}", re.IGNORECASE)
_ASSIGNMENT = re.compile(rf"(-{{0,2}}[\w.-]*{_WORDS}=).+", re.IGNORECASE | re.DOTALL)
# A password may hold "@" and even "/"; a port is followed by a path.
_USERINFO = re.compile(r"(?<=://)(?:[^/@\s:]+:(?!\d+/)\S+|[^/\s]+)(?=@)")
_QUERY = re.compile(rf"([?&][\w-]*(?:{_WORDS}|SIGNATURE|SIG)=)[^&\s]+", re.IGNORECASE)
# A shorter value ("1", "main") also occurs by chance inside paths: it is removed only as a whole argument.
_SHORTEST_SUBSTRING = 6
_LONG = 16  # characters, which no name of a model, a protocol or a metric has in common with a token


def redact_command(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return ``argv`` without secrets, as text that UTF-8 can hold.

    Removed are the values of variables in ``environ`` (the process's own where None) whose name looks
    secret (``HF_TOKEN``, ``API_KEY``), the value of flags and assignments of that kind (``--token x``,
    ``--api-key=x``, ``SECRET=x``), user names and passwords in URLs, and signed query parameters.
    """
    variables = os.environ if environ is None else environ
    secrets = {value for name, value in variables.items() if value and _VARIABLE.search(name)}
    # Longest first: one secret can contain another.
    substrings = sorted((s for s in secrets if len(s) >= _SHORTEST_SUBSTRING), key=lambda s: (-len(s), s))
    redacted: list[str] = []
    flag_before = False
    for argument in argv:
        if flag_before or argument in secrets:
            redacted.append(REDACTED)
            flag_before = False
            continue
        flag_before = _FLAG.fullmatch(argument) is not None
        redacted.append(_redact_text(argument, substrings))
    return tuple(redacted)


def without_long_secrets(value: object) -> object:
    """Return JSON data without long values of secret variables, and without passwords in URLs.

    For data that is read back: a short value may by chance be the name of something in it.
    """
    if isinstance(value, str):
        secrets = (text for name, text in os.environ.items() if _VARIABLE.search(name))
        return _redact_text(value, [text for text in secrets if len(text) >= _LONG])
    if isinstance(value, Mapping):
        return {key: without_long_secrets(item) for key, item in value.items()}
    return [without_long_secrets(item) for item in value] if isinstance(value, list) else value


def redact_text(text: str) -> str:
    """Return a sentence, such as an error of somebody else's code, without the secrets of the environment."""
    return redact_command((text,))[0]


def _redact_text(argument: str, substrings: Sequence[str]) -> str:
    for secret in substrings:
        argument = argument.replace(secret, REDACTED)
    argument = _USERINFO.sub(REDACTED, argument)
    argument = _QUERY.sub(rf"\g<1>{REDACTED}", argument)
    if found := _ASSIGNMENT.fullmatch(argument):
        argument = found[1] + REDACTED
    return argument.encode("utf-8", "backslashreplace").decode()
