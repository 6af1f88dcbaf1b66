CREATE TABLE plan_state (
  id BIGINT NOT NULL CONSTRAINT ck_plan_state_one CHECK (id = 1),
  state TEXT NOT NULL,
  CONSTRAINT pk_plan_state PRIMARY KEY (id)
)

UPDATE schema_info SET revision = 9, min_code = 1
