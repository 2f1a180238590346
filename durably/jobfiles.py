"""Job files: Python files whose jobs are to be executed, named by a page or on the command line."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from .engine import Durably
from .errors import ValidationError, describe
from .jobs import JobDefinition


def require_job_file_name(name: str) -> str:
    """The name of the module that a job file becomes. Raises `ValidationError` where it cannot be imported by it."""
    file = Path(name)
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise ValidationError(f"the job file '{name}' must be named like a Python module, for example jobs.py")
    if file.stem in sys.modules:
        raise ValidationError(f"the job file '{name}' has the name of a module that exists already; rename it")
    return file.stem


def import_job_file(file: Path) -> ModuleType:
    """Import a job file, which finds its neighbours. Raises `ValidationError` that says where it is wrong."""
    module_name = require_job_file_name(file.name)
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    # Its finder may not have seen the file. `importlib.invalidate_caches` would read the index of a zipped standard
    # library anew, too, which takes a tenth of a second in a browser.
    sys.path_importer_cache.pop(str(file.parent), None)
    try:
        return importlib.import_module(module_name)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ValidationError(f"{file.name}, line {error.lineno}: {error.msg}: {line}") from error
    except (Exception, SystemExit) as error:
        places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f"{file.name}, line {places[-1]}" if places else file.name
        raise ValidationError(f"{where}: {type(error).__name__}: {describe(error)}") from error


def register_jobs_of(durably: Durably, module: ModuleType) -> None:
    """Register every job that a module has. Raises `ValidationError` where two have one name."""
    for value in vars(module).values():
        if isinstance(value, JobDefinition):
            try:
                durably.register(value)
            except ValueError as error:
                raise ValidationError(f"{module.__name__}.py: {error}") from error
