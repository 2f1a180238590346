"""One claimed run, from its start to its outcome.

The outcome is decided here and written fenced: completed, failed, cancelled by somebody, handed back
because the worker stops, or lost to another worker. Nothing a job raises gets any further than this.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .clock import unbroken
from .errors import DurablyError, LeaseLostError, StoreFailedError, describe, leaves
from .events import RunCompleted, RunFailed, RunStarted, logger
from .jobs import JobDefinition
from .records import RunStatus
from .step import Services, StepContext, ours
from .store import Claim, StoredRun


class Execution:
    """Executes one run under one claim. Whoever made it calls `run` once, and may `interrupt` it."""

    def __init__(
        self, services: Services, definition: JobDefinition[Any, Any], stored: StoredRun, worker_id: str
    ) -> None:
        self.claim = Claim(run_id=stored.id, generation=stored.generation)
        self._services = services
        self._definition = definition
        self._stored = stored
        self._worker_id = worker_id
        self._step: StepContext | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended_elsewhere = False

    def start(self) -> asyncio.Task[None]:
        """Begin, as a task of its own."""
        self._task = asyncio.ensure_future(self._run())
        return self._task

    def interrupt(self, *, ended_elsewhere: bool) -> None:
        """Cancel the job at its next `await`.

        `ended_elsewhere`: the run was cancelled or taken over, and nothing more is written for it. Otherwise
        it goes back to pending.
        """
        self._ended_elsewhere = ended_elsewhere
        if self._step is not None and ended_elsewhere:
            self._step.lost = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        step: StepContext | None = None
        try:
            steps = await ours(self._services.store.steps_of(self._stored.id))
            completed = {found.name: found for found in steps if found.status == "completed"}
            step = self._step = StepContext(self._services, self._stored, completed)
            payload = self._definition.load_payload(self._stored.payload)
            self._emit(RunStarted, payload=payload, worker_id=self._worker_id)
            output = self._definition.dump_output(await self._definition.run(step, payload))
            await unbroken(ours(self._complete(step, output)))
        except StoreFailedError as error:
            # Not the job's fault. The worker takes the run for an orphan and frees it when it can write.
            raise error.cause from error
        except asyncio.CancelledError as error:
            await self._cancelled(step, error)
        except Exception as error:  # noqa: BLE001 - whatever a job raises is the outcome of its run
            await self._fail(step, error)
        except BaseException as error:  # noqa: BLE001 - control flow, ours or the job's
            await self._ended_by(step, error)
        finally:
            if step is not None:
                await step.close()

    async def _ended_by(self, step: StepContext | None, error: BaseException) -> None:
        if any(isinstance(leaf, LeaseLostError) for leaf in leaves(error)):
            logger.info("run %s went to another worker", self._stored.id)
        elif isinstance(error, KeyboardInterrupt | GeneratorExit):
            await self._hand_back(step)
            raise error
        else:
            await self._fail(step, error)

    async def _complete(self, step: StepContext, output: str) -> None:
        stored = await self._services.store.finish(
            self.claim,
            RunStatus.COMPLETED,
            output=output,
            progress=step.take_progress(),
            now=self._services.clock.now(),
        )
        if stored is not None:
            assert stored.completed_at is not None, "a finished run has its time"
            assert stored.started_at is not None, "a claimed run has its start"
            self._emit(
                RunCompleted,
                output=self._definition.load_output(output),
                duration=(stored.completed_at - stored.started_at) / 1000,
            )

    async def _fail(self, step: StepContext | None, error: BaseException) -> None:
        failed_step = step.failed_step(error) if step else None
        text = describe(error)
        if not isinstance(error, DurablyError):
            logger.info("run %s of job %s failed", self._stored.id, self._stored.job_name, exc_info=error)
        stored = await self._services.store.finish(
            self.claim,
            RunStatus.FAILED,
            error=text,
            failed_step_name=failed_step,
            progress=step.take_progress() if step else None,
            now=self._services.clock.now(),
        )
        if stored is not None:
            self._emit(RunFailed, error=text, failed_step_name=failed_step)

    async def _cancelled(self, step: StepContext | None, error: asyncio.CancelledError) -> None:
        if self._ended_elsewhere:
            return
        if self._task is not None and self._task.cancelling() == 0:
            # Nobody asked for it: the job raised it itself, and that is a failure like any other.
            await self._fail(step, error)
            return
        await self._hand_back(step)

    async def _hand_back(self, step: StepContext | None) -> None:
        progress = step.take_progress() if step else None
        await self._services.store.release(self.claim, progress, self._services.clock.now())

    def _emit(self, kind: Any, **facts: Any) -> None:
        labels = json.loads(self._stored.labels)
        self._services.bus.emit(kind, run_id=self._stored.id, job_name=self._stored.job_name, labels=labels, **facts)
