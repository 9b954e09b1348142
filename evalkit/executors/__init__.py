"""Who computes the shards of a run: this process, or the workers of a Ray cluster.

options = parse_executor("ray:auto?num_gpus=1")          # None: this process
with ray_engine(options, device="cuda") as engine:
    run(request, console=console, stop=stop, fill=Filling(engine))
"""

from evalkit.executors.addresses import RayOptions, parse_executor

__all__ = ["RayOptions", "parse_executor"]
