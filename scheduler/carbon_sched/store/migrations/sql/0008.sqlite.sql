ALTER TABLE jobs ADD COLUMN cause TEXT DEFAULT '' NOT NULL

ALTER TABLE job_events ADD COLUMN cause TEXT DEFAULT '' NOT NULL

ALTER TABLE attempts ADD COLUMN cause TEXT DEFAULT '' NOT NULL

ALTER TABLE attempts ADD COLUMN recalled TEXT DEFAULT '' NOT NULL

DROP TRIGGER jobs_move

CREATE TRIGGER jobs_move BEFORE UPDATE OF state, event ON jobs
WHEN (OLD.state, NEW.event, NEW.state) NOT IN (VALUES
    ('dispatching', 'failed', 'failed'),
    ('dispatching', 'lost', 'lost'),
    ('dispatching', 'stop-asked', 'stopping'),
    ('dispatching', 'stopped', 'stopped'),
    ('dispatching', 'submitted', 'starting'),
    ('dispatching', 'succeeded', 'succeeded'),
    ('dispatching', 'withdrawn', 'queued'),
    ('lost', 'failed', 'failed'),
    ('lost', 'started', 'running'),
    ('lost', 'stopped', 'stopped'),
    ('lost', 'succeeded', 'succeeded'),
    ('lost', 'withdrawn', 'queued'),
    ('queued', 'dispatch', 'dispatching'),
    ('queued', 'refused', 'refused'),
    ('queued', 'stopped', 'stopped'),
    ('running', 'expired', 'queued'),
    ('running', 'failed', 'failed'),
    ('running', 'lost', 'lost'),
    ('running', 'stop-asked', 'stopping'),
    ('running', 'stopped', 'stopped'),
    ('running', 'succeeded', 'succeeded'),
    ('starting', 'expired', 'queued'),
    ('starting', 'failed', 'failed'),
    ('starting', 'lost', 'lost'),
    ('starting', 'started', 'running'),
    ('starting', 'stop-asked', 'stopping'),
    ('starting', 'stopped', 'stopped'),
    ('starting', 'succeeded', 'succeeded'),
    ('stopping', 'failed', 'failed'),
    ('stopping', 'lost', 'lost'),
    ('stopping', 'stopped', 'stopped'),
    ('stopping', 'succeeded', 'succeeded'))
  OR NEW.version <> OLD.version + 1
BEGIN
  SELECT RAISE(ABORT, 'the job cannot take this event in its state');
END

UPDATE schema_info SET revision = 8, min_code = 1
