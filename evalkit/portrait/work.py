"""The one way in which a report reads images through a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from evalkit.console import Console
from evalkit.core import Extractor, ImageSource
from evalkit.extraction import Extracted, Job, default_batch_size, extract, interruption, state_store
from evalkit.lanes import Lane
from evalkit.portrait.pictures import Album
from evalkit.shards import ShardLayout
from evalkit.sources.fixed_blocks import BLOCK


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What stays the same through a report."""

    device: torch.device
    console: Console
    stop: Callable[[], int]

    def run(self, job: Job, title: str) -> Extracted:
        """Go through a job of one lane under a progress bar; whole shards that are there are read."""
        with self.console.progress(title, job.layout.count) as progress:
            (done,) = extract(job, progress=progress, stop=self.stop)
        for warning in done.warnings:
            self.console.note(warning)
        return done

    def album(self, source: ImageSource) -> Album:
        """Return the pictures of ``source``, read when they are asked for."""
        return Album(source, stop=self.stop, interruption=interruption)

    def extract(
        self,
        source: ImageSource,
        extractor: Extractor,
        head: str,
        *,
        state: Path,
        title: str,
        batch_size: int | None = None,
        strict: bool = False,
    ) -> Extracted:
        """Return the features of all images of ``source``; ``strict`` as in a score of that kind."""
        layout = ShardLayout(len(source))
        job = Job(
            source=source,
            lanes=(Lane.of_extractor(extractor, (head,), state_store(state, source, extractor, layout)),),
            layout=layout,
            batch_size=BLOCK if strict else batch_size or default_batch_size(self.device),
            device=self.device,
            bitwise=strict,
        )
        return self.run(job, title)
