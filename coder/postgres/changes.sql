-- What the reviewer and the rescuer ask of changes, decisions and worktrees.

-- name: claim_decision
select id, epoch, decision, change, worktree, paths, written, files, content from coder.claim_decision(:node, :host);

-- name: begin_applying
select coder.begin_applying(:decision, :epoch, :plan, :content);

-- name: settle_decision
select coder.settle_decision(:decision, :epoch, :outcome, :error, :facts, :state, :conflicts, :written, :rest, :diff);

-- name: unfinished_worktrees
select to_jsonb(w) as worktree, q.state = 'running' as busy
from session_worktrees w join session_queue q on q.session_id = w.session_id
where w.host_id = :host and w.removed_at is null and (w.unsnapshotted_task is not null or w.discard_decision is not null or w.shifts <> '[]');

-- name: rescue_change
select coder.rescue_change(:session_id, :task, :snapshot, :diff);

-- name: shifted
select coder.shifted(:session_id, :decision, :kept);

-- name: discarded
select coder.discarded(:session_id, :decision);

-- name: expired_worktrees
select to_jsonb(w) as worktree, s.status = 'closed' as closed, coalesce(s.closed_at, s.last_activity_at) as since
from session_worktrees w join sessions s on s.id = w.session_id join session_queue q on q.session_id = w.session_id
where w.host_id = :host and w.removed_at is null and (:session_id::uuid is null or w.session_id = :session_id)
  and (s.status = 'closed' and q.state <> 'running' or s.status = 'idle' and q.state = 'idle')
  and coalesce(s.closed_at, s.last_activity_at) < clock_timestamp() - :retention::interval
  and w.unsnapshotted_task is null and w.discard_decision is null and w.shifts = '[]'
  and not exists (select from pending_changes c where c.session_id = w.session_id and c.state in ('pending', 'applying', 'conflicted'))
order by since limit 100;

-- name: every_project
select id from projects;

-- name: worktree_removed!
update session_worktrees set removed_at = clock_timestamp() where session_id = :session_id;

-- name: known_worktrees
select to_jsonb(p) as project,
       array(select w.session_id from session_worktrees w where w.project_id = p.id and w.host_id = :host and w.removed_at is null) as sessions
from projects p where p.host_id is null or p.host_id = :host order by p.name;

-- name: comments_owed
select to_jsonb(w) as worktree, c.id as change_id, c.snapshot_commit, c.base_commit,
       (select jsonb_agg(jsonb_build_object('id', k.id, 'side', k.side, 'commit', k.first_commit, 'path', encode(k.first_path, 'hex'),
                                            'line', k.first_line, 'end_line', k.first_end_line) order by k.id)
        from comments k where k.session_id = w.session_id) as comments
from session_worktrees w join pending_changes c on c.session_id = w.session_id and c.state in ('pending', 'applying', 'conflicted')
where w.host_id = :host and w.comments_owed;

-- name: carry_comments
select coder.carry_comments(:session_id, :change_id, :snapshot_commit, :base_commit, :places);

-- name: claim_checks
select id, epoch, task_id, change_id, command, seconds, network, session_id, worktree from coder.claim_checks(:node, :host, :count);

-- name: unwanted_checks
select u from coder.unwanted_checks(:node) u;

-- name: settle_check
select coder.settle_check(:check, :epoch, :state, :exit_code::int, :detail, :output, :fixable);
