CREATE TABLE runs (
  id BIGSERIAL NOT NULL,
  attempt_id TEXT NOT NULL,
  name TEXT NOT NULL,
  document TEXT NOT NULL,
  CONSTRAINT pk_runs PRIMARY KEY (id),
  CONSTRAINT uq_runs_attempt_id UNIQUE (attempt_id),
  CONSTRAINT fk_runs_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (attempt_id)
)

CREATE INDEX ix_runs_name ON runs (name, id)

UPDATE schema_info SET revision = 4, min_code = 1
