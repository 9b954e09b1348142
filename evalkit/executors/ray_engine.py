"""Ray as an engine: connect, run, and tell what went wrong in words of evalkit.

Tasks, not actors: Ray begins a task again where its worker or node died, on any node that has room, those
that join later included; and a worker process is kept for the next task, with what it has loaded.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from evalkit.errors import EvalkitError, TemporaryError, UsageError
from evalkit.executors.addresses import RayOptions
from evalkit.redaction import redact_command

_KNOCK_S: Final = 10.0
_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; it warns of the other
}


@dataclass(frozen=True, slots=True, eq=False)
class RayEngine:
    """A cluster that this process is connected to; an :class:`~evalkit.executors.engine.Engine`.

    Attributes:
        ray: the package, imported only where it is asked for.
        num_gpus: of one task.
        once: every task has a process of its own, so that memory of a device is given back.
        remotes: functions that the cluster knows: each is sent to it once.
    """

    ray: Any
    options: RayOptions
    num_gpus: float
    once: bool = False
    remotes: dict[Callable[..., Any], Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """What a task opens: a GPU of its own is the first that it sees."""
        return "cuda" if self.num_gpus else "cpu"

    @property
    def fetch(self) -> Callable[[Any], Any]:
        """Return ``ray.get``."""
        found: Callable[[Any], Any] = self.ray.get
        return found

    def submit(self, function: Callable[..., Any], *arguments: object) -> Hashable:
        """Start a call on any node that has room."""
        if function not in self.remotes:
            self.remotes[function] = self._remote(function)
        call: Hashable = self.remotes[function].remote(*arguments)
        return call

    def _remote(self, function: Callable[..., Any]) -> Any:  # noqa: ANN401 - Ray's handle of it
        return self.ray.remote(
            num_cpus=self.options.num_cpus,
            num_gpus=self.num_gpus,
            memory=self.options.memory or None,
            resources=dict(self.options.resources) or None,
            max_retries=self.options.max_retries,
            max_calls=int(self.once),
            scheduling_strategy="SPREAD",
        )(function)

    def put(self, value: object) -> object:
        """Keep a value in the object store."""
        return self.ray.put(value)

    def ready(self, calls: Iterable[Hashable], seconds: float) -> list[Hashable]:
        """Return the calls that ended."""
        waiting = list(calls)
        if not waiting:
            return []
        ready, _ = self.ray.wait(waiting, num_returns=1, timeout=seconds)
        if ready:  # those that ended at the same time
            ready, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return list(ready)

    def result(self, call: Hashable) -> Any:  # noqa: ANN401 - whatever the function returned
        """Return what a call gave.

        Raises:
            TemporaryError: its workers kept dying, or its result was lost.
            EvalkitError: the function raised it.
        """
        errors = self.ray.exceptions
        try:
            return self.ray.get(call)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EvalkitError):
                raise cause from None
            raise EvalkitError(
                f"a worker failed: {_words(error)}", hint="this is a bug in evalkit"
            ) from error
        except errors.RayError as error:
            raise TemporaryError(
                f"workers died {self.options.max_retries + 1} times on one task: {_words(error)}",
                hint="whole shards are kept and the same command continues; ?memory=8e9 asks for more memory",
            ) from error

    def cancel(self, call: Hashable) -> None:
        """Interrupt a call."""
        self.ray.cancel(call, force=False, recursive=False)

    def slots(self) -> int:
        """Return how many tasks the cluster has room for now."""
        wanted = {
            "CPU": self.options.num_cpus,
            "GPU": self.num_gpus,
            "memory": float(self.options.memory),
            **self.options.resources,
        }
        asked = {name: amount for name, amount in wanted.items() if amount}
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(_room(node, asked) for node in nodes)


def _room(node: Mapping[str, float], asked: Mapping[str, float]) -> int:
    return min((int(node.get(name, 0.0) // amount) for name, amount in asked.items()), default=1)


@contextmanager
def ray_engine(
    options: RayOptions,
    *,
    device: str = "auto",
    once: bool = False,
    notify: Callable[[str], None] = lambda _text: None,
) -> Iterator[RayEngine]:
    """Connect to a cluster, or start one of this machine alone, and leave it at the end.

    ``device`` as ``--device``: tasks get a GPU where it names one, or is ``auto`` and some node has any;
    ``cpu`` reserves none.

    Raises:
        UsageError: ray is not installed, no node can ever run a task, or ``device`` contradicts
            ``num_gpus``.
        TemporaryError: there is no cluster at the address.
    """
    _check_device(options, device)
    ray = _imported()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, options)
    try:
        gpus = options.num_gpus
        if gpus is None:
            some = ray.cluster_resources().get("GPU", 0.0) > 0
            gpus = 1.0 if device.startswith("cuda") or (device == "auto" and some) else 0.0
        engine = RayEngine(ray, options, gpus, once)
        _check_room(engine, notify)
        yield engine
    finally:
        if ours:
            ray.shutdown()


def _check_device(options: RayOptions, device: str) -> None:
    gpus = options.num_gpus
    if gpus is None or device == "auto" or bool(gpus) == device.startswith("cuda"):
        return
    raise UsageError(
        f"--device {device} does not go with num_gpus={gpus:g} of --executor",
        hint="leave one of them out: --device cpu reserves no GPU, --device cuda one for each task",
    )


def _imported() -> Any:  # noqa: ANN401 - a module
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            "--executor ray needs a package that is not installed", hint="pip install 'evalkit[ray]'"
        ) from error


def _connect(ray: Any, options: RayOptions) -> None:  # noqa: ANN401 - a module
    own: dict[str, Any] = {"include_dashboard": False} if options.address is None else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    plain = redact_command([options.address or "local"])[0]
    try:
        _knock(options.address)
        ray.init(
            address=options.address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **own
        )
    except ImportError as error:
        raise UsageError(f"{plain}: {_words(error)}", hint="pip install 'ray[client]'") from error
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or _words(error)
        raise TemporaryError(
            f"no Ray cluster at {plain}: {reason}",
            hint="does `ray status` show one, and does it want a token (RAY_AUTH_MODE)? "
            "ray:auto on a machine of it, ray://HOST:10001 from elsewhere",
        ) from error
    finally:
        # Ray ends the process on SIGTERM; we keep what is whole first.
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _knock(address: str | None) -> None:
    """Refuse an address where nobody listens: Ray would ask it again for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _check_room(engine: RayEngine, notify: Callable[[str], None]) -> None:
    if engine.slots():
        return
    asked = {
        "num_cpus": engine.options.num_cpus,
        "num_gpus": engine.num_gpus,
        "memory": engine.options.memory,
    }
    wanted = ", ".join(
        f"{name}={amount:g}" for name, amount in {**asked, **engine.options.resources}.items() if amount
    )
    if engine.options.address is None:
        raise UsageError(
            f"this machine has no room for a task of {wanted}", hint="--executor 'ray?num_cpus=1'"
        )
    notify(f"warning: no node of the cluster has room for a task of {wanted} now: waiting for one")


def _words(error: BaseException) -> str:
    """Return the last line of what Ray says: those before it are traces of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(redact_command(lines[-1].split(" "))) if lines else type(error).__name__
