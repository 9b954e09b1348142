"""From a file to a generator: layout, part, preset and sidecar, and what is told where it does not fit."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import nn

from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.generators import GENERATOR_FACTS, SamplingOptions, load_generator
from evalkit.generators.checkpoint import Checkpoint, load_weights, read_checkpoint, save_checkpoint
from evalkit.generators.configuration import UnrevealedError, configure
from evalkit.generators.description import FORWARD, GeneratorFacts, LayoutFacts
from evalkit.generators.facts import LAYOUTS
from evalkit.generators.loading import build_generator
from evalkit.generators.sampling import NativeGenerator
from evalkit.seeding import image_seeds
from evalkit.subjects import open_generator

LAYOUT = LayoutFacts(
    "spots-1", "a test", fingerprint=("spots.weight",), averaged=("average",), raw=("plain",)
)
OTHER = LayoutFacts("lines-1", "a test", fingerprint=("lines.weight", "lines.bias"))
PRESETS = {"small": {"shift": 0.25}, "dark": {"shift": -0.5, "scale": 0.1}, "wrong": {"hue": 1}}


@dataclass(frozen=True, slots=True)
class SpotsConfig:
    """``size`` is shown by the tensors, ``shift`` by nothing."""

    size: int
    shift: float
    scale: float = 1.0


class Spots(nn.Module):
    """One image from a matrix."""

    def __init__(self, config: SpotsConfig) -> None:
        super().__init__()
        self.config = config
        self.spots = nn.Linear(3, config.size, bias=False)


class SpotsGenerator(NativeGenerator):
    """The same image for every seed."""

    family = "gan"
    num_classes = 0
    resolution = 4

    def _sample(self, seeds, labels):
        self.evaluations_per_image = 1
        value = self.network.spots.weight.mean() * self.network.config.scale + self.network.config.shift
        return value.expand(len(seeds), 3, 4, 4)


def build(checkpoint, options):
    """The builder of the models that these tests register."""
    size = checkpoint.tensors["spots.weight"].shape[0]
    config = configure(SpotsConfig, checkpoint, inferred={"size": size})
    network = Spots(config)
    load_weights(network, checkpoint, name="spots")
    return SpotsGenerator(name="spots", network=network, checkpoint=checkpoint, options=options)


def take_place(where, options):
    """Take the place itself, as pipelines of diffusers do."""
    raise CheckpointError(f"opened {where}")


def build_badly(checkpoint, options):
    """Raise what the sidecar asks for."""
    raise {"runtime": RuntimeError, "index": IndexError, "memory": MemoryError}[checkpoint.given["error"]](
        "x"
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    def facts(name, *, factory="build", **more):
        path = f"{__name__}:{factory}"
        return GeneratorFacts(name=name, family="gan", title="", factory=path, samplers=(FORWARD,), **more)

    for layout in (LAYOUT, OTHER):
        monkeypatch.setitem(LAYOUTS, layout.name, layout)
    models = (
        facts("spots", layouts=(LAYOUT.name,), presets=PRESETS),
        facts("spots-too", layouts=(LAYOUT.name,)),
        facts("lines", layouts=(OTHER.name,)),
        facts("faulty", factory="build_badly"),
        facts("opener", factory="take_place", opens_folders=True),
    )
    for model in models:
        monkeypatch.setitem(GENERATOR_FACTS, model.name, model)


@pytest.fixture
def file(tmp_path):
    state = {"spots.weight": torch.full((2, 3), 0.5)}
    average = {"module.spots.weight": torch.full((2, 3), 0.125)}
    torch.save({"plain": state, "average": average, "step": 4}, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def _sidecar(file, **fields):
    file.with_name(file.name + ".json").write_text(json.dumps(fields))


def _pixel(generator) -> int:
    import numpy as np

    return int(generator.generate(image_seeds(0, np.arange(1)))[0, 0, 0, 0])


def test_preset_and_sidecar_say_what_the_tensors_do_not(file):
    with pytest.raises(UnrevealedError, match="shift") as caught:
        load_generator("spots", file)
    assert caught.value.fields == ("shift",)
    assert load_generator("spots", file, preset="small").network.config == SpotsConfig(2, 0.25)
    _sidecar(file, shift=0.75)
    assert load_generator("spots", file).network.config == SpotsConfig(2, 0.75)
    both = load_generator("spots", file, preset="dark").network.config
    assert both == SpotsConfig(2, 0.75, 0.1)  # the sidecar wins
    assert read_checkpoint(file, model="spots", preset="dark").preset == "dark"
    assert read_checkpoint(file, preset="dark").given == {"shift": 0.75, "scale": 0.1}


def test_part_and_prefix(file):
    averaged = load_generator("spots", file, preset="small")
    raw = load_generator("spots", file, preset="small", weights="raw")
    assert (averaged.checkpoint_part, raw.checkpoint_part) == ("average", "plain")
    assert (_pixel(averaged), _pixel(raw)) == (int(127.5 * 0.375 + 128), int(127.5 * 0.75 + 128))
    assert averaged.checkpoint_format == "spots-1"


def test_everything_that_decides_the_image_is_in_the_identity(file):
    def identity(**choice):
        options = SamplingOptions()
        subject = open_generator("auto", ckpt=file, options=options, name=None, count=4, seed=0, **choice)
        assert (subject.info.id, subject.info.format) == ("spots@x", "spots-1")
        return subject.source.spec.digest()

    seen = {identity(preset="small"), identity(preset="dark"), identity(preset="small", weights="raw")}
    _sidecar(file, shift=0.5)
    seen |= {identity(), identity(preset="dark")}
    _sidecar(file, shift=0.0)
    seen |= {identity()}
    assert len(seen) == 6
    _sidecar(file, shift=0.25)
    assert identity() in seen  # the same as what `small` says


def test_auto_takes_the_first_model_that_reads_the_layout(file, tmp_path):
    assert load_generator("auto", file, preset="small").name == "spots"
    with pytest.raises(UsageError, match="needs a --ckpt"):
        load_generator("auto")
    own = tmp_path / "own.safetensors"
    bundled = load_generator("vae")
    config = dataclasses.asdict(bundled.network.config)
    save_checkpoint(own, bundled.network.state_dict(), architecture="vae", config=config, training={})
    assert load_generator("auto", own).name == "vae"
    torch.save({"anything": torch.zeros(1)}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match="none of the known layouts"):
        load_generator("auto", tmp_path / "y.pt")


def test_model_that_does_not_read_the_layout(file):
    with pytest.raises(CheckpointError, match="spots-1, which model 'lines' does not read") as caught:
        load_generator("lines", file)
    assert caught.value.hint == "use --model spots"


def test_layout_that_no_model_reads(file, monkeypatch):
    for name in ("spots", "spots-too"):
        monkeypatch.delitem(GENERATOR_FACTS, name)
    with pytest.raises(CheckpointError, match="no model reads"):
        load_generator("auto", file)


def test_factories_that_open_get_the_place(file):
    with pytest.raises(CheckpointError, match=r"opened hub:owner/name@0123$"):
        load_generator("opener", "hub:owner/name@0123")
    with pytest.raises(UsageError, match="neither --preset"):
        load_generator("opener", file, preset="small")


def test_unknown_names(file):
    with pytest.raises(UsageError, match="no preset 'smal'") as caught:
        load_generator("spots", file, preset="smal")
    assert "small" in caught.value.hint
    with pytest.raises(UsageError, match="no preset"):
        load_generator("spots-too", file, preset="small")
    with pytest.raises(UsageError, match="unknown model 'spot'"):
        load_generator("spot", file)
    with pytest.raises(UsageError, match="'ema' or 'raw'"):
        load_generator("spots", file, weights="best")
    with pytest.raises(UsageError, match="do not reach a callable"):
        load_generator("evalkit.generators.toy:make", preset="small")
    with pytest.raises(UsageError, match="ships with"):
        load_generator("spots")


def test_preset_with_unknown_fields_is_told(file):
    with pytest.raises(CheckpointError, match="unknown fields: hue"):
        load_generator("spots", file, preset="wrong")


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"a": 1, "a": 2}', '{"a": Infinity}', "\udcff", '"x"', " " * 2**21]
)
def test_sidecars_that_are_no_object(file, text):
    file.with_name("x.pt.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"x\.pt\.json") as caught:
        load_generator("spots", file)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    "fields", [{"shift": "much"}, {"shift": [1]}, {"shift": True}, {"shift": None}, {"shift": 0, "scale": {}}]
)
def test_sidecar_with_values_of_the_wrong_type(file, fields):
    _sidecar(file, **fields)
    with pytest.raises(CheckpointError, match="which is no float") as caught:
        load_generator("spots", file)
    assert "sidecar" in caught.value.hint


@dataclass(frozen=True)
class ManyTypes:
    """What configurations of the zoo hold."""

    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 1.0)
    kind: Literal["a", "b"] = "a"
    most: int | None = None
    named: str = ""
    on: bool = True
    anything: object = None


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"sizes": [1, 2], "pair": [1, 2], "kind": "b", "most": None, "named": "x", "on": False}, True),
        ({"most": 3, "anything": {"a": 1}, "sizes": []}, True),
        ({"sizes": [1.5]}, False),
        ({"sizes": 3}, False),
        ({"pair": [1]}, False),
        ({"kind": "c"}, False),
        ({"most": "3"}, False),
        ({"named": 3}, False),
        ({"on": 1}, False),
    ],
)
def test_types_of_what_is_given(fields, fits):
    checkpoint = Checkpoint(tensors={}, sha256="0" * 64, format="torch", given=fields)
    if fits:
        configure(ManyTypes, checkpoint)
        return
    with pytest.raises(CheckpointError, match=next(iter(fields))):
        configure(ManyTypes, checkpoint)


def test_sidecar_against_the_tensors(file):
    _sidecar(file, shift=0.0, size=3)
    with pytest.raises(CheckpointError, match="the tensors show 2"):
        load_generator("spots", file)


def test_own_files_describe_themselves(tmp_path):
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, {"a": torch.zeros(1)}, architecture="vae", config={}, training={})
    with pytest.raises(UsageError, match="takes no preset"):
        read_checkpoint(path, preset="small")
    _sidecar(path, width=3)
    with pytest.raises(CheckpointError, match="describes itself"):
        read_checkpoint(path)


def test_builders_that_fail_on_crafted_files(file, tmp_path):
    torch.save({"unlike.weight": torch.zeros(1)}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match=r"there is no spots\.weight"):
        load_generator("spots", tmp_path / "y.pt")
    for error in ("runtime", "index", "memory"):
        _sidecar(tmp_path / "y.pt", error=error)
        with pytest.raises(CheckpointError, match="does not build"):
            load_generator("faulty", tmp_path / "y.pt")


def test_the_devices_memory_is_not_the_files_fault(monkeypatch, tmp_path):
    def build_too_large(checkpoint, options):
        raise torch.OutOfMemoryError("x")

    monkeypatch.setattr("evalkit.generators.loading.import_object", lambda path: build_too_large)
    torch.save({"unlike.weight": torch.zeros(1)}, tmp_path / "y.pt")
    with pytest.raises(torch.OutOfMemoryError):
        build_generator("spots", read_checkpoint(tmp_path / "y.pt"), SamplingOptions())


@pytest.mark.fault("checkpoint-keys")
@pytest.mark.parametrize("named", ["cgan", "stylegan", "vae", "ddpm"])
def test_state_dict_of_another_bundled_model_names_it(tmp_path, named):
    state = read_checkpoint(GENERATOR_FACTS["vae"].checkpoint).tensors
    torch.save(dict(state), tmp_path / "x.pt")
    if named == "vae":
        assert load_generator("vae", tmp_path / "x.pt").name == "vae"
        return
    with pytest.raises(EvalkitError) as caught:
        load_generator(named, tmp_path / "x.pt")
    assert caught.value.exit_code == 6
    assert "use --model vae" in caught.value.hint


def test_tensor_that_only_float64_can_hold(tmp_path):
    torch.save({"spots.weight": torch.full((2, 3), 1e300, dtype=torch.float64)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"not finite: tensor spots\.weight"):
        load_generator("spots", tmp_path / "x.pt", preset="small")
