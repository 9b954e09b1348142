"""Versions are those that are installed; what may be missing is None."""

from __future__ import annotations

from importlib import metadata

import torch

from evalkit.provenance import environment, version_of


def test_versions_are_the_installed_ones():
    found = environment()
    assert found["torch"] == metadata.version("torch")
    assert found["onnxruntime"] == version_of("onnxruntime")
    assert found["threads"] == torch.get_num_threads()


def test_what_is_not_installed_has_no_version():
    assert version_of("no-such-package-anywhere") is None
