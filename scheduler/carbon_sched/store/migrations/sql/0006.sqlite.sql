CREATE TABLE leases (
  name TEXT NOT NULL,
  holder TEXT NOT NULL,
  term BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  CONSTRAINT pk_leases PRIMARY KEY (name)
)

UPDATE schema_info SET revision = 6, min_code = 1
