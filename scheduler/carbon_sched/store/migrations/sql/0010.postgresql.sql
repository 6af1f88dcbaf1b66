ALTER TABLE jobs ADD COLUMN priority INTEGER DEFAULT '0' NOT NULL

CREATE TABLE usage (
  team TEXT NOT NULL,
  project TEXT NOT NULL,
  day INTEGER NOT NULL,
  cpu_s FLOAT NOT NULL,
  gpu_s FLOAT NOT NULL,
  CONSTRAINT pk_usage PRIMARY KEY (team, project, day)
)

UPDATE schema_info SET revision = 10, min_code = 1
