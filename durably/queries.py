"""Every SQL statement of durably, each a constant with a name.

They are plain text for SQLite 3.37 and later: nothing is ever formatted into them. Parameters are named;
lists travel as one JSON text and are taken apart by `json_each`. A statement that only reads begins with
`SELECT`. Those of an execution carry `:generation`: they are *fenced*, and match no row once the run has
been claimed again or has ended.
"""

from __future__ import annotations

# --- schema ---------------------------------------------------------------------------------------

CREATE_SCHEMA_VERSIONS = """
CREATE TABLE IF NOT EXISTS durably_schema_versions (
  version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL
) STRICT
"""
HAS_SCHEMA_VERSIONS = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'durably_schema_versions'"
SCHEMA_VERSION = "SELECT coalesce(max(version), 0) FROM durably_schema_versions"
# Breaks off its transaction where the file is newer than what is known: the text that `json` is given there is none.
REQUIRE_VERSION = """SELECT json('the schema has version ' || version)
FROM durably_schema_versions WHERE version > :known"""
RECORD_VERSION = "INSERT INTO durably_schema_versions (version, applied_at) VALUES (:version, :now)"

# --- runs: storing and finding --------------------------------------------------------------------

INSERT_RUN = """
INSERT INTO durably_runs
  (id, job_name, status, payload, labels, idempotency_key, concurrency_key, priority, run_at, parent_id, is_detached,
   created_at, updated_at)
VALUES
  (:id, :job_name, 'pending', :payload, :labels, :idempotency_key, :concurrency_key, :priority, :run_at, :parent_id,
   :is_detached, :now, :now)
ON CONFLICT DO NOTHING
"""

# The same, unless a pending run of the job has the concurrency key already.
INSERT_RUN_COALESCED = """
INSERT INTO durably_runs
  (id, job_name, status, payload, labels, idempotency_key, concurrency_key, priority, run_at, parent_id, is_detached,
   created_at, updated_at)
SELECT
  :id, :job_name, 'pending', :payload, :labels, :idempotency_key, :concurrency_key, :priority, :run_at, :parent_id,
   :is_detached, :now, :now
WHERE NOT EXISTS (
  SELECT 1 FROM durably_runs
  WHERE status = 'pending' AND waiting_for IS NULL AND concurrency_key = :concurrency_key AND job_name = :job_name)
ON CONFLICT DO NOTHING
"""

INSERT_LABELS = """
INSERT INTO durably_run_labels (run_id, key, value)
SELECT durably_runs.id, label.key, label.value
FROM durably_runs, json_each(durably_runs.labels) AS label
WHERE durably_runs.id = :id
ON CONFLICT DO NOTHING
"""

RUN_BY_ID = "SELECT * FROM durably_runs WHERE id = :id"

# Ids are made of digits and capitals, all of which sort before a tilde.
IDS_BY_PREFIX = """SELECT id FROM durably_runs
WHERE id >= :prefix AND id < :prefix || '~' ORDER BY id LIMIT :limit"""

# What an insert led to: the new run, or the one that has its idempotency key, or the one it coalesced with.
RUN_TRIGGERED = """SELECT * FROM durably_runs WHERE id = :id
UNION ALL
SELECT * FROM durably_runs WHERE job_name = :job_name AND idempotency_key = :idempotency_key AND id <> :id
UNION ALL
SELECT * FROM (
  SELECT * FROM durably_runs
  WHERE :coalesce AND status = 'pending' AND waiting_for IS NULL
    AND concurrency_key = :concurrency_key AND job_name = :job_name AND id <> :id
  ORDER BY id LIMIT 1)"""

LIST_RUNS = """SELECT * FROM durably_runs
WHERE (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:job_names IS NULL OR job_name IN (SELECT value FROM json_each(:job_names)))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels) AS wanted
    WHERE NOT EXISTS (
      SELECT 1 FROM durably_run_labels AS label
      WHERE label.run_id = durably_runs.id AND label.key = wanted.key AND label.value = wanted.value))
ORDER BY id DESC LIMIT :limit OFFSET :offset"""

# In the order of `StoredStep`.
STEPS_OF_RUN = """
SELECT run_id, name, step_index, status, output, error, attempt, wake_at, signal, child_id, started_at, completed_at
FROM durably_steps WHERE run_id = :run_id ORDER BY step_index, started_at
"""

# --- runs: a worker's -----------------------------------------------------------------------------

# A run that is parked in another worker is left to it, until it is `:overdue`: then that worker is taken to be gone.
ANY_CLAIMABLE = """SELECT EXISTS (
  SELECT 1 FROM durably_runs
  WHERE status = 'pending' AND run_at <= :now AND job_name IN (SELECT value FROM json_each(:job_names))
    AND (worker_id IS NULL OR worker_id = :worker_id OR run_at <= :overdue))"""

# `:mine` are the runs that the asking worker executes; a running run outside them may have lost its owner.
OTHER_OWNERS = """SELECT worker_id, min(heartbeat_at) AS heartbeat_at FROM durably_runs
WHERE status = 'running' AND id NOT IN (SELECT value FROM json_each(:mine)) GROUP BY worker_id"""

# Where runs that are due are parked: if the worker is dead, they need not stay until they are overdue.
OTHER_PARKERS = """SELECT DISTINCT worker_id FROM durably_runs
WHERE status = 'pending' AND run_at <= :now AND worker_id <> :worker_id"""

# What was due when it was last written is due, whatever a clock that was set back says.
MAKE_DUE = """
UPDATE durably_runs SET run_at = :now WHERE status = 'pending' AND run_at > :now AND run_at <= updated_at
"""

# A run with a concurrency key waits while a run with that key is running, and behind a pending one that
# comes first: several rows are claimed at once, and no two of them may share a key.
CLAIM = """
UPDATE durably_runs SET
  status = 'running', generation = generation + 1, worker_id = :worker_id, heartbeat_at = :now, claimed_at = :now,
  waiting_for = NULL, started_at = coalesce(started_at, :now), updated_at = :now
WHERE id IN (
  SELECT candidate.id FROM durably_runs AS candidate
  WHERE candidate.status = 'pending' AND candidate.run_at <= :now
    AND candidate.job_name IN (SELECT value FROM json_each(:job_names))
    AND (candidate.worker_id IS NULL OR candidate.worker_id = :worker_id OR candidate.run_at <= :overdue)
    AND (candidate.concurrency_key IS NULL OR (
      NOT EXISTS (
        SELECT 1 FROM durably_runs AS busy
        WHERE busy.status = 'running' AND busy.concurrency_key = candidate.concurrency_key)
      AND NOT EXISTS (
        SELECT 1 FROM durably_runs AS ahead
        WHERE ahead.status = 'pending' AND ahead.concurrency_key = candidate.concurrency_key AND ahead.run_at <= :now
          AND ahead.job_name IN (SELECT value FROM json_each(:job_names))
          AND (-ahead.priority, ahead.run_at, ahead.id) < (-candidate.priority, candidate.run_at, candidate.id))))
  ORDER BY candidate.priority DESC, candidate.run_at, candidate.id LIMIT :slots)
RETURNING *
"""

# The heartbeat is looked at again here, under the write lock: an owner that beat after the glance keeps its runs.
# A death without a checkpoint since the claim is counted; too many of them, and the run is parked as failed.
RECLAIM = """
UPDATE durably_runs SET
  status = CASE WHEN crash_count + :is_crash >= :max_crashes THEN 'failed' ELSE 'pending' END,
  error = CASE WHEN crash_count + :is_crash >= :max_crashes THEN
    'the worker of this run died ' || (crash_count + :is_crash) || ' times in '
    || coalesce('step ''' || suspect_step || '''', 'the code before its first step')
    || ' without a new checkpoint; retry it once the cause is mended' END,
  failed_step_name = CASE WHEN crash_count + :is_crash >= :max_crashes THEN suspect_step END,
  completed_at = CASE WHEN crash_count + :is_crash >= :max_crashes THEN :now END,
  crash_count = crash_count + :is_crash,
  active_ms = active_ms + max(0, heartbeat_at - claimed_at),
  worker_id = NULL, heartbeat_at = NULL, run_at = min(run_at, :now), updated_at = :now
WHERE status = 'running' AND id NOT IN (SELECT value FROM json_each(:mine))
  AND (worker_id IN (SELECT value FROM json_each(:dead)) OR heartbeat_at <= :cutoff)
RETURNING *
"""

# Runs parked in a worker that is dead, or that stops: anyone may claim them when they are due.
UNPARK = """
UPDATE durably_runs SET worker_id = NULL
WHERE status = 'pending' AND worker_id IN (SELECT value FROM json_each(:workers))
"""

HEARTBEAT = """
UPDATE durably_runs SET heartbeat_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

# The same for all runs of a worker, from a thread that no step can block.
HEARTBEAT_OF_WORKER = """
UPDATE durably_runs SET heartbeat_at = :now WHERE status = 'running' AND worker_id = :worker_id
"""

# Those of a worker's parked runs that are still its own.
STILL_PARKED = """SELECT id, generation FROM durably_runs
WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'pending' AND worker_id = :worker_id"""

# --- runs: an execution's -------------------------------------------------------------------------

# Fenced: selects no row, and so inserts none, once the claim is over. What is completed stays as it is.
PUT_STEP = """
INSERT INTO durably_steps
  (run_id, name, step_index, status, output, error, attempt, wake_at, signal, child_id, started_at, completed_at)
SELECT
  id, :name, :step_index, :status, :output, :error, :attempt, :wake_at, :signal, :child_id, :started_at, :completed_at
FROM durably_runs WHERE id = :run_id AND status = 'running' AND generation = :generation
ON CONFLICT (run_id, name) DO UPDATE SET
  step_index = excluded.step_index, status = excluded.status, output = excluded.output, error = excluded.error,
  attempt = excluded.attempt, wake_at = excluded.wake_at, signal = excluded.signal, child_id = excluded.child_id,
  started_at = excluded.started_at, completed_at = excluded.completed_at
WHERE durably_steps.status <> 'completed'
"""

# The step in flight when its run was cancelled or ran out of time. Fenced by the generation, which neither changes.
PUT_CANCELLED_STEP = """
INSERT INTO durably_steps (run_id, name, step_index, status, attempt, started_at, completed_at)
SELECT id, :name, :step_index, 'cancelled', :attempt, :started_at, :now
FROM durably_runs WHERE id = :run_id AND status IN ('running', 'cancelled') AND generation = :generation
ON CONFLICT (run_id, name) DO UPDATE SET
  status = 'cancelled', attempt = excluded.attempt, wake_at = NULL, started_at = excluded.started_at,
  completed_at = excluded.completed_at
WHERE durably_steps.status <> 'completed'
"""

# After `PUT_STEP` in its batch, and only if that has written.
ADVANCE_RUN = """
UPDATE durably_runs SET
  current_step_index = CASE WHEN :completed THEN max(current_step_index, :step_index) ELSE current_step_index END,
  completed_step_count = completed_step_count + :completed,
  crash_count = CASE WHEN :completed THEN 0 ELSE crash_count END,
  suspect_step = CASE WHEN :completed THEN NULL ELSE suspect_step END,
  progress = coalesce(:progress, progress), heartbeat_at = :now, updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation AND changes() = 1
RETURNING id
"""

# Noted only for a run that has lost a worker before: should it die again, it is known where.
SUSPECT_STEP = """
UPDATE durably_runs SET suspect_step = :name
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

PUT_PROGRESS = """
UPDATE durably_runs SET progress = :progress, updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

FINISH_RUN = """
UPDATE durably_runs SET
  status = :status, output = :output, error = :error, failed_step_name = :failed_step_name,
  progress = coalesce(:progress, progress), active_ms = active_ms + max(0, :now - claimed_at), crash_count = 0,
  worker_id = NULL, heartbeat_at = NULL, updated_at = :now, completed_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
RETURNING :now - started_at
"""

# After `FINISH_RUN` in its batch: what a job has left waiting waits no more.
END_WAITS = """
UPDATE durably_steps SET status = 'cancelled', completed_at = :now
WHERE run_id = :run_id AND status = 'waiting' AND EXISTS (
  SELECT 1 FROM durably_runs WHERE id = :run_id AND status IN ('completed', 'failed') AND generation = :generation)
"""

RELEASE_RUN = """
UPDATE durably_runs SET
  status = 'pending', worker_id = NULL, heartbeat_at = NULL, active_ms = active_ms + max(0, :now - claimed_at),
  progress = coalesce(:progress, progress), run_at = min(run_at, :now), updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

PARK_RUN = """
UPDATE durably_runs SET
  status = 'pending', waiting_for = :waiting_for, run_at = :wake_at, heartbeat_at = NULL,
  active_ms = active_ms + max(0, :now - claimed_at), progress = coalesce(:progress, progress), updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
RETURNING id
"""

# What a parked run waits for may have come while it was being parked, or comes now. A child that has been deleted
# had ended.
WAKE_IF_SIGNALLED = """
UPDATE durably_runs SET run_at = min(run_at, :now)
WHERE id = :run_id AND status = 'pending' AND waiting_for IS NOT NULL AND EXISTS (
  SELECT 1 FROM durably_steps AS waiting
  JOIN durably_signals AS sent ON sent.run_id = waiting.run_id AND sent.name = waiting.signal
  WHERE waiting.run_id = durably_runs.id AND waiting.status = 'waiting' AND sent.consumed_by IS NULL)
"""

WAKE_IF_CHILD_ENDED = """
UPDATE durably_runs SET run_at = min(run_at, :now)
WHERE id = :run_id AND status = 'pending' AND waiting_for IS NOT NULL AND EXISTS (
  SELECT 1 FROM durably_steps AS waiting LEFT JOIN durably_runs AS child ON child.id = waiting.child_id
  WHERE waiting.run_id = durably_runs.id AND waiting.status = 'waiting' AND waiting.child_id IS NOT NULL
    AND (child.id IS NULL OR child.completed_at IS NOT NULL))
"""

WAKE_PARENT = """
UPDATE durably_runs SET run_at = min(run_at, :now)
WHERE status = 'pending' AND waiting_for IS NOT NULL AND id IN (
  SELECT run_id FROM durably_steps WHERE child_id = :run_id AND status = 'waiting')
"""

# For runs that ended without anybody executing them.
WAKE_ALL_PARENTS = """
UPDATE durably_runs SET run_at = min(run_at, :now)
WHERE status = 'pending' AND waiting_for IS NOT NULL AND EXISTS (
  SELECT 1 FROM durably_steps AS waiting LEFT JOIN durably_runs AS child ON child.id = waiting.child_id
  WHERE waiting.run_id = durably_runs.id AND waiting.status = 'waiting' AND waiting.child_id IS NOT NULL
    AND (child.id IS NULL OR child.completed_at IS NOT NULL))
"""

WAKE_RUN = """
UPDATE durably_runs SET run_at = min(run_at, :now)
WHERE id = :run_id AND status = 'pending' AND generation = :generation
"""

# --- runs: a user's -------------------------------------------------------------------------------

# With its children, and theirs, that were not started as detached.
CANCEL_RUN = """
UPDATE durably_runs SET
  status = 'cancelled', waiting_for = NULL, worker_id = NULL, heartbeat_at = NULL,
  updated_at = :now, completed_at = :now
WHERE status IN ('pending', 'running') AND id IN (
  WITH RECURSIVE family (id) AS (
    SELECT id FROM durably_runs WHERE id = :id AND status IN ('pending', 'running')
    UNION
    SELECT child.id FROM durably_runs AS child JOIN family ON child.parent_id = family.id WHERE NOT child.is_detached)
  SELECT id FROM family)
RETURNING *
"""

# In the batch of `CANCEL_RUN`: what waited waits no more.
CANCEL_WAITS = """
UPDATE durably_steps SET status = 'cancelled', completed_at = :now
WHERE status = 'waiting' AND run_id IN (
  WITH RECURSIVE family (id) AS (
    SELECT id FROM durably_runs WHERE id = :id AND status = 'cancelled' AND completed_at = :now
    UNION
    SELECT child.id FROM durably_runs AS child JOIN family ON child.parent_id = family.id
    WHERE NOT child.is_detached AND child.status = 'cancelled')
  SELECT id FROM family)
"""

RETRY_RUN = """
UPDATE durably_runs SET
  status = 'pending', error = NULL, failed_step_name = NULL, completed_at = NULL, crash_count = 0, suspect_step = NULL,
  active_ms = 0, run_at = :now, updated_at = :now
WHERE id = :id AND status IN ('failed', 'cancelled')
RETURNING *
"""

# Attempts are counted anew, and a wait that had timed out waits again.
RESET_ATTEMPTS = """
UPDATE durably_steps SET attempt = 0, wake_at = NULL
WHERE run_id = :id AND status IN ('failed', 'cancelled') AND EXISTS (
  SELECT 1 FROM durably_runs WHERE id = :id AND status = 'pending')
"""

DELETE_RUN = "DELETE FROM durably_runs WHERE id = :id AND status IN ('completed', 'failed', 'cancelled') RETURNING *"

PURGE_RUNS = """
DELETE FROM durably_runs WHERE id IN (
  SELECT id FROM durably_runs
  WHERE completed_at IS NOT NULL AND completed_at < :older_than ORDER BY completed_at LIMIT :limit)
RETURNING *
"""

# A page of them: those behind the moment and the id that the page before it ended with.
ENDED_SINCE = """SELECT * FROM durably_runs
WHERE completed_at IS NOT NULL AND completed_at >= :since AND (completed_at, id) > (:since, :after)
  AND (:job_names IS NULL OR job_name IN (SELECT value FROM json_each(:job_names)))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels) AS wanted
    WHERE NOT EXISTS (
      SELECT 1 FROM durably_run_labels AS label
      WHERE label.run_id = durably_runs.id AND label.key = wanted.key AND label.value = wanted.value))
ORDER BY completed_at, id LIMIT :limit"""

COUNT_ENDED = """SELECT count(*) FROM durably_runs
WHERE completed_at IS NOT NULL AND completed_at < :older_than"""

# After `FINISH_RUN` in its batch: the generation tells that it was this execution that completed the run.
DELETE_STEPS_OF_COMPLETED = """
DELETE FROM durably_steps WHERE run_id = :run_id AND EXISTS (
  SELECT 1 FROM durably_runs WHERE id = :run_id AND status = 'completed' AND generation = :generation)
"""

# The completed steps before a given one, for a run that begins with copies of them.
COPY_STEPS = """
INSERT INTO durably_steps
  (run_id, name, step_index, status, output, error, attempt, wake_at, signal, child_id, started_at, completed_at)
SELECT :id, name, step_index, status, output, error, attempt, wake_at, signal, child_id, started_at, completed_at
FROM durably_steps AS original
WHERE original.run_id = :source_id AND original.status = 'completed' AND original.step_index < (
  SELECT step_index FROM durably_steps WHERE run_id = :source_id AND name = :from_step)
"""

COUNT_COPIED_STEPS = """
UPDATE durably_runs SET
  completed_step_count = (SELECT count(*) FROM durably_steps WHERE run_id = :id),
  current_step_index = (SELECT coalesce(max(step_index), -1) FROM durably_steps WHERE run_id = :id)
WHERE id = :id
"""

COUNT_ACTIVE = "SELECT count(*) FROM durably_runs WHERE status IN ('pending', 'running')"
