"""What a run will cost before it begins: seconds, memory, disk and shards.

    estimate = estimate_run(request, workers=4, console=Silent())
    print(estimate.seconds, estimate.memory_bytes, estimate.disk_bytes)

Unit costs are measured on this machine (a few batches of images; the metrics themselves on a smaller problem)
and scaled by how the work grows: images by their number, numerics by the laws of :mod:`evalkit.costing.laws`.
"""

from evalkit.costing.estimate import Estimate, Line, estimate_run
from evalkit.costing.laws import LAWS, Law, Size

__all__ = ["LAWS", "Estimate", "Law", "Line", "Size", "estimate_run"]
