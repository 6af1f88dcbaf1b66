CREATE TABLE serve_apps (
  name TEXT NOT NULL,
  document TEXT NOT NULL,
  version BIGINT NOT NULL,
  CONSTRAINT pk_serve_apps PRIMARY KEY (name)
)

CREATE TABLE request_counts (
  attempt_id TEXT NOT NULL,
  at BIGINT NOT NULL,
  replicas TEXT NOT NULL,
  CONSTRAINT pk_request_counts PRIMARY KEY (attempt_id, at),
  CONSTRAINT fk_request_counts_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (attempt_id)
)

UPDATE schema_info SET revision = 13, min_code = 1
