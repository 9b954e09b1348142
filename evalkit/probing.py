"""The probes that a plan needs, built for its generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evalkit.core import LatentGenerator, Probe
from evalkit.plan import Plan, Planned
from evalkit.request import ScoreRequest
from evalkit.subjects import Subject


def build_probes(
    plan: Plan, subject: Subject, *, request: ScoreRequest, device: torch.device
) -> Mapping[Planned, Probe]:
    """Return a probe for each probed metric; none where the subject shows no latent space."""
    if not plan.probed or not isinstance(subject.generator, LatentGenerator):
        return {}
    raise NotImplementedError
