CREATE TABLE credentials (
  token_id TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  kind TEXT NOT NULL CONSTRAINT ck_credentials_kind CHECK (kind IN ('api', 'code', 'session')),
  name TEXT NOT NULL,
  role TEXT NOT NULL CONSTRAINT ck_credentials_role CHECK (role IN ('admin', 'auditor', 'operator', 'submitter', 'viewer')),
  teams TEXT,
  created_at BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  expires_at BIGINT NOT NULL,
  revoked_at BIGINT,
  parent TEXT,
  CONSTRAINT pk_credentials PRIMARY KEY (token_id),
  CONSTRAINT uq_credentials_sha256 UNIQUE (sha256)
)

CREATE TABLE ray_packages (
  owner TEXT NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  stored_at BIGINT NOT NULL,
  CONSTRAINT pk_ray_packages PRIMARY KEY (owner, name)
)

CREATE TABLE ray_jobs (
  job_id TEXT NOT NULL,
  submission_id TEXT,
  deleted_at BIGINT,
  CONSTRAINT pk_ray_jobs PRIMARY KEY (job_id),
  CONSTRAINT ck_ray_jobs_deleted CHECK ((submission_id IS NULL) = (deleted_at IS NOT NULL)),
  CONSTRAINT fk_ray_jobs_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id),
  CONSTRAINT uq_ray_jobs_submission_id UNIQUE (submission_id)
)

UPDATE schema_info SET revision = 3, min_code = 1
