"""The gate while a model is still sampled: stop as soon as the verdict is certain.

    decision = score_until_decided(
        request, baseline="baselines/ddpm.json", spec=GateSpec(rules=(parse_rule("kd rel=5%"),)),
        console=Silent(),
    )
    print(decision.report.status, decision.drawn, "of", decision.planned)

Both sides are drawn from the same seeds, and the baseline's record holds leave-one-block-out values: each
block's own estimate (Tukey's pseudo-value) follows from them, and after k blocks of the candidate the k
differences are a paired sample. :mod:`evalkit.numerics.sequential` tests it after every block, from the fifth
on, at an error rate that holds under peeking. A regression of any of m rules is claimed at alpha / m
(Bonferroni); the gate passes when every rule is shown to be within its margin at alpha, once each, as an
intersection of claims needs no correction (Berger 1982).

Only metrics that part of the images estimates (:attr:`evalkit.core.Metric.any_count`) can be judged so.

Accepted trade-offs:

- A run that stopped early keeps no scores: the estimate at the moment when it looked clear is biased towards
  the verdict. Its record is ``partial``, so that it is neither baseline nor row of a leaderboard; its shards
  are kept, and the run can be continued without the gate.
- After the last block an undecided rule is inconclusive, even where a test of fixed size would just decide:
  the looks have spent alpha. Running ``evalkit gate`` on the finished record would spend it twice.
- A baseline's pseudo-values of a kernel distance know its later blocks, the candidate's do not: what this
  adds to the difference is of second order, which the jackknife's standard error counts double.
- A look costs what its metrics cost on the images so far; what they work out of the reference is kept.
"""

from evalkit.anytime.decision import Decision, check_request, decision_table, score_until_decided

__all__ = ["Decision", "check_request", "decision_table", "score_until_decided"]
