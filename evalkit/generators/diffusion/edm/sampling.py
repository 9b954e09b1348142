"""A checkpoint of Karras et al. 2022 as a generator.

Steps lie between 0.002 and 80, or within the noise levels that the network knows (``sigma_min`` and
``sigma_max`` of each preconditioning), as their own sampler takes them.
"""

from __future__ import annotations

import math

from evalkit.core import Generator
from evalkit.generators.checkpoint import Checkpoint, load_weights
from evalkit.generators.configuration import configure
from evalkit.generators.diffusion.edm.configuration import EDMConfig, described_by, inferred_from
from evalkit.generators.diffusion.edm.network import EDMNetwork
from evalkit.generators.diffusion.generator import DiffusionGenerator
from evalkit.generators.diffusion.karras import KarrasProcess
from evalkit.generators.sampling import SamplingOptions

NAME = "edm"
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0


def build(checkpoint: Checkpoint, options: SamplingOptions) -> Generator:
    """Build the generator from a checkpoint.

    Raises:
        CheckpointError: the tensors are of another network, or the class of the network is not known.
    """
    stated = checkpoint.config or {}
    own = checkpoint.format == "evalkit"
    config = configure(
        EDMConfig,
        checkpoint,
        inferred=inferred_from(checkpoint.tensors),
        described=stated if own else described_by(checkpoint.class_name, stated),
    )
    network = EDMNetwork(config)
    load_weights(network, checkpoint, name=NAME)
    return DiffusionGenerator(
        name=NAME,
        network=network,
        process=process_of(network),
        checkpoint=checkpoint,
        options=options,
        num_classes=config.num_classes,
        resolution=config.resolution,
        null_label=config.num_classes > 0 and config.label_dropout > 0,
    )


def process_of(network: EDMNetwork) -> KarrasProcess:
    """Return the process that the network's steps are taken in."""
    config = network.config
    known: tuple[float, ...] = ()
    lowest, highest = config.sigma_min or 0.0, config.sigma_max or math.inf
    if config.preconditioning == "VEPrecond":
        lowest = 0.02 if config.sigma_min is None else config.sigma_min
        highest = 100.0 if config.sigma_max is None else config.sigma_max
    elif config.preconditioning == "VPPrecond":
        lowest, highest = _vp_sigma(config, config.smallest_time), _vp_sigma(config, 1.0)
    elif config.preconditioning == "iDDPMPrecond":
        known = tuple(network.u.double().tolist())[:-1]  # the last entry is sigma = 0
        lowest, highest = min(known), max(known)
    return KarrasProcess(
        sigma_min=max(SIGMA_MIN, lowest),
        sigma_max=min(SIGMA_MAX, highest),
        sigma_data=config.sigma_data,
        known=known,
    )


def _vp_sigma(config: EDMConfig, time: float) -> float:
    return math.sqrt(math.expm1(config.beta_d * time**2 / 2 + config.beta_min * time))
