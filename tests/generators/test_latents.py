"""The latent interface: `generate` is `synthesis` of `mapping` of `latents`, image by image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from evalkit.core import LatentGenerator, Reconstructor
from evalkit.errors import CheckpointError, InvalidInputError, UsageError
from evalkit.generators import GENERATOR_FACTS, SamplingOptions, load_generator
from evalkit.generators.checkpoint import save_checkpoint
from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator
from evalkit.generators.gan.style import StyleGANConfig, StyleGANGenerator
from evalkit.generators.sampling import quantise
from evalkit.generators.vae.conv_vae import ConvVAE, VAEConfig
from evalkit.seeding import image_seeds

STYLE = StyleGANConfig(latent_dim=8, style_dim=12, mapping_layers=2, channels=(16, 12, 8, 8))
NETWORKS = {
    "cgan": (CGANGenerator, CGANConfig(latent_dim=8, channels=(16, 8, 8, 8))),
    "stylegan": (StyleGANGenerator, STYLE),
    "vae": (ConvVAE, VAEConfig(latent_dim=8, width=8)),
}
SEEDS = image_seeds(3, np.arange(6))
LABELS = np.array([0, 1, 2, 9, 4, 4])


def _save(path, name: str, config, state) -> None:
    save_checkpoint(path, state, architecture=name, config=dataclasses.asdict(config), training={})


def _random_state(name: str, config=None) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    network, default = NETWORKS[name]
    state = network(config or default).state_dict()
    for key, tensor in state.items():  # fresh noise strengths and centres are 0 and would hide mistakes
        if key.endswith(("noise_strength", "centre")):
            tensor.copy_(torch.randn(tensor.shape))
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Model name -> path of a small random checkpoint; `plain` is an unconditional style GAN."""
    folder, paths = tmp_path_factory.mktemp("checkpoints"), {}
    for name, (_, config) in NETWORKS.items():
        paths[name] = folder / f"{name}.safetensors"
        _save(paths[name], name, config, _random_state(name))
    paths["plain"] = folder / "plain.safetensors"
    config = dataclasses.replace(STYLE, num_classes=0)
    _save(paths["plain"], "stylegan", config, _random_state("stylegan", config))
    return paths


def _load(files, name: str, **options):
    return load_generator(
        "stylegan" if name == "plain" else name, files[name], options=SamplingOptions(**options)
    )


def _labels(generator, index=slice(None)):
    return LABELS[index] if generator.num_classes else None


def _close_images(a: torch.Tensor, b: torch.Tensor) -> None:
    """Kernels differ with the batch by about 1e-6: one grey level, rarely, where that crosses an edge."""
    difference = (a.int() - b.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 1e-3


@pytest.mark.parametrize("name", [*NETWORKS, "plain"])
def test_generate_is_synthesis_of_the_latents(files, name):
    generator = _load(files, name)
    assert isinstance(generator, LatentGenerator)
    labels = _labels(generator)
    z = generator.latents(SEEDS)
    assert z.shape == (6, 8)
    assert z.dtype == torch.float32
    images = generator.synthesis(z, space="z", noise_seeds=SEEDS, labels=labels)
    assert images.dtype == torch.float32
    assert images.shape == (6, 3, 32, 32)
    assert torch.equal(quantise(images), generator.generate(SEEDS, labels=labels))
    assert images.is_inference() is False  # a caller may go on computing with it


@pytest.mark.parametrize("name", ["stylegan", "plain"])
@pytest.mark.parametrize("truncation", [None, 0.5])
def test_generate_is_synthesis_of_the_mapping_of_the_latents(files, name, truncation):
    generator = _load(files, name, truncation=truncation)
    assert generator.spaces == ("z", "w")
    labels = _labels(generator)
    w = generator.mapping(generator.latents(SEEDS), labels=labels)
    assert w.shape == (6, STYLE.style_dim)
    assert w.dtype == torch.float32
    images = generator.synthesis(w, space="w", noise_seeds=SEEDS)
    assert torch.equal(quantise(images), generator.generate(SEEDS, labels=labels))


@pytest.mark.parametrize("name", [*NETWORKS, "plain"])
def test_an_image_depends_on_its_own_seed_alone(files, name):
    generator = _load(files, name)
    together = generator.generate(SEEDS, labels=_labels(generator))
    order = np.array([4, 0, 2])
    _close_images(together[order], generator.generate(SEEDS[order], labels=_labels(generator, order)))
    assert torch.equal(generator.latents(SEEDS)[order], generator.latents(SEEDS[order]))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_synthesis_stays_in_float32_under_a_reduced_type(files, name):
    reduced, full = _load(files, name, dtype="bfloat16"), _load(files, name)
    labels, z = _labels(full), full.latents(SEEDS)
    arguments = {"space": "z", "noise_seeds": SEEDS, "labels": labels}
    expected = full.synthesis(z, **arguments)
    assert torch.equal(reduced.synthesis(z, **arguments), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(full.synthesis(z, **arguments), expected)


@pytest.mark.parametrize("name", ["cgan", "vae"])
def test_models_without_a_mapping_network_say_so(files, name):
    generator = _load(files, name)
    assert generator.spaces == ("z",)
    with pytest.raises(UsageError, match="no mapping network"):
        generator.mapping(generator.latents(SEEDS))
    with pytest.raises(UsageError, match="no latent space 'w'"):
        generator.synthesis(generator.latents(SEEDS), space="w", noise_seeds=SEEDS, labels=LABELS)


def test_latents_that_do_not_fit_are_refused(files):
    generator = _load(files, "stylegan")
    z = generator.latents(SEEDS)
    with pytest.raises(UsageError, match=r"shape \[6, 8\], not \[5, 8\]"):
        generator.synthesis(z, space="z", noise_seeds=SEEDS[:5], labels=LABELS)
    with pytest.raises(UsageError, match=r"latents in w have shape \[6, 8\], not \[6, 12\]"):
        generator.synthesis(z, space="w", noise_seeds=SEEDS)
    with pytest.raises(UsageError, match="needs labels"):
        generator.mapping(z)
    with pytest.raises(UsageError, match="2 labels for 6 latents"):
        generator.mapping(z, labels=LABELS[:2])
    for wrong in (-1, 10):
        with pytest.raises(UsageError, match=r"lie in 0\.\.9"):
            generator.synthesis(z, space="z", noise_seeds=SEEDS, labels=np.full(6, wrong))


@pytest.mark.parametrize("field", ["mapping_layers", "style_dim", "latent_dim"])
def test_a_crafted_configuration_is_a_checkpoint_error(tmp_path, files, field):
    network = _load(files, "stylegan").network
    config = dataclasses.asdict(STYLE) | {field: 0}
    path = tmp_path / "crafted.safetensors"
    save_checkpoint(path, network.state_dict(), architecture="stylegan", config=config, training={})
    with pytest.raises(CheckpointError, match="does not build: impossible sizes"):
        load_generator("stylegan", path)


def test_equal_noise_seeds_give_equal_noise(files):
    generator = _load(files, "stylegan")
    w = generator.mapping(generator.latents(SEEDS[:1]), labels=LABELS[:1]).expand(3, -1)
    noise = np.array([5, 5, 6])
    first, same, other = generator.synthesis(w, space="w", noise_seeds=noise)
    assert torch.allclose(first, same, atol=1e-5)
    assert float((first - other).abs().mean()) > 1e-3


def test_noise_does_not_repeat_the_latent(files):
    generator = _load(files, "stylegan")
    z, noise = generator.latents(SEEDS), generator._noise(SEEDS)
    assert noise.shape == (6, STYLE.noise_numbers) == (6, 16 + 2 * (64 + 256 + 1024))
    assert not torch.isin(z, noise).any()
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["stylegan", "plain"])
def test_truncation_zero_is_the_centre_and_one_is_none(files, name):
    seeds, labels = SEEDS[[0, 1]], np.array([3, 3])
    centre = _load(files, name, truncation=0.0)
    labels = labels if centre.num_classes else None
    expected = centre.network.mapping.centre[[3, 3] if centre.num_classes else [0, 0]]
    assert torch.equal(centre.mapping(centre.latents(seeds), labels=labels), expected)
    by_hand = centre.synthesis(expected, space="w", noise_seeds=seeds)
    assert torch.equal(quantise(by_hand), centre.generate(seeds, labels=labels))
    one, none = _load(files, name, truncation=1.0), _load(files, name)
    assert torch.equal(one.generate(seeds, labels=labels), none.generate(seeds, labels=labels))


def test_truncation_is_linear_and_part_of_the_spec(files):
    full, half = _load(files, "stylegan"), _load(files, "stylegan", truncation=0.25)
    z = full.latents(SEEDS)
    w, centre = full.mapping(z, labels=LABELS), full.network.mapping.centre[torch.from_numpy(LABELS)]
    expected = centre + 0.25 * (w - centre)
    torch.testing.assert_close(half.mapping(z, labels=LABELS), expected)
    assert dict(half.spec.params)["truncation"] == 0.25
    assert half.spec != full.spec


def test_truncation_where_it_does_not_apply_or_is_out_of_range(files):
    with pytest.raises(UsageError, match="'vae' takes no --truncation"):
        _load(files, "vae", truncation=0.5)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match=r"must lie in 0\.\.1"):
            _load(files, "stylegan", truncation=wrong)
    with pytest.raises(UsageError, match="do not reach a callable"):
        load_generator("evalkit.generators.toy:make", options=SamplingOptions(truncation=0.5))


def test_the_class_moves_w_and_the_scale_of_z_does_not(files):
    generator = _load(files, "stylegan")
    z = generator.latents(SEEDS)
    w = generator.mapping(z, labels=LABELS)
    torch.testing.assert_close(generator.mapping(100.0 * z, labels=LABELS), w, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(generator.mapping(z, labels=(LABELS + 1) % 10), w, atol=1e-3)


def test_style_checkpoints_round_trip_in_both_formats(tmp_path, files):
    original = _load(files, "stylegan")
    config = StyleGANConfig(latent_dim=8, style_dim=12, mapping_layers=2)
    path = tmp_path / "other.pt"
    torch.save({"g_ema": StyleGANGenerator(StyleGANConfig()).state_dict()}, path)
    assert load_generator("stylegan", path).latent_dim == 128  # a bare state dict is the bundled size
    _save(tmp_path / "x.safetensors", "stylegan", config, original.network.state_dict())
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_generator("stylegan", tmp_path / "x.safetensors")
    _save(tmp_path / "y.safetensors", "stylegan", STYLE, original.network.state_dict())
    again = load_generator("stylegan", tmp_path / "y.safetensors")
    assert torch.equal(original.generate(SEEDS, labels=LABELS), again.generate(SEEDS, labels=LABELS))


def test_reconstruction_is_the_decoded_posterior_mean(files):
    vae = _load(files, "vae")
    assert isinstance(vae, Reconstructor)
    assert not isinstance(_load(files, "cgan"), Reconstructor)
    images = torch.randint(
        0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    again = vae.reconstruct(images)
    assert again.dtype == torch.uint8
    assert again.shape == images.shape
    mean, _ = vae.network.encode(images.float() / 127.5 - 1.0)
    by_hand = vae.synthesis(mean, space="z", noise_seeds=np.arange(5))
    _close_images(again, quantise(by_hand))
    _close_images(again[2:4], vae.reconstruct(images[2:4]))
    assert torch.equal(again, vae.reconstruct(images))  # no noise


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 16, 32, dtype=torch.uint8), torch.zeros(3, 32, 32).byte()],
)
def test_images_that_cannot_be_reconstructed(files, images):
    with pytest.raises(InvalidInputError, match=r"reconstructs torch\.uint8 images of shape"):
        _load(files, "vae").reconstruct(images)


def test_the_bundled_vae_reconstructs_the_image_it_was_given():
    vae = load_generator("vae")
    images = vae.generate(image_seeds(3, np.arange(64)))
    again = vae.reconstruct(images).float().flatten(1)
    # The nearest of all images is the one that went in.
    assert torch.cdist(again, images.float().flatten(1)).argmin(dim=1).tolist() == list(range(64))


@pytest.mark.skipif(not GENERATOR_FACTS["stylegan"].bundled, reason="no bundled style GAN")
def test_the_bundled_style_gan_loads_strictly_and_its_centres_are_those_of_its_mapping():
    generator = load_generator("stylegan")
    assert generator.checkpoint_format == "evalkit"
    assert generator.parameter_count > 1_500_000
    labels = np.full(2000, 7)
    z = generator.latents(image_seeds(1, np.arange(2000)))
    w = generator.mapping(z, labels=labels)
    centre = generator.network.mapping.centre[7]
    spread = w.std(dim=0).mean()
    # Two means of 2,000 and 4,096 draws: their difference is about spread * sqrt(1/2000 + 1/4096).
    assert float((w.mean(dim=0) - centre).square().mean().sqrt()) < 0.1 * float(spread)
    images = generator.generate(SEEDS, labels=LABELS)
    assert float(images.float().std()) > 30.0
