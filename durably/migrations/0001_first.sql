-- The schema of durably. Times are milliseconds since 1970 in UTC.
-- A statement ends with a semicolon at the end of a line, and nowhere else.

-- One row a run of a job. Every write for a running run is conditional on `generation`, which grows at each claim.
-- A run that waits (`waiting_for`) is pending, with `run_at` the moment at which it must look again; `worker_id` is
-- then the worker in which its coroutine is parked.
CREATE TABLE durably_runs (
  id TEXT PRIMARY KEY,
  job_name TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
  payload TEXT NOT NULL,
  output TEXT,
  error TEXT,
  failed_step_name TEXT,
  progress TEXT,
  labels TEXT NOT NULL DEFAULT '{}',
  idempotency_key TEXT,
  concurrency_key TEXT,
  priority INTEGER NOT NULL DEFAULT 0,
  current_step_index INTEGER NOT NULL DEFAULT -1,
  completed_step_count INTEGER NOT NULL DEFAULT 0,
  waiting_for TEXT,
  generation INTEGER NOT NULL DEFAULT 0,
  worker_id TEXT,
  heartbeat_at INTEGER,
  claimed_at INTEGER,
  active_ms INTEGER NOT NULL DEFAULT 0,
  crash_count INTEGER NOT NULL DEFAULT 0,
  suspect_step TEXT,
  parent_id TEXT,
  is_detached INTEGER NOT NULL DEFAULT 0,
  run_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  started_at INTEGER,
  completed_at INTEGER
) STRICT;

-- The claim: the few pending rows, in the order in which they are taken.
CREATE INDEX durably_runs_pending ON durably_runs (priority DESC, run_at, id) WHERE status = 'pending';

-- The stale scan: the few running rows, by owner.
CREATE INDEX durably_runs_running ON durably_runs (worker_id, heartbeat_at) WHERE status = 'running';

-- The concurrency check of the claim: who runs with a key, and who waits with it.
CREATE INDEX durably_runs_busy_keys ON durably_runs (concurrency_key) WHERE status = 'running';
CREATE INDEX durably_runs_waiting_keys ON durably_runs (concurrency_key) WHERE status = 'pending';

-- A key means one run of its job, for ever.
CREATE UNIQUE INDEX durably_runs_idempotency ON durably_runs (job_name, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Children, to cancel them with their parent.
CREATE INDEX durably_runs_children ON durably_runs (parent_id) WHERE parent_id IS NOT NULL;

-- Retention: the terminal rows, oldest first.
CREATE INDEX durably_runs_ended ON durably_runs (completed_at) WHERE completed_at IS NOT NULL;

-- Newest-first lists by job and by status; ids sort by time.
CREATE INDEX durably_runs_by_job ON durably_runs (job_name, id);
CREATE INDEX durably_runs_by_status ON durably_runs (status, id);

-- Labels once more, one row each, to find runs by them.
CREATE TABLE durably_run_labels (
  run_id TEXT NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX durably_run_labels_by_value ON durably_run_labels (key, value, run_id);

-- One row a step: its last attempt. `output` is JSON text, or a BLOB where the result is bytes.
-- A step that waits for a moment (`wake_at`), a signal or a child run is `waiting`; one that failed and is to be tried
-- again is `failed` with `wake_at` the moment of its next attempt.
CREATE TABLE durably_steps (
  run_id TEXT NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  step_index INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('waiting', 'completed', 'failed', 'cancelled')),
  output ANY,
  error TEXT,
  attempt INTEGER NOT NULL,
  wake_at INTEGER,
  signal TEXT,
  child_id TEXT,
  started_at INTEGER NOT NULL,
  completed_at INTEGER,
  PRIMARY KEY (run_id, name)
) STRICT;

-- Lines that a job logged, where log persistence is installed.
CREATE TABLE durably_logs (
  id INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
  step_name TEXT,
  level TEXT NOT NULL,
  message TEXT NOT NULL,
  data TEXT,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX durably_logs_by_run ON durably_logs (run_id, id);

-- Signals sent to a run, in the order of their arrival, and the step that each was delivered to.
CREATE TABLE durably_signals (
  id INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  payload ANY NOT NULL,
  created_at INTEGER NOT NULL,
  consumed_by TEXT
) STRICT;
CREATE INDEX durably_signals_waiting ON durably_signals (run_id, name, id) WHERE consumed_by IS NULL;
CREATE UNIQUE INDEX durably_signals_delivered ON durably_signals (run_id, consumed_by) WHERE consumed_by IS NOT NULL;

-- Whoever waits for a child.
CREATE INDEX durably_steps_by_child ON durably_steps (child_id) WHERE child_id IS NOT NULL;

-- Jobs that are triggered by the clock: `every_ms`, or a cron line in a time zone. `next_at` is the next tick.
CREATE TABLE durably_schedules (
  key TEXT PRIMARY KEY,
  job_name TEXT NOT NULL,
  payload TEXT NOT NULL,
  every_ms INTEGER,
  cron TEXT,
  timezone TEXT NOT NULL,
  catch_up TEXT NOT NULL CHECK (catch_up IN ('one', 'all', 'skip')),
  next_at INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  CHECK ((every_ms IS NULL) <> (cron IS NULL))
) STRICT;
CREATE INDEX durably_schedules_due ON durably_schedules (next_at);
