"""The paired pipeline: every generated image is compared with its own reference image.

    record = evaluate_pairs(PairsRequest(generated=Path("out"), reference=Path("truth")), console=Silent())

Pairs come from two image sets matched by name or by index, from a manifest that lists them, or from a model
that reconstructs the reference images. The rows of a pair (one number for each measure and region) are
extracted shard by shard like features, so that a killed run resumes; a score is their mean.
"""
