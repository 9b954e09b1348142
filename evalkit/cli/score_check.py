"""What ``evalkit score`` would refuse before it samples, asked without running it: for suites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.cli.score import requests_of, score, scoring_of
from evalkit.cli.until_decided import take_until_decided
from evalkit.errors import UsageError
from evalkit.generators import GENERATOR_FACTS
from evalkit.pairs.reconstruction import check_request
from evalkit.plan import make_plan
from evalkit.references import reference_names
from evalkit.registry import did_you_mean
from evalkit.request import ScoreRequest

_BUILT_BY_THE_USER = ":"
# What is done with the record, which a request does not hold.
_NOT_OF_A_REQUEST = frozenset({"executor", "output_format", "shard", "trackers"})


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse the arguments of ``evalkit score`` that cannot work; loads no weights and opens no images.

    Raises:
        UsageError: an unknown model, metric, parameter or reference, a file that is not there, or flags that
            do not go together.
        click.ClickException: a value that its flag does not take.
    """
    context = score.make_context("score", list(arguments))
    flags = {name: value for name, value in context.params.items() if name not in _NOT_OF_A_REQUEST}
    models, ckpts = flags.pop("models"), flags.pop("ckpts")
    take_until_decided(flags, models=len(models))
    task = flags.pop("task")
    scoring_of(task, flags, models=len(models))
    requests = requests_of(models, ckpts, flags)
    for request in requests:
        _check_subject(request)
        if task == "reconstruct":
            check_request(request)
            continue
        request.check()
        plan = make_plan(request.protocol, request=request, notify=lambda _text: None)
        if any(planned.metric.needs_reference for planned in plan.metrics):
            _check_reference(plan.reference_name(request.reference, model=request.model))


def _check_subject(request: ScoreRequest) -> None:
    model = request.model
    for path in (request.ckpt, request.images):
        if path is not None and not path.exists() and not str(path).startswith("hub:"):
            raise UsageError(f"no file or folder at {path}")
    if model is None or model == "auto" or _BUILT_BY_THE_USER in model:
        return
    if model not in GENERATOR_FACTS:
        raise UsageError(f"unknown model {model!r}", hint=did_you_mean(model, GENERATOR_FACTS))
    if request.ckpt is None and not GENERATOR_FACTS[model].bundled:
        raise UsageError(
            f"no checkpoint of {model!r} ships with evalkit", hint="give the one you have with ckpt"
        )
    _check_sampler(request)


def _check_sampler(request: ScoreRequest) -> None:
    known = [sampler.name for sampler in GENERATOR_FACTS[str(request.model)].samplers]
    wanted = request.sampling.sampler
    if wanted is not None and wanted not in known:
        raise UsageError(f"{request.model} has no sampler {wanted!r}", hint=did_you_mean(wanted, known))


def _check_reference(name: str) -> None:
    if name not in reference_names() and not Path(name).exists():
        raise UsageError(
            f"no reference, file or folder called {name!r}", hint=did_you_mean(name, reference_names())
        )
