-- Cache warming: what nodes claim and settle, and what watchers are shown. The work is in the functions of schema.sql.

-- name: claim
select session_id, epoch, spent_tokens, idle_seconds, model_history, model, thinking from coder.claim_warming(:node, :host);

-- name: on
select w.session_id from unnest(:sessions::uuid[], :epochs::bigint[]) as d(session_id, epoch)
join cache_warming w on w.session_id = d.session_id and w.epoch = d.epoch and w.enabled
join session_queue q on q.session_id = w.session_id and q.state not in ('ready', 'running');

-- name: settle
select coder.settle_warming(:session, :epoch, :input_tokens, :cached_tokens, :output_tokens, :stopped, :error);

-- name: shown
select s.id as session_id, coalesce(w.enabled, false) as enabled, coalesce(w.interval_seconds, 240) as interval_seconds, w.next_warm_at,
       w.last_warm_at, coalesce(w.warms, 0) as warms, coalesce(w.input_tokens, 0) as input_tokens,
       coalesce(w.cached_tokens, 0) as cached_tokens, coalesce(w.output_tokens, 0) as output_tokens, w.last_input_tokens,
       w.last_cached_tokens, w.retention_seconds, w.stopped, w.error
from sessions s left join cache_warming w on w.session_id = s.id where s.id = any (:sessions::uuid[]);
