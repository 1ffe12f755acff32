-- What is asked of the server itself: by the migration, the listener and `coder doctor`.

-- name: lock_schema
select pg_advisory_xact_lock(:lock);

-- name: has_schema
select to_regclass('public.schema_version') is not null;

-- name: schema_version
select version, min_compatible from schema_version order by version desc limit 1;

-- name: is_standby
select pg_is_in_recovery();

-- name: ring
select pg_notify(:channel, '');

-- name: oldest_transaction
select extract(epoch from max(clock_timestamp() - xact_start))::int from pg_stat_activity where backend_xmin is not null;
