-- What turns said, and what watchers of sessions are shown. Each answer comes from one statement, so from one snapshot:
-- a turn is either shown as running with the frames it has, or as ended with its whole message.

-- name: append
select coder.append_frames(:tasks, :epochs, :seqs, :payloads, :touched);

-- name: prune
select coder.prune_frames();

-- name: calls
select distinct on ((payload ->> 'part')::int) payload::text as payload from frames
where task_id = :task and epoch = :epoch and payload ->> 'type' = 'tool_call' and (payload ->> 'part')::int = any (:parts)
order by (payload ->> 'part')::int, seq desc;

-- name: history
-- The newest messages up to 200 and 4 MB, the newest one in any case; then what waits or runs.
with newest as materialized (
    select m.ordinal, t.epoch, row_number() over newer as number,
           sum(octet_length(m.text) + octet_length(m.reasoning) + pg_column_size(m.tool_calls)) over newer as size,
           json_build_object('id', m.id, 'ordinal', m.ordinal, 'chat_id', m.chat_id, 'task_id', m.task_id, 'role', m.role, 'state', m.state,
                             'text', m.text, 'reasoning', m.reasoning, 'tool_calls', m.tool_calls, 'created_at', m.created_at,
                             'ended_at', m.ended_at, 'agent', m.agent, 'cost_tokens', m.cost_tokens, 'error', m.error,
                             'client_message_id', case when m.role = 'user' then t.idempotency_key end) as message
    from (select * from messages where session_id = :session order by ordinal desc limit 202) m
    join tasks t on t.id = m.task_id
    where t.state not in ('pending', 'running')
    window newer as (order by m.ordinal desc)
), shown as (
    select * from newest where number = 1 or (number <= 200 and size <= 4194304)
)
select json_build_object(
    'messages', coalesce((select json_agg(message order by ordinal) from shown), '[]'),
    'floor', coalesce((select max(epoch) from newest), 0),
    'more', exists (select from messages where session_id = s.id and ordinal < (select min(ordinal) from shown)),
    'versions', coalesce((
        select json_object_agg(t.id, t.xmin)
        from (select id, xmin from tasks where session_id = s.id and waiting order by position limit 200) t), '{}'),
    'queued', coalesce((
        select json_agg(json_build_object('task_id', t.id, 'text', t.input, 'client_message_id', t.idempotency_key,
                                          'created_at', t.created_at) order by t.position)
        from (select * from tasks where session_id = s.id and waiting order by position limit 200) t), '[]'),
    'running', (select t.id from session_queue q join tasks t on t.id = q.running_task where q.session_id = s.id and t.state = 'running'),
    'change_id', (select c.id from pending_changes c where c.session_id = s.id and c.state in ('pending', 'applying', 'conflicted'))
)::text as row
from sessions s where s.id = :session;

-- name: look
select json_build_object(
    'session', w.session,
    'running', (
        select json_build_object('task_id', t.id, 'turn_id', t.epoch, 'agent', coalesce(t.agent, 'native'), 'attempt', t.attempts,
                                 'started_at', t.claimed_at, 'prompt', t.input,
                                 'chat_id', (select m.chat_id from messages m where m.task_id = t.id and m.role = 'assistant'))
        from session_queue q join tasks t on t.id = q.running_task where q.session_id = w.session and t.state = 'running'),
    'frames', coalesce((
        select json_agg(json_build_array(f.seq, f.payload) order by f.seq)
        from (select seq, payload from frames where task_id = w.task and epoch = w.epoch and seq > w.seq order by seq limit 1000) f), '[]'),
    'ended', coalesce((
        select json_agg(json_build_object(
                   'task_id', t.id, 'turn_id', t.epoch, 'agent', coalesce(t.agent, 'native'), 'attempt', t.attempts,
                   'started_at', t.claimed_at, 'prompt', t.input, 'chat_id', m.chat_id, 'state', t.state, 'reason', t.reason,
                   'error', t.error, 'usage', json_build_array(t.input_tokens, t.cached_tokens, t.output_tokens),
                   'answer', json_build_object('state', m.state, 'text', m.text, 'reasoning', m.reasoning, 'tool_calls', m.tool_calls))
                   order by t.epoch)
        from (select distinct task_id from ( -- two messages a turn: six turns that ended, and one that has not
                  select task_id from messages where session_id = w.session order by ordinal desc limit 14) latest) l
        join tasks t on t.id = l.task_id
        join messages m on m.task_id = t.id and m.role = 'assistant'
        where t.epoch > w.floor and t.state not in ('pending', 'running')), '[]'),
    'states', coalesce((
        select json_agg(json_build_object(
                   'task_id', t.id, 'state', t.state, 'reason', t.reason, 'version', t.xmin,
                   'text', case when t.state = 'pending' and t.xmin::text is distinct from w.known ->> t.id::text then t.input end,
                   'client_message_id', case when t.state = 'pending' and t.xmin::text is distinct from w.known ->> t.id::text then t.idempotency_key end)
                   order by t.position)
        from tasks t
        where t.id in (
            select id::bigint from jsonb_object_keys(w.known) id
            union (select id from tasks where session_id = w.session and waiting order by position limit 200)
            union select running_task from session_queue where session_id = w.session and state = 'running')), '[]'),
    'change_id', (select c.id from pending_changes c where c.session_id = w.session and c.state in ('pending', 'applying', 'conflicted'))
)::text as row
from jsonb_to_recordset(:watches) as w(session uuid, task bigint, epoch bigint, seq bigint, floor bigint, known jsonb);
