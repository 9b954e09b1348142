"""What a run of ``evalkit pairs`` was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import UsageError
from evalkit.pairs.matching import Match
from evalkit.pairs.measures import check_names
from evalkit.registry import did_you_mean
from evalkit.subjects import ImageOptions

REGIONS = ("whole", "inside", "outside")
"""What a value is about: all pixels, the white part of the mask, the rest."""

PER_PAIR_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Files that show single pairs.

    Attributes:
        per_pair: ``.csv`` or ``.parquet`` with every value of every pair.
        worst: ``.png`` with the ``worst_count`` worst pairs by ``worst_by`` (a measure; None chooses).
    """

    per_pair: Path | None = None
    worst: Path | None = None
    worst_by: str | None = None
    worst_count: int = 16

    def check(self) -> None:
        """Refuse what could not be written, before anything is measured.

        Raises:
            UsageError: an unknown suffix, or an option without its file.
        """
        if self.per_pair is not None and self.per_pair.suffix.lower() not in PER_PAIR_SUFFIXES:
            raise UsageError(
                f"--per-pair {self.per_pair}: unknown kind {self.per_pair.suffix!r}",
                hint=f"FILE{' or FILE'.join(PER_PAIR_SUFFIXES)}",
            )
        if self.worst is not None and self.worst.suffix.lower() != ".png":
            raise UsageError(f"--worst {self.worst}: a contact sheet is a .png file")
        if self.worst is None and self.worst_by is not None:
            raise UsageError("--worst-by belongs to --worst FILE.png")
        if not 1 <= self.worst_count <= 1000:
            raise UsageError(f"-k must lie in 1..1000, not {self.worst_count}")
        if self.per_pair is not None and self.per_pair == self.worst:
            raise UsageError("--per-pair and --worst name one file")
        for path in (self.per_pair, self.worst):
            if path is not None and path.is_dir():
                raise UsageError(f"{path} is a folder, not a file to write")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """What is measured of each pair, and how; the same for all kinds of pairs.

    Attributes:
        measures: names such as ``psnr`` or ``lpips-alex``; empty for all that need no download.
        regions: of :data:`REGIONS`; empty for all that the masks allow.
        weights: weights files by network.
        num_samples: a fixed random subset of so many pairs; None for all.
    """

    measures: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    weights: Mapping[str, Path] = field(default_factory=dict)
    num_samples: int | None = None
    seed: int = 0
    batch_size: int | None = None
    device: str = "auto"
    out: Path = Path("evalkit-runs")
    fresh: bool = False
    outputs: Outputs = field(default_factory=Outputs)
    command: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: an unknown measure or region, or a number out of range.
        """
        check_names(self.measures)
        for region in self.regions:
            if region not in REGIONS:
                raise UsageError(f"unknown region {region!r}", hint=did_you_mean(region, REGIONS))
        for value, flag in ((self.num_samples, "--num-samples"), (self.batch_size, "--batch-size")):
            if value is not None and value < 1:
                raise UsageError(f"{flag} must be at least 1, not {value}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, not {self.seed}")
        self.outputs.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsRequest:
    """Everything that ``evalkit pairs`` accepts: two image sets, or a manifest."""

    generated: Path | None = None
    reference: Path | None = None
    manifest: Path | None = None
    masks: Path | None = None
    match: Match = "auto"
    allow_unmatched: bool = False
    allow_outside: bool = False
    name: str | None = None
    image_options: ImageOptions = field(default_factory=ImageOptions)
    measuring: Measuring = field(default_factory=Measuring)

    def check(self) -> None:
        """Refuse what cannot work before anything is loaded.

        Raises:
            UsageError: neither two image sets nor a manifest, or options that do not go together.
        """
        if self.manifest is None:
            if self.generated is None or self.reference is None:
                raise UsageError(
                    "two image sets are needed", hint="evalkit pairs GENERATED REFERENCE, or --manifest FILE"
                )
            if self.allow_outside:
                raise UsageError("--allow-outside belongs to --manifest")
        elif self.generated is not None or self.reference is not None or self.masks is not None:
            raise UsageError("--manifest lists the images and masks: give no other paths")
        elif self.match != "auto" or self.allow_unmatched:
            raise UsageError(
                "--match and --allow-unmatched do not apply: the rows of --manifest are the pairs"
            )
        self.measuring.check()
