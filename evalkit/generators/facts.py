"""What evalkit knows about each generator without loading torch: for planning and ``evalkit list``."""

from __future__ import annotations

from evalkit.generators.autoregressive import facts as autoregressive
from evalkit.generators.description import BUNDLED_FOLDER, GeneratorFacts, LayoutFacts, SamplerFacts
from evalkit.generators.diffusion import facts as diffusion
from evalkit.generators.diffusion.community import facts as diffusion_community
from evalkit.generators.diffusion.edm import facts as diffusion_edm
from evalkit.generators.diffusion.hub import facts as diffusion_hub
from evalkit.generators.diffusion.lucidrains import facts as diffusion_lucidrains
from evalkit.generators.diffusion.openai import facts as diffusion_openai
from evalkit.generators.gan import facts as gan
from evalkit.generators.gan.biggan import facts as gan_biggan
from evalkit.generators.gan.convolutional import facts as gan_convolutional
from evalkit.generators.gan.progressive import facts as gan_progressive
from evalkit.generators.gan.stylegan2 import facts as gan_stylegan2
from evalkit.generators.gan.stylegan3 import facts as gan_stylegan3
from evalkit.generators.gan.translation import facts as gan_translation
from evalkit.generators.vae import facts as vae

__all__ = ["BUNDLED_FOLDER", "GENERATOR_FACTS", "LAYOUTS", "GeneratorFacts", "LayoutFacts", "SamplerFacts"]

_FAMILIES = (
    gan,
    gan_convolutional,
    gan_biggan,
    gan_progressive,
    gan_stylegan2,
    gan_stylegan3,
    gan_translation,
    vae,
    autoregressive,
    diffusion,
    diffusion_openai,
    diffusion_community,
    diffusion_lucidrains,
    diffusion_edm,
    diffusion_hub,
)

GENERATOR_FACTS: dict[str, GeneratorFacts] = {
    facts.name: facts for family in _FAMILIES for facts in family.FACTS
}

LAYOUTS: dict[str, LayoutFacts] = {layout.name: layout for family in _FAMILIES for layout in family.LAYOUTS}
