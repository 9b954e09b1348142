"""What the parts of one run have in common: whoever differs in it computed shards of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evalkit import strict_json
from evalkit.distribution.facts import SpecFacts
from evalkit.measurement import Materials, protocol_info
from evalkit.opening import Opened
from evalkit.plan import Plan
from evalkit.record import Inputs, ModelInfo, SamplingInfo
from evalkit.references import Reference
from evalkit.spec import sha256_of

_LONGEST = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Everything that decides what is in the shards of a run and what is measured from them.

    Attributes:
        model: as the record names it; so are ``sampling`` and ``inputs``.
        subject: spec of the images, with the digests of model, seeds and prompts.
        protocol: its fields, but for those of the references.
        references: digest of the images of each reference, by network; where a file of statistics does not
            name them, of the statistics. Those of images are not: they round as the machine does.
        determinism: ``strict`` or ``standard``.
    """

    model: ModelInfo
    sampling: SamplingInfo | None
    inputs: Inputs
    subject: SpecFacts
    protocol: Mapping[str, Any]
    references: Mapping[str, str]
    determinism: str

    @classmethod
    def of(cls, opened: Opened, plan: Plan, materials: Materials) -> RunIdentity:
        """Return that of a run whose references are at hand."""
        subject = opened.subject
        bare = replace(materials, references={}, held_out={}, lanes={}, probes={})
        sides = (("reference", materials.references), ("held-out", materials.held_out))
        return cls(
            model=subject.info,
            sampling=subject.sampling,
            inputs=Inputs(found=subject.found, used=len(subject.source), rejected=subject.rejected),
            subject=SpecFacts.of(subject.source.spec),
            protocol=protocol_info(plan, subject, materials=bare, probes=opened.probes).fields,
            references={
                f"{side} of {network.extractor}{network.preset or ''}": _identity(reference)
                for side, found in sides
                for network, reference in found.items()
            },
            determinism="strict" if opened.request.strict else "standard",
        )

    @property
    def count(self) -> int:
        """Images of the whole run."""
        return self.inputs.used

    def digest(self) -> str:
        """Return the SHA-256 that all parts of the run share."""
        return sha256_of(strict_json.encode_object(self))

    def differences(self, other: RunIdentity) -> tuple[str, ...]:
        """Name each fact that differs, with both values."""
        ours, theirs = strict_json.encode_object(self), strict_json.encode_object(other)
        return tuple(_differing("", ours, theirs))


def _identity(reference: Reference) -> str:
    return reference.images_sha256 or reference.sha256


def _differing(place: str, ours: object, theirs: object) -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in dict.fromkeys([*ours, *theirs]):
            found += _differing(f"{place}.{key}" if place else key, ours.get(key), theirs.get(key))
        return found
    return [] if ours == theirs else [f"{place} is {_shown(ours)} and {_shown(theirs)}"]


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
