"""``--executor``: which cluster, and what one task of it gets. No torch, no ray.

local                        this process
ray                          a cluster of this machine alone, for as long as the run takes
ray:auto                     the cluster that this machine belongs to
ray:HOST:6379                the cluster with that head
ray://HOST:10001             a cluster from outside, through its client server
ray:auto?num_cpus=4&num_gpus=1&memory=8e9&max_retries=5&a100=1
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from evalkit.errors import UsageError
from evalkit.redaction import redact_command

LOCAL: Final = "local"
_FORMS: Final = "local, ray, ray:auto, ray:HOST:PORT or ray://HOST:PORT, then ?num_cpus=2&num_gpus=1"
_SCHEME: Final = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """A Ray cluster, and what one of its tasks asks for.

    Attributes:
        address: as ``ray.init`` takes it; None for a cluster of this machine alone.
        num_cpus: cores of one task, which is also its number of threads.
        num_gpus: GPUs of one task, less than 1 where tasks share one; None for one where the cluster has any.
        memory: bytes that a node must have free for one task; 0 asks for none.
        max_retries: how often a task begins again where its worker or its node dies.
        resources: amounts of the cluster's own resources, by name.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float | None = None
    memory: int = 0
    max_retries: int = 3
    resources: Mapping[str, float] = field(default_factory=dict)


def parse_executor(text: str) -> RayOptions | None:
    """Return the cluster that ``text`` names, or None for this process.

    Raises:
        UsageError: it is of none of the forms above.
    """
    where, _, query = text.partition("?")
    if where == LOCAL and not query:
        return None
    scheme, colon, rest = where.partition(":")
    if scheme != _SCHEME or (colon and not rest.strip("/")):
        plain = redact_command([text])[0]
        raise UsageError(f"unknown executor {plain!r}", hint=f"one of {_FORMS}")
    address = where if rest.startswith("//") and rest != "//auto" else rest.removeprefix("//") or None
    return _with_amounts(address, query)


def _with_amounts(address: str | None, query: str) -> RayOptions:
    known: dict[str, float] = {}
    own: dict[str, float] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UsageError(f"--executor: {query!r} is not of the form name=amount", hint=_FORMS) from None
    for name, text in pairs:
        if name in known or name in own:
            raise UsageError(f"--executor: {name} is given twice")
        (known if name in _LEAST else own)[name] = _amount(name, text)
    return RayOptions(
        address=address,
        num_cpus=known.get("num_cpus", 1.0),
        num_gpus=known.get("num_gpus"),
        memory=int(known.get("memory", 0)),
        max_retries=int(known.get("max_retries", 3)),
        resources=own,
    )


_LEAST: Final = {"num_cpus": 0.001, "num_gpus": 0.0, "memory": 0.0, "max_retries": 0.0}


def _amount(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = name not in {"memory", "max_retries"} or value == value // 1
    if not math.isfinite(value) or value < _LEAST.get(name, 0.0) or not whole:
        raise UsageError(
            f"--executor: {name}={text} is no amount", hint="such as num_cpus=4, num_gpus=0.5 or memory=8e9"
        )
    return value
