"""Every SQL statement of durably, each a constant with a name.

They are plain text for SQLite 3.37 and later: nothing is ever formatted into them. Parameters are named;
lists travel as one JSON text and are taken apart by `json_each`. A statement that only reads begins with
`SELECT`. Those of an execution carry `:generation`: they are *fenced*, and match no row once the run has
been claimed again or has ended.
"""

from __future__ import annotations

CREATE_SCHEMA_VERSIONS = """
CREATE TABLE IF NOT EXISTS durably_schema_versions (
  version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL
) STRICT
"""
HAS_SCHEMA_VERSIONS = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'durably_schema_versions'"
SCHEMA_VERSION = "SELECT coalesce(max(version), 0) FROM durably_schema_versions"
RECORD_VERSION = "INSERT INTO durably_schema_versions (version, applied_at) VALUES (:version, :now)"

INSERT_RUN = """
INSERT INTO durably_runs
  (id, job_name, status, payload, labels, idempotency_key, concurrency_key, priority, run_at, created_at, updated_at)
VALUES
  (:id, :job_name, 'pending', :payload, :labels, :idempotency_key, :concurrency_key, :priority, :run_at, :now, :now)
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

RUN_BY_ID_OR_KEY = """SELECT * FROM durably_runs WHERE id = :id
UNION ALL
SELECT * FROM durably_runs WHERE job_name = :job_name AND idempotency_key = :idempotency_key AND id <> :id"""

LIST_RUNS = """SELECT * FROM durably_runs
WHERE (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:job_names IS NULL OR job_name IN (SELECT value FROM json_each(:job_names)))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels) AS wanted
    WHERE NOT EXISTS (
      SELECT 1 FROM durably_run_labels AS label
      WHERE label.run_id = durably_runs.id AND label.key = wanted.key AND label.value = wanted.value))
ORDER BY id DESC LIMIT :limit OFFSET :offset"""

ANY_CLAIMABLE = """SELECT EXISTS (
  SELECT 1 FROM durably_runs
  WHERE status = 'pending' AND run_at <= :now AND job_name IN (SELECT value FROM json_each(:job_names)))"""

# `:mine` are the runs that the asking worker executes; a running run outside them may have lost its owner.
OTHER_OWNERS = """SELECT worker_id, min(heartbeat_at) AS heartbeat_at FROM durably_runs
WHERE status = 'running' AND id NOT IN (SELECT value FROM json_each(:mine)) GROUP BY worker_id"""

# A run with a concurrency key waits while a run with that key is running, and behind a pending one that
# comes first: several rows are claimed at once, and no two of them may share a key.
CLAIM = """
UPDATE durably_runs SET
  status = 'running', generation = generation + 1, worker_id = :worker_id, heartbeat_at = :now,
  started_at = coalesce(started_at, :now), updated_at = :now
WHERE id IN (
  SELECT candidate.id FROM durably_runs AS candidate
  WHERE candidate.status = 'pending' AND candidate.run_at <= :now
    AND candidate.job_name IN (SELECT value FROM json_each(:job_names))
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
RECLAIM = """
UPDATE durably_runs SET status = 'pending', worker_id = NULL, heartbeat_at = NULL, updated_at = :now
WHERE status = 'running' AND id NOT IN (SELECT value FROM json_each(:mine))
  AND (worker_id IN (SELECT value FROM json_each(:dead)) OR heartbeat_at <= :cutoff)
RETURNING *
"""

HEARTBEAT = """
UPDATE durably_runs SET heartbeat_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

STEPS_OF_RUN = "SELECT * FROM durably_steps WHERE run_id = :run_id ORDER BY step_index, started_at"

# Fenced: selects no row, and so inserts none, once the claim is over.
PUT_STEP = """
INSERT INTO durably_steps (run_id, name, step_index, status, output, error, attempt, started_at, completed_at)
SELECT id, :name, :step_index, :status, :output, :error, 1, :started_at, :now
FROM durably_runs WHERE id = :run_id AND status = 'running' AND generation = :generation
ON CONFLICT (run_id, name) DO UPDATE SET
  step_index = excluded.step_index, status = excluded.status, output = excluded.output, error = excluded.error,
  attempt = durably_steps.attempt + 1, started_at = excluded.started_at, completed_at = excluded.completed_at
"""

ADVANCE_RUN = """
UPDATE durably_runs SET
  current_step_index = max(current_step_index, :step_index),
  completed_step_count = completed_step_count + :completed,
  progress = coalesce(:progress, progress), heartbeat_at = :now, updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
RETURNING id
"""

PUT_PROGRESS = """
UPDATE durably_runs SET progress = :progress, updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

FINISH_RUN = """
UPDATE durably_runs SET
  status = :status, output = :output, error = :error, failed_step_name = :failed_step_name,
  progress = coalesce(:progress, progress), worker_id = NULL, heartbeat_at = NULL,
  updated_at = :now, completed_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
RETURNING *
"""

RELEASE_RUN = """
UPDATE durably_runs SET status = 'pending', worker_id = NULL, heartbeat_at = NULL,
  progress = coalesce(:progress, progress), updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation
"""

CANCEL_RUN = """
UPDATE durably_runs SET status = 'cancelled', worker_id = NULL, heartbeat_at = NULL,
  updated_at = :now, completed_at = :now
WHERE id = :id AND status IN ('pending', 'running')
RETURNING *
"""

RETRY_RUN = """
UPDATE durably_runs SET
  status = 'pending', error = NULL, failed_step_name = NULL, completed_at = NULL, run_at = :now, updated_at = :now
WHERE id = :id AND status IN ('failed', 'cancelled')
RETURNING *
"""
