"""What is fuzzed: every reader of files that may come from strangers, and the valid files to start from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from evalkit.cli.suite import score_flags
from evalkit.distribution.manifest import PartManifest
from evalkit.extractors.torchscript import is_torchscript, read_torchscript_tensors
from evalkit.extractors.weights import read_tensors
from evalkit.gate.board_rows import read_board_row
from evalkit.gate.rules import read_spec
from evalkit.generators.checkpoint import read_checkpoint, save_checkpoint
from evalkit.generators.diffusion.hub.unet import DiffusersUNet, DiffusersUNetConfig
from evalkit.generators.gan.cgan import CGANConfig, CGANGenerator
from evalkit.generators.inspection import inspect_checkpoint
from evalkit.generators.loading import load_model
from evalkit.leaderboard.board import read_info
from evalkit.leaderboard.entries import EntryFile
from evalkit.leaderboard.figures import read_digests
from evalkit.leaderboard.manifest import read_manifest as read_published
from evalkit.pairs.manifest import parse_manifest
from evalkit.probes.attributes import load_attributes
from evalkit.progress import read_snapshot
from evalkit.prompts import read_prompts
from evalkit.record import RunRecord
from evalkit.references import (
    ReferenceBuilder,
    load_reference,
    looks_like_statistics,
    read_facts,
    read_reference,
    write_reference,
)
from evalkit.shards import ShardResult, ShardStore
from evalkit.sources import decode_image, open_source
from evalkit.spec import Spec
from evalkit.suites.document import read_suite
from evalkit.suites.manifest import read_manifest as read_states
from tests.fuzz import containers, documents
from tests.fuzz.mutations import Seed

BOARD = Path(__file__).parents[2] / "leaderboards" / "cifar10-jpeg"
_MOST_IMAGES = 16


@dataclass(frozen=True)
class Reader:
    """``read`` opens a file and everything in it; ``seeds`` are valid files."""

    seeds: Callable[[], Sequence[Seed]]
    read: Callable[[Path], object]


def _checkpoint(path: Path) -> None:
    read_checkpoint(path)
    inspect_checkpoint(path, weights="raw")


def _script(path: Path) -> None:
    if is_torchscript(path):
        read_torchscript_tensors(path)


def _model_seeds() -> list[Seed]:
    config = CGANConfig(latent_dim=4, num_classes=3, channels=(4, 2))
    with TemporaryDirectory() as folder, torch.random.fork_rng():
        path = Path(folder) / "m.safetensors"
        weights = CGANGenerator(config).state_dict()
        save_checkpoint(path, weights, architecture="cgan", config=asdict(config), training={"steps": 1})
        content = path.read_bytes()
    return [containers.headed("m.safetensors", content), Seed("m.safetensors", content)]


_UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "variance_type": "fixed_large",
    "clip_sample": True,
}


def _folder_seeds() -> list[Seed]:
    return [
        Seed("config.json", json.dumps(_UNET).encode()),
        Seed("scheduler/scheduler_config.json", json.dumps(_SCHEDULER).encode()),
    ]


def _folder(path: Path) -> None:
    """A folder of diffusers, of which one of the two descriptions was changed."""
    changed, folder = path.read_bytes(), path.parent if path.name == "config.json" else path.parents[1]
    weights = folder / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        with torch.random.fork_rng():
            network = DiffusersUNet(
                DiffusersUNetConfig(json.dumps(_UNET), 20, "linear", 0.0001, 0.02, "epsilon")
            )
        weights.write_bytes(save_tensors(network.unet.state_dict()))
    for name, content in (("config.json", _UNET), ("scheduler/scheduler_config.json", _SCHEDULER)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    path.write_bytes(changed)
    load_model("auto", folder)


def _sidecar_seeds() -> list[Seed]:
    return [
        Seed(
            "c.pt.json",
            json.dumps({"image_size": 32, "steps": 1000, "classes": None, "schedule": "linear"}).encode(),
        )
    ]


def _sidecar(path: Path) -> None:
    beside = path.with_suffix("")
    if not beside.is_file():
        beside.write_bytes(containers.saved({"input_blocks.0.0.weight": torch.zeros(4, 3, 3, 3)}))
    read_checkpoint(beside)


def _reference_seeds() -> list[Seed]:
    rng = np.random.default_rng(5)
    builder = ReferenceBuilder({"block": 4, "logits": 3}, bank_size=6, bank_heads=("block",))
    rows = {
        "block": rng.normal(size=(9, 4)).astype(np.float32),
        "logits": rng.normal(size=(9, 3)).astype(np.float32),
    }
    builder.update(rows, np.arange(9))
    reference = builder.build(
        name="toy",
        title="Toy",
        dataset="toys",
        split="train",
        resolution=8,
        images_sha256="b" * 64,
        extractor=Spec.of("extractor", "pixels", sha256="a" * 64, resizer="area"),
        class_names=("a", "b"),
        command="x",
    )
    with TemporaryDirectory() as folder:
        write_reference(reference, Path(folder) / "r.safetensors")
        content = (Path(folder) / "r.safetensors").read_bytes()
    return [containers.headed("r.safetensors", content), Seed("r.safetensors", content)]


def _reference(path: Path) -> None:
    read_facts(path)
    read_reference(path)


def _statistics(path: Path) -> None:
    looks_like_statistics(path)
    load_reference(path)


def _images(path: Path) -> None:
    source = open_source(path, workers=1)
    source.spec.digest()
    source.read(np.arange(min(len(source), _MOST_IMAGES)))


def _picture(path: Path) -> None:
    decode_image(path.read_bytes(), name=path.name)


def _prompts(path: Path) -> None:
    read_prompts(path, _PICTURES, found=4)


class _Four:
    """As much of an image source as prompts look at."""

    def __len__(self) -> int:
        return 4


_PICTURES = _Four()


def _shard_seeds() -> list[Seed]:
    with TemporaryDirectory() as folder:
        store = ShardStore(Path(folder))
        store.write(
            0,
            ShardResult({"thumbnail": np.ones((4, 3), np.float32)}, {"labels": [0, 1, 2, 3], "seconds": 0.5}),
        )
        (path,) = Path(folder).glob("*.safetensors")
        content = path.read_bytes()
    return [containers.headed("shard", content), Seed("shard", content)]


def _shard(path: Path) -> None:
    """Under the name that its digest asks for: only the content is wrong."""
    content = path.read_bytes()
    named = path.with_name(f"000000-{hashlib.sha256(content).hexdigest()[:32]}.safetensors")
    path.rename(named)
    try:
        ShardStore(path.parent).read(0, 4)
    finally:
        named.unlink(missing_ok=True)


def _attribute_seeds() -> list[Seed]:
    weights = {
        "0.conv2.weight": torch.zeros(2, 3, 3, 3),
        "0.conv2.bias": torch.zeros(2),
        "1.linear.weight": torch.zeros(2, 2),
        "1.linear.bias": torch.zeros(2),
    }
    content = save_tensors(weights)
    return [Seed("a.safetensors", content), containers.headed("a.safetensors", content)]


READERS = {
    "checkpoint: safetensors": Reader(containers.tensor_seeds, _checkpoint),
    "checkpoint: torch": Reader(containers.torch_seeds, _checkpoint),
    "checkpoint: old torch": Reader(containers.legacy_seeds, _checkpoint),
    "checkpoint: pickle": Reader(containers.pickle_seeds, _checkpoint),
    "checkpoint: npz": Reader(lambda: containers.array_seeds()[:4], _checkpoint),
    "checkpoint: folder": Reader(_folder_seeds, _folder),
    "checkpoint: sidecar": Reader(_sidecar_seeds, _sidecar),
    "model": Reader(_model_seeds, lambda path: load_model("auto", path)),
    "attributes": Reader(_attribute_seeds, lambda path: load_attributes(str(path))),
    "weights": Reader(containers.weight_seeds, read_tensors),
    "weights: TorchScript": Reader(containers.script_seeds, _script),
    "reference": Reader(_reference_seeds, _reference),
    "statistics: npz": Reader(containers.statistics_seeds, _statistics),
    "statistics: torch": Reader(containers.torch_statistics_seeds, _statistics),
    "images: npz and npy": Reader(containers.array_seeds, _images),
    "images: zip": Reader(containers.zip_seeds, _images),
    "images: tar": Reader(containers.tar_seeds, _images),
    "images: parquet": Reader(containers.parquet_seeds, _images),
    "image": Reader(containers.picture_seeds, _picture),
    "record": Reader(documents.record_seeds, RunRecord.read),
    "board: settings": Reader(documents.board_seeds, lambda path: read_info(path.parent)),
    "board: list of files": Reader(documents.listed_seeds, lambda path: read_published(path.parent)),
    "board: entry": Reader(documents.entry_seeds, EntryFile.read),
    "board: figures": Reader(documents.digest_seeds, lambda path: read_digests(path.parents[1])),
    "board: scores": Reader(documents.table_seeds, lambda path: read_board_row(path, "cgan", "p")),
    "suite": Reader(documents.suite_seeds, lambda path: read_suite(path, score_flags())),
    "suite: state": Reader(documents.states_seeds, lambda path: read_states(path.parent, suite="s")),
    "part of a run": Reader(documents.part_seeds, PartManifest.read),
    "progress": Reader(documents.progress_seeds, read_snapshot),
    "gate: rules": Reader(documents.rules_seeds, read_spec),
    "pairs": Reader(documents.pairs_seeds, lambda path: parse_manifest(path.read_bytes())),
    "prompts": Reader(documents.prompts_seeds, _prompts),
    "shard": Reader(_shard_seeds, _shard),
}
