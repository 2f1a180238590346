"""durably: Python jobs that survive a reload, a closed tab or a crash.

A job is an async function made of named steps. The result of each step is committed to SQLite before the
next begins; an interrupted job goes on from its last step. The same job runs in a browser (Pyodide in a
worker, SQLite on OPFS) and on a server (CPython, a SQLite file).
"""

from __future__ import annotations

from .calls import UserTransaction
from .database import Database, Result, Row, Statement
from .engine import Durably, create_durably
from .errors import (
    ConflictError,
    DuplicateStepError,
    DurablyError,
    LeaseLostError,
    NonRetryableError,
    NotFoundError,
    RetryAfter,
    RunCancelledError,
    RunFailedError,
    RunTimeoutError,
    SchemaVersionError,
    StepOutputError,
    StepTimeoutError,
    StorageError,
    StorageFullError,
    ValidationError,
)
from .events import Event
from .handles import JobHandle, JobHandles, Trigger
from .jobs import JobDefinition, define_job, job
from .plugins import Plugin, with_log_persistence
from .records import Log, Progress, Run, RunStatus, Schedule, Step, StorageInfo
from .retry import Retry
from .step import StepContext

__all__ = [
    "ConflictError",
    "Database",
    "DuplicateStepError",
    "Durably",
    "DurablyError",
    "Event",
    "JobDefinition",
    "JobHandle",
    "JobHandles",
    "LeaseLostError",
    "Log",
    "NonRetryableError",
    "NotFoundError",
    "Plugin",
    "Progress",
    "Result",
    "Retry",
    "RetryAfter",
    "Row",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunStatus",
    "RunTimeoutError",
    "Schedule",
    "SchemaVersionError",
    "Statement",
    "Step",
    "StepContext",
    "StepOutputError",
    "StepTimeoutError",
    "StorageError",
    "StorageFullError",
    "StorageInfo",
    "Trigger",
    "UserTransaction",
    "ValidationError",
    "create_durably",
    "define_job",
    "job",
    "with_log_persistence",
]
