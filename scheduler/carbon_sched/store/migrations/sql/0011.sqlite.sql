CREATE TABLE schedules (
  schedule_id TEXT NOT NULL,
  cron TEXT NOT NULL,
  zone TEXT NOT NULL,
  name TEXT NOT NULL,
  team TEXT NOT NULL,
  submitter TEXT NOT NULL,
  sealed_request TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  next_at BIGINT NOT NULL,
  last_job TEXT NOT NULL,
  problem TEXT NOT NULL,
  stopped_at BIGINT,
  CONSTRAINT pk_schedules PRIMARY KEY (schedule_id)
)

CREATE INDEX ix_schedules_running ON schedules (created_at) WHERE stopped_at IS NULL

UPDATE schema_info SET revision = 11, min_code = 1
