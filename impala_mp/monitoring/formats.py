"""Short texts for numbers, durations and ages; shared by all displays of a run."""

import math

_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_AGES = ((86400, "d"), (3600, "h"), (60, "min"), (0, "s"))


def is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def number(value: float | None, missing: str = "") -> str:
    """Formats a return: two decimals below 1,000, and never 0 for a small value."""
    if value is None or not math.isfinite(value):
        return missing
    size = abs(value)
    if size >= 1e7:
        return _short_exponent(f"{value:.3g}")
    if size >= 1000:
        return f"{value:,.0f}"
    if 0.0 < size < 0.01:
        return _short_exponent(f"{value:.2g}")
    return f"{value:.2f}"


def short(value: float | None, missing: str = "") -> str:
    """Formats a count or a rate in at most six characters: 24.9, 7.9k, 1.25M."""
    if value is None or not math.isfinite(value):
        return missing
    for scale, letter in _SCALES:
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)}{letter}"
    if float(value).is_integer():
        return f"{value:.0f}"
    return _short_exponent(f"{value:.3g}") if abs(value) < 1 else _three(value)


def _three(value: float) -> str:
    """Formats a number below 1,000 with three digits, without trailing zeros."""
    if abs(value) >= 1000:  # beyond the largest scale
        return f"{value:.3g}"
    digits = max(0, 2 - int(math.log10(max(1.0, abs(value)))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def small(value: float | None, missing: str = "") -> str:
    """Formats a statistic of learning with two digits: 0.41, 0.025, 9.4e-4."""
    if value is None or not math.isfinite(value):
        return missing
    if abs(value) >= 10:
        return short(value)
    if 0.0 < abs(value) < 1e-3:
        return _short_exponent(f"{value:.1e}")
    return f"{value:.2g}"


def _short_exponent(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text


def percent(share: float | None, missing: str = "") -> str:
    if share is None or not math.isfinite(share):
        return missing
    return f"{100 * share:.0f} %"


def duration(secs: float | None, missing: str = "") -> str:
    """Formats seconds as 0:20, 1:02:03 or 2 d 3:04:05."""
    if secs is None or not math.isfinite(secs):
        return missing
    whole = max(0, round(secs))
    days, whole = divmod(whole, 86400)
    hours, whole = divmod(whole, 3600)
    minutes, seconds = divmod(whole, 60)
    if days or hours:
        text = f"{hours}:{minutes:02}:{seconds:02}"
        return f"{days:,} d {text}" if days else text
    return f"{minutes}:{seconds:02}"


def age(secs: float | None, missing: str = "") -> str:
    """Formats seconds in their largest whole unit: 12 s, 3 min, 2 h, 4 d."""
    if secs is None or not math.isfinite(secs):
        return missing
    for unit, name in _AGES:
        if secs >= unit:
            return f"{secs // max(1, unit):,.0f} {name}"
    return "0 s"
