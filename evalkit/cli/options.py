"""Flags that several commands share, and how their values are read. No torch.

Each group of flags comes with the function that takes its values out of a command's flags again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evalkit.cli.executor import FolderOrUrl

if TYPE_CHECKING:
    from evalkit.generators import SamplingOptions
    from evalkit.pairs.request import Outputs
    from evalkit.subjects import ImageOptions

F = TypeVar("F", bound=Callable[..., Any])

_POLICY = ("alpha", "cmyk", "animated", "orientation", "max_pixels")
_READING = ("workers", "on_bad", "max_bad")
_OUTPUTS = ("per_pair", "worst", "worst_by", "worst_count")
_CHOICES = ("ema", "raw")
_SAMPLING = ("sampler", "steps", "guidance", "eta", "truncation", "reference_factor")


def named_files(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Path]:
    """Read ``NAME=FILE`` values.

    Raises:
        click.BadParameter: a value is not of that form, or a name occurs twice.
    """
    pairs: dict[str, Path] = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not equals or not name or not file:
            raise click.BadParameter(f"{value!r} is not of the form NAME=FILE")
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice")
        pairs[name] = Path(file)
    return pairs


def named_files_or_choice(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[dict[str, Path], str]:
    """Read ``NETWORK=FILE`` values among which a bare ``ema`` or ``raw`` may stand.

    Raises:
        click.BadParameter: another value without ``=``, or both choices.
    """
    chosen = {value for value in values if value in _CHOICES}
    if len(chosen) > 1:
        raise click.BadParameter("give ema or raw, not both")
    files = tuple(value for value in values if value not in _CHOICES)
    if any("=" not in value for value in files):
        wrong = next(value for value in files if "=" not in value)
        raise click.BadParameter(f"{wrong!r} is neither of the form NAME=FILE nor ema nor raw")
    return named_files(context, parameter, files), chosen.pop() if chosen else _CHOICES[0]


def names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Read ``A,B,…``; blanks around the names do not matter."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _batch_size(_context: click.Context, _parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter("give 'auto' or a number of at least 1")
    return int(value)


weights_option = click.option(
    "--weights",
    multiple=True,
    callback=named_files,
    metavar="NETWORK=FILE",
    help="Weights of a network from a file; other than published ones are named in the label.",
)
score_weights_option = click.option(
    "--weights",
    multiple=True,
    callback=named_files_or_choice,
    metavar="NETWORK=FILE|ema|raw",
    help="Weights of a network from a file; or which of the checkpoint's weights to sample: averaged (ema, "
    "where there are any) or as trained (raw).",
)
checkpoint_weights_option = click.option(
    "--weights",
    type=click.Choice(_CHOICES),
    default=_CHOICES[0],
    help="Averaged weights of the checkpoint where there are any, or those as trained.",
)
preset_option = click.option(
    "--preset",
    metavar="NAME",
    help="What the checkpoint's tensors do not reveal, by name; `evalkit inspect FILE` lists those that fit.",
)
batch_size_option = click.option(
    "--batch-size", default="auto", callback=_batch_size, metavar="N|auto", help="Never moves a score."
)
determinism_option = click.option(
    "--determinism",
    type=click.Choice(["standard", "strict"]),
    default="standard",
    help="strict: equal to the last bit for any number of workers, at about half the speed on two cores.",
)
device_option = click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
precision_option = click.option(
    "--precision",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    help="fast: on CUDA, the networks that measure run in bfloat16 and TF32. A protocol of its own, whose "
    "numbers do not compare with exact ones; docs/precision.md tells how far they move.",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnxruntime", "compiled"]),
    default="auto",
    help="What runs the networks that measure; auto takes onnxruntime on a CPU, checked against torch at the "
    "start. compiled is torch.compile. It never moves a score beyond float32 rounding.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    help="Type the model samples in; features are float32 unless --precision says otherwise.",
)
format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "csv", "md"]),
    default="table",
    help="What is printed on stdout.",
)

trackers_option = click.option(
    "--log",
    "trackers",
    multiple=True,
    metavar="json|TRACKER",
    help="json[:FILE]: the events of the run as JSON lines on stderr (or at the end of FILE); see "
    "docs/observability.md. Also send each record to a tracker: jsonl:PATH, mlflow[:URI], wandb[:PROJECT], "
    "tensorboard:DIR or dvc:DIR; repeatable. One that fails warns and changes nothing; see `evalkit log`.",
)


def out_option(purpose: str) -> Callable[[F], F]:
    """Return ``--out`` of a command that writes and resumes below a folder."""
    return click.option("--out", type=click.Path(path_type=Path), default=Path("evalkit-runs"), help=purpose)


def out_or_url_option(purpose: str) -> Callable[[F], F]:
    """Return an ``--out`` that may be a URL of an object store; see :mod:`evalkit.cli.executor`."""
    return click.option(
        "--out", type=FolderOrUrl(), default=Path("evalkit-runs"), metavar="DIR|URL", help=purpose
    )


def image_options(*, bad: str = "Images that cannot be read.") -> Callable[[F], F]:
    """Return the decorator that adds how images are decoded; ``bad`` explains ``--on-bad``."""
    return _all(
        click.option("--workers", type=int, metavar="N", help="Image decoding threads."),
        click.option(
            "--alpha",
            type=click.Choice(["refuse", "white", "black", "drop"]),
            default="refuse",
            help="What to do with transparent pixels.",
        ),
        click.option(
            "--cmyk", type=click.Choice(["refuse", "convert"]), default="refuse", help="CMYK images."
        ),
        click.option(
            "--animated", type=click.Choice(["refuse", "first"]), default="refuse", help="Several frames."
        ),
        click.option(
            "--orientation",
            type=click.Choice(["refuse", "apply", "ignore"]),
            default="refuse",
            help="EXIF orientation other than upright.",
        ),
        click.option("--max-pixels", type=click.IntRange(min=1), default=64_000_000, help="Largest image."),
        click.option("--on-bad", type=click.Choice(["fail", "skip"]), default="fail", help=bad),
        click.option(
            "--max-bad", type=click.IntRange(min=0), default=0, help="Most that --on-bad skip may leave out."
        ),
    )


def take_image_options(flags: dict[str, Any]) -> ImageOptions:
    """Take the flags of :func:`image_options` out of ``flags``."""
    from evalkit.sources import DecodePolicy  # noqa: PLC0415 - loads torch
    from evalkit.subjects import ImageOptions  # noqa: PLC0415

    policy = DecodePolicy(**{name: flags.pop(name) for name in _POLICY})
    return ImageOptions(policy=policy, **{name: flags.pop(name) for name in _READING})


def sampling_options(command: F) -> F:
    """Add how a model is sampled."""
    return _all(
        click.option("--sampler", metavar="NAME", help="See `evalkit list samplers`."),
        click.option("--steps", type=int, metavar="N", help="Sampler steps."),
        click.option(
            "--guidance", type=float, metavar="W", help="Classifier-free guidance scale; 1 is none."
        ),
        click.option("--eta", type=float, metavar="ETA", help="Stochasticity of DDIM, 0 to 1."),
        click.option(
            "--truncation",
            type=float,
            metavar="PSI",
            help="Draws the latents of a style-based GAN to their centre: 1 is none, 0 the centre.",
        ),
        click.option(
            "--reference-factor",
            type=int,
            metavar="N",
            help="Where a diffusion model translates --images: it keeps what is left of them at 1/N of the "
            "size, and draws the rest; 4 by default.",
        ),
    )(command)


def take_sampling_options(flags: dict[str, Any], *, dtype: str = "float32") -> SamplingOptions:
    """Take the flags of :func:`sampling_options` out of ``flags``."""
    from evalkit.generators import SamplingOptions  # noqa: PLC0415 - loads torch

    return SamplingOptions(**{name: flags.pop(name) for name in _SAMPLING}, dtype=dtype)


def pair_output_options(note: str = "") -> Callable[[F], F]:
    """Return the decorator that adds files which show single pairs; ``note`` begins their explanations."""
    return _all(
        click.option(
            "--per-pair",
            type=click.Path(path_type=Path),
            metavar="FILE.csv|.parquet",
            help=f"{note}Write every value of every pair.",
        ),
        click.option(
            "--worst",
            type=click.Path(path_type=Path),
            metavar="FILE.png",
            help=f"{note}Draw the worst pairs side by side.",
        ),
        click.option(
            "--worst-by",
            metavar="NAME",
            help="What ranks them: ssim, lpips:vgg, ssim/inside, …; by default lpips, else pd, ssim or psnr.",
        ),
        click.option("-k", "worst_count", type=int, default=16, metavar="K", help="How many of them."),
    )


def take_pair_outputs(flags: dict[str, Any]) -> Outputs:
    """Take the flags of :func:`pair_output_options` out of ``flags``."""
    from evalkit.pairs.request import Outputs  # noqa: PLC0415 - loads torch

    return Outputs(**{name: flags.pop(name) for name in _OUTPUTS})


def _all(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add
