"""The networks of Karras et al. 2022 with their preconditioning: image, sigma and class to a denoised image.

``SongUNet`` is DDPM++ and NCSN++ (Song et al. 2021), ``DhariwalUNet`` is ADM (Dhariwal & Nichol 2021), as
appendix F describes them; the names of the tensors are those of the public pickles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evalkit.generators.diffusion.edm.configuration import EDMConfig
from evalkit.generators.diffusion.edm.layers import (
    BlockStyle,
    FourierEmbedding,
    PositionalEmbedding,
    ResamplingConv,
    UNetBlock,
    group_norm,
)
from evalkit.generators.diffusion.karras import (
    Preconditioning,
    edm_preconditioning,
    ve_preconditioning,
    vp_preconditioning,
)


class EDMUNet(nn.Module):
    """Encoder, decoder and the embedding of noise level and class; F in D = skip x + out F(in x)."""

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
        self.config = config
        self.adm = config.network == "DhariwalUNet"
        self.style = _style(config)
        self.sizes = [config.resolution >> level for level in range(len(config.channels))]
        self.map_noise = _noise_embedding(config, adm=self.adm)
        widths = (config.noise_width, config.embedding_width)
        classes, augmentations = config.num_classes, config.augmentations
        self.map_label = nn.Linear(classes, widths[self.adm], bias=not self.adm) if classes else None
        self.map_augment = nn.Linear(augmentations, widths[0], bias=False) if augmentations else None
        self.map_layer0 = nn.Linear(*widths)
        self.map_layer1 = nn.Linear(widths[1], widths[1])
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self._build_decoder(self._build_encoder())
        if self.adm:
            self.out_norm = group_norm(config.channels[0], eps=self.style.eps)
            self.out_conv = ResamplingConv(config.channels[0], config.out_channels, 3)

    def _build_encoder(self) -> list[int]:
        config, style, aside = self.config, self.style, 3
        self.enc[f"{_at(self.sizes[0])}_conv"] = ResamplingConv(3, config.stem, 3)
        width, kept = config.stem, [config.stem]
        for level, size in enumerate(self.sizes):
            if level:
                self.enc[f"{_at(size)}_down"] = UNetBlock(width, width, style, down=True)
                kept.append(width)
                resampling = {"down": True, "filter_size": config.filter_size}
                if config.encoder == "skip":
                    self.enc[f"{_at(size)}_aux_down"] = ResamplingConv(aside, aside, 0, **resampling)  # type: ignore[arg-type]
                    self.enc[f"{_at(size)}_aux_skip"] = ResamplingConv(aside, width, 1)
                if config.encoder == "residual":
                    self.enc[f"{_at(size)}_aux_residual"] = ResamplingConv(
                        aside, width, 3, down=True, filter_size=config.filter_size, filter_last=True
                    )
                    aside = width
            for block in range(config.blocks):
                after = config.channels[level]
                self.enc[f"{_at(size)}_block{block}"] = UNetBlock(
                    width, after, style, attention=size in config.attention
                )
                width = after
                kept.append(width)
        return kept

    def _build_decoder(self, kept: list[int]) -> None:
        config, style, out = self.config, self.style, self.config.out_channels
        width = config.channels[-1]
        self.dec[f"{_at(self.sizes[-1])}_in0"] = UNetBlock(width, width, style, attention=True)
        self.dec[f"{_at(self.sizes[-1])}_in1"] = UNetBlock(width, width, style)
        for level, size in reversed(list(enumerate(self.sizes))):
            coarsest = level == len(self.sizes) - 1
            if not coarsest:
                self.dec[f"{_at(size)}_up"] = UNetBlock(width, width, style, up=True)
            for block in range(config.blocks + 1):
                attention = size in config.attention and (self.adm or block == config.blocks)
                after = config.channels[level]
                self.dec[f"{_at(size)}_block{block}"] = UNetBlock(
                    width + kept.pop(), after, style, attention=attention
                )
                width = after
            if self._has_output(level):
                if not coarsest and config.decoder == "skip":
                    self.dec[f"{_at(size)}_aux_up"] = ResamplingConv(
                        out, out, 0, up=True, filter_size=config.filter_size
                    )
                self.dec[f"{_at(size)}_aux_norm"] = group_norm(width, eps=1e-6)
                self.dec[f"{_at(size)}_aux_conv"] = ResamplingConv(width, out, 3)

    def _has_output(self, level: int) -> bool:
        return not self.adm and (level == 0 or self.config.decoder == "skip")

    def forward(self, x: Tensor, noise: Tensor, classes: Tensor | None) -> Tensor:
        """Map ``[n, 3, h, w]``, noise levels ``[n]`` and one-hot classes to ``[n, out_channels, h, w]``."""
        embedding = self._embed(noise, classes)
        return self._decode(*self._encode(x, embedding), embedding)

    def _embed(self, noise: Tensor, classes: Tensor | None) -> Tensor:
        embedding = self.map_noise(noise)
        known = None
        if self.map_label is not None and classes is not None:
            # SongUNet's one-hot vectors are scaled to unit variance; ADM has no such factor.
            known = self.map_label(classes if self.adm else classes * math.sqrt(classes.shape[1]))
        if known is not None and not self.adm:
            embedding = embedding + known
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if known is not None and self.adm:
            embedding = embedding + known
        return F.silu(embedding)

    def _encode(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        aside, kept = x, []
        for level, size in enumerate(self.sizes):
            if level == 0:
                x = self.enc[f"{_at(size)}_conv"](x)
            else:
                x = self.enc[f"{_at(size)}_down"](x, embedding)
                if self.config.encoder == "skip":
                    aside = self.enc[f"{_at(size)}_aux_down"](aside)
                    x = x + self.enc[f"{_at(size)}_aux_skip"](aside)
                elif self.config.encoder == "residual":
                    x = aside = (x + self.enc[f"{_at(size)}_aux_residual"](aside)) * math.sqrt(0.5)
            kept.append(x)
            for block in range(self.config.blocks):
                x = self.enc[f"{_at(size)}_block{block}"](x, embedding)
                kept.append(x)
        return x, kept

    def _decode(self, x: Tensor, kept: list[Tensor], embedding: Tensor) -> Tensor:
        image: Tensor | None = None
        for level, size in reversed(list(enumerate(self.sizes))):
            entries = ("in0", "in1") if level == len(self.sizes) - 1 else ("up",)
            for entry in entries:
                x = self.dec[f"{_at(size)}_{entry}"](x, embedding)
            for block in range(self.config.blocks + 1):
                x = self.dec[f"{_at(size)}_block{block}"](torch.cat([x, kept.pop()], dim=1), embedding)
            if self._has_output(level):
                here = self.dec[f"{_at(size)}_aux_conv"](F.silu(self.dec[f"{_at(size)}_aux_norm"](x)))
                image = here if image is None else self.dec[f"{_at(size)}_aux_up"](image) + here
        if image is None:
            image = self.out_conv(F.silu(self.out_norm(x)))
        return image


class EDMNetwork(nn.Module):
    """The denoiser D(x; sigma, class), as samplers in sigma call it."""

    u: Tensor

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
        self.config = config
        self.model = EDMUNet(config)
        if config.known_sigmas:
            self.register_buffer("u", torch.zeros(config.known_sigmas))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the denoised ``[n, 3, h, w]``.

        Args:
            x: float32 ``[n, 3, h, w]``: image + sigma noise.
            t: float32 ``[n]`` sigma.
            labels: int64 ``[n]``; ``num_classes``, or None, is no class.
        """
        classes = None
        if self.config.num_classes and labels is not None:
            classes = F.one_hot(labels, self.config.num_classes + 1)[:, :-1].float()
        elif self.config.num_classes:
            classes = x.new_zeros(len(x), self.config.num_classes)
        at = self.preconditioning(t.float())
        skip, out, scale_in = (value[:, None, None, None] for value in (at.skip, at.out, at.scale_in))
        predicted = self.model(scale_in * x, at.noise, classes)[:, :3]
        denoised: Tensor = skip * x + out * predicted.float()
        return denoised

    def preconditioning(self, sigma: Tensor) -> Preconditioning:
        """Return the coefficients at float32 ``sigma [n]`` (Karras et al. 2022, table 1)."""
        config = self.config
        if config.preconditioning == "EDMPrecond":
            return edm_preconditioning(sigma, sigma_data=config.sigma_data)
        if config.preconditioning == "VEPrecond":
            return ve_preconditioning(sigma)
        if config.preconditioning == "VPPrecond":
            return vp_preconditioning(
                sigma, beta_d=config.beta_d, beta_min=config.beta_min, steps=config.timesteps
            )
        # iDDPM: those of VP, but the network sees the index of the nearest level that it knows.
        place = (sigma[:, None] - self.u[None]).abs().argmin(dim=1)
        return Preconditioning(
            skip=torch.ones_like(sigma),
            out=-sigma,
            scale_in=1 / (sigma**2 + 1).sqrt(),
            noise=(config.timesteps - 1 - place).float(),
        )


def _at(size: int) -> str:
    return f"{size}x{size}"


def _style(config: EDMConfig) -> BlockStyle:
    adm = config.network == "DhariwalUNet"
    return BlockStyle(
        embedding=config.embedding_width,
        adaptive_scale=adm,
        skip_scale=1.0 if adm else math.sqrt(0.5),
        eps=1e-5 if adm else 1e-6,
        filter_size=config.filter_size,
        project_skips=not adm,
        head_width=64 if adm else 0,
    )


def _noise_embedding(config: EDMConfig, *, adm: bool) -> nn.Module:
    if config.embedding == "fourier":
        return FourierEmbedding(config.noise_width)
    return PositionalEmbedding(config.noise_width, endpoint=not adm, sines_first=not adm)
