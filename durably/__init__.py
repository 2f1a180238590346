"""durably: Python jobs that survive a reload, a closed tab or a crash.

A job is an async function made of named steps. The result of each step is committed to SQLite before the
next begins; an interrupted job goes on from its last step. The same job runs in a browser (Pyodide in a
worker, SQLite on OPFS) and on a server (CPython, a SQLite file).
"""

from __future__ import annotations

from .database import Database, Result, Row, Statement
from .engine import Durably, create_durably
from .errors import (
    ConflictError,
    DuplicateStepError,
    DurablyError,
    LeaseLostError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    SchemaVersionError,
    StepOutputError,
    StorageError,
    StorageFullError,
    ValidationError,
)
from .events import Event
from .handles import JobHandle, JobHandles, Trigger
from .jobs import JobDefinition, define_job, job
from .records import Progress, Run, RunStatus, Step
from .step import StepContext, UserTransaction

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
    "NotFoundError",
    "Progress",
    "Result",
    "Row",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunStatus",
    "SchemaVersionError",
    "Statement",
    "Step",
    "StepContext",
    "StepOutputError",
    "StorageError",
    "StorageFullError",
    "Trigger",
    "UserTransaction",
    "ValidationError",
    "create_durably",
    "define_job",
    "job",
]
