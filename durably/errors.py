"""Every error that durably raises, in one tree.

    DurablyError                    .status, .code
    ├── ValidationError       400   a payload, name or option that is not acceptable (a `ValueError` too)
    ├── NotFoundError         404   no such run, job or step
    ├── ConflictError         409   the run's status does not allow this
    ├── RunFailedError              the run that was waited for failed       (.run)
    ├── RunCancelledError           the run that was waited for was cancelled (.run)
    ├── RunTimeoutError             a run took longer than its job allows
    ├── StepTimeoutError            a step took longer than its options allow
    ├── NonRetryableError           raise it in a step: no further attempt
    ├── RetryAfter                  raise it in a step: the next attempt so many seconds later
    ├── DuplicateStepError          one step name twice in one execution
    ├── StepOutputError             a step's result cannot be kept, or no longer be read
    └── StorageError                the database cannot be opened, read or written
        ├── StorageFullError        no space left
        └── SchemaVersionError      the file was written by a newer durably
    LeaseLostError                  control flow: another worker owns the run now

`status` is the HTTP status that the error has at the edge, `code` a stable string for programs.
`LeaseLostError` derives from `BaseException`, as `asyncio.CancelledError` does, so that a step's
`except Exception` cannot keep a run alive that has gone elsewhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .records import Run

__all__ = [
    "ConflictError",
    "DuplicateStepError",
    "DurablyError",
    "LeaseLostError",
    "NonRetryableError",
    "NotFoundError",
    "RetryAfter",
    "RunCancelledError",
    "RunFailedError",
    "RunTimeoutError",
    "SchemaVersionError",
    "StepOutputError",
    "StepTimeoutError",
    "StorageError",
    "StorageFullError",
    "ValidationError",
    "describe",
]


def _reduced(error: BaseException) -> tuple[Any, ...]:
    """How an error is copied, and sent to another process: as it is, not made anew from its text."""
    return _remade, (type(error), error.args), error.__dict__


def _remade(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    return kind.__new__(kind, *args)


class DurablyError(Exception):
    """The base of all errors; catch it to catch any of them.

    `message` is a sentence for a person: what, where, and what to do.
    """

    default_status: ClassVar[int] = 500
    code: ClassVar[str] = "durably"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status

    __reduce__ = _reduced


class ValidationError(DurablyError, ValueError):
    """Input that is not acceptable; nothing was stored. Correct it and call again. It is a `ValueError` too."""

    default_status = 400
    code = "validation"


class NotFoundError(DurablyError):
    """No run or job has this id or name."""

    default_status = 404
    code = "not_found"


class ConflictError(DurablyError):
    """The run's present status does not allow the transition; the text names the status."""

    default_status = 409
    code = "conflict"


class RunFailedError(DurablyError):
    """The run that was waited for failed; `run.error` is the stored text."""

    code = "run_failed"

    def __init__(self, run: Run[Any]) -> None:
        super().__init__(run.error or "the run failed")
        self.run = run


class RunCancelledError(DurablyError):
    """The run that was waited for was cancelled."""

    default_status = 409
    code = "run_cancelled"

    def __init__(self, run: Run[Any]) -> None:
        super().__init__(f"run {run.id} of job '{run.job_name}' was cancelled")
        self.run = run


class RunTimeoutError(DurablyError):
    """The run was at work longer than its job's `timeout`; what it had committed is kept for `retry`."""

    code = "run_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the run was at work for more than {seconds:g} s, the timeout of its job")
        self.seconds = seconds


class StepTimeoutError(DurablyError):
    """A step took longer than its `timeout`; it was cancelled."""

    code = "step_timeout"

    def __init__(self, step_name: str, seconds: float) -> None:
        super().__init__(f"step '{step_name}' took more than {seconds:g} s, its timeout")
        self.step_name = step_name
        self.seconds = seconds


class NonRetryableError(DurablyError):
    """Raise it in a step for what another attempt cannot mend: the step fails at once."""

    code = "non_retryable"


class RetryAfter(DurablyError):  # noqa: N818 - named after the HTTP header, as the API has it
    """Raise it in a step that may be retried: the next attempt comes `seconds` later."""

    code = "retry_after"

    def __init__(self, seconds: float | timedelta, message: str | None = None) -> None:
        span = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        if not 0 <= span < float("inf"):
            raise ValueError(f"RetryAfter takes a number of seconds from 0 on, got {seconds!r}")
        super().__init__(message or f"try again after {span:g} s")
        self.seconds = span


class DuplicateStepError(DurablyError):
    """A step name was used twice in one execution; give each call a name of its own."""

    code = "duplicate_step"

    def __init__(self, step_name: str) -> None:
        super().__init__(
            f"step '{step_name}' was already used in this run; a name stands for one checkpoint, "
            "so give every call its own (for example with a counter)"
        )
        self.step_name = step_name


class StepOutputError(DurablyError):
    """A step's result cannot be stored, or what is stored cannot be read back as it was."""

    code = "step_output"

    def __init__(self, step_name: str, path: str, reason: str) -> None:
        super().__init__(f"the result of step '{step_name}' cannot be kept: {path} {reason}")
        self.step_name = step_name
        self.path = path


class StorageError(DurablyError):
    """The database cannot be opened, read or written; what it held is as it was."""

    default_status = 503
    code = "storage"


class StorageFullError(StorageError):
    """No space is left; free some and the run goes on from its last checkpoint."""

    default_status = 507
    code = "storage_full"


class SchemaVersionError(StorageError):
    """The file was written by a newer durably and was left untouched; update (or reload) this one."""

    code = "schema_version"


class LeaseLostError(BaseException):
    """Another worker owns the run; this execution can write nothing more. Do not catch it."""

    code: ClassVar[str] = "lease_lost"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} was taken over or ended elsewhere; this execution stops")
        self.run_id = run_id

    __reduce__ = _reduced


class StoreFailedError(BaseException):
    """Control flow: durably's own write failed (`cause`), so what became of the step cannot be stored.

    Passes through the job, whose fault it is not; the run goes back to pending and is tried again when the
    store can be written.
    """

    def __init__(self, cause: StorageError) -> None:
        super().__init__(cause.message)
        self.cause = cause


def leaves(error: BaseException) -> list[BaseException]:
    """The errors inside an exception group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def describe(error: BaseException) -> str:
    """The text that is stored for an error: its message, whatever it is made of.

    Of a group it is the first error's, with the number of the others. An error without a message, or whose
    message says nothing alone (`KeyError`), is named by its class. Lone surrogates and NUL, which a database
    or JSON may not take, are escaped.
    """
    first, *others = leaves(error)
    if others:
        return f"{describe(first)} (and {len(others)} more)"
    error = first
    name = type(error).__name__
    text = text_of(error)
    if not text or isinstance(error, KeyError):
        text = f"{name}: {text}" if text else name
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def text_of(value: object) -> str:
    """`str(value)`; empty where that cannot be made: a broken `__str__` must not hide what it is about."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - as the docstring says
        return ""
