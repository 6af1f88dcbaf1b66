CREATE TABLE policies (
  version BIGSERIAL NOT NULL,
  name TEXT NOT NULL,
  content TEXT NOT NULL,
  applied_at BIGINT NOT NULL,
  applied_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  restored BIGINT,
  CONSTRAINT pk_policies PRIMARY KEY (version)
)

CREATE INDEX ix_policies_name ON policies (name, version)

UPDATE schema_info SET revision = 5, min_code = 1
