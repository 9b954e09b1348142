"""Any pipeline of diffusers as a generator: what its call signature takes is what it is given.

Image j has its own torch generator, seeded by its seed, for every draw of the pipeline. A pipeline that also
draws from torch's global stream is noticed by the stream's state; then images are drawn one by one, each with
that stream seeded by its own seed, so that image j still depends on nothing but weights, sampler and seed j.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
from diffusers.utils import is_accelerate_available
from torch import Tensor, nn

from evalkit.core import IndexArray
from evalkit.errors import CheckpointError, EvalkitError, InvalidInputError, UsageError
from evalkit.generators.diffusion.hub.folder import PipelineFolder, check, locate
from evalkit.generators.diffusion.hub.outputs import ROUNDING, as_uint8
from evalkit.generators.diffusion.hub.surroundings import no_progress, own_global_stream
from evalkit.generators.sampling import SamplingOptions
from evalkit.seeding import per_image_generators
from evalkit.spec import Scalar, Spec

NAME = "diffusers"
_DENOISERS = (
    "unet",
    "transformer",
    "transformer_2",
    "prior",
    "prior_prior",
    "decoder",
    "super_res_first",
    "super_res_last",
)
_SERVED = frozenset({"prompt", "batch_size", "class_labels", "generator", "num_inference_steps"})
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PipelineGenerator:
    """A pipeline behind the generator protocol; counts the rows that its denoising networks see."""

    family = "diffusion"
    checkpoint_format = "diffusers pipeline"

    def __init__(self, pipeline: Any, *, sha256: str, options: SamplingOptions) -> None:  # noqa: ANN401 - no base
        self.pipeline = pipeline
        self.options = options
        self.checkpoint_sha256 = sha256
        self.parameters = inspect.signature(pipeline.__call__).parameters
        self.steps = options.steps or self._default_steps()
        self.evaluations_per_image = 0.0
        self.censored = 0
        self._rows, self._one_by_one, self._size = 0, False, 0
        self._check_options()
        pipeline.set_progress_bar_config(disable=True)
        networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
        for network in networks:
            network.eval().requires_grad_(requires_grad=False)
        self.parameter_count = sum(p.numel() for network in networks for p in network.parameters())
        for name in _DENOISERS:
            denoiser = getattr(pipeline, name, None)
            if isinstance(denoiser, nn.Module):
                denoiser.register_forward_pre_hook(self._count, with_kwargs=True)

    @property
    def spec(self) -> Spec:
        """The pipeline's and its scheduler's class, the settings, and the digest of the files."""
        stated: dict[str, Scalar] = {
            "pipeline": type(self.pipeline).__name__,
            "sampler": type(getattr(self.pipeline, "scheduler", None)).__name__,
            "steps": self.steps,
            "guidance": self._default("guidance_scale")
            if self.options.guidance is None
            else self.options.guidance,
            "eta": self.options.eta or 0.0,
            "dtype": self.options.dtype,
            "quantisation": ROUNDING,
            "diffusers": diffusers.__version__,
        }
        return Spec.of("generator", NAME, sha256=self.checkpoint_sha256, **stated)

    @property
    def takes_prompts(self) -> bool:
        """Whether the pipeline draws from text."""
        return "prompt" in self.parameters

    @property
    def num_classes(self) -> int:
        """Classes that the denoiser is conditioned on; 0 where there are none."""
        if "class_labels" not in self.parameters:
            return 0
        for name, field in (("transformer", "num_embeds_ada_norm"), ("unet", "num_class_embeds")):
            network = getattr(self.pipeline, name, None)
            if network is not None:
                return int(network.config.get(field) or 0)
        return 0

    @property
    def resolution(self) -> int:
        """Height in pixels, as measured on the first image that is drawn."""
        if not self._size:
            labels = torch.zeros(1, dtype=torch.int64).numpy() if self.num_classes else None
            first = torch.zeros(1, dtype=torch.int64).numpy()
            self._draw(first, ["a photograph"] if self.takes_prompts else None, labels)
        return self._size

    @property
    def warnings(self) -> tuple[str, ...]:
        """What those who read the scores must know."""
        if not self.censored:
            return ()
        return (f"the pipeline's safety checker blacked out {self.censored} of the images drawn so far",)

    def generate(self, seeds: IndexArray, *, labels: IndexArray | None = None) -> Tensor:
        """Return uint8 ``[n, 3, h, w]``, one image for each seed (and label).

        Raises:
            UsageError: the pipeline draws from prompts, or needs labels.
        """
        if self.takes_prompts:
            raise UsageError(
                f"{type(self.pipeline).__name__} draws from prompts", hint="--prompts FILE, one line an image"
            )
        return self._draw(seeds, None, labels)

    def generate_prompted(
        self, seeds: IndexArray, prompts: Sequence[str], *, labels: IndexArray | None = None
    ) -> Tensor:
        """Return uint8 ``[n, 3, h, w]``, one image for each seed and its prompt (and label).

        Raises:
            UsageError: there are not as many prompts as seeds, or labels are missing.
        """
        if len(prompts) != len(seeds):
            raise UsageError(f"{len(prompts)} prompts for {len(seeds)} images")
        return self._draw(seeds, prompts, labels)

    @torch.inference_mode()
    def _draw(self, seeds: IndexArray, prompts: Sequence[str] | None, labels: IndexArray | None) -> Tensor:
        if self.num_classes and labels is None:
            raise UsageError(f"{type(self.pipeline).__name__} is class-conditional and needs labels")
        if not self._one_by_one:
            images, global_draws = self._call(seeds, prompts, labels)
            if not global_draws:
                return images
            self._one_by_one = True
        rows = [
            self._call(
                seeds[i : i + 1],
                prompts and prompts[i : i + 1],
                None if labels is None else labels[i : i + 1],
            )
            for i in range(len(seeds))
        ]
        return torch.cat([images for images, _ in rows])

    def _call(
        self, seeds: IndexArray, prompts: Sequence[str] | None, labels: IndexArray | None
    ) -> tuple[Tensor, bool]:
        arguments = self._arguments(seeds, prompts, labels)
        self._rows = 0
        with own_global_stream(int(seeds[0]), self.options.device) as moved:
            output = self._run(arguments)
            drew = moved()
        self.evaluations_per_image = self._rows / len(seeds)
        images = as_uint8(output.images if hasattr(output, "images") else output[0], len(seeds))
        flagged = getattr(output, "nsfw_content_detected", None)
        if not drew or len(seeds) == 1:
            self.censored += sum(map(bool, flagged)) if flagged is not None else 0
        self._size = images.shape[2]
        return images, drew

    def _run(self, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - each pipeline has its own output class
        try:
            return self.pipeline(**arguments)
        except (EvalkitError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # pipelines raise anything on configurations that do not go together
            raise InvalidInputError(
                f"{type(self.pipeline).__name__} failed: {type(error).__name__}: {error}"
            ) from error

    def _arguments(
        self, seeds: IndexArray, prompts: Sequence[str] | None, labels: IndexArray | None
    ) -> dict[str, Any]:
        chosen: dict[str, Any] = {"generator": per_image_generators(seeds), "output_type": "np"}
        if prompts is not None:
            chosen["prompt"] = list(prompts)
        elif "batch_size" in self.parameters:
            chosen["batch_size"] = len(seeds)
        if self.num_classes and labels is not None:
            chosen["class_labels"] = labels.tolist()
        numbers = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.options.guidance,
            "eta": self.options.eta,
        }
        chosen |= {name: value for name, value in numbers.items() if value is not None}
        return {name: value for name, value in chosen.items() if name in self.parameters}

    def _check_options(self) -> None:
        kind = type(self.pipeline).__name__
        needed = [
            name
            for name, parameter in self.parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
            and name not in _SERVED
        ]
        if needed or "generator" not in self.parameters:
            raise UsageError(
                f"{kind} needs {', '.join(needed) or 'no generator, so that no seed reaches it'}",
                hint="wrap it in a factory of your own: --model pkg.mod:factory",
            )
        for flag, name, value in (
            ("--steps", "num_inference_steps", self.options.steps),
            ("--guidance", "guidance_scale", self.options.guidance),
            ("--eta", "eta", self.options.eta),
        ):
            if value is not None and name not in self.parameters:
                raise UsageError(f"{kind} takes no {flag}")
        scheduler = getattr(self.pipeline, "scheduler", None)
        step = inspect.signature(scheduler.step).parameters if scheduler is not None else {}
        if self.options.eta is not None and "eta" not in step:  # pipelines drop it in silence
            raise UsageError(
                f"{type(scheduler).__name__}, the scheduler of this {kind}, takes no --eta",
                hint="DDIMScheduler does: name it in the folder's model_index.json and scheduler_config.json",
            )
        if self.options.reference_factor is not None:
            raise UsageError(f"{kind} takes no --reference-factor", hint="native diffusion models do")

    def _default(self, name: str) -> Scalar:
        value = self.parameters[name].default if name in self.parameters else None
        return value if isinstance(value, int | float) else None

    def _default_steps(self) -> Scalar:
        """Return the pipeline's own number; where its scheduler refuses it, that of its training."""
        steps = self._default("num_inference_steps")
        scheduler: Any = getattr(self.pipeline, "scheduler", None)
        trained = None if scheduler is None else scheduler.config.get("num_train_timesteps")
        if isinstance(steps, int) and isinstance(trained, int) and trained < steps:
            try:
                copy.copy(scheduler).set_timesteps(steps)
            except ValueError:
                return trained
        return steps

    def _count(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del network
        first = next(
            (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim), None
        )
        self._rows += 0 if first is None else len(first)


def open_pipeline(where: str, options: SamplingOptions) -> PipelineGenerator:
    """Return the generator of a pipeline's folder, or of ``hub:OWNER/NAME@REVISION``.

    Raises:
        UsageError: no such folder, a revision that is no commit, or an option that the pipeline has not.
        OfflineError: the repository cannot be downloaded now.
        CheckpointError: a file is damaged, or could run code.
    """
    folder = check(locate(where))
    pipeline = _load(folder)
    wanted = _DTYPES[options.dtype]
    for part in pipeline.components.values():
        # Not in from_pretrained: its keyword has two names, and transformers keeps the file's own type.
        if isinstance(part, nn.Module) and any(p.dtype != wanted for p in part.parameters()):
            part.to(wanted)
    return PipelineGenerator(pipeline.to(options.device), sha256=folder.sha256, options=options)


def _load(folder: PipelineFolder) -> Any:  # noqa: ANN401 - pipelines share no typed base
    kind: Any = getattr(diffusers, folder.class_name, None)
    is_pipeline = inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)
    if not is_pipeline:
        raise CheckpointError(f"diffusers {diffusers.__version__} has no pipeline {folder.class_name!r}")
    try:
        with no_progress():
            return kind.from_pretrained(
                folder.path,
                use_safetensors=True if folder.safetensors else None,
                local_files_only=True,
                low_cpu_mem_usage=is_accelerate_available(),
            )
    except EvalkitError:
        raise
    except ImportError as error:
        raise CheckpointError(
            f"{folder.class_name} needs a library that is not installed: {error}",
            hint="pip install transformers",
        ) from error
    except Exception as error:  # diffusers and transformers raise anything on damaged files
        raise CheckpointError(f"{folder.path} does not load: {type(error).__name__}: {error}") from error
