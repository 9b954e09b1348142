"""CLIP networks through open_clip: an image embedding, and the embedding of prompts beside it.

    extractor = build_extractor("clip-vit-l-14-336", preset="cmmd", device="cuda")
    image = extractor(images, ["image"])["image"]        # float32 [n, 768], not normalised
    text = extractor.encode_text(["a photo of a cat"])   # float32 [n, 768], not normalised

Presets reproduce how published tools prepare images: ``openai`` (CLIP's own, which CLIP score, torchmetrics
and clean-fid's CLIP-FID use), ``cmmd`` (the CMMD reference code) and ``torch`` (the same on the device, not
rounded to uint8). Everything runs in float32; OpenAI's weights are stored as float16.

Weights: the published TorchScript archive of OpenAI, whose tensors alone are read and only where the whole
file has the published digest; or a local safetensors file or state dict of open_clip's layout.

Accepted trade-offs: tools that load OpenAI's package on a GPU (clean-fid's CLIP-FID among them) run it in
float16, so that their numbers differ from these in the last digits. Building a network draws random numbers
before the weights overwrite them, in a fork of torch's global generator, so that the caller's stream is not
moved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.asset_catalogue import ASSETS, fetch_any
from evalkit.digests import file_sha256
from evalkit.errors import CheckpointError, OfflineError, UsageError
from evalkit.extractors.clip_text import encode_in_chunks, tokenizer_of, truncated_prompts
from evalkit.extractors.engine import Engine, device_for, precision_params
from evalkit.extractors.facts import Backend, ExtractorFacts
from evalkit.extractors.forward import run_in_chunks
from evalkit.extractors.resizers import prepared
from evalkit.extractors.torchscript import is_torchscript, read_torchscript_tensors
from evalkit.extractors.weights import check_layout, read_tensors
from evalkit.protocol import Precision
from evalkit.spec import Spec

_TEXT_TOWER: Final = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
_OPTIONAL: Final = ("logit_bias",)  # of the training loss; features do not read it


@final
class OpenClip:
    """The extractor; see the module's docstring.

    Args:
        facts: name, heads and presets.
        architecture: open_clip's name of the network.
        quick_gelu: x * sigmoid(1.702 x) instead of GELU, as OpenAI's weights need; None leaves it to the
            architecture.
        weights: a local file; None gets the published one.
        preset: how images are prepared; None is the default of ``facts``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        backend, precision: see :class:`~evalkit.extractors.engine.Engine`; torch is the only backend.

    Raises:
        UsageError: no such architecture, preset or device, or no weights are known.
        UnsafeCheckpointError: the file's pickle asks for anything but tensors and plain containers.
        CheckpointError: the file does not fit the architecture, or holds NaN or infinity.
        OfflineError: the published file must be downloaded and cannot be now.
    """

    def __init__(
        self,
        facts: ExtractorFacts,
        architecture: str,
        *,
        quick_gelu: bool | None,
        weights: Path | None = None,
        preset: str | None = None,
        device: str | torch.device = "cpu",
        backend: Backend = "auto",
        precision: Precision = "exact",
    ) -> None:
        _, self._preset = facts.preset(preset)
        self._facts, self._architecture = facts, architecture
        self.device: Final = device_for(str(device), precision)
        self._precision = precision
        path = weights if weights is not None else _published_weights(facts)
        self.weights_sha256: Final = file_sha256(path) if path.is_file() else ""
        network = random_network(architecture, quick_gelu=quick_gelu)
        state = _read(path, self.weights_sha256, network.state_dict())
        check_layout(state, {k: tuple(t.shape) for k, t in network.state_dict().items()}, label=path.name)
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        self._network = network.to(self.device).eval()
        self._quick_gelu = quick_gelu
        self._size = _image_size(network, architecture)
        self.engine: Final = Engine(
            self._features,
            self._prepared,
            device=self.device,
            backend=backend,
            precision=precision,
            runtimes=(),
        )

    @property
    def published(self) -> bool:
        """Whether the weights are the ones that the name stands for."""
        return any(self.weights_sha256 == ASSETS[name].asset.sha256 for name in self._facts.assets)

    @property
    def spec(self) -> Spec:
        """Name, architecture, resizer, input scaling and the SHA-256 of the weights file."""
        return Spec.of(
            "extractor",
            self._facts.name,
            sha256=self.weights_sha256,
            architecture=self._architecture,
            quick_gelu=self._quick_gelu,
            resizer=self._preset.resizer,
            size=self._size,
            **self._preset.scaling,
            **precision_params(self._precision),
        )

    @property
    def heads(self) -> Mapping[str, int]:
        """Head name -> number of feature dimensions."""
        return dict(self._facts.heads)

    def __call__(self, images: Tensor, heads: Sequence[str]) -> Mapping[str, Tensor]:
        """Map uint8 ``[n, 3, h, w]`` images to float32 ``[n, d]`` features, one entry for each head.

        Raises:
            UsageError: an unknown head, or images that are not uint8.
            InvalidInputError: images of another shape.
        """
        return run_in_chunks(
            images,
            heads,
            facts=self._facts,
            device=self.device,
            chunk=self.engine.chunk,
            forward=self.engine,
        )

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Map prompts to float32 ``[n, d]`` features in the space of the head ``image``, not normalised.

        Equal prompts are encoded once. A prompt longer than the context is cut (see :meth:`truncated`).

        Raises:
            UsageError: the architecture's tokenizer is not shipped with open_clip.
        """
        tokenizer = tokenizer_of(self._architecture)
        return encode_in_chunks(
            prompts,
            tokenizer=tokenizer,
            encode=self._network.encode_text,
            dimensions=self._facts.dimensions("image"),
            device=self.device,
        )

    def truncated(self, prompts: Sequence[str]) -> tuple[int, ...]:
        """Return the positions of the prompts that are too long for the context and are cut.

        Raises:
            UsageError: the architecture's tokenizer is not shipped with open_clip.
        """
        return truncated_prompts(prompts, tokenizer=tokenizer_of(self._architecture))

    def _prepared(self, images: Tensor) -> Tensor:
        return prepared(images, self._size, self._preset)

    def _features(self, pixels: Tensor, wanted: frozenset[str]) -> Mapping[str, Tensor]:
        return dict.fromkeys(wanted, self._network.encode_image(pixels))


def random_network(architecture: str, *, quick_gelu: bool | None) -> Any:  # noqa: ANN401 - open_clip has no types
    """Build a network of open_clip with random weights; nothing is downloaded.

    Raises:
        UsageError: no such architecture, or one that needs files of the hub.
    """
    import open_clip  # noqa: PLC0415 - heavy import

    config = open_clip.get_model_config(architecture)
    if config is None:
        raise UsageError(
            f"open_clip has no architecture {architecture!r}", hint="python -c 'import open_clip; "
            "print(open_clip.list_models())' lists them"
        )  # fmt: skip
    if "hf_model_name" in config["text_cfg"]:
        raise UsageError(
            f"the text tower of {architecture!r} needs configuration files of the hub, which are not pinned",
            hint="choose an architecture whose text tower is open_clip's own",
        )
    with torch.random.fork_rng(devices=[]), _without_note_on_random_weights():
        return open_clip.create_model(
            architecture, pretrained=None, force_quick_gelu=bool(quick_gelu), device="cpu"
        )


@contextmanager
def _without_note_on_random_weights() -> Iterator[None]:
    def wanted(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    logging.getLogger().addFilter(wanted)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(wanted)


def _image_size(network: Any, architecture: str) -> int:  # noqa: ANN401 - open_clip has no types
    size = network.visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    if height != width:
        raise UsageError(f"{architecture!r} wants images of {height}x{width}; only square ones are supported")
    return int(height)


def _published_weights(facts: ExtractorFacts) -> Path:
    if facts.assets:
        return fetch_any(facts.assets)
    raise OfflineError(
        f"no published file with a known digest is registered for {facts.name!r}",
        hint=f"get the weights and give them as --weights {facts.name}=FILE (safetensors or state dict)",
    )


def _read(path: Path, sha256: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a weights file into the layout of the network."""
    if path.is_file() and is_torchscript(path):
        if sha256 not in {ASSETS[name].asset.sha256 for name in ASSETS}:
            raise CheckpointError(
                f"{path.name} is a TorchScript archive, which is code, and not one that OpenAI published",
                hint="save the state dict of the network, plain or as safetensors",
            )
        archive = read_torchscript_tensors(path)
        # The archive also keeps masks and sizes, which the network makes itself.
        return {name: tensor for name, tensor in archive.items() if name in expected}
    state = read_tensors(path)
    if "text_projection" in state and "text.text_projection" in expected:
        state = {f"text.{k}" if k.startswith(_TEXT_TOWER) else k: tensor for k, tensor in state.items()}
    state.pop("text.transformer.embeddings.position_ids", None)  # older releases of transformers kept it
    return {
        name: tensor.reshape(expected[name].shape) if name == "logit_scale" and name in expected else tensor
        for name, tensor in ({name: expected[name] for name in _OPTIONAL if name in expected} | state).items()
    }
