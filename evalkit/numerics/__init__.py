"""Pure numeric functions: features in, numbers out. No torch, no files, no globals.

Every function states its formula, shapes and source; all arithmetic is float64. ``NUMERICS_VERSION`` is
part of every protocol fingerprint and is raised whenever a change here can move a published number.
"""

from evalkit.numerics.entropy import (
    ClassSums,
    InceptionScore,
    class_sums,
    inception_score,
    inception_score_blocks,
)
from evalkit.numerics.frechet import (
    LEAVE_OUT_ERROR,
    GaussianFactor,
    frechet_distance,
    frechet_distance_between,
    frechet_distance_from_features,
    frechet_distance_to,
    gaussian_factor,
    gaussian_factor_from_features,
)
from evalkit.numerics.interpolation import lerp, slerp
from evalkit.numerics.kernel_values import KernelSums, SubsetEstimate
from evalkit.numerics.leave_out_few import frechet_without_blocks, frechet_without_slices
from evalkit.numerics.linalg import psd_factor, sqrtm_psd
from evalkit.numerics.mmd import (
    kernel_distance,
    kernel_distance_subsets,
    kernel_sums,
)
from evalkit.numerics.neighbours import (
    ManifoldScores,
    ResampledScores,
    manifold_scores,
    precision_recall_density_coverage,
)
from evalkit.numerics.resampling import Jackknife, block_edges, first_order_share, jackknife

NUMERICS_VERSION = "3"

__all__ = [
    "LEAVE_OUT_ERROR",
    "NUMERICS_VERSION",
    "ClassSums",
    "GaussianFactor",
    "InceptionScore",
    "Jackknife",
    "KernelSums",
    "ManifoldScores",
    "ResampledScores",
    "SubsetEstimate",
    "block_edges",
    "class_sums",
    "first_order_share",
    "frechet_distance",
    "frechet_distance_between",
    "frechet_distance_from_features",
    "frechet_distance_to",
    "frechet_without_blocks",
    "frechet_without_slices",
    "gaussian_factor",
    "gaussian_factor_from_features",
    "inception_score",
    "inception_score_blocks",
    "jackknife",
    "kernel_distance",
    "kernel_distance_subsets",
    "kernel_sums",
    "lerp",
    "manifold_scores",
    "precision_recall_density_coverage",
    "psd_factor",
    "slerp",
    "sqrtm_psd",
]
