"""Log lines: JSON on standard error (or text for people), one schema for ours and for libraries'.

    log = structlog.get_logger()
    log.warning("read_failed", message="it is repeated", shard_id=…, error_kind=…, error=error)

`event` names what happened, in a few words that never change; `message` is for people; FIELDS are
the names that saved queries may use. Secrets are masked in every field, by name and by shape.
Only `configure` touches anything global; the command line calls it once.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

Format = Literal["json", "text"]
Processor = Callable[[WrappedLogger, str, EventDict], Any]

# In this order, and only those that apply.
FIELDS = (
    *("@timestamp", "level", "event", "message", "service", "worker_id", "stream", "shard_id"),
    *("sequence_number", "event_id", "correlation_id", "trace_id", "rule", "key"),
    *("error_kind", "error"),
)
LEVELS = ("debug", "info", "warning", "error", "critical")
MASK = "***"
# Enough for a traceback of 100 frames; CloudWatch Logs refuses events of 256 KB (1 MB today).
VALUE_CHARS_MAX = 16_384
DEPTH_MAX = 4  # of values in values; beyond, the text of their repr


# ---- secrets --------------------------------------------------------------------------------

_GUARDED = (
    r"(?:pass(?:word|wd|phrase)|secret|credential|authorization|signature|token"
    r"|(?:api|access|private|session)[_-]?key(?!_id))"
)
_GUARDED_NAME = re.compile(_GUARDED, re.IGNORECASE)
_USERINFO = re.compile(r"""(?<=://)[^/?#\s"']+@""")
# `password=…`, `"secret": "…"`, `Authorization: Bearer …`, in a text of whatever kind. Repeats are
# bounded, so that no text makes the search quadratic.
_ASSIGNED = re.compile(
    rf"""({_GUARDED}[\w.-]{{0,40}}\\?["']?\s{{0,4}}[:=]\s{{0,4}})  # the end of its name
         (?:(?:bearer|basic)\s+)?                               # a scheme is not the secret
         (\\?"[^"]*"|\\?'[^']*'|[^\s,;&"'}}\])]+)               # its value""",
    re.IGNORECASE | re.VERBOSE,
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_SUSPECT = re.compile(rf"{_GUARDED}|bearer|basic", re.IGNORECASE)


def masked(value: Any, depth: int = 0) -> Any:
    """The value without secrets, and not longer than a line may be."""
    if isinstance(value, str):
        return _masked_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth < DEPTH_MAX and isinstance(value, Mapping):
        return {str(k): _masked_field(str(k), v, depth + 1) for k, v in value.items()}
    if depth < DEPTH_MAX and isinstance(value, (list, tuple, set, frozenset)):
        return [masked(item, depth + 1) for item in value]
    return _masked_text(str(value))


def _masked_field(name: str, value: Any, depth: int = 0) -> Any:
    if _GUARDED_NAME.search(name) and value is not None:
        return MASK
    return masked(value, depth)


def _masked_text(text: str) -> str:
    if len(text) > VALUE_CHARS_MAX:
        half = VALUE_CHARS_MAX // 2  # an error's first and last words tell most
        text = f"{text[:half]} … {len(text) - 2 * half} more … {text[-half:]}"
    if "://" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
    if _SUSPECT.search(text):  # few are, and a search costs a fraction of a replacement
        text = _BEARER.sub(rf"\1 {MASK}", text)
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return text


# ---- the chain ------------------------------------------------------------------------------


def chain(form: Format, constants: Mapping[str, str]) -> list[Processor]:
    """What turns a log call into a line; `constants` stand in every line."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp"),
        _with_constants(constants),
        _tell_errors,
        _mask,
        _order,
        _as_json if form == "json" else _as_text,
    ]


def _with_constants(constants: Mapping[str, str]) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**constants, **event}

    return add


def _tell_errors(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """An exception as `error`: its text as `error=`, its whole traceback as `exc_info=`."""
    raised = _exception(event.pop("exc_info", None))
    if raised is not None:
        event.setdefault("error_kind", type(raised).__name__)
        event["error"] = "".join(traceback.format_exception(raised)).rstrip()
    elif isinstance(error := event.get("error"), BaseException):
        event.setdefault("error_kind", type(error).__name__)
        event["error"] = str(error)
    return event


def _exception(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        raised: BaseException | None = exc_info[1]
        return raised
    return sys.exc_info()[1] if exc_info else None


def _mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: _masked_field(name, value) for name, value in event.items()}


def _order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """FIELDS first; what is None does not apply."""
    names = [name for name in FIELDS if name in event] + [n for n in event if n not in FIELDS]
    return {name: event[name] for name in names if event[name] is not None}


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # half a surrogate pair, or an integer beyond 64 bits
        return json.dumps(event)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """A line for people; an error's further lines are indented, so that none looks like a start."""
    time, level = str(event.pop("@timestamp")), str(event.pop("level"))
    head = f"{time[11:23]} {level.upper():<8} {event.pop('event')}"
    message = event.pop("message", None)
    error = event.pop("error", None)
    parts = [head if message is None else f"{head}: {message}"]
    parts += [f"{name}={value}" for name, value in event.items()]
    line = "  ".join(parts) if error is None else f"{'  '.join(parts)}  error={error}"
    line = _CONTROL.sub(lambda found: repr(found[0])[1:-1], line)
    return line.replace("\n", "\n    ")


# ---- loggers --------------------------------------------------------------------------------


def make_logger(form: Format, file: TextIO, level: str = "info", **constants: str) -> Any:
    """A logger of its own, for tests and for whoever has two in one process."""
    return structlog.wrap_logger(
        Lines(file),
        processors=chain(form, constants),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def configure(form: Format, level: str = "info", **constants: str) -> None:
    """Send all lines of the process to standard error: ours from `level` on, libraries' warnings.

    Once a process, by its command line: AssertionError for a second time.
    """
    assert not structlog.is_configured(), "logs are configured once, by the command line"
    processors = chain(form, constants)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: Lines(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [Bridge(processors, sys.stderr)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


class Lines(structlog.WriteLogger):
    """Writes lines. One that can't be written is lost: nobody is left to be told, and a full disk
    or a reader that went away must end neither the service nor its way out."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    debug = info = warning = error = critical = fatal = exception = log = warn = failure = err = msg


class Bridge(logging.Handler):
    """Sends what libraries log the same way: `event` is the logger's name."""

    def __init__(self, processors: list[Processor], file: TextIO):
        super().__init__()
        self._processors = processors
        self._out = Lines(file)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Any = {
                "event": record.name,
                "message": record.getMessage(),
                "exc_info": record.exc_info,
            }
            for processor in self._processors:
                event = processor(self._out, record.levelname.lower(), event)
            self._out.msg(event)
        except Exception:
            self.handleError(record)  # the standard library's way: told on stderr, never raised
