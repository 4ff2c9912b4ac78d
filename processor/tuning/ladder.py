"""The settings that a detector is tried at: its sensitivities, and what the file says.

A detector of scores has named levels. One that only has a number, such as absence, is tried at a
half more and a third less of it. A bound on the value itself is the user's knowledge: it is tried
as it is.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from processor import detectors
from processor.detectors.base import SensitiveParams
from processor.model import DetectSpec

OWN = "as in the file"
STRICTER, LOOSER = 1.5, 1 / 1.5  # of a threshold without levels: as far to either side


class Rung(Struct, frozen=True):
    """One setting: `threshold` is the score at which it speaks up."""

    name: str
    options: dict[str, Any]
    threshold: float


def ladder(spec: DetectSpec) -> list[Rung]:
    """The most sensitive first; one of them is OWN."""
    detector = detectors.get(spec.kind)
    own = Rung(OWN, dict(spec.options), _threshold(spec.kind, spec.options))
    if issubclass(detector.params, SensitiveParams):
        levels = sorted(detector.params.levels, key=detector.params.levels.__getitem__)
        base = {key: value for key, value in spec.options.items() if key != "threshold"}
        tried = [_rung(spec, name, base | {"sensitivity": name}) for name in levels]
    elif isinstance(_default(detector.params, "threshold"), float):
        tried = [
            _rung(spec, f"threshold {own.threshold * by:.3g}", {"threshold": own.threshold * by})
            for by in (LOOSER, STRICTER)
        ]
    else:
        tried = []
    rungs = [own, *(rung for rung in tried if rung is not None)]
    return sorted(rungs, key=lambda rung: rung.threshold)  # stable: OWN before its equal


def why_short(spec: DetectSpec) -> str:
    """Why there is but one setting; "" where there are several."""
    if len(ladder(spec)) > 1:
        return ""
    return f"{spec.kind} has no sensitivity: its bounds say what is wanted, so it is tried as it is"


def _rung(spec: DetectSpec, name: str, options: dict[str, Any]) -> Rung | None:
    """None where the other options do not go with it, such as a recovery above the threshold."""
    whole = {**spec.options, **options}
    if "sensitivity" in options:
        whole.pop("threshold", None)
    try:
        return Rung(name, whole, _threshold(spec.kind, whole))
    except (msgspec.ValidationError, ValueError):
        return None


def _threshold(kind: str, options: Any) -> float:
    detector = detectors.get(kind)
    return float(detector.threshold(msgspec.convert(dict(options), detector.params)))


def _default(params: type[Struct], name: str) -> object:
    found = {field.name: field.default for field in msgspec.structs.fields(params)}
    return found.get(name)
