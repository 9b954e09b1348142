"""Latents and the attributes of their images: the rows of the linear separability.

attributes = load_attributes("my_package.faces:make")
probe = separability_probe(generator, seed=0, attributes=attributes)
rows = probe(np.arange(64), ["z", "w"])  # float32 [64, d + k] each: latent, then logits
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.core import Generator, IndexArray, LatentGenerator
from evalkit.errors import InvalidInputError, UsageError
from evalkit.probes.attributes import AttributeClassifier
from evalkit.probes.latents import box_average, labels_of, require_latents
from evalkit.registry import did_you_mean
from evalkit.runtime import strict_numerics
from evalkit.seeding import SEED_SCHEME, image_seeds
from evalkit.spec import Spec, sha256_of

_CHUNK = 32  # images at a time; fixed, so that a row does not depend on the batch it comes in


@final
@dataclass(frozen=True, slots=True, eq=False)
class SeparabilityProbe:
    """Row i: latent i, then the attribute logits of its image; one head for each space.

    The images are those that ``score`` draws from the same base seed. Build it with
    :func:`separability_probe`, which checks the generator.
    """

    generator: LatentGenerator
    attributes: AttributeClassifier
    seed: int
    widths: tuple[tuple[str, int], ...]

    @property
    def spec(self) -> Spec:
        """Model, classifiers and the seeds."""
        return Spec.of(
            "probe",
            "separability",
            sha256=sha256_of([self.generator.spec.to_json(), self.attributes.spec.to_json()]),
            attributes=",".join(self.attributes.names),
            seed=self.seed,
            seeds=SEED_SCHEME,
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """Space -> columns: those of the latent, and one for each attribute."""
        return {space: width + len(self.attributes.names) for space, width in self.widths}

    def __call__(self, index: IndexArray, heads: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return float32 ``[n, d + k]`` rows for each space in ``heads``.

        Raises:
            UsageError: an unknown head, or a classifier that gives other than k logits an image.
            InvalidInputError: a latent or a logit is not finite.
        """
        for head in heads:
            if head not in self.heads:
                raise UsageError(
                    f"the separability probe has no head {head!r}", hint=did_you_mean(head, self.heads)
                )
        rows = {head: np.empty((len(index), self.heads[head]), dtype=np.float32) for head in heads}
        with strict_numerics():
            for start in range(0, len(index), _CHUNK):
                part = index[start : start + _CHUNK]
                for head, values in self._rows(np.resize(part, _CHUNK), heads).items():
                    rows[head][start : start + len(part)] = values[: len(part)].float().cpu().numpy()
        for head, found in rows.items():
            if not np.isfinite(found).all():
                raise InvalidInputError(f"a latent or logit of head {head!r} is not finite")
        return rows

    def _rows(self, index: IndexArray, heads: Sequence[str]) -> dict[str, Tensor]:
        seeds = image_seeds(self.seed, index)
        labels = labels_of(self.generator, self.seed, index)
        latents = {"z": self.generator.latents(seeds)}
        space = "w" if "w" in self.generator.spaces else "z"
        if space == "w":
            latents["w"] = self.generator.mapping(latents["z"], labels=labels)
        images = self.generator.synthesis(latents[space], space=space, noise_seeds=seeds, labels=labels)
        logits = self.attributes(box_average(images))
        wanted = (len(index), len(self.attributes.names))
        if tuple(logits.shape) != wanted:
            raise UsageError(
                f"the attribute classifier gave {list(logits.shape)} logits, not {list(wanted)}",
                hint="one row for each image, one column for each name",
            )
        return {head: torch.cat([latents[head].float().cpu(), logits.float().cpu()], dim=1) for head in heads}


def separability_probe(
    generator: Generator, *, seed: int, attributes: AttributeClassifier
) -> SeparabilityProbe:
    """Return the probe of a generator's latents and the attributes of their images.

    Args:
        generator: a model with a latent space.
        seed: base seed, the same as of the images.
        attributes: see :func:`~evalkit.probes.attributes.load_attributes`.

    Raises:
        UsageError: the generator has no latent space, or there are no attributes.
    """
    latent = require_latents(generator, spaces=("z",), metric="the linear separability")
    if not attributes.names:
        raise UsageError("the linear separability needs an attribute", hint="see evalkit.probes.attributes")
    first = np.zeros(1, dtype=np.int64)
    with strict_numerics():
        z = latent.latents(image_seeds(seed, first))
        widths = [("z", z.shape[1])]
        if "w" in latent.spaces:
            widths.append(("w", latent.mapping(z, labels=labels_of(latent, seed, first)).shape[1]))
    return SeparabilityProbe(latent, attributes, seed, tuple(widths))
