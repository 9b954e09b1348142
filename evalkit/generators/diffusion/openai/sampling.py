"""Building improved-diffusion and guided-diffusion models as generators.

Guidance by a classifier: a sidecar beside the diffusion checkpoint names the classifier's file,
``{"classifier": "/models/64x64_classifier.pt"}`` (absolute, or relative to the working folder). Then
``--guidance`` is the factor of its gradient (``--classifier_scale`` of the public program; 0 is none), and
``classifier_scale`` in the preset or sidecar is what it is unless told. Without a classifier there is no
guidance: these networks know no label that means none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from evalkit.errors import CheckpointError
from evalkit.generators.checkpoint import Checkpoint, load_weights, read_checkpoint
from evalkit.generators.configuration import UnrevealedError, configure
from evalkit.generators.diffusion.generator import DiffusionGenerator, SamplerSettings
from evalkit.generators.diffusion.openai.classifier import NoisyClassifier, load_classifier
from evalkit.generators.diffusion.openai.reading import read_unet, usual_image_size
from evalkit.generators.diffusion.openai.unet import UNSET, OpenAIConfig, OpenAIUNet, unrevealed
from evalkit.generators.diffusion.process import DiscreteProcess, Variance, discrete_process
from evalkit.generators.diffusion.schedules import Spacing
from evalkit.generators.sampling import SamplingOptions

_SPACINGS = MappingProxyType[str, Spacing]({"ddim": "ddim"})
_OTHER_CLASSIFIER = "`classifier` in the sidecar names another model's classifier"


def build_improved(checkpoint: Checkpoint, options: SamplingOptions) -> DiffusionGenerator:
    """Build an improved-diffusion model; its code has one way to say heads, and the older order only."""
    known = {"use_new_attention_order": False, "num_head_channels": UNSET}
    network = load_unet(checkpoint, name="improved-diffusion", known=known)
    return _generator("improved-diffusion", network, checkpoint, options)


def build_guided(checkpoint: Checkpoint, options: SamplingOptions) -> DiffusionGenerator:
    """Build a guided-diffusion model, with a classifier where the sidecar names one.

    Raises:
        CheckpointError: the classifier is for other images or classes.
    """
    given = dict(checkpoint.given)
    path = given.pop("classifier", None)
    if path is None:
        network = load_unet(dataclasses.replace(checkpoint, given=given), name="guided-diffusion")
        return _generator("guided-diffusion", network, checkpoint, options)
    if not isinstance(path, str):
        raise CheckpointError(
            f"classifier must be the path of a file, not {path!r}", hint="correct the sidecar JSON"
        )
    guide = read_checkpoint(Path(path))
    classifier = load_classifier(guide).to(options.device)
    given["classifier_sha256"] = guide.sha256
    network = load_unet(dataclasses.replace(checkpoint, given=given), name="guided-diffusion")
    _check_pair(network.config, classifier)
    return _generator("guided-diffusion", network, checkpoint, options, classifier=classifier)


def load_unet(checkpoint: Checkpoint, *, name: str, known: Mapping[str, object] | None = None) -> OpenAIUNet:
    """Return the network of a checkpoint with its weights; ``known`` are facts of the code that wrote it.

    Raises:
        CheckpointError: the tensors are no such network's, or something they do not reveal is not given.
    """
    inferred = read_unet(checkpoint.tensors)
    described = dict(known or {})
    size = usual_image_size(checkpoint.tensors)
    if size is not None:
        described["image_size"] = size
    if checkpoint.format == "evalkit":
        described |= dict(checkpoint.config or {})
    missing = unrevealed({**described, **checkpoint.given})
    if missing:  # those of which one or another is enough too, which `configure` cannot see
        raise UnrevealedError(missing)
    config = configure(OpenAIConfig, checkpoint, inferred=inferred, described=described)
    with torch.device("meta"):  # hundreds of millions of parameters: not drawn at random first
        network = OpenAIUNet(config)
    network.to_empty(device="cpu")
    load_weights(network, checkpoint, name=name)
    return network


def process_of(config: OpenAIConfig) -> DiscreteProcess:
    """Return the diffusion process that such a network was trained for."""
    fixed: Variance = "fixed-small" if config.sigma_small else "fixed-large"
    return discrete_process(
        config.noise_schedule,
        config.diffusion_steps,
        prediction="sample" if config.predict_xstart else "epsilon",
        variance="learned-range" if config.learn_sigma else fixed,
        clip=True,
        rederive_noise=True,
        time_scale=1000 / config.diffusion_steps if config.rescale_timesteps else 1.0,
        spacing="fractional",
    )


def _check_pair(config: OpenAIConfig, classifier: NoisyClassifier) -> None:
    theirs = classifier.config
    if theirs.image_size != config.image_size:
        raise CheckpointError(
            f"the classifier is for images of {theirs.image_size} pixels, the model for {config.image_size}",
            hint=_OTHER_CLASSIFIER,
        )
    if config.class_cond and theirs.num_classes != config.num_classes:
        raise CheckpointError(
            f"the classifier has {theirs.num_classes} classes, the model {config.num_classes}",
            hint=_OTHER_CLASSIFIER,
        )


def _generator(
    name: str,
    network: OpenAIUNet,
    checkpoint: Checkpoint,
    options: SamplingOptions,
    *,
    classifier: NoisyClassifier | None = None,
) -> DiffusionGenerator:
    config = network.config
    scale = 1.0 if classifier is None or config.classifier_scale is None else config.classifier_scale
    return DiffusionGenerator(
        name=name,
        network=network,
        process=process_of(config),
        checkpoint=checkpoint,
        options=options,
        num_classes=config.num_classes if classifier is None else classifier.config.num_classes,
        resolution=config.image_size,
        null_label=False,
        classifier=classifier,
        settings=SamplerSettings(
            spacings=_SPACINGS,
            guidance=scale,
            labelled_network=config.class_cond,
            classifier_sha256=config.classifier_sha256,
        ),
    )
