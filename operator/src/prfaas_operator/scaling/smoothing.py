"""Exponential smoothing of load series, in a process of its own: `python -m prfaas_operator.scaling.smoothing`.

It takes a JSON list of series from standard input and answers with a list of predictions. statsmodels and what it needs
take seconds of a core and more memory than the rest of the operator; here both are given back after every run, and a fit
that does not end is killed. The package comes with the extra `forecast`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

LEAST_POINTS: Final = 12
# A fit may run away, above all along a trend; what is far beyond everything seen is none of its business.
_MOST_TIMES: Final = 2.0


def predict(values: Sequence[float], season: int, ahead: float) -> tuple[float, bool]:
    """Return the load so many steps, also parts of one, after the last value, and whether seasons were told apart.

    With two whole seasons of values: Holt-Winters with an additive season and no trend, since a trend over days is noise at
    a horizon of minutes. With less: a damped trend (Holt; Gardner and McKenzie). At least `LEAST_POINTS` values.
    """
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    seasonal = season >= LEAST_POINTS and len(values) >= 2 * season
    shape: dict[str, Any] = (
        {"seasonal": "add", "seasonal_periods": season} if seasonal else {"trend": "add", "damped_trend": True}
    )
    highest = max(values)
    if highest <= 0:
        return 0.0, seasonal
    with warnings.catch_warnings():
        # A fit that stopped early is still the best that was found, and its error is shown.
        warnings.simplefilter("ignore")
        scaled = [value / highest for value in values]
        fitted = ExponentialSmoothing(scaled, initialization_method="heuristic", **shape).fit()
        steps = max(1, math.ceil(ahead))
        found = [scaled[-1], *(float(value) for value in fitted.forecast(steps))]
    before, part = math.floor(ahead), ahead - math.floor(ahead)
    load = found[before] if part == 0 else found[before] * (1 - part) + found[before + 1] * part
    if not math.isfinite(load):
        raise ValueError("the fit does not end at a number")
    return min(max(load, 0.0), _MOST_TIMES) * highest, seasonal


def main() -> None:
    """Answer one list of series."""
    # Nobody waits for it, and whatever else runs on these cores has requests that do.
    os.nice(10)
    answers: list[dict[str, Any]] = []
    for series in json.load(sys.stdin):
        try:
            load, seasonal = predict(series["values"], series["season"], series["ahead"])
            answers.append({"load": load, "seasonal": seasonal})
        except Exception as error:  # noqa: BLE001  one series that cannot be fitted takes nothing from the others
            answers.append({"error": f"{type(error).__name__}: {error}"})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
