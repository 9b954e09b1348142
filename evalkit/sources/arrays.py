"""Images in a numpy array: ``.npz`` (``arr_0`` images, ``arr_1`` labels) or ``.npy``, mapped where possible.

Shapes: ``[N, H, W, 3]``, ``[N, 3, H, W]``, and grayscale ``[N, H, W]``, ``[N, H, W, 1]``, ``[N, 1, H, W]``,
which is repeated to RGB. The dtype is uint8: a float array has no agreed range, so none is guessed.

An ``.npy`` and an array stored in an ``.npz`` without compression (``np.savez``) are memory-mapped; a
compressed one (``np.savez_compressed``) is unpacked into memory as a whole when it is opened.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from evalkit.core import ImageBatch, IndexArray
from evalkit.errors import InvalidInputError, UsageError
from evalkit.sources.archive import as_member, data_offset, file_sha256, first_member_name, list_infos
from evalkit.sources.encoded import valid_index
from evalkit.sources.formats import FORMATS, ReadSettings, Rejected, SourceFormat
from evalkit.sources.members import ArchiveLimits, Member
from evalkit.spec import Spec
