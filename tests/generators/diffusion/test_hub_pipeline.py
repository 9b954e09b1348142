"""The adapter of diffusers' pipelines: tiny random ones, saved to a folder and opened again."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    UNet2DModel,
)
from PIL import Image

from evalkit.core import Generator, PromptedGenerator
from evalkit.errors import CheckpointError, InvalidInputError, OfflineError, UnsafeCheckpointError, UsageError
from evalkit.generators.diffusion.hub.folder import check, locate
from evalkit.generators.diffusion.hub.outputs import as_uint8
from evalkit.generators.diffusion.hub.pipeline import PipelineGenerator, open_pipeline
from evalkit.generators.sampling import SamplingOptions
from evalkit.sources.generated import GeneratedSource

SEEDS = np.array([5, 6, 2**62], dtype=np.int64)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="transformers, which encodes prompts, is not installed",
)


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddpm")
    DDPMPipeline(_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(folder)
    return folder


def test_images_do_not_depend_on_their_batch_and_evaluations_are_counted(ddpm: Path) -> None:
    """Four ancestral steps, whose noise comes from each image's own generator."""
    generator = open_pipeline(str(ddpm), SamplingOptions(steps=4))
    assert isinstance(generator, Generator)
    assert (generator.num_classes, generator.takes_prompts, generator.resolution) == (0, False, 8)
    _assert_alone_as_in_batch(generator, evaluations=4)


def test_a_short_training_shortens_the_default_alone(ddpm: Path) -> None:
    """DDPMPipeline's own default is 1000 steps, more than the 20 that the scheduler takes."""
    generator = open_pipeline(str(ddpm), SamplingOptions())
    assert dict(generator.spec.params)["steps"] == 20
    _assert_alone_as_in_batch(generator, evaluations=20)
    asked = open_pipeline(str(ddpm), SamplingOptions(steps=21))
    with pytest.raises(InvalidInputError, match="21 cannot be larger than"):
        asked.generate(SEEDS)


def test_a_scheduler_that_takes_more_steps_than_its_training_keeps_the_default(tmp_path: Path) -> None:
    """DDIMPipeline's default is 50 steps; EulerDiscreteScheduler interpolates between those it knows."""
    pipeline = DDIMPipeline(_unet(), DDIMScheduler(num_train_timesteps=20))
    pipeline.scheduler = EulerDiscreteScheduler(num_train_timesteps=20)
    assert PipelineGenerator(pipeline, sha256="0" * 64, options=SamplingOptions()).steps == 50
    pipeline.scheduler = DDIMScheduler(num_train_timesteps=60)
    assert PipelineGenerator(pipeline, sha256="0" * 64, options=SamplingOptions()).steps == 50


def test_ddim_takes_eta_and_agrees_with_the_pipeline_itself(tmp_path: Path) -> None:
    """The image is bit for bit the pipeline's own from the same torch generator."""
    pipeline = DDIMPipeline(_unet(), DDIMScheduler(num_train_timesteps=20))
    pipeline.save_pretrained(tmp_path)
    generator = open_pipeline(str(tmp_path), SamplingOptions(steps=4, eta=0.5))
    _assert_alone_as_in_batch(generator, evaluations=4)
    pipeline.set_progress_bar_config(disable=True)
    own = [torch.Generator().manual_seed(int(seed)) for seed in SEEDS]
    theirs = pipeline(batch_size=3, generator=own, num_inference_steps=4, eta=0.5, output_type="pil").images
    expected = torch.from_numpy(np.stack([np.asarray(image) for image in theirs])).permute(0, 3, 1, 2)
    assert torch.equal(generator.generate(SEEDS), expected)


def test_consistency_models_take_labels(tmp_path: Path) -> None:
    """Two stochastic steps."""
    scheduler = CMStochasticIterativeScheduler(num_train_timesteps=5)
    ConsistencyModelPipeline(_unet(num_class_embeds=5), scheduler).save_pretrained(tmp_path)
    generator = open_pipeline(str(tmp_path), SamplingOptions(steps=2))
    assert generator.num_classes == 5
    with pytest.raises(UsageError, match="labels"):
        generator.generate(SEEDS)
    _assert_alone_as_in_batch(generator, evaluations=2, labels=np.array([0, 3, 4]))


def test_class_conditional_transformers_are_guided(tmp_path: Path) -> None:
    """Guidance sees every image twice a step: 3 steps are 6 evaluations."""
    _dit(DDIMScheduler()).save_pretrained(tmp_path)
    generator = open_pipeline(str(tmp_path), SamplingOptions(steps=3, guidance=2.0))
    assert generator.num_classes == 1000
    _assert_alone_as_in_batch(generator, evaluations=6, labels=np.array([0, 3, 999]))
    assert dict(generator.spec.params)["guidance"] == 2.0


def test_draws_from_the_global_stream_are_noticed(tmp_path: Path) -> None:
    """DiT does not hand its generators to a stochastic scheduler: images are then drawn one by one."""
    _dit(DDPMScheduler()).save_pretrained(tmp_path)
    generator = open_pipeline(str(tmp_path), SamplingOptions(steps=3, guidance=2.0))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _assert_alone_as_in_batch(generator, evaluations=6, labels=np.array([0, 3, 999]))
    assert torch.equal(torch.get_rng_state(), before)


@needs_transformers
def test_stable_diffusion_draws_each_image_from_its_own_prompt(tmp_path: Path) -> None:
    """Also through the image source, whose index decides the prompt."""
    _stable_diffusion(tmp_path / "parts").save_pretrained(tmp_path / "saved")
    generator = open_pipeline(str(tmp_path / "saved"), SamplingOptions(steps=2, guidance=3.0))
    assert isinstance(generator, PromptedGenerator)
    prompts = ("a cat", "dog", "the bird")
    three = generator.generate_prompted(SEEDS, prompts)
    assert generator.evaluations_per_image == 4
    assert three.shape == (3, 3, 16, 16)
    assert torch.equal(generator.generate_prompted(SEEDS[1:2], prompts[1:2]), three[1:2])
    assert not torch.equal(generator.generate_prompted(SEEDS[1:2], prompts[:1]), three[1:2])
    with pytest.raises(UsageError, match="prompts"):
        generator.generate(SEEDS)
    source = GeneratedSource(generator, 3, prompts=prompts)
    batch = source.read(np.array([2, 0]))
    assert isinstance(batch.images, torch.Tensor)
    alone = source.read(np.array([0])).images
    assert isinstance(alone, torch.Tensor)
    assert torch.equal(batch.images[1], alone[0])


def test_a_source_hands_prompts_out_by_index_and_refuses_to_go_without() -> None:
    """Those who draw no prompts never see them; the digest moves only where they count."""
    told: list[str] = []

    class Words:
        family, num_classes, resolution, takes_prompts = "diffusion", 0, 4, True
        spec = SimpleNamespace(digest=lambda: "0" * 64)

        def generate(self, seeds: Any, *, labels: Any = None) -> torch.Tensor:
            del labels
            return torch.zeros(len(seeds), 3, 4, 4, dtype=torch.uint8)

        def generate_prompted(self, seeds: Any, prompts: Any, *, labels: Any = None) -> torch.Tensor:
            told.extend(prompts)
            return self.generate(seeds, labels=labels)

    words: Any = Words()
    source = GeneratedSource(words, 3, prompts=("a", "b", "c"))
    source.read(np.array([2, 0, 4]))
    assert told == ["c", "a", "b"]
    assert source.spec != GeneratedSource(words, 3, prompts=("a", "b", "d")).spec
    with pytest.raises(UsageError, match="prompts"):
        GeneratedSource(words, 3).read(np.array([0]))
    words.takes_prompts = False
    assert GeneratedSource(words, 3, prompts=("a",)).spec == GeneratedSource(words, 3).spec
    assert len(GeneratedSource(words, 3).read(np.array([0]))) == 1


def test_images_blacked_out_by_a_safety_checker_are_counted(ddpm: Path) -> None:
    """What the pipeline flags becomes a warning."""
    generator = open_pipeline(str(ddpm), SamplingOptions(steps=1))
    assert generator.warnings == ()
    plain = generator.pipeline
    generator.pipeline = lambda **kwargs: SimpleNamespace(
        images=plain(**kwargs).images, nsfw_content_detected=[True, False, True]
    )
    generator.generate(SEEDS)
    assert generator.warnings == ("the pipeline's safety checker blacked out 2 of the images drawn so far",)


def test_eta_that_the_scheduler_would_drop_is_refused(tmp_path: Path) -> None:
    """DDIMPipeline passes eta on; diffusers' pipelines ask their scheduler first, and are silent."""

    class Stubborn(DDIMScheduler):
        def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None) -> Any:
            return super().step(output, timestep, sample, generator=generator)

    pipeline = DDIMPipeline(_unet(), DDIMScheduler(num_train_timesteps=20))
    pipeline.scheduler = Stubborn(num_train_timesteps=20)
    with pytest.raises(UsageError, match="Stubborn, the scheduler of this DDIMPipeline, takes no --eta"):
        PipelineGenerator(pipeline, sha256="0" * 64, options=SamplingOptions(eta=0.5))
    with pytest.raises(UsageError, match="takes no --reference-factor"):
        PipelineGenerator(pipeline, sha256="0" * 64, options=SamplingOptions(reference_factor=4))


@pytest.mark.parametrize("options", [{"guidance": 2.0}, {"eta": 0.5}])
def test_options_that_the_signature_does_not_have_are_refused(ddpm: Path, options: dict[str, float]) -> None:
    """DDPMPipeline has neither a guidance scale nor eta."""
    with pytest.raises(UsageError, match="takes no --"):
        open_pipeline(str(ddpm), SamplingOptions(**options))  # type: ignore[arg-type]


def test_pipelines_that_need_an_image_are_refused() -> None:
    """A required argument that evalkit has no value for is named."""

    class Editor:
        components: ClassVar[dict[str, Any]] = {}

        def __call__(self, image: Any, generator: Any = None) -> None: ...

    with pytest.raises(UsageError, match="Editor needs image"):
        PipelineGenerator(Editor(), sha256="0" * 64, options=SamplingOptions())


def test_a_pipeline_that_fails_is_explained(ddpm: Path) -> None:
    """Whatever a pipeline raises becomes one sentence."""
    generator = open_pipeline(str(ddpm), SamplingOptions(steps=1))
    generator.pipeline = lambda **_: (_ for _ in ()).throw(RuntimeError("shapes differ"))
    with pytest.raises(InvalidInputError, match="shapes differ"):
        generator.generate(SEEDS)


def test_weights_are_counted_into_the_digest_and_dtype_is_obeyed(ddpm: Path, tmp_path: Path) -> None:
    """Another file, another model; bfloat16 networks on demand."""
    copy = tmp_path / "copy"
    shutil.copytree(ddpm, copy)
    assert check(copy).sha256 == check(ddpm).sha256
    config = copy / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert check(copy).sha256 != check(ddpm).sha256
    generator = open_pipeline(str(ddpm), SamplingOptions(steps=1, dtype="bfloat16"))
    assert {p.dtype for p in generator.pipeline.unet.parameters()} == {torch.bfloat16}


def test_pickles_are_read_only_where_they_hold_plain_tensors(tmp_path: Path) -> None:
    """A .bin file of tensors works; one that would run code is refused before anything is loaded."""
    DDPMPipeline(_unet(), DDPMScheduler(num_train_timesteps=20)).save_pretrained(
        tmp_path, safe_serialization=False
    )
    weights = next((tmp_path / "unet").glob("*.bin"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert open_pipeline(str(tmp_path), SamplingOptions(steps=1)).generate(SEEDS).shape == (3, 3, 8, 8)
    torch.save(_Evil(tmp_path / "touched"), weights)
    with pytest.raises(UnsafeCheckpointError, match="plain tensors"):
        open_pipeline(str(tmp_path), SamplingOptions(steps=1))
    assert not (tmp_path / "touched").exists()


@pytest.mark.fault("hub-remote-code")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"unet": ["my_network", "Net"]}, UnsafeCheckpointError),
        ({"_class_name": ["pipeline", "Mine"]}, UnsafeCheckpointError),
        ({"_class_name": "NoSuchPipeline"}, CheckpointError),
        ({"../unet": ["diffusers", "UNet2DModel"]}, CheckpointError),
    ],
)
def test_code_of_its_own_is_refused(
    ddpm: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    """Classes of neither library, own pipelines, paths out of the folder."""
    copy = tmp_path / "copy"
    shutil.copytree(ddpm, copy)
    index = copy / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **change}))
    with pytest.raises(error):
        open_pipeline(str(copy), SamplingOptions(steps=1))


@pytest.mark.fault("hub-remote-code")
@pytest.mark.parametrize("where", ["hub:owner/name", "hub:owner/name@main", f"hub:name@{COMMIT}"])
def test_a_hub_repository_is_named_with_a_commit(where: str) -> None:
    """A branch is another model tomorrow."""
    with pytest.raises(UsageError, match="one commit") as caught:
        locate(where)
    assert "hub:OWNER/NAME@REVISION" in str(caught.value.hint)


@pytest.mark.fault("no-network")
def test_without_a_network_the_hub_is_a_temporary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 75, with the address to fetch by hand."""

    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(OfflineError) as caught:
        locate(f"hub:owner/name@{COMMIT}")
    assert caught.value.exit_code == 75
    assert f"https://huggingface.co/owner/name/tree/{COMMIT}" in str(caught.value.hint)


@pytest.mark.fault("hub-remote-code")
def test_a_snapshot_is_pinned_and_holds_no_pickles_beside_safetensors(
    ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts and safetensors first; pickles only for components that have nothing else."""
    asked: list[tuple[str, list[str]]] = []

    def snapshot(_: str, *, revision: str, allow_patterns: list[str], **__: object) -> str:
        asked.append((revision, allow_patterns))
        return str(ddpm)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert locate(f"hub:owner/name@{COMMIT}") == ddpm
    assert {revision for revision, _ in asked} == {COMMIT}
    assert "*.safetensors" in asked[0][1]
    assert all(patterns != ["unet/*.bin"] for _, patterns in asked)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    """With the hint which model reads what."""
    with pytest.raises(UsageError, match=r"model_index\.json"):
        locate(str(tmp_path))


def test_outputs_become_uint8_as_diffusers_rounds_them() -> None:
    """Arrays, tensors, PIL images and grey; never resized, never guessed."""
    array = np.array([0.0, 0.5, 1.0, 0.1], dtype=np.float32).reshape(1, 2, 2, 1)
    assert as_uint8(array, 1)[0, 2].flatten().tolist() == [0, 128, 255, 26]
    colour = np.random.default_rng(0).random((2, 4, 5, 3), dtype=np.float32)
    expected = as_uint8(colour, 2)
    assert torch.equal(as_uint8(torch.from_numpy(colour).permute(0, 3, 1, 2), 2), expected)
    pictures = [Image.fromarray(np.round(image * 255).astype(np.uint8)) for image in colour]
    assert torch.equal(as_uint8(pictures, 2), expected)
    assert torch.equal(as_uint8(list(colour), 2), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((1, 2, 2, 3), np.nan, dtype=np.float32), "not finite"),
        (np.full((1, 2, 2, 3), -1.0, dtype=np.float32), "not 0 .. 1"),
        (np.zeros((2, 2, 2, 3), dtype=np.float32), r"not \[1, h, w, 3\]"),
        (np.zeros((1, 2, 2, 4), dtype=np.float32), r"not \[1, h, w, 3\]"),
        ("pictures", "no images"),
    ],
)
def test_outputs_that_are_no_images_are_refused(images: object, message: str) -> None:
    """Non-finite, of another range, number or kind."""
    with pytest.raises(InvalidInputError, match=message):
        as_uint8(images, 1)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _assert_alone_as_in_batch(
    generator: PipelineGenerator, *, evaluations: int, labels: np.ndarray[Any, Any] | None = None
) -> None:
    three = generator.generate(SEEDS, labels=labels)
    assert generator.evaluations_per_image == evaluations
    assert three.dtype == torch.uint8
    assert not torch.equal(three[0], three[1])
    for i in range(3):
        alone = generator.generate(SEEDS[i : i + 1], labels=None if labels is None else labels[i : i + 1])
        assert int((alone[0].int() - three[i].int()).abs().max()) <= 1
        assert generator.evaluations_per_image == evaluations


def _unet(**more: Any) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        **more,
    )


def _autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    )


def _dit(scheduler: DDIMScheduler | DDPMScheduler) -> DiTPipeline:
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=1000,
        norm_num_groups=2,
    )
    return DiTPipeline(transformer, _autoencoder(), scheduler)


def _stable_diffusion(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=52,
        eos_token_id=53,
    )
    denoiser = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16),
        unet=denoiser,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
