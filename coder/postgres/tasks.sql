-- What the dispatcher asks of the queue. The work is in the functions of schema.sql.

-- name: claim
select id, epoch, attempts, max_attempts, session_id, chat_id, project, input, agent, model, mode_id, thinking_option_id,
       timeout, cwd, remarks, model_history, worktree, compacts
from coder.claim(:node, :host, :count);

-- name: mark_seen
select coder.mark_seen(:tasks, :epochs) as id;

-- name: finish
select verdict, task_id, change_id, session_id, epoch from coder.finish(:endings, :diffs, :left_sessions, :left_epochs);

-- name: record_worktrees
select x.task as id
from jsonb_to_recordset(:rows) as x(task bigint, epoch bigint, repository text, path text, base_commit text, base_branch text, copied text[])
where coder.record_worktree(x.task, x.epoch, :host, x.repository, x.path, x.base_commit, x.base_branch,
                            array(select decode(c, 'hex') from unnest(x.copied) c));

-- name: worktree_of
select to_jsonb(w) from session_worktrees w where session_id = :session_id;

-- name: wanted
select task_id, want from coder.wanted(:node);

-- name: register_host!
insert into hosts (id, name) values (:host, :name) on conflict (id) do update set name = excluded.name;

-- name: register_node!
insert into nodes (id, host_id, version, lease_until) values (:node, :host, :version, clock_timestamp() + :lease);

-- name: crashed!
update nodes set crashed = true, lease_until = '-infinity' where id = :node and host_id = :host;

-- name: leave!
delete from nodes where id = :node and not exists (select from session_queue where owner = :node);

-- name: beat
select coder.beat(:node, :lease);

-- name: reap
select task_id, state, session_id from coder.reap(:node, :epochs);

-- name: sweep
select coder.sweep(:deep);

-- name: ring
select pg_notify('tasks_new', '');

-- name: next_due
select extract(epoch from min(ready_at) - clock_timestamp())::float8 from session_queue where state = 'scheduled';

-- name: record_agents!
insert into available_agents (host_id, agent, execution_path, available, version, path, detail, install, models, modes, thinking_options,
                              commands)
select :host, a.agent, a.execution_path, a.available, a.version, a.path, a.detail, a.install, a.models, a.modes, a.thinking_options, a.commands
from jsonb_to_recordset(:agents) as a(
    agent text, execution_path text, available boolean, version text, path text, detail text, install text, models text[], modes text[],
    thinking_options text[], commands jsonb)
on conflict (host_id, agent) do update set
    execution_path = excluded.execution_path, available = excluded.available, version = excluded.version, path = excluded.path,
    detail = excluded.detail, install = excluded.install, models = excluded.models, modes = excluded.modes,
    thinking_options = excluded.thinking_options, commands = excluded.commands, probed_at = clock_timestamp();

-- name: forget_agents!
delete from available_agents where host_id = :host and agent <> all (:known);

-- name: probe_wanted
select probe_requested_at from hosts where id = :host;

-- name: agent_session_of
select a.agent_session_id as id, a.config_hash, a.home,
       case when a.status = 'active' and a.node_id is distinct from t.node_id then 'lost' else a.status end as status
from agent_sessions a, tasks t where a.chat_id = :chat and a.agent = :agent and t.id = :task;

-- name: agents_stopped!
update agent_sessions set status = 'stopped', updated_at = clock_timestamp()
where node_id = :node and status = 'active' and agent = any (:agents);

-- name: said_before
select role, text, state from (
    select role, text, state, ordinal, sum(octet_length(text)) over (order by ordinal desc) - octet_length(text) as later
    from messages where session_id = :session and chat_id = :chat and task_id <> :task and text <> ''
) m where later <= :most order by ordinal;
