"""From the bytes of one image file to uint8 RGB, refusing whatever would silently change pixels.

    pixels = decode_image(data, name="a.png", policy=DecodePolicy(alpha="white"))

Always lossless, hence never refused: bilevel, grayscale and palette without transparency, and an alpha
channel that is opaque everywhere. 16-bit grayscale is scaled to 8 bits, ``round(v * 255 / 65535)``.

Accepted trade-offs: colour profiles are ignored, as every published protocol of the field does; 16-bit colour
is reduced by Pillow, which keeps the high byte; the list of formats is closed, so that a file named ``.png``
never reaches an interpreter such as PostScript's.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from evalkit.errors import InvalidInputError, UsageError
from evalkit.registry import did_you_mean
from evalkit.sources.integrity import PlainImage, examine
from evalkit.spec import Scalar

Pixels = NDArray[np.uint8]
Alpha = Literal["refuse", "white", "black", "drop"]
Cmyk = Literal["refuse", "convert"]
Animated = Literal["refuse", "first"]
Orientation = Literal["refuse", "apply", "ignore"]

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_BACKGROUNDS = {"white": (255, 255, 255, 255), "black": (0, 0, 0, 255)}
_EXIF_ORIENTATION = 0x0112
# Below, three passes of Pillow's packing code cost more than one pass and a transposed copy.
_PLANE_BY_PLANE_FROM = 128 * 128
# Everything Pillow's readers have been seen to raise on damaged bytes; Warning, where warnings are errors.
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError,
    AttributeError, MemoryError, struct.error, zlib.error, Warning,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DecodePolicy:
    """What to do where decoding to 8-bit RGB would change what a viewer shows; ``refuse`` is the default.

    Attributes:
        alpha: transparency that is not opaque everywhere: composite on ``white`` or ``black``, or ``drop``.
        cmyk: ``convert`` by Pillow's formula, without a colour profile.
        animated: more than one frame: take the ``first``.
        orientation: EXIF orientation other than upright: ``apply`` it or ``ignore`` it.
        max_pixels: largest width x height, read from the header before anything is decoded. At most
            Pillow's own warning level (89 MP), which evalkit treats as an error.

    Raises:
        UsageError: a value is not one of the above.
    """

    alpha: Alpha = "refuse"
    cmyk: Cmyk = "refuse"
    animated: Animated = "refuse"
    orientation: Orientation = "refuse"
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        choices = {"alpha": Alpha, "cmyk": Cmyk, "animated": Animated, "orientation": Orientation}
        for field, allowed in choices.items():
            value = getattr(self, field)
            if value not in get_args(allowed):
                raise UsageError(f"{field} cannot be {value!r}", hint=did_you_mean(value, get_args(allowed)))
        limit = Image.MAX_IMAGE_PIXELS or self.max_pixels
        if not 0 < self.max_pixels <= limit:
            raise UsageError(f"max_pixels must lie in 1..{limit}, not {self.max_pixels}")

    def params(self) -> dict[str, Scalar]:
        """Return the choices that can change pixels: those that do not refuse."""
        values = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "max_pixels"
        }
        return {name: value for name, value in values.items() if value != "refuse"}


DEFAULT_POLICY = DecodePolicy()


def decode_image(data: bytes, *, name: str, policy: DecodePolicy = DEFAULT_POLICY) -> Tensor:
    """Decode the image file ``data`` to a contiguous uint8 ``[3, h, w]`` tensor in 0..255.

    Raises:
        InvalidInputError: empty, truncated or corrupt; too many pixels; an unsupported format or mode; or
            something that ``policy`` refuses. The message names ``name``.
    """
    return torch.from_numpy(decode_pixels(data, name=name, policy=policy))


def decode_pixels(data: bytes, *, name: str, policy: DecodePolicy, room: Pixels | None = None) -> Pixels:
    """Decode as :func:`decode_image` does, into ``room`` (returned) where that has the image's own shape.

    Raises:
        InvalidInputError: as :func:`decode_image`; ``room`` may hold anything then.
    """
    if not data:
        raise InvalidInputError(f"{name!r} is empty")
    fault, plain = examine(data)
    if fault is not None:
        raise InvalidInputError(f"{name!r} {fault}")
    picture = None if plain is None else _decode_plain(plain, max_pixels=policy.max_pixels)
    if picture is not None:
        return _in_planes(picture, room)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _in_planes(_read_rgb(image, name=name, policy=policy), room)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInputError(f"{name!r} is too large to decode: {error}") from error
    except UnidentifiedImageError as error:
        raise InvalidInputError(
            f"{name!r} is not an image of a known format", hint=f"known formats: {', '.join(_FORMATS)}"
        ) from error
    except _DECODING_ERRORS as error:
        raise InvalidInputError(f"{name!r} cannot be decoded: {error}") from error


def _decode_plain(plain: PlainImage, *, max_pixels: int) -> Image.Image | None:
    """Return the RGB image, or None where Pillow's reader of whole files must say what is wrong."""
    width, height = plain.size
    if not 0 < width * height <= max_pixels:
        return None
    try:
        image = Image.new(plain.mode, plain.size, None)  # not blackened: the decoder fills it or fails
        image.frombytes(plain.data, plain.decoder, *plain.arguments)
    except _DECODING_ERRORS:
        return None
    return image if plain.mode == "RGB" else image.convert("RGB")


def _in_planes(picture: Image.Image | Pixels, room: Pixels | None) -> Pixels:
    """Return ``[3, h, w]`` of an RGB image or of ``[h, w, 3]`` pixels."""
    size = picture.size[::-1] if isinstance(picture, Image.Image) else picture.shape[:2]
    planes = room if room is not None and room.shape == (3, *size) else np.empty((3, *size), dtype=np.uint8)
    if not isinstance(picture, Image.Image):
        planes[:] = picture.transpose(2, 0, 1)
    elif size[0] * size[1] < _PLANE_BY_PLANE_FROM:
        planes[:] = np.frombuffer(picture.tobytes(), dtype=np.uint8).reshape(*size, 3).transpose(2, 0, 1)
    else:
        for plane, band in zip(planes, "RGB", strict=True):
            plane[:] = np.frombuffer(picture.tobytes("raw", band), dtype=np.uint8).reshape(size)
    return planes


def _read_rgb(image: Image.Image, *, name: str, policy: DecodePolicy) -> Image.Image | Pixels:
    """Return an RGB image or uint8 ``[h, w, 3]``; every check that needs no pixels comes before decoding."""
    width, height = image.size
    if width * height > policy.max_pixels:
        raise InvalidInputError(
            f"{name!r} has {width} x {height} pixels, more than {policy.max_pixels}", hint="see --max-pixels"
        )
    if policy.animated == "refuse" and getattr(image, "is_animated", False):
        raise InvalidInputError(
            f"{name!r} is animated or holds several pictures", hint="take the first frame: --animated first"
        )
    upright = _oriented(image, name=name, policy=policy)
    upright.load()
    return _to_rgb(upright, name=name, policy=policy)


def _oriented(image: Image.Image, *, name: str, policy: DecodePolicy) -> Image.Image:
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    if orientation not in range(2, 9):
        return image
    if policy.orientation == "apply":
        return ImageOps.exif_transpose(image)
    # Pillow turns a TIFF upright while loading it, so that its stored pixels cannot be had.
    if policy.orientation == "ignore" and image.format != "TIFF":
        return image
    raise InvalidInputError(
        f"{name!r} has EXIF orientation {orientation}", hint="decide with --orientation apply|ignore"
    )


def _to_rgb(image: Image.Image, *, name: str, policy: DecodePolicy) -> Image.Image | Pixels:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in {"PNG", "PPM"}):
        return _scale_16_bit(image, name=name, policy=policy)
    if mode in _ALPHA_MODES or (mode in _OPAQUE_MODES and "transparency" in image.info):
        return _flatten(image, name=name, policy=policy)
    if mode == "RGB":
        return image
    if mode in _OPAQUE_MODES or (mode == "CMYK" and policy.cmyk == "convert"):
        return image.convert("RGB")
    if mode == "CMYK":
        raise InvalidInputError(
            f"{name!r} is CMYK", hint="convert it, or accept an approximation: --cmyk convert"
        )
    raise InvalidInputError(
        f"{name!r} has pixel mode {mode!r}, which has no exact 8-bit RGB form", hint="save it as RGB"
    )


def _scale_16_bit(image: Image.Image, *, name: str, policy: DecodePolicy) -> Pixels:
    """Scale 0..65535 to 0..255; Pillow's ``convert("RGB")`` would clip everything above 255."""
    if "transparency" in image.info and policy.alpha != "drop":
        raise _transparent(name, hint="16-bit transparency can only be dropped: --alpha drop")
    values = np.asarray(image).astype(np.uint32)
    # 65535 / 255 = 257 exactly, and an odd divisor has no ties to round.
    gray = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _flatten(image: Image.Image, *, name: str, policy: DecodePolicy) -> Pixels:
    rgba = image.convert("RGBA")
    pixels = np.array(rgba, dtype=np.uint8)
    if policy.alpha == "drop" or bool((pixels[:, :, 3] == 255).all()):
        return pixels[:, :, :3]
    if policy.alpha == "refuse":
        raise _transparent(name, hint="decide with --alpha white|black|drop")
    background = Image.new("RGBA", rgba.size, _BACKGROUNDS[policy.alpha])
    return np.array(Image.alpha_composite(background, rgba), dtype=np.uint8)[:, :, :3]


def _transparent(name: str, *, hint: str) -> InvalidInputError:
    return InvalidInputError(f"{name!r} has transparent pixels", hint=hint)
