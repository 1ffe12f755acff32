-- The door: what people ask and do, through HTTP and the command line alike. Every statement answers rows
-- of one JSON column, whose shape is the API's. Optional filters are null when not given; the connection
-- plans each call anew (plan_cache_mode=force_custom_plan), so an unused filter costs nothing.

-- name: host_add
insert into hosts (id, name) values (:id, :name) on conflict (id) do update set name = excluded.name
returning json_build_object('id', id, 'name', name) as row;

-- name: project_add
select row_to_json(p) as row from coder.add_project(:name, :path, :host_id, :permission_policy, :network) p;

-- name: project_list
select row_to_json(x) as row from (
    select id, name, path, host_id, agent_fallback, permission_policy, network, copy_globs, setup_command, check_command,
           extract(epoch from check_timeout)::float8 as check_seconds, auto_fix, created_at from projects
    where (:after::text is null or name > :after) order by name limit :limit
) x;

-- name: project_get
select row_to_json(x) as row from (
    select id, name, path, host_id, agent_fallback, permission_policy, network, copy_globs, setup_command, check_command,
           extract(epoch from check_timeout)::float8 as check_seconds, auto_fix, created_at from projects
    where id = coder.project_id(:project)
) x;

-- name: project_set
select row_to_json(x) as row from (
    select coder.set_project(:project, :permission_policy, :network, :agent_fallback, :copy_globs::text[], :setup_command, :check_command,
                             make_interval(secs => :check_seconds::float8), :auto_fix::int) as id
) x;

-- name: rule_list
select row_to_json(x) as row from (
    select r.* from permission_rules k, lateral (select * from coder.show_rule(k.id)) r
    where k.project_id = coder.project_id(:project)
      and (:after_time::timestamptz is null or (k.created_at, k.id) > (:after_time, :after_id::uuid))
    order by k.created_at, k.id limit :limit
) x;

-- name: rule_add
select row_to_json(r) as row from (select coder.add_rule(:project, :tool, :pattern, :session_id, :actor) as id) q,
    lateral (select * from coder.show_rule(q.id)) r;

-- name: rule_delete
with rule as materialized (select * from coder.show_rule(:rule_id) where project_id = coder.project_id(:project)),
     gone as (delete from permission_rules using rule where permission_rules.id = rule.id returning rule.id)
select row_to_json(rule) as row from rule join gone using (id);

-- name: task_add
select row_to_json(x) as row from (
    select t.*, t.created_at <> now() as existed
    from (select coder.enqueue(:project, :input, :session_id, :chat_id, :workspace_id, :agent, :model, :mode_id, :thinking_option_id,
                               :priority::smallint, :run_at, :idempotency_key, :max_attempts::smallint, :timeout, :labels, :actor) as id) q,
         lateral (select * from coder.show_task(q.id)) t
) x;

-- name: task_get
select row_to_json(t) as row from coder.show_task((coder.task(:task)).id) t;

-- name: task_list
select row_to_json(x) as row from (
    select t.* from tasks k, lateral (select * from coder.show_task(k.id)) t
    where (:state::text is null or k.state = :state)
      and (:session_id::uuid is null or k.session_id = :session_id)
      and (:project::text is null or k.project_id = coder.project_id(:project))
      and (:label::text is null or :label = any (k.labels))
      and (:agent::text is null or coalesce(k.agent_used, k.agent, 'native') = :agent)
      and (:ids::bigint[] is null or k.id = any (:ids))
      and (:before::bigint is null or k.id < :before)
    order by k.id desc limit :limit
) x;

-- name: task_cancel
select row_to_json(x) as row from (select :task::bigint as id, coder.cancel(:task) as state) x;

-- name: task_retry_now
select row_to_json(x) as row from (select :task::bigint as id, coder.retry_now(:task) as state) x;

-- name: task_retry
select row_to_json(t) as row from (select coder.retry(:task) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: task_resume
select row_to_json(t) as row from (select coder.resume(:task) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: task_dismiss
select row_to_json(x) as row from (select :task::bigint as id, coder.dismiss(:task) as state) x;

-- name: task_priority
select row_to_json(t) as row from (select coder.set_priority(:task, :priority::int) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: session_list
select row_to_json(s) as row
from coder.find_sessions(:statuses, :project, :workspace_id, :cwd, :q, :before_time, :before_id, :limit) f
left join coder.shown_sessions s on s.id = f.id  -- so that a project there is none of is refused where there are no sessions
order by f.last_activity_at desc, f.id desc;

-- name: session_get
select row_to_json(x) as row from (
    select s.*, (select coalesce(sum(t.cost_tokens), 0) from tasks t where t.session_id = s.id) as cost_tokens from coder.show_session(:session_id) s
) x;

-- name: session_close
select row_to_json(x) as row from (select :session_id::uuid as id, coder.close_session(:session_id)) done,
    lateral (select * from coder.show_session(done.id)) x;

-- name: session_reopen
select row_to_json(x) as row from (select :session_id::uuid as id, coder.reopen_session(:session_id)) done,
    lateral (select * from coder.show_session(done.id)) x;

-- name: session_chat
select row_to_json(x) as row from (select coder.open_chat(:session_id) as id) q,
    lateral (select * from coder.show_chat(q.id)) x;

-- name: queue_add
select row_to_json(x) as row from (
    select t.*, t.created_at <> now() as existed
    from (select coder.queue_message(:session_id, :input, coalesce(:interrupt, false), :chat_id, :agent, :model, :mode_id, :thinking_option_id,
                                     :idempotency_key, coalesce(:labels::text[], '{}'), :actor) as id) q,
         lateral (select * from coder.show_task(q.id)) t
) x;

-- name: queue_list
select row_to_json(t) as row from (
    select id, position from tasks
    where session_id = :session_id and waiting and (:after::numeric is null or position > :after) order by position limit :limit
) k, lateral (select k.position::text, t.* from coder.show_task(k.id) t) t
order by k.position;

-- name: queue_edit
select row_to_json(t) as row from (select coder.edit_queued(:session_id, :task, :input) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: queue_remove
select row_to_json(t) as row from (select coder.remove_queued(:session_id, :task) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: queue_now
select row_to_json(t) as row from (select coder.send_queued_now(:session_id, :task) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: queue_move
select row_to_json(t) as row from (select coder.move_queued(:session_id, :task, :before::bigint) as id) q,
    lateral (select * from coder.show_task(q.id)) t;

-- name: session_compact
select row_to_json(x) as row from (
    select t.*, t.created_at <> now() as existed
    from (select coder.compact(:session_id) as id) q, lateral (select * from coder.show_task(q.id)) t
) x;

-- name: session_title
select row_to_json(s) as row from (select coder.set_title(:session_id, :title) as id) done, lateral (select * from coder.show_session(done.id)) s;

-- name: session_cwd
select json_build_object('explicit', s.cwd, 'effective', s.effective_cwd) as row from coder.show_session(:session_id) s;

-- name: session_set_cwd
select json_build_object('explicit', s.cwd, 'effective', s.effective_cwd) as row
from (select coder.set_cwd(:session_id, :cwd) as id) done, lateral (select * from coder.show_session(done.id)) s;

-- name: session_clear_cwd
select json_build_object('explicit', s.cwd, 'effective', s.effective_cwd) as row
from (select coder.set_cwd(:session_id, null) as id) done, lateral (select * from coder.show_session(done.id)) s;

-- name: warming_toggle
select row_to_json(x) as row from (select :session_id::uuid as id, coder.set_warming(:session_id, :enabled) as enabled) x;

-- name: warming_interval
select row_to_json(x) as row from (
    select :session_id::uuid as id, coder.set_warming_interval(:session_id, :seconds::numeric) as interval_seconds
) x;

-- name: workspace_list
select row_to_json(x) as row from (
    select id, last_activity_at from coder.workspace_activity
    where (:before_time::timestamptz is null or (last_activity_at, id) < (:before_time, :before_id::text))
    order by last_activity_at desc, id desc limit :limit
) a, lateral (select * from coder.show_workspace(a.id)) x
order by a.last_activity_at desc, a.id desc;

-- name: workspace_get
select row_to_json(w) as row from coder.show_workspace(coder.workspace(:workspace_id)) w;

-- name: workspace_add
select row_to_json(x) as row from (
    select w.*, done.made from (select :workspace_id::text as id, coder.add_workspace(:workspace_id) as made) done,
        lateral (select * from coder.show_workspace(done.id)) w
) x;

-- name: workspace_title
select row_to_json(w) as row from (select coder.set_workspace_title(:workspace_id, :title) as id) done,
    lateral (select * from coder.show_workspace(done.id)) w;

-- name: workspace_default_cwd
select row_to_json(w) as row from (select coder.set_default_cwd(:workspace_id, :cwd) as id) done,
    lateral (select * from coder.show_workspace(done.id)) w;

-- name: workspace_delete
select row_to_json(x) as row from (select :workspace_id::text as id, coder.delete_workspace(:workspace_id) as closed_count) x;

-- name: message_list
select row_to_json(m) as row from messages m
where session_id = :session_id and (:after::bigint is null or ordinal > :after) and (:task::bigint is null or task_id = :task)
order by ordinal limit :limit;

-- name: message_list_before
select row_to_json(m) as row from messages m
where session_id = :session_id and ordinal < :before and (:task::bigint is null or task_id = :task) order by ordinal desc limit :limit;

-- name: change_list
select row_to_json(x) as row from (
    select c.id, c.session_id, c.project_id, p.name as project, c.task_id, (select t.asked_by from tasks t where t.id = c.task_id) as asked_by, c.agent, c.title, c.state, c.turn_outcome, c.fingerprint,
           c.file_count, c.additions, c.deletions, c.warnings, k.state as check_state, c.superseded_by, c.created_at, c.decided_at
    from pending_changes c join projects p on p.id = c.project_id
         left join lateral (select k.state from checks k where k.change_id = c.id order by k.created_at desc limit 1) k on true
    where (:states::text[] is null or c.state = any (:states))
      and (:checks::text[] is null or k.state = any (:checks))
      and (:session_id::uuid is null or c.session_id = :session_id)
      and (:project::text is null or c.project_id = coder.project_id(:project))
      and (:before_time::timestamptz is null or (c.created_at, c.id) < (:before_time, :before_id::uuid))
    order by c.created_at desc, c.id desc limit :limit
) x;

-- name: change_get
select row_to_json(x) as row from (
    select c.id, c.session_id, c.project_id, p.name as project, c.task_id, (select t.asked_by from tasks t where t.id = c.task_id) as asked_by, c.agent, c.title, c.state, c.turn_outcome, c.fingerprint,
           c.file_count, c.additions, c.deletions, c.warnings, k.state as check_state, c.conflicts, c.superseded_by, c.created_at, c.decided_at,
           c.base_commit, c.snapshot_commit, w.path as worktree,
           coalesce((select json_agg(json_build_object(
                         'path', f.display, 'old_path', coder.as_text(f.old_path), 'operation', f.operation, 'additions', f.additions,
                         'deletions', f.deletions, 'old_mode', f.old_mode, 'new_mode', f.new_mode, 'hunks',
                         (select coalesce(json_agg(json_build_object(
                                     'number', h.ordinality, 'old_start', h.value -> 0, 'old_lines', h.value -> 1, 'new_start', h.value -> 2,
                                     'new_lines', h.value -> 3, 'diff_line', h.value -> 4, 'diff_lines', h.value -> 5) order by h.ordinality), '[]')
                          from jsonb_array_elements(f.hunks) with ordinality h)) order by f.ordinal)
                     from change_files f where f.change_id = c.id), '[]') as files,
           (select d.id from decisions d where d.change_id = c.id order by d.created_at desc limit 1) as decision_id,
           coder.as_text(c.diff) as diff
    from pending_changes c join projects p on p.id = c.project_id left join session_worktrees w on w.session_id = c.session_id
         left join lateral (select k.state from checks k where k.change_id = c.id order by k.created_at desc limit 1) k on true
    where c.id = :change_id
) x;

-- name: change_diff
select diff from pending_changes where id = :change_id;

-- name: change_compared
select row_to_json(x) as row from (
    select w.repository, w.host_id, h.name as host, c.session_id, e.session_id as since_session,
           array[c.base_commit, c.snapshot_commit] as commits, array[e.base_commit, e.snapshot_commit] as since_commits
    from pending_changes c join session_worktrees w on w.session_id = c.session_id join hosts h on h.id = w.host_id
         join pending_changes e on e.id = :since
    where c.id = :change_id
) x;

-- name: change_check
select row_to_json(s) as row from (select k.id from checks k where k.change_id = :change_id order by k.created_at desc limit 1) k,
    lateral (select * from coder.show_check(k.id)) s;

-- name: change_checks
select row_to_json(s) as row from (select k.id, k.created_at from checks k where k.change_id = :change_id order by k.created_at desc limit :limit) k,
    lateral (select * from coder.show_check(k.id)) s order by k.created_at desc;

-- name: change_check_again
select row_to_json(s) as row from (select coder.check(:change_id) as id) k, lateral (select * from coder.show_check(k.id)) s;

-- name: change_approve
select row_to_json(d) as row
from (select coder.approve(:change_id, :fingerprint, :target, :branch, :commit, :actor, :reason, coalesce(:push, false)) as id) q,
     lateral (select * from coder.show_decision(q.id)) d;

-- name: change_approve_in_order
select row_to_json(d) as row
from unnest(coder.approve_in_order(:changes, :target, :branch, :commit, :actor, :reason, coalesce(:push, false))) with ordinality q(id, n),
     lateral (select * from coder.show_decision(q.id)) d order by q.n;

-- name: change_reject
select row_to_json(d) as row
from (select coder.reject(:change_id, :fingerprint, :reason, :work, :actor) as id) q, lateral (select * from coder.show_decision(q.id)) d;

-- name: change_comment
select row_to_json(k) as row
from (select coder.comment(:change_id, :path, :body, :line::int, coalesce(:side, 'new'), :end_line::int, :actor) as id) q,
     lateral (select * from coder.show_comment(q.id)) k;

-- name: change_send
select row_to_json(t) as row from (select coder.send(:change_id, :message, :actor) as id) q, lateral (select * from coder.show_task(q.id)) t;

-- name: comment_list
select row_to_json(x) as row from (
    select c.* from comments k, lateral (select * from coder.show_comment(k.id)) c
    where (k.task_id is not null or k.author = :actor)
      and (:states::text[] is null or c.state = any (:states))
      and (:change_id::uuid is null or k.change_id = :change_id)
      and (:session_id::uuid is null or k.session_id = :session_id)
      and (:before_time::timestamptz is null or (k.created_at, k.id) < (:before_time, :before_id::uuid))
    order by k.created_at desc, k.id desc limit :limit
) x;

-- name: change_decide
select row_to_json(d) as row
from (select coder.decide(:change_id, :fingerprint, :parts, :target, :branch, :commit, :actor, :reason, coalesce(:push, false)) as id) q,
     lateral (select * from coder.show_decision(q.id)) d;

-- name: change_rebase
select row_to_json(d) as row
from (select coder.rebase(:change_id, :fingerprint, :target, :branch, :resolve, :actor, :reason) as id) q,
     lateral (select * from coder.show_decision(q.id)) d;

-- name: change_undo
select row_to_json(d) as row from (select coder.undo(:change_id, :actor, :reason) as id) q, lateral (select * from coder.show_decision(q.id)) d;

-- name: decision_list
select row_to_json(x) as row from (
    select d.* from decisions k, lateral (select * from coder.show_decision(k.id)) d
    where (:session_id::uuid is null or k.session_id = :session_id)
      and (:change_id::uuid is null or k.change_id = :change_id)
      and (:project::text is null or k.project_id = coder.project_id(:project))
      and (:before_time::timestamptz is null or (k.created_at, k.id) < (:before_time, :before_id::uuid))
    order by k.created_at desc, k.id desc limit :limit
) x;

-- name: comment_edit
select row_to_json(k) as row from (select coder.edit_comment(:comment_id, :body, :actor) as id) q, lateral (select * from coder.show_comment(q.id)) k;

-- name: comment_delete
select row_to_json(k) as row from coder.show_comment(:comment_id) k, lateral (select coder.delete_comment(k.id, :actor)) gone;

-- name: comment_resolve
select row_to_json(k) as row from (select coder.resolve(:comment_id, :resolved, :actor) as id) q, lateral (select * from coder.show_comment(q.id)) k;

-- name: decision_get
select row_to_json(d) as row from coder.show_decision(:decision_id) d;

-- name: permission_list
select row_to_json(x) as row from (
    select p.* from permissions k, lateral (select * from coder.show_permission(k.id)) p
    where (:states::text[] is null or k.state = any (:states))
      and (:session_id::uuid is null or k.session_id = :session_id)
      and (:task::bigint is null or k.task_id = :task)
      and (:project::text is null or k.project_id = coder.project_id(:project))
      and (:before_time::timestamptz is null or (k.requested_at, k.id) < (:before_time, :before_id::uuid))
    order by k.requested_at desc, k.id desc limit :limit
) x;

-- name: permission_get
select row_to_json(p) as row from coder.show_permission(:permission_id) p;

-- name: permission_allow
select row_to_json(p) as row
from (select :permission_id::uuid as id, coder.allow(:permission_id, coalesce(:scope, 'once'), :pattern, :actor)) done,
     lateral (select * from coder.show_permission(done.id)) p;

-- name: permission_deny
select row_to_json(p) as row from (select :permission_id::uuid as id, coder.deny(:permission_id, :message, :actor)) done,
    lateral (select * from coder.show_permission(done.id)) p;

-- name: permission_answer
select row_to_json(p) as row from (select :permission_id::uuid as id, coder.answer(:permission_id, :answers::text[], :actor)) done,
    lateral (select * from coder.show_permission(done.id)) p;

-- name: token_known
select row_to_json(x) as row from (select id, name from api_tokens where hash = :hash and revoked_at is null) x;

-- name: login_known
select row_to_json(x) as row from (
    select t.id, t.name from logins l join api_tokens t on t.id = l.token_id
    where l.hash = :hash and l.kind = 'browser' and l.valid_until > now() and t.revoked_at is null) x;

-- name: login_link
with over as (delete from logins where valid_until < now())
insert into logins (hash, kind, token_id, valid_until)
select :hash, 'link', id, now() + interval '1 hour' from api_tokens where name = :name and revoked_at is null
returning json_build_object('valid_until', valid_until) as row;

-- name: login_by_link
with used as (delete from logins where hash = :code and kind = 'link' and valid_until > now() returning token_id)
insert into logins (hash, kind, token_id, valid_until)
select :hash, 'browser', u.token_id, now() + interval '30 days' from used u join api_tokens t on t.id = u.token_id where t.revoked_at is null
returning json_build_object('valid_until', valid_until) as row;

-- name: login_by_token
insert into logins (hash, kind, token_id, valid_until)
select :hash, 'browser', id, now() + interval '30 days' from api_tokens where hash = :token and revoked_at is null
returning json_build_object('valid_until', valid_until) as row;

-- name: logout
delete from logins where hash = :hash returning json_build_object('valid_until', valid_until) as row;

-- name: token_count
select row_to_json(x) as row from (select count(*) as tokens from api_tokens where revoked_at is null) x;

-- name: token_add
insert into api_tokens (name, hash) values (:name, :hash)
on conflict (name) do update set hash = excluded.hash, revoked_at = null
returning json_build_object('id', id, 'name', name) as row;

-- name: token_list
select row_to_json(x) as row from (select t.* from api_tokens k, lateral (select * from coder.show_token(k.name)) t order by k.name) x;

-- name: token_new
select row_to_json(x) as row from (
    select t.*, made.token from (select :name::text as name, coder.add_token(:name) as token) made, lateral (select * from coder.show_token(made.name)) t
) x;

-- name: token_revoke
select row_to_json(t) as row from (select coder.revoke_token(:name) as name) done, lateral (select * from coder.show_token(done.name)) t;

-- name: agent_list
select row_to_json(x) as row from (
    select a.agent, a.execution_path, a.available, a.version, a.path, a.detail, a.install, a.models, a.modes, a.thinking_options, a.commands,
           a.host_id, h.name as host, a.probed_at
    from available_agents a join hosts h on h.id = a.host_id
    where (:agent::text is null or a.agent = :agent)
      and (:host_id::uuid is null or a.host_id = :host_id)
      and (:available::boolean is null or a.available = :available)
    order by a.agent, h.name
) x;

-- name: agent_probe
select row_to_json(x) as row from (select coder.probe_agents(:host_id) as hosts, statement_timestamp() as requested_at) x;

-- name: status
select row_to_json(x) as row from (
    select (select json_object_agg(state, n) from (select state, count(*) as n from session_queue group by state) q) as sessions,
           (select count(*) from tasks where waiting) as pending_tasks,
           (select count(*) from session_queue where state = 'running') as running_tasks,
           (select count(*) from session_queue where state = 'held') as held_sessions,
           (select count(*) from pending_changes where state in ('pending', 'applying', 'conflicted')) as open_changes,
           (select coalesce(json_agg(json_build_object('id', n.id, 'host', h.name, 'host_id', n.host_id, 'version', n.version,
                                                       'started_at', n.started_at, 'lease_until', n.lease_until) order by n.started_at), '[]')
            from nodes n join hosts h on h.id = n.host_id where n.lease_until > clock_timestamp()) as nodes,
           (select extract(epoch from max(clock_timestamp() - xact_start))::int from pg_stat_activity
            where backend_xmin is not null and datname = current_database() and pid <> pg_backend_pid()) as oldest_transaction_seconds,
           (select max(version) from schema_version) as schema_version
) x;

-- name: stats
select row_to_json(s) as row from coder.stats(make_interval(hours => coalesce(:hours::int, 24)), coalesce(:stretches::int, 24), :project::text) s;

-- name: ready
select row_to_json(x) as row from (
    select (select max(version) from schema_version) as schema_version,
           exists (select from nodes where lease_until > clock_timestamp()) as dispatcher
) x;
