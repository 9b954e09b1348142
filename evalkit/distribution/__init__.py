"""One run on several processes or machines: each takes a part of the shards, one makes the record."""
