"""Bring your own attribute classifiers: a callable, or a file of plain tensors.

    attributes = load_attributes("my_package.faces:make")           # runs the user's own code
    attributes = load_attributes("heads.pt@efficientnet-lite0/pooled", names=("smiling", "young"))
    attributes = load_attributes("small_network.safetensors")

A classifier maps float images in [-1, 1], averaged down to 256 pixels where larger, to one logit for each
binary attribute; at least 0 means that the image has it.

A file of tensors (torch state dict or safetensors, read without running code) has one of two layouts:

* a linear head on features of an evalkit extractor, named after ``@`` as ``extractor/head``: ``weight``
  ``[k, d]`` and ``bias`` ``[k]``. The extractor sees the image in 8 bits, as it sees every image.
* a small network that its keys describe, layer after layer: ``0.conv1``, ``1.conv2``, ``2.linear`` ...
  with ``.weight`` and ``.bias``. ``convS`` is a convolution with stride S and padding ``kernel // 2``; ReLU
  follows every layer but the last; the spatial mean is taken before the first ``linear``; the last layer
  gives the k logits.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol, cast, final, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.core import Extractor
from evalkit.errors import CheckpointError, EvalkitError, UsageError
from evalkit.extractors import FACTS, build_extractor
from evalkit.generators.checkpoint import read_checkpoint
from evalkit.generators.sampling import quantise
from evalkit.registry import import_object
from evalkit.runtime import resolve_device
from evalkit.spec import Spec, sha256_of

_LAYER = re.compile(r"(\d+)\.(conv[1-9]|linear)\.(weight|bias)")
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@runtime_checkable
class AttributeClassifier(Protocol):
    """k binary classifiers of one image."""

    @property
    def spec(self) -> Spec:
        """What they are, with the digest of weights or code."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each attribute."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Map float32 ``[n, 3, h, w]`` images in [-1, 1] to logits ``[n, k]``."""
        ...


def load_attributes(
    source: str, *, names: Sequence[str] = (), device: str = "cpu", weights: Path | None = None
) -> AttributeClassifier:
    """Return the classifiers of ``FILE``, ``pkg.mod:factory`` or ``FILE@extractor/head``, in this order.

    ``pkg.mod:factory`` **runs code of the user's choice**: the object itself if it is a classifier, else what
    it returns when called without arguments (an :class:`AttributeClassifier`, or a function from images to
    logits, which then needs ``names``). Nothing is imported unless the user names it. Files never run code.

    Args:
        source: one of the three.
        names: of the attributes, in order of the logits; numbers where a file has none.
        device: where a file's network runs.
        weights: weights of the extractor behind a linear head; None for the published ones.

    Raises:
        UsageError: a malformed name, no such object, file, extractor or head, or not as many names as logits.
        CheckpointError: the file holds no such layout, or tensors that are not finite.
    """
    path = Path(source)
    if not path.is_file() and _OBJECT.fullmatch(source):
        return _from_object(source, tuple(names))
    file, at, place = source.rpartition("@")
    if not at or path.is_file() or ("@" in str(path.parent) and path.parent.is_dir()):  # a folder's own "@"
        return KeyedNetwork.read(path, names=tuple(names), device=device)
    extractor, _, head = place.partition("/")
    FACTS[extractor].dimensions(head)
    built = build_extractor(extractor, weights=weights, device=device)
    return LinearHead.read(Path(file), extractor=built, head=head, names=tuple(names))


@final
@dataclass(frozen=True, slots=True, eq=False)
class CallableAttributes:
    """A user's function from images to logits; its digest is that of its source, where there is one."""

    function: Callable[[Tensor], Tensor]
    path: str
    names: tuple[str, ...]

    @property
    def spec(self) -> Spec:
        """Import path, names and the digest of the source text."""
        return Spec.of(
            "attributes", self.path, sha256=_source_digest(self.function), names=",".join(self.names)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the function does."""
        return self.function(images)


@final
@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Linear classifiers on one head of an extractor."""

    extractor: Extractor
    head: str
    weight: Tensor
    bias: Tensor
    sha256: str
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, *, extractor: Extractor, head: str, names: tuple[str, ...]) -> LinearHead:
        """Read ``weight`` ``[k, d]`` and ``bias`` ``[k]``.

        Raises:
            CheckpointError: other tensors, other shapes, or values that are not finite.
            UsageError: not as many names as rows.
        """
        tensors, digest = _tensors(path)
        width = extractor.heads[head]
        if set(tensors) != {"weight", "bias"}:
            raise CheckpointError(
                f"{path} is no linear head: it holds {', '.join(sorted(tensors)[:10])}",
                hint="save {'weight': [k, d], 'bias': [k]}",
            )
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise CheckpointError(
                f"{path}: weight {list(weight.shape)} and bias {list(bias.shape)} do not fit the {width} "
                f"dimensions of head {head!r}"
            )
        return cls(extractor, head, weight, bias, digest, _named(names, len(weight)))

    @property
    def spec(self) -> Spec:
        """Digest of the file and of the extractor."""
        digest = sha256_of([self.sha256, self.extractor.spec.to_json()])
        return Spec.of("attributes", "linear-head", sha256=digest, head=self.head, names=",".join(self.names))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits; the extractor sees 8-bit images."""
        features = self.extractor(quantise(images.float()), [self.head])[self.head]
        return F.linear(features, self.weight.to(features.device), self.bias.to(features.device))


@final
@dataclass(frozen=True, slots=True, eq=False)
class KeyedNetwork:
    """A small network that the keys of a state dict describe; see the module's docstring."""

    layers: tuple[tuple[str, Tensor, Tensor], ...]
    sha256: str
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, *, names: tuple[str, ...], device: str) -> KeyedNetwork:
        """Read the layers in the order of their numbers.

        Raises:
            CheckpointError: a key, a number or a shape does not fit the layout.
            UsageError: not as many names as logits.
        """
        tensors, digest = _tensors(path)
        parts: dict[int, dict[str, Tensor]] = {}
        kinds: dict[int, str] = {}
        for key, tensor in tensors.items():
            match = _LAYER.fullmatch(key)
            if match is None or kinds.setdefault(int(match[1]), match[2]) != match[2]:
                raise CheckpointError(
                    f"{path}: key {key!r} describes no layer",
                    hint="keys are 0.conv1.weight, 0.conv1.bias, 1.conv2.weight, ..., 3.linear.bias",
                )
            parts.setdefault(int(match[1]), {})[match[3]] = tensor
        if sorted(parts) != list(range(len(parts))):
            raise CheckpointError(f"{path}: layers are numbered {sorted(parts)}, not from 0 without a gap")
        target = resolve_device(device)
        layers = []
        for number in range(len(parts)):
            if set(parts[number]) != {"weight", "bias"}:
                raise CheckpointError(f"{path}: layer {number} lacks its weight or its bias")
            layers.append(
                (kinds[number], parts[number]["weight"].to(target), parts[number]["bias"].to(target))
            )
        _check_chain(layers, path)
        return cls(tuple(layers), digest, _named(names, len(layers[-1][2])))

    @property
    def spec(self) -> Spec:
        """Digest of the file."""
        return Spec.of("attributes", "keyed-network", sha256=self.sha256, names=",".join(self.names))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        x = images.float().to(self.layers[0][1].device)
        for number, (kind, weight, bias) in enumerate(self.layers):
            if number:
                x = torch.relu(x)
            if kind == "linear":
                x = F.linear(x if x.ndim == 2 else x.mean((2, 3)), weight, bias)
            else:
                x = F.conv2d(x, weight, bias, stride=int(kind[4:]), padding=weight.shape[-1] // 2)
        return x


def _check_chain(layers: Sequence[tuple[str, Tensor, Tensor]], path: Path) -> None:
    width, linear = 3, False
    for number, (kind, weight, bias) in enumerate(layers):
        linear = linear or kind == "linear"
        fits = (
            weight.ndim == (2 if linear else 4)
            and weight.shape[1] == width
            and bias.shape == weight.shape[:1]
            and (linear or weight.shape[2] == weight.shape[3])
            and (kind == "linear") == linear
        )
        if not fits:
            raise CheckpointError(
                f"{path}: layer {number} ({kind}, {list(weight.shape)}) does not follow {width}"
            )
        width = len(weight)
    if not linear:
        raise CheckpointError(f"{path}: the last layer must be linear")


def _tensors(path: Path) -> tuple[Mapping[str, Tensor], str]:
    if not path.is_file():
        raise UsageError(
            f"no attribute classifiers at {path}",
            hint="--attributes takes pkg.mod:factory, FILE@extractor/head, or a FILE of tensors",
        )
    checkpoint = read_checkpoint(path)
    for key, tensor in checkpoint.tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: tensor {key} is not of finite floating-point numbers")
    return {key: tensor.float() for key, tensor in checkpoint.tensors.items()}, checkpoint.sha256


def _named(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    if names and len(names) != count:
        raise UsageError(f"{len(names)} names for {count} attributes: {', '.join(names)}")
    return names or tuple(f"attribute-{number}" for number in range(count))


def _from_object(source: str, names: tuple[str, ...]) -> AttributeClassifier:
    # A script's own folder, as with `python -m`: the console script does not have it.
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        target = import_object(source)
    finally:
        sys.path.remove(here)
    if not callable(target):
        raise UsageError(f"{source!r} is neither a classifier nor a factory of one")
    if inspect.isclass(target) or not isinstance(target, AttributeClassifier):
        factory = target
        try:
            target = factory()
        except EvalkitError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UsageError(f"the factory {source!r} failed: {type(error).__name__}: {error}") from error
        if callable(target) and not isinstance(target, AttributeClassifier) and names:
            return CallableAttributes(cast("Callable[[Tensor], Tensor]", target), source, names)
    if not isinstance(target, AttributeClassifier):
        raise UsageError(
            f"{source!r} gave a {type(target).__name__}, which is no attribute classifier",
            hint="it needs spec, names and a call from images to logits; name the attributes of a function",
        )
    if names and names != target.names:
        raise UsageError(f"{source!r} names its attributes itself: {', '.join(target.names)}")
    return target


def _source_digest(function: object) -> str | None:
    try:
        text = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        return None
    return sha256(text.encode()).hexdigest()
