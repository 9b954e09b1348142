"""Run folders in object stores, through fsspec: ``--out s3://bucket/runs``.

with opened("s3://bucket/runs", notify=print) as folder:
    …  # folder.path is a local folder, folder.mirror keeps its shards equal to those of the store
"""

from evalkit.object_stores.remote_folder import RemoteFolder, scratch_folder
from evalkit.object_stores.run_folder import RunFolder, opened
from evalkit.object_stores.store import ObjectStore, is_url, shown

__all__ = ["ObjectStore", "RemoteFolder", "RunFolder", "is_url", "opened", "scratch_folder", "shown"]
