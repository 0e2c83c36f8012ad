-- A day's partition of model_insights, made while rows of that day may lie in the default one already.
-- True where it is new. The caller bounds the wait for locks.

CREATE FUNCTION insights_add_day(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    part text := 'model_insights_' || to_char(day, 'YYYYMMDD');
    starts timestamptz := day::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN false;
    END IF;
    LOCK TABLE model_insights_default IN ACCESS EXCLUSIVE MODE; -- no row of that day comes in until the end
    IF to_regclass(part) IS NOT NULL THEN -- somebody else made it in the meantime
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE model_insights INCLUDING ALL EXCLUDING INDEXES)', part);
    EXECUTE format(
        'WITH moved AS (DELETE FROM model_insights_default WHERE time >= $1 AND time < $2 RETURNING *) '
        'INSERT INTO %I SELECT * FROM moved', part
    ) USING starts, ends;
    EXECUTE format('ALTER TABLE model_insights ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, starts, ends);
    RETURN true;
END
$$;

-- The days that have a partition.
CREATE VIEW insights_days AS
    SELECT c.relname::text AS partition, to_date(right(c.relname, 8), 'YYYYMMDD') AS day
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'model_insights'::regclass AND c.relname ~ '^model_insights_[0-9]{8}$';
