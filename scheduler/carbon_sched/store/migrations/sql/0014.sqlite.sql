ALTER TABLE jobs ADD COLUMN amendments INTEGER DEFAULT '0' NOT NULL

UPDATE schema_info SET revision = 14, min_code = 1
