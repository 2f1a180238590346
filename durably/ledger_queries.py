"""The SQL of `ledger`, as `queries` is that of `store`: signals, logs, schedules."""

from __future__ import annotations

# --- signals --------------------------------------------------------------------------------------

INSERT_SIGNAL = """
INSERT INTO durably_signals (run_id, name, payload, created_at)
SELECT id, :name, :payload, :now FROM durably_runs WHERE id = :run_id AND status IN ('pending', 'running')
RETURNING id
"""

# Delivered to one step, in the order of arrival; a step that has one already takes no second.
CONSUME_SIGNAL = """
UPDATE durably_signals SET consumed_by = :name
WHERE id = (
    SELECT min(id) FROM durably_signals WHERE run_id = :run_id AND name = :signal AND consumed_by IS NULL)
  AND EXISTS (
    SELECT 1 FROM durably_runs WHERE id = :run_id AND status = 'running' AND generation = :generation)
"""

DELIVER_SIGNAL = """
UPDATE durably_steps SET
  status = 'completed', wake_at = NULL, completed_at = :now,
  output = (SELECT payload FROM durably_signals WHERE run_id = :run_id AND consumed_by = :name)
WHERE run_id = :run_id AND name = :name AND status = 'waiting'
  AND EXISTS (SELECT 1 FROM durably_signals WHERE run_id = :run_id AND consumed_by = :name)
RETURNING output
"""

ADVANCE_AFTER_SIGNAL = """
UPDATE durably_runs SET
  current_step_index = max(current_step_index, :step_index), completed_step_count = completed_step_count + 1,
  crash_count = 0, suspect_step = NULL, heartbeat_at = :now, updated_at = :now
WHERE id = :run_id AND status = 'running' AND generation = :generation AND EXISTS (
  SELECT 1 FROM durably_steps
  WHERE run_id = :run_id AND name = :name AND status = 'completed' AND completed_at = :now)
"""

# --- logs -----------------------------------------------------------------------------------------

# Lines are stored a moment after they were written: then their worker may have parked the run and claimed it
# again. What is kept out are the lines of a worker that has lost the run to another.
INSERT_LOG = """
INSERT INTO durably_logs (run_id, step_name, level, message, data, created_at)
SELECT id, :step_name, :level, :message, :data, :created_at FROM durably_runs
WHERE id = :run_id AND (generation = :generation OR worker_id = :worker_id)
"""

LOGS_OF_RUN = "SELECT * FROM durably_logs WHERE run_id = :run_id ORDER BY id"

# --- schedules ------------------------------------------------------------------------------------

PUT_SCHEDULE = """
INSERT INTO durably_schedules (key, job_name, payload, every_ms, cron, timezone, catch_up, next_at, created_at)
VALUES (:key, :job_name, :payload, :every_ms, :cron, :timezone, :catch_up, :next_at, :now)
ON CONFLICT (key) DO UPDATE SET
  job_name = excluded.job_name, payload = excluded.payload, every_ms = excluded.every_ms, cron = excluded.cron,
  timezone = excluded.timezone, catch_up = excluded.catch_up, next_at = excluded.next_at,
  created_at = excluded.created_at
"""

DELETE_SCHEDULE = "DELETE FROM durably_schedules WHERE key = :key RETURNING key"

LIST_SCHEDULES = "SELECT * FROM durably_schedules ORDER BY key"

ANY_SCHEDULE_DUE = "SELECT EXISTS (SELECT 1 FROM durably_schedules WHERE next_at <= :now)"

DUE_SCHEDULES = "SELECT * FROM durably_schedules WHERE next_at <= :now ORDER BY next_at"

# Each run of a tick is inserted only while the tick is still to come: of two tabs one fires it.
INSERT_SCHEDULED_RUN = """
INSERT INTO durably_runs (id, job_name, status, payload, labels, priority, run_at, created_at, updated_at)
SELECT :id, job_name, 'pending', payload, :labels, 0, :now, :now, :now
FROM durably_schedules WHERE key = :key AND next_at = :next_at
RETURNING *
"""

ADVANCE_SCHEDULE = "UPDATE durably_schedules SET next_at = :after WHERE key = :key AND next_at = :next_at"
