CREATE TABLE budget_approvals (
  job_id TEXT NOT NULL,
  budget TEXT NOT NULL,
  period_start BIGINT NOT NULL,
  approved_at BIGINT NOT NULL,
  approved_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  CONSTRAINT pk_budget_approvals PRIMARY KEY (job_id, budget, period_start),
  CONSTRAINT fk_budget_approvals_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id)
)

CREATE TABLE budget_lines (
  attempt_id TEXT NOT NULL,
  budget TEXT NOT NULL,
  period_start BIGINT NOT NULL,
  reserved_ug BIGINT NOT NULL,
  reserved_uj BIGINT NOT NULL,
  settled_ug BIGINT,
  settled_uj BIGINT,
  CONSTRAINT pk_budget_lines PRIMARY KEY (attempt_id, budget),
  CONSTRAINT ck_budget_lines_settled CHECK ((settled_ug IS NULL) = (settled_uj IS NULL)),
  CONSTRAINT ck_budget_lines_reserved CHECK (reserved_ug >= 0 AND reserved_uj >= 0),
  CONSTRAINT fk_budget_lines_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (attempt_id)
)

CREATE INDEX ix_budget_lines_budget ON budget_lines (budget, period_start)

CREATE INDEX ix_budget_lines_unsettled ON budget_lines (attempt_id) WHERE settled_ug IS NULL

UPDATE schema_info SET revision = 7, min_code = 1
