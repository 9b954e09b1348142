"""What evalkit knows about each generator without loading torch: for planning and ``evalkit list``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BUNDLED_FOLDER = Path(__file__).parent / "bundled"


@dataclass(frozen=True, slots=True)
class SamplerFacts:
    """A sampler and the number of steps it takes unless told otherwise."""

    name: str
    default_steps: int | None
    title: str
    takes_eta: bool = False


@dataclass(frozen=True, slots=True)
class GeneratorFacts:
    """A registered generator: where it is built, what it is, and how it samples (first sampler = default)."""

    name: str
    family: str
    title: str
    factory: str
    samplers: tuple[SamplerFacts, ...]
    takes_guidance: bool = False
    takes_truncation: bool = False

    @property
    def checkpoint(self) -> Path:
        """Where the bundled checkpoint lies."""
        return BUNDLED_FOLDER / f"{self.name}.safetensors"

    @property
    def bundled(self) -> bool:
        """Whether its checkpoint ships with the package."""
        return self.checkpoint.is_file()


_FORWARD = SamplerFacts("forward", None, "one pass of the network")

GENERATOR_FACTS: dict[str, GeneratorFacts] = {
    facts.name: facts
    for facts in (
        GeneratorFacts(
            name="cgan",
            family="gan",
            title="class-conditional convolutional GAN, projection discriminator",
            factory="evalkit.generators.gan.sampling:build",
            samplers=(_FORWARD,),
        ),
        GeneratorFacts(
            name="stylegan",
            family="gan",
            title="class-conditional style-based GAN, mapping network z to w, modulated convolutions",
            factory="evalkit.generators.gan.style_sampling:build",
            samplers=(_FORWARD,),
            takes_truncation=True,
        ),
        GeneratorFacts(
            name="vae",
            family="vae",
            title="convolutional VAE, standard normal prior",
            factory="evalkit.generators.vae.sampling:build",
            samplers=(_FORWARD,),
        ),
        GeneratorFacts(
            name="ddpm",
            family="diffusion",
            title="class-conditional DDPM, cosine schedule, v-prediction",
            factory="evalkit.generators.diffusion.sampling:build",
            samplers=(
                SamplerFacts("dpm-solver++", 20, "second-order multistep, deterministic (Lu et al. 2022)"),
                SamplerFacts("ddim", 50, "deterministic at eta 0 (Song et al. 2021)", takes_eta=True),
                SamplerFacts("ancestral", 1000, "the original stochastic sampler (Ho et al. 2020)"),
            ),
            takes_guidance=True,
        ),
    )
}
