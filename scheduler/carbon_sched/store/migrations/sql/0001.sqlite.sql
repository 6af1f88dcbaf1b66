CREATE TABLE clusters (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  document TEXT NOT NULL,
  CONSTRAINT uq_clusters_name UNIQUE (name)
)

CREATE TABLE jobs (
  job_id TEXT NOT NULL,
  state TEXT NOT NULL CONSTRAINT ck_jobs_state CHECK (state IN ('dispatching', 'failed', 'lost', 'queued', 'refused', 'running', 'starting', 'stopped', 'stopping', 'succeeded')),
  event TEXT NOT NULL CONSTRAINT ck_jobs_event CHECK (event IN ('accepted', 'dispatch', 'expired', 'failed', 'lost', 'refused', 'started', 'stop-asked', 'stopped', 'submitted', 'succeeded', 'withdrawn')),
  version INTEGER NOT NULL,
  reason TEXT NOT NULL,
  attempts INTEGER NOT NULL CONSTRAINT ck_jobs_attempts CHECK (attempts >= 0),
  submitted_at BIGINT NOT NULL,
  not_before BIGINT,
  finished_at BIGINT,
  exit_code INTEGER,
  idempotency_key TEXT,
  request_sha256 TEXT NOT NULL,
  spec TEXT NOT NULL,
  name TEXT NOT NULL,
  team TEXT NOT NULL,
  project TEXT NOT NULL,
  phase TEXT NOT NULL,
  cluster TEXT,
  CONSTRAINT pk_jobs PRIMARY KEY (job_id),
  CONSTRAINT ck_jobs_finished_at_in_final_states CHECK ((finished_at IS NOT NULL) = (state IN ('failed', 'lost', 'refused', 'stopped', 'succeeded'))),
  CONSTRAINT ck_jobs_exit_code_in_final_states CHECK (exit_code IS NULL OR finished_at IS NOT NULL),
  CONSTRAINT uq_jobs_idempotency_key UNIQUE (idempotency_key)
)

CREATE INDEX ix_jobs_cluster ON jobs (cluster, submitted_at, job_id)

CREATE INDEX ix_jobs_finished ON jobs (state, submitted_at, job_id) WHERE finished_at IS NOT NULL

CREATE INDEX ix_jobs_live ON jobs (submitted_at, job_id) WHERE finished_at IS NULL

CREATE INDEX ix_jobs_name ON jobs (name, submitted_at, job_id)

CREATE INDEX ix_jobs_project ON jobs (project, submitted_at, job_id)

CREATE INDEX ix_jobs_submitted_at ON jobs (submitted_at, job_id)

CREATE INDEX ix_jobs_team ON jobs (team, submitted_at, job_id)

CREATE TABLE ledger (
  seq INTEGER NOT NULL,
  prev TEXT NOT NULL,
  hash TEXT NOT NULL,
  payload BLOB NOT NULL,
  CONSTRAINT pk_ledger PRIMARY KEY (seq)
)

CREATE TABLE outbox (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  "key" TEXT NOT NULL,
  payload TEXT NOT NULL,
  tries INTEGER NOT NULL,
  due_at BIGINT NOT NULL,
  claims INTEGER NOT NULL,
  CONSTRAINT uq_outbox_kind_key UNIQUE (kind, "key")
)

CREATE INDEX ix_outbox_due ON outbox (kind, due_at)

CREATE TABLE people (
  id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  person TEXT NOT NULL,
  CONSTRAINT uq_people_person UNIQUE (person)
)

CREATE TABLE readings (
  id INTEGER NOT NULL,
  content_sha256 TEXT NOT NULL,
  zone TEXT NOT NULL,
  start_at BIGINT NOT NULL,
  end_at BIGINT NOT NULL,
  intensity_mg_per_kwh BIGINT NOT NULL,
  signal TEXT NOT NULL,
  basis TEXT NOT NULL,
  perimeter TEXT NOT NULL,
  kind TEXT NOT NULL,
  grade TEXT NOT NULL,
  provider TEXT NOT NULL,
  issued_at BIGINT NOT NULL,
  fetched_at BIGINT NOT NULL,
  low_mg_per_kwh BIGINT,
  high_mg_per_kwh BIGINT,
  model_version TEXT NOT NULL,
  payload_sha256 TEXT NOT NULL,
  licence TEXT NOT NULL,
  retention TEXT NOT NULL,
  CONSTRAINT pk_readings PRIMARY KEY (id),
  CONSTRAINT ck_readings_interval CHECK (end_at > start_at),
  CONSTRAINT ck_readings_intensity CHECK (intensity_mg_per_kwh >= 0),
  CONSTRAINT uq_readings_content_sha256 UNIQUE (content_sha256)
)

CREATE INDEX ix_readings_zone ON readings (zone, end_at, start_at)

CREATE TABLE schema_info (
  id INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  min_code INTEGER NOT NULL,
  CONSTRAINT pk_schema_info PRIMARY KEY (id),
  CONSTRAINT ck_schema_info_one_row CHECK (id = 1)
)

CREATE TABLE segments (
  segment_id TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  cluster TEXT NOT NULL,
  attempt_id TEXT NOT NULL,
  received_at BIGINT NOT NULL,
  CONSTRAINT pk_segments PRIMARY KEY (segment_id)
)

CREATE TABLE attempts (
  attempt_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  cluster TEXT NOT NULL,
  opened_at BIGINT NOT NULL,
  start_by BIGINT NOT NULL,
  epoch TEXT NOT NULL,
  accepted BOOLEAN,
  node_id TEXT NOT NULL,
  started_at BIGINT,
  ended_at BIGINT,
  exit_code INTEGER,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  collected BOOLEAN NOT NULL,
  version INTEGER NOT NULL,
  CONSTRAINT pk_attempts PRIMARY KEY (attempt_id),
  CONSTRAINT uq_attempts_job_id_number UNIQUE (job_id, number),
  CONSTRAINT ck_attempts_number CHECK (number >= 1),
  CONSTRAINT ck_attempts_exit_code_when_ended CHECK (exit_code IS NULL OR outcome <> ''),
  CONSTRAINT fk_attempts_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id)
)

CREATE INDEX ix_attempts_uncollected ON attempts (opened_at, attempt_id) WHERE collected = 0

CREATE UNIQUE INDEX uq_attempts_open ON attempts (job_id) WHERE outcome = ''

CREATE TABLE decisions (
  id INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  decided_at BIGINT NOT NULL,
  document TEXT NOT NULL,
  CONSTRAINT pk_decisions PRIMARY KEY (id),
  CONSTRAINT fk_decisions_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id)
)

CREATE INDEX ix_decisions_job_id ON decisions (job_id, id)

CREATE TABLE job_events (
  id INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  at BIGINT NOT NULL,
  event TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  CONSTRAINT pk_job_events PRIMARY KEY (id),
  CONSTRAINT fk_job_events_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id)
)

CREATE INDEX ix_job_events_job_id ON job_events (job_id, id)

CREATE TABLE spans (
  id INTEGER NOT NULL,
  segment_id TEXT NOT NULL,
  owner TEXT NOT NULL,
  cluster TEXT NOT NULL,
  machine TEXT NOT NULL,
  device TEXT NOT NULL,
  device_kind TEXT NOT NULL,
  start_at BIGINT NOT NULL,
  end_at BIGINT NOT NULL,
  energy_uj BIGINT NOT NULL CONSTRAINT ck_spans_energy_uj CHECK (energy_uj >= 0),
  source TEXT NOT NULL,
  reporter TEXT NOT NULL,
  scope TEXT NOT NULL,
  rule TEXT NOT NULL,
  error_ppm BIGINT NOT NULL,
  segment_sha256 TEXT NOT NULL,
  flags TEXT NOT NULL,
  CONSTRAINT pk_spans PRIMARY KEY (id),
  CONSTRAINT ck_spans_interval CHECK (end_at > start_at),
  CONSTRAINT fk_spans_segment_id FOREIGN KEY(segment_id) REFERENCES segments (segment_id)
)

CREATE INDEX ix_spans_owner ON spans (owner, start_at)

CREATE TRIGGER jobs_begin BEFORE INSERT ON jobs
WHEN NEW.state <> 'queued' OR NEW.event <> 'accepted' OR NEW.version <> 0
BEGIN
  SELECT RAISE(ABORT, 'a job begins as queued');
END

CREATE TRIGGER jobs_move BEFORE UPDATE OF state, event ON jobs
WHEN (OLD.state, NEW.event, NEW.state) NOT IN (VALUES
    ('dispatching', 'failed', 'failed'),
    ('dispatching', 'lost', 'lost'),
    ('dispatching', 'stop-asked', 'stopping'),
    ('dispatching', 'stopped', 'stopped'),
    ('dispatching', 'submitted', 'starting'),
    ('dispatching', 'succeeded', 'succeeded'),
    ('dispatching', 'withdrawn', 'queued'),
    ('lost', 'failed', 'failed'),
    ('lost', 'started', 'running'),
    ('lost', 'stopped', 'stopped'),
    ('lost', 'succeeded', 'succeeded'),
    ('queued', 'dispatch', 'dispatching'),
    ('queued', 'refused', 'refused'),
    ('queued', 'stopped', 'stopped'),
    ('running', 'failed', 'failed'),
    ('running', 'lost', 'lost'),
    ('running', 'stop-asked', 'stopping'),
    ('running', 'stopped', 'stopped'),
    ('running', 'succeeded', 'succeeded'),
    ('starting', 'expired', 'queued'),
    ('starting', 'failed', 'failed'),
    ('starting', 'lost', 'lost'),
    ('starting', 'started', 'running'),
    ('starting', 'stop-asked', 'stopping'),
    ('starting', 'stopped', 'stopped'),
    ('starting', 'succeeded', 'succeeded'),
    ('stopping', 'failed', 'failed'),
    ('stopping', 'lost', 'lost'),
    ('stopping', 'stopped', 'stopped'),
    ('stopping', 'succeeded', 'succeeded'))
  OR NEW.version <> OLD.version + 1
BEGIN
  SELECT RAISE(ABORT, 'the job cannot take this event in its state');
END

CREATE TRIGGER ledger_grows BEFORE INSERT ON ledger
WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM ledger)
  OR NEW.prev <> COALESCE((SELECT hash FROM ledger WHERE seq = NEW.seq - 1), '0000000000000000000000000000000000000000000000000000000000000000')
BEGIN
  SELECT RAISE(ABORT, 'the ledger grows at its end only');
END

CREATE TRIGGER ledger_refuses_update BEFORE UPDATE ON ledger
BEGIN
  SELECT RAISE(ABORT, 'entries of the ledger are never changed');
END

CREATE TRIGGER ledger_refuses_delete BEFORE DELETE ON ledger
BEGIN
  SELECT RAISE(ABORT, 'entries of the ledger are never removed');
END

INSERT INTO schema_info (id, revision, min_code) VALUES (1, 1, 1)
