ALTER TABLE jobs ADD COLUMN cause TEXT DEFAULT '' NOT NULL

ALTER TABLE job_events ADD COLUMN cause TEXT DEFAULT '' NOT NULL

ALTER TABLE attempts ADD COLUMN cause TEXT DEFAULT '' NOT NULL

ALTER TABLE attempts ADD COLUMN recalled TEXT DEFAULT '' NOT NULL

DROP TRIGGER jobs_begin ON jobs

DROP TRIGGER jobs_move ON jobs

DROP TRIGGER ledger_grows ON ledger

DROP TRIGGER ledger_refuses_update ON ledger

DROP TRIGGER ledger_refuses_delete ON ledger

DROP TRIGGER ledger_refuses_truncate ON ledger

DROP FUNCTION jobs_begin_v2()

DROP FUNCTION jobs_move_v2()

DROP FUNCTION ledger_grows_v2()

DROP FUNCTION ledger_refuses_update_v2()

DROP FUNCTION ledger_refuses_delete_v2()

CREATE FUNCTION jobs_begin_v3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state <> 'queued' OR NEW.event <> 'accepted' OR NEW.version <> 0 THEN
    RAISE EXCEPTION 'a job begins as queued' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$

CREATE TRIGGER jobs_begin BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_begin_v3()

CREATE FUNCTION jobs_move_v3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (OLD.state, NEW.event, NEW.state) NOT IN (VALUES
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
  OR NEW.version <> OLD.version + 1 THEN
    RAISE EXCEPTION 'the job cannot take this event in its state' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$

CREATE TRIGGER jobs_move BEFORE UPDATE OF state, event ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_move_v3()

CREATE FUNCTION ledger_grows_v3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM ledger)
  OR NEW.prev <> COALESCE((SELECT hash FROM ledger WHERE seq = NEW.seq - 1), '0000000000000000000000000000000000000000000000000000000000000000') THEN
    RAISE EXCEPTION 'the ledger grows at its end only' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$

CREATE TRIGGER ledger_grows BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION ledger_grows_v3()

CREATE FUNCTION ledger_refuses_update_v3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'entries of the ledger are never changed' USING ERRCODE = 'check_violation';
END $$

CREATE TRIGGER ledger_refuses_update BEFORE UPDATE ON ledger FOR EACH ROW EXECUTE FUNCTION ledger_refuses_update_v3()

CREATE FUNCTION ledger_refuses_delete_v3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'entries of the ledger are never removed' USING ERRCODE = 'check_violation';
END $$

CREATE TRIGGER ledger_refuses_delete BEFORE DELETE ON ledger FOR EACH ROW EXECUTE FUNCTION ledger_refuses_delete_v3()

CREATE TRIGGER ledger_refuses_truncate BEFORE TRUNCATE ON ledger FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuses_delete_v3()

UPDATE schema_info SET revision = 8, min_code = 1
