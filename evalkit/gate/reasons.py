"""One sentence on each rule: what was found, how sure it is, and what would help."""

from __future__ import annotations

from evalkit.gate.bounds import MOST_IMAGES, Verdict
from evalkit.gate.differences import Difference
from evalkit.gate.facts import Errors, Quantity
from evalkit.reporting.formatting import human_bytes, rounded_like, significant

_SOURCES = {
    "paired": "paired by seed",
    "unpaired": "unpaired",
    "replicates": "from the spread of the runs",
}


def stat_reason(
    difference: Difference, verdict: Verdict, *, margin: float, alpha: float, rules: int, images: int | None
) -> str:
    """Return the sentence on a rule that was judged by its error bar."""
    if difference.identical:
        return "identical: the very same images gave the same score"
    sure = f"{100 * (1 - alpha):g} % sure"
    margins = _like(margin, difference)
    found = f"{_change(difference)} ({_SOURCES[difference.errors]})"
    if verdict.status == "regression":
        holm = f", Holm's correction for {rules} rules included" if rules > 1 else ""
        return f"{found}, {sure} to exceed the margin {margins}{holm}"
    if verdict.status == "pass":
        bound = f"at {'least' if verdict.high < 0 else 'most'} {_signed(verdict.high, difference)}"
        beyond = ", an improvement beyond the margin" if verdict.improved else f"; the margin is {margins}"
        return f"{found}, {sure} to be {bound}{beyond}"
    between = f"{_signed(verdict.low, difference)} to {_signed(verdict.high, difference)}"
    again = "; another number of images is another protocol: measure both sides again" if images else ""
    undecided = _undecided(verdict, margins, between, alpha, rules)
    return f"{found}: {undecided}; {advice(difference.errors, images)}{again}"


def plain_reason(value: float, *, margin: float, beyond: bool, unit: str, why: str) -> str:
    """Return the sentence on a rule that compares plain values; ``why`` says why there is no error bar.

    ``beyond``: the difference, for worse or for better, is larger than the margin.
    """
    side = "beyond" if beyond else "within"
    size = f"{_with_unit(abs(value), unit)} {_direction(value)}" if value else "equal"
    return f"{size}, {side} the margin {_with_unit(margin, unit)}{f'; {why}' if why else ''}"


def band_reason(quantity: Quantity, band: tuple[float, float], *, failed: bool) -> str:
    """Return the sentence on a rule that holds the candidate alone between two values."""
    side = "outside" if failed else "inside"
    return f"{_number(quantity.value)} lies {side} {_number(band[0])} to {_number(band[1])}"


def advice(errors: Errors, images: int | None) -> str:
    """Return what would decide an inconclusive rule."""
    if errors == "replicates":
        return "more runs of both would decide"
    if images is None:
        return f"no number of images up to {MOST_IMAGES:,} would decide: choose another margin"
    return f"about {images:,} images a side would decide if the difference stays"


def _undecided(verdict: Verdict, margins: str, between: str, alpha: float, rules: int) -> str:
    level = f"{100 * (1 - alpha):g} % bounds {between}"
    if verdict.p_value <= alpha:
        adjusted = significant(verdict.adjusted, 2)
        return (
            f"beyond the margin {margins} by itself ({level}), but not after Holm's correction for "
            f"{rules} rules (p = {adjusted})"
        )
    return f"the margin {margins} lies between its {level}"


def _change(difference: Difference) -> str:
    """Return "worse by 0.12 ± 0.05"."""
    word, size = _direction(difference.value), _like(abs(difference.value), difference)
    error = f" ± {_like(difference.se, difference)}" if difference.se else ""
    return f"{word} by {size}{error}" if difference.value else f"equal{error}"


def _signed(value: float, like: Difference | None = None) -> str:
    """Return "0.12 worse" or "0.12 better"."""
    size = _like(abs(value), like) if like else _number(abs(value))
    return f"{size} {_direction(value)}" if value else "equal"


def _direction(value: float) -> str:
    return "better" if value < 0 else "worse"


def _like(number: float, difference: Difference) -> str:
    """Round as the difference is; a number that would come out as 0 keeps two digits of its own."""
    text = rounded_like(number, value=difference.value, error=difference.se)
    return text if any(digit in text for digit in "123456789") else significant(number, 2)


def _with_unit(number: float, unit: str) -> str:
    """Bytes are read in GiB, as in the table."""
    return human_bytes(number) if unit == "B" else f"{_number(number)} {unit}".rstrip()


def _number(number: float) -> str:
    text = significant(number, 4)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
