"""Which detectors are measured, and at which settings they are shipped."""

from __future__ import annotations

from typing import Any

import msgspec

from bench.detection.judged import NEXT_TO_NOTHING, Kind
from processor import detectors

SENSITIVITIES = ("high", "medium", "low")
# They judge values against bounds that a person gives, or no values at all.
UNSCORED = frozenset({"absence", "threshold"})
# A window takes a thousand times as long as elsewhere (NAB alone some five minutes): measured only
# where they are named, or with --full.
SLOW = frozenset({"forest"})

LEVELS = {"lite": "point", "standard": "run", "full": "day"}


def measured() -> tuple[Kind, ...]:
    """Novelty at its three levels, then every other kind that scores values and runs here."""
    fit = [Kind(name, name) for name in _others() if why_not(Kind(name, name)) is None]
    return (*map(novelty, LEVELS), *fit)


def unmeasured() -> dict[str, str]:
    """Why the kinds that would be measured are not, by name."""
    reasons = {name: why_not(Kind(name, name)) for name in _others()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _others() -> list[str]:
    return [kind for kind in detectors.kinds() if kind not in UNSCORED | {"novelty"}]


def why_not(kind: Kind) -> str | None:
    """What a detector has against its options, such as a package that it lacks."""
    try:
        msgspec.convert(dict(kind.options), detectors.get(kind.kind).params)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def novelty(level: str) -> Kind:
    names = detectors.get("novelty").params.__struct_fields__
    options = {"level": level} if "level" in names else {"look_at": LEVELS[level]}
    return Kind(level, "novelty", options)


def wide_open(kind: Kind) -> Kind:
    """The same with a threshold that every score passes."""
    return _with(kind, threshold=NEXT_TO_NOTHING)


def at(kind: Kind, sensitivity: str) -> Kind:
    return _with(kind, sensitivity=sensitivity)


def threshold(kind: Kind, sensitivity: str) -> float:
    """The score at which it speaks up at that sensitivity, as shipped."""
    detector = detectors.get(kind.kind)
    params = msgspec.convert({**kind.options, "sensitivity": sensitivity}, detector.params)
    return detector.threshold(params)


def _with(kind: Kind, **options: Any) -> Kind:
    return kind._replace(options={**kind.options, **options})
