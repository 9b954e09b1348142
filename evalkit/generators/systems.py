"""Every generative system that people evaluate, and how evalkit serves it. No torch.

``native``: a network of evalkit that loads the checkpoints people hold. ``diffusers``: the adapter of that
name. ``callable``: ``--model pkg.mod:factory``. ``images``: a folder, archive or npz of samples. ``pairs``:
it turns images into images, so that ``evalkit pairs`` compares them one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Service = Literal["native", "diffusers", "callable", "images", "pairs"]


@dataclass(frozen=True, slots=True)
class System:
    """A published system.

    Attributes:
        model: registered generator that loads its checkpoints; empty where there is none.
        paper: authors and year.
        note: what a user must know, in a few words.
    """

    name: str
    family: str
    paper: str
    services: tuple[Service, ...]
    model: str = ""
    note: str = ""


_OUTSIDE: tuple[Service, ...] = ("callable", "images")
_HUB: tuple[Service, ...] = ("diffusers", "images")
_EDIT: tuple[Service, ...] = ("images", "pairs")


def _native(name: str, family: str, paper: str, model: str, note: str = "") -> System:
    return System(name, family, paper, ("native", "callable", "images"), model, note)


SYSTEMS: tuple[System, ...] = (
    _native("GAN", "gan", "Goodfellow et al. 2014", "mlp-gan"),
    _native("Conditional GAN", "gan", "Mirza & Osindero 2014", "mlp-gan"),
    _native("DCGAN", "gan", "Radford et al. 2016", "dcgan"),
    _native("LSGAN", "gan", "Mao et al. 2017", "lsgan"),
    _native(
        "WGAN", "gan", "Arjovsky et al. 2017", "dcgan", "its generator is DCGAN's, with names of its own"
    ),
    _native("WGAN-GP", "gan", "Gulrajani et al. 2017", "sngan"),
    _native("SNGAN", "gan", "Miyato et al. 2018", "sngan"),
    _native("cGAN with projection", "gan", "Miyato & Koyama 2018", "sngan"),
    _native("SAGAN", "gan", "Zhang et al. 2019", "sagan"),
    _native("BigGAN", "gan", "Brock et al. 2019", "biggan"),
    _native("UNet-GAN", "gan", "Schönfeld et al. 2020", "biggan"),
    _native("ADC-GAN", "gan", "Hou et al. 2022", "biggan"),
    _native("LOGAN", "gan", "Wu et al. 2019", "biggan", "the generator alone, without latent optimisation"),
    _native("ProGAN", "gan", "Karras et al. 2018", "progan", "in the format of the GAN zoo"),
    _native("StyleGAN2", "gan", "Karras et al. 2020", "stylegan2"),
    _native("StyleGAN2-ADA", "gan", "Karras et al. 2020", "stylegan2"),
    _native("Diffusion-GAN", "gan", "Wang et al. 2023", "stylegan2"),
    _native("StyleGAN3", "gan", "Karras et al. 2021", "stylegan3"),
    System("StyleGAN", "gan", "Karras et al. 2019", _OUTSIDE, note="TensorFlow checkpoints"),
    System("StyleGAN-XL", "gan", "Sauer et al. 2022", _OUTSIDE),
    System("IC-GAN", "gan", "Casanova et al. 2021", _OUTSIDE, note="conditioned on instance features"),
    System("GigaGAN", "gan", "Kang et al. 2023", _OUTSIDE),
    System("CSGAN", "gan", "Kancharagunta & Dubey 2019", _OUTSIDE),
    System("StackGAN", "gan", "Zhang et al. 2017", _OUTSIDE),
    System("Age-cGAN", "gan", "Antipov et al. 2017", _OUTSIDE),
    System("Pix2Pix", "gan", "Isola et al. 2017", ("native", "images", "pairs"), "pix2pix", "image to image"),
    System("CycleGAN", "gan", "Zhu et al. 2017", ("native", "images", "pairs"), "cyclegan", "image to image"),
    _native("VAE", "vae", "Kingma & Welling 2014", "vae"),
    _native("CVAE", "vae", "Sohn et al. 2015", "cvae"),
    _native("VQ-VAE with prior", "vae", "van den Oord et al. 2017", "vq-vae"),
    _native("VDVAE", "vae", "Child 2021", "vdvae"),
    System("VQGAN", "vae", "Esser et al. 2021", _HUB),
    System("NVAE", "vae", "Vahdat & Kautz 2020", _OUTSIDE),
    System("NCP-VAE", "vae", "Aneja et al. 2021", _OUTSIDE),
    System("DALL·E", "vae", "Ramesh et al. 2021", _OUTSIDE, note="only its dVAE is public"),
    _native("PixelCNN", "autoregressive", "van den Oord et al. 2016", "pixelcnn"),
    _native("Gated PixelCNN", "autoregressive", "van den Oord et al. 2016", "gated-pixelcnn"),
    _native("PixelCNN++", "autoregressive", "Salimans et al. 2017", "pixelcnn++"),
    _native("DDPM", "diffusion", "Ho et al. 2020", "pytorch-ddpm"),
    _native("DDIM", "diffusion", "Song et al. 2021", "ddim-pesser"),
    _native("Improved DDPM", "diffusion", "Nichol & Dhariwal 2021", "improved-diffusion"),
    _native("ADM", "diffusion", "Dhariwal & Nichol 2021", "guided-diffusion", "with classifier guidance"),
    _native("Classifier-free guidance", "diffusion", "Ho & Salimans 2022", "ddpm", "`--guidance`"),
    _native("denoising-diffusion-pytorch", "diffusion", "Ho et al. 2020", "lucidrains"),
    _native("EDM", "diffusion", "Karras et al. 2022", "edm"),
    _native(
        "Progressive distillation", "diffusion", "Salimans & Ho 2022", "ddpm", "v-prediction, few DDIM steps"
    ),
    System("Latent Diffusion", "diffusion", "Rombach et al. 2022", _HUB, "diffusers"),
    System("Stable Diffusion, XL", "diffusion", "Rombach et al. 2022, Podell et al. 2023", _HUB, "diffusers"),
    System("DALL·E 2, unCLIP, Karlo, Kandinsky", "diffusion", "Ramesh et al. 2022", _HUB, "diffusers"),
    System("Imagen, DeepFloyd IF", "diffusion", "Saharia et al. 2022", _HUB, "diffusers"),
    System("ControlNet", "diffusion", "Zhang et al. 2023", _HUB, "diffusers"),
    System("DiT", "diffusion", "Peebles & Xie 2023", _HUB, "diffusers"),
    System("Consistency models", "diffusion", "Song et al. 2023", _HUB, "diffusers"),
    System("GLIDE", "diffusion", "Nichol et al. 2022", _OUTSIDE),
    System("DiffusionAE", "diffusion", "Preechakul et al. 2022", _OUTSIDE),
    System("Guided distillation", "diffusion", "Meng et al. 2023", _OUTSIDE),
    System("Midjourney, DALL·E 3", "diffusion", "no public weights", ("images",)),
    System("ILVR", "diffusion", "Choi et al. 2021", ("native", "pairs"), "ddpm", "a sampler option"),
    System("SDG", "diffusion", "Liu et al. 2023", _EDIT),
    System("Prompt-to-Prompt", "diffusion", "Hertz et al. 2023", _EDIT),
    System("BlendDiffusion", "diffusion", "Avrahami et al. 2022", _EDIT),
    System("DragGAN, DragDiffusion", "gan", "Pan et al. 2023, Shi et al. 2024", _EDIT),
    System("GAN inversion", "gan", "Xia et al. 2022", _EDIT),
)
