"""Does the gate keep its word on this model? False alarms on equals, shifts that are caught, rounding.

    calibration = calibrate(CalibrationRequest(score=ScoreRequest(model="cgan", num_samples=256)), console=…)
    print(calibration.calibrated, [(found.name, found.alarms.text) for found in calibration.real])

Three questions: how often does the gate find a regression between records of synthetic metrics that differ by
chance alone (:mod:`~evalkit.calibration.synthetic`), how often between runs of one real model on disjoint
seeds (:mod:`~evalkit.calibration.real`), and how far do the scores of the very same images move with batch
size and threads (:mod:`~evalkit.calibration.rounding`)?
"""

from evalkit.calibration.calibrate import Calibration, CalibrationRequest, calibrate
from evalkit.calibration.rates import Rate, highest_rate
from evalkit.calibration.real import RealTrials
from evalkit.calibration.rounding import Rounding
from evalkit.calibration.synthetic import SyntheticTrials

__all__ = [
    "Calibration",
    "CalibrationRequest",
    "Rate",
    "RealTrials",
    "Rounding",
    "SyntheticTrials",
    "calibrate",
    "highest_rate",
]
