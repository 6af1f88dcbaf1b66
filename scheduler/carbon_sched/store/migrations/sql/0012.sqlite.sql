CREATE TABLE batch_states (
  attempt_id TEXT NOT NULL,
  done BIGINT NOT NULL,
  total BIGINT NOT NULL,
  since BIGINT NOT NULL,
  at BIGINT NOT NULL,
  energy_uj BIGINT NOT NULL,
  co2e_ug BIGINT,
  CONSTRAINT pk_batch_states PRIMARY KEY (attempt_id),
  CONSTRAINT fk_batch_states_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (attempt_id)
)

UPDATE schema_info SET revision = 12, min_code = 1
