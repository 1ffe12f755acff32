-- coder: the whole schema, version 1, for PostgreSQL 15 to 18. Applied by `coder migrate` in one
-- transaction under an advisory lock. Tables live in `public`, so that `INSERT INTO tasks …` is enough;
-- functions live in `coder`. docs/sql.md is the contract for people, docs/lifecycle.md the states.
--
-- Two ideas carry the queue. A node claims a SESSION, not a task: one row per session in
-- `session_queue` says whether it may run, so a session with 100,000 tasks costs what one with a single
-- task costs. And every claim draws a new `epoch` from one sequence: each later write names it, and a
-- write with another epoch changes nothing.
--
-- Lock order: session_queue -> tasks -> session_worktrees -> pending_changes -> sessions -> permissions -> comments -> checks. Whoever
-- already holds a row of a later table (a finishing turn, a person's UPDATE) takes `session_queue` only with SKIP
-- LOCKED, so that nobody who ends a turn ever waits for a producer's open transaction.

create schema coder;
-- The role may be called coder as well, and `"$user"` comes first in the default search_path.
set search_path = public;

create table schema_version (
    version        int primary key,
    min_compatible int not null check (min_compatible <= version),
    applied_at     timestamptz not null default now()
);
insert into schema_version (version, min_compatible) values (1, 1);

create sequence epoch_seq;

-- What a column of the busiest tables may hold is said by its type: PostgreSQL reads a table's CHECKs anew in every
-- statement that writes it, whatever it writes, which took a third of the time of a claim; a domain's once, and only
-- where such a column is written. (A domain speaks before a trigger can: where people are to read a sentence, there is a
-- CHECK.)
create domain coder.task_reason as text constraint tasks_reason_check check (value in (
    'shutdown', 'crash', 'lease_lost', 'timeout', 'user', 'dismissed', 'session_closed', 'no_project_path',
    'not_a_repository', 'no_commit', 'agent_unavailable', 'provider', 'tool_loop', 'disk', 'internal'));
create domain coder.execution_path as text constraint tasks_execution_path_check check (value in ('native', 'opencode', 'acp', 'pty'));
create domain coder.task_position as numeric constraint tasks_position_check check (value <> 'NaN');
create domain coder.idempotency_key as text constraint tasks_idempotency_key_check check (octet_length(value) between 1 and 255);
create domain coder.max_attempts as smallint constraint tasks_max_attempts_check check (value between 1 and 100);
create domain coder.task_timeout as interval constraint tasks_timeout_check check (value > '0');
create domain coder.turn_state as text constraint tasks_answer_state_check
    check (value in ('streaming', 'complete', 'failed', 'cancelled', 'interrupted'));
create domain coder.session_state as text constraint session_queue_state_check
    check (value in ('idle', 'scheduled', 'ready', 'running', 'held'));
create domain coder.change_state as text constraint pending_changes_state_check
    check (value in ('pending', 'applying', 'conflicted', 'approved', 'rejected', 'superseded', 'undone'));
create domain coder.turn_outcome as text constraint pending_changes_turn_outcome_check
    check (value in ('completed', 'failed', 'cancelled', 'interrupted'));
create domain coder.file_operation as text constraint change_files_operation_check
    check (value in ('added', 'deleted', 'modified', 'renamed', 'copied', 'type_changed'));
create domain coder.title as text constraint title_check check (length(value) <= 200);
create domain coder.commit_id as text constraint session_worktrees_base_commit_check check (value ~ '^([0-9a-f]{40}|[0-9a-f]{64})$');

-- ── directories ─────────────────────────────────────────────────────────────────────────────────────

-- An absolute path without what says nothing: `//`, `.`, `..` and a `/` at its end.
create function coder.normal_path(p_path text) returns text language plpgsql immutable strict as $$
declare
    v_kept text[] := '{}';
    v_step text;
begin
    foreach v_step in array string_to_array(p_path, '/') loop
        if v_step = '..' then
            v_kept := v_kept[1:cardinality(v_kept) - 1];
        elsif v_step not in ('', '.') then
            v_kept := v_kept || v_step;
        end if;
    end loop;
    return '/' || array_to_string(v_kept, '/');
end $$;

-- Whether a directory is this root or below it; both as coder.normal_path gives them.
create function coder.is_inside(p_path text, p_root text) returns boolean language sql immutable as $$
    select p_path = p_root or starts_with(p_path, rtrim(p_root, '/') || '/');
$$;

-- Where a session works: its own directory, else its workspace's default where that is inside the project, else the project's root.
create function coder.effective_cwd(p_own text, p_default text, p_project text) returns text language sql immutable as $$
    select coalesce(p_own, case when coder.is_inside(p_default, coder.normal_path(p_project)) then p_default end, coder.normal_path(p_project));
$$;

-- ── where things run ────────────────────────────────────────────────────────────────────────────────

create table hosts (
    id         uuid primary key,
    name       text not null,
    created_at timestamptz not null default now(),
    probe_requested_at timestamptz
);

-- A node exists exactly as long as its lease: whoever reaps it deletes the row.
create table nodes (
    id          uuid primary key,
    host_id     uuid not null references hosts,
    version     text not null,
    started_at  timestamptz not null default now(),
    lease_until timestamptz not null,
    crashed     boolean not null default false
) with (fillfactor = 50);

create table projects (
    id             uuid primary key default gen_random_uuid(),
    name           text not null unique check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    host_id        uuid references hosts,
    path           text not null check (path ~ '^/'),
    agent_fallback text not null default 'native' check (agent_fallback in ('native', 'fail')),
    permission_policy text not null default 'allow_in_worktree' check (permission_policy in ('ask', 'allow_in_worktree', 'deny')),
    network        text not null default 'on' check (network in ('on', 'off')),
    copy_globs     text[] not null default '{}',
    setup_command  text,
    setup_timeout  interval not null default '10 minutes' check (setup_timeout > '0'),
    check_command  text,
    check_timeout  interval not null default '10 minutes' check (check_timeout > '0'),
    auto_fix       smallint not null default 0 check (auto_fix between 0 and 20),
    created_at     timestamptz not null default now()
);
create index projects_by_path on projects (coder.normal_path(path));

create table workspaces (
    id          text primary key check (id ~ '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$'),
    title       coder.title not null default '',
    default_cwd text check (default_cwd ~ '^/'),
    created_at  timestamptz not null default now()
);
insert into workspaces (id, title) values ('default', 'Default');

create table available_agents (
    host_id        uuid not null references hosts,
    agent          text not null,
    execution_path text not null check (execution_path in ('native', 'opencode', 'acp', 'pty')),
    available      boolean not null,
    version        text,
    path           text,
    detail         text not null default '',
    install        text,
    models         text[] not null default '{}',
    modes          text[] not null default '{}',
    thinking_options text[] not null default '{}',
    commands       jsonb not null default '[]',
    probed_at      timestamptz not null default clock_timestamp(),
    primary key (host_id, agent)
);

create table api_tokens (
    id         uuid primary key default gen_random_uuid(),
    name       text not null unique,
    hash       bytea not null unique check (octet_length(hash) = 32),
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

-- Browsers that act for a token, and the codes of links that let one in once. A browser shows a cookie and a key; its hash is of both.
create table logins (
    hash       bytea primary key check (octet_length(hash) = 32),
    kind       text not null check (kind in ('link', 'browser')),
    token_id   uuid not null references api_tokens on delete cascade,
    created_at timestamptz not null default now(),
    valid_until timestamptz not null
);

-- ── conversations ───────────────────────────────────────────────────────────────────────────────────

create table sessions (
    id               uuid primary key default gen_random_uuid(),
    project_id       uuid not null references projects,
    workspace_id     text not null default 'default' references workspaces,
    title            coder.title not null default '',
    status           text not null default 'idle' check (status in ('active', 'idle', 'closed')),
    on_failure       text not null default 'continue' check (on_failure in ('continue', 'hold')),
    cwd              text check (cwd ~ '^/'),
    created_at       timestamptz not null default now(),
    last_activity_at timestamptz not null default now(),
    closed_at        timestamptz,
    unique (id, project_id),
    check ((status = 'closed') = (closed_at is not null))
) with (fillfactor = 80);
-- Lists are read in the order of these, status by status (coder.find_sessions).
create index sessions_by_activity on sessions (status, last_activity_at desc, id desc);
create index sessions_by_project on sessions (project_id, status, last_activity_at desc, id desc);
create index sessions_by_workspace on sessions (workspace_id, status, last_activity_at desc, id desc);
create index sessions_by_both on sessions (project_id, workspace_id, status, last_activity_at desc, id desc);
create index sessions_by_cwd on sessions (cwd, status, last_activity_at desc, id desc) where cwd is not null;

-- One row per session decides whether it may run. `ready_at`: waiting since (ready), or due (scheduled).
create table session_queue (
    session_id   uuid primary key references sessions on delete cascade,
    state        coder.session_state not null,
    host_id      uuid references hosts,
    priority     smallint not null default 0,
    ready_at     timestamptz not null default clock_timestamp(),
    epoch        bigint,
    owner        uuid,
    running_task bigint,
    held_by      bigint,
    check ((state = 'running') = (owner is not null and epoch is not null and running_task is not null)
           and (state = 'held') = (held_by is not null))
) with (fillfactor = 60);
create index session_queue_ready on session_queue (host_id, priority desc, ready_at) where state = 'ready';
create index session_queue_due on session_queue (ready_at) where state = 'scheduled';
create index session_queue_owned on session_queue (owner) where state = 'running';

-- `json`, not `jsonb`: the provider's prompt cache wants the same bytes again, and jsonb reorders keys.
create table chats (
    id            uuid primary key default gen_random_uuid(),
    session_id    uuid not null references sessions on delete cascade,
    model_history json,
    context_size  bigint check (context_size >= 0),
    context_limit bigint check (context_limit > 0),
    compacted_from uuid references chats,
    created_at    timestamptz not null default clock_timestamp(),
    closed_at     timestamptz,
    unique (id, session_id)
);
create index chats_by_session on chats (session_id, created_at desc);

create table tasks (
    id                  bigint generated always as identity primary key,
    project_id          uuid not null,
    session_id          uuid not null,
    opens_session       boolean not null default false,
    chat_id             uuid,
    workspace_id        text,
    input               text not null,
    agent               text,
    model               text,
    mode_id             text,
    thinking_option_id  text,
    priority            smallint not null default 0,
    run_at              timestamptz,
    idempotency_key     coder.idempotency_key,
    max_attempts        coder.max_attempts not null default 3,
    timeout             coder.task_timeout,
    labels              text[] not null default '{}',
    asked_by            text not null default current_user,
    retry_of            bigint references tasks,
    compacts            boolean not null default false,
    position            coder.task_position not null,
    created_at          timestamptz not null default now(),
    cancel_requested_at timestamptz,
    retry_requested_at  timestamptz,
    -- what coder writes
    state               text not null default 'pending',
    waiting             boolean not null generated always as (state = 'pending') stored,
    attempts            smallint not null default 0,
    epoch               bigint,
    node_id             uuid,
    claimed_at          timestamptz,
    first_event_at      timestamptz,
    ended_at            timestamptz,
    reason              coder.task_reason,
    error               text,
    notices             text[] not null default '{}',
    output_summary      text,
    input_tokens        bigint not null default 0,
    cached_tokens       bigint not null default 0,
    output_tokens       bigint not null default 0,
    cost_tokens         bigint not null default 0,
    execution_path      coder.execution_path,
    agent_used          text,
    -- The turn: what the agent says to the input, and in which chat. Null while the task waits, also while it waits again.
    spoken_in           uuid,
    answer_state        coder.turn_state,
    answer              text,
    reasoning           text,
    tool_calls          jsonb,
    foreign key (session_id, project_id) references sessions (id, project_id) deferrable initially deferred,
    foreign key (chat_id, session_id) references chats (id, session_id),
    constraint tasks_input_check check (octet_length(input) between 1 and 1048576),  -- that it says something: task_before_…
    -- One for all that follows from the state, since each is read anew in every statement.
    constraint tasks_state_check check (state in ('pending', 'running', 'completed', 'failed', 'cancelled', 'interrupted')
        and attempts between 0 and max_attempts and case state
        when 'pending' then ended_at is null and answer_state is null
        when 'running' then ended_at is null and epoch is not null and node_id is not null and claimed_at is not null and answer_state = 'streaming'
        else ended_at is not null and (state = 'completed' or reason is not null) and answer_state is distinct from 'streaming' end)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.05);
-- By `waiting`, not by `state`, which changes when a task ends as well: as no index knows of that, an ending is written
-- without touching one (HOT). What runs in a session is said by its row in session_queue, and by no second one.
create index tasks_head on tasks (session_id, position) where waiting;
create index tasks_priority on tasks (session_id, priority desc) where waiting and priority <> 0;
create index tasks_due on tasks (session_id, run_at) where waiting and run_at is not null;
create unique index tasks_idempotency on tasks (project_id, idempotency_key) where idempotency_key is not null;
create index tasks_by_session on tasks (session_id, id);
-- The turns of a session in their order, which is that of their claims. Not `where epoch is not null`, which tempts every statement that names one.
create index tasks_by_turn on tasks (session_id, epoch) where spoken_in is not null;
-- They begin in about the order in which their rows are stored, so a few words for each stretch of the table are enough (coder.stats).
create index tasks_by_start on tasks using brin (claimed_at) with (autosummarize = on);
create index tasks_by_retry on tasks (retry_of) where retry_of is not null;
alter table session_queue set (autovacuum_vacuum_scale_factor = 0.01);

-- The same whenever it is asked for: a second attempt of a turn goes on with the same messages.
create function coder.message_id(p_task bigint, p_session uuid, p_role text) returns uuid language sql immutable as $$
    select md5(p_role || p_task::text || p_session::text)::uuid;
$$;

-- A turn is both of its messages: what the user said is the task's input.
create view messages as
    select coder.message_id(id, session_id, 'user') as id, epoch * 2 as ordinal, session_id, spoken_in as chat_id, id as task_id, 'user' as role,
           'complete' as state, input as text, '' as reasoning, '[]'::jsonb as tool_calls, claimed_at as created_at, claimed_at as ended_at,
           null as agent, null::bigint as cost_tokens, null as error
    from tasks where spoken_in is not null
    union all
    select coder.message_id(id, session_id, 'assistant'), epoch * 2 + 1, session_id, spoken_in, id, 'assistant', answer_state, coalesce(answer, ''),
           coalesce(reasoning, ''), coalesce(tool_calls, '[]'), claimed_at, case when answer_state <> 'streaming' then ended_at end,
           coalesce(agent_used, agent, 'native'), cost_tokens, error
    from tasks where spoken_in is not null;

-- What a turn that runs has said so far, in batches, so that it survives its node and every process can show it. Written
-- by coder.append_frames alone, which compares the epoch; a foreign key would write into the task's row with each batch.
create table frames (
    task_id bigint not null,
    epoch   bigint not null,
    seq     bigint not null check (seq > 0),
    payload json not null,
    primary key (task_id, epoch, seq)
) with (autovacuum_vacuum_scale_factor = 0.05);

-- Sessions whose provider's prompt cache is kept warm (coder/warming.py). Counters count since it was switched on; the epoch is
-- that of the latest claim. `retention_seconds`: how old the cache was when the last warm still found it.
create table cache_warming (
    session_id        uuid primary key references sessions on delete cascade,
    enabled           boolean not null default false,
    interval_seconds  int not null default 240 check (interval_seconds between 10 and 86400),
    next_warm_at      timestamptz,
    last_warm_at      timestamptz,
    epoch             bigint,
    node_id           uuid,
    warms             int not null default 0,
    input_tokens      bigint not null default 0,
    cached_tokens     bigint not null default 0,
    output_tokens     bigint not null default 0,
    last_input_tokens bigint,
    last_cached_tokens bigint,
    retention_seconds float8,
    stopped           text check (stopped in ('tokens', 'idle')),
    error             text,
    check (enabled = (next_warm_at is not null))
);
create index cache_warming_due on cache_warming (next_warm_at) where enabled;

-- What an agent itself remembers of a chat, as its last turn there left it. `active`: the process of that node may
-- still hold it; `stopped`: that process was ended cleanly since; `lost`: nobody knows what state it is in.
create table agent_sessions (
    chat_id          uuid not null,
    agent            text not null,
    session_id       uuid not null,
    execution_path   text not null check (execution_path in ('native', 'opencode', 'acp', 'pty')),
    agent_session_id text not null,
    config_hash      text not null,
    home             text not null,
    node_id          uuid,
    status           text not null check (status in ('active', 'stopped', 'lost')),
    updated_at       timestamptz not null default clock_timestamp(),
    primary key (chat_id, agent),
    foreign key (chat_id, session_id) references chats (id, session_id) on delete cascade
) with (fillfactor = 80);
create index agent_sessions_active on agent_sessions (node_id) where status = 'active';
create index agent_sessions_by_session on agent_sessions (session_id);

-- ── permissions and questions ───────────────────────────────────────────────────────────────────────

-- What people allowed for good: in one session, or in all of the project (no session).
create table permission_rules (
    id         uuid primary key default gen_random_uuid(),
    project_id uuid not null references projects on delete cascade,
    session_id uuid,
    tool       text not null check (tool ~ '\S'),
    pattern    text not null check (pattern ~ '\S'),
    actor      text not null default current_user,
    created_at timestamptz not null default clock_timestamp(),
    foreign key (session_id, project_id) references sessions (id, project_id) on delete cascade,
    unique nulls not distinct (project_id, session_id, tool, pattern)
);

-- Every request of an agent to do something, and every question it asked, with the answer and who gave it. `told_at`:
-- when the answer was handed to the agent. A row whose turn was interrupted moves on to the task that runs it again.
create table permissions (
    id           uuid primary key default gen_random_uuid(),
    task_id      bigint not null references tasks on delete cascade,
    epoch        bigint not null,
    session_id   uuid not null,
    project_id   uuid not null,
    agent        text not null,
    kind         text not null check (kind in ('permission', 'question')),
    request_id   text not null,
    call_id      text,
    tool         text,
    asked_for    text check (asked_for in ('read', 'edit', 'execute', 'fetch', 'other')),
    title        text not null,
    input        json not null default '{}',
    paths        text[] not null default '{}',
    choices      jsonb not null default '[]',
    several      boolean not null default false,
    state        text not null default 'requested' check (state in ('requested', 'allowed_once', 'allowed_always', 'denied', 'expired')),
    answers      text[] not null default '{}',
    message      text,
    actor        text,
    rule_id      uuid references permission_rules on delete set null,
    requested_at timestamptz not null default clock_timestamp(),
    deadline     timestamptz not null,
    answered_at  timestamptz,
    told_at      timestamptz,
    foreign key (session_id, project_id) references sessions (id, project_id) on delete cascade,
    check ((kind = 'permission') = (tool is not null and asked_for is not null)),
    check ((state = 'requested') = (answered_at is null)),
    check ((state = 'requested') = (actor is null)),
    check (told_at is null or answered_at is not null),
    check (kind = 'question' or answers = '{}'),
    check (state <> 'allowed_always' or kind = 'permission')
) with (fillfactor = 80);
create index permissions_open on permissions (task_id, requested_at) where state = 'requested';
create index permissions_untold on permissions (task_id) where told_at is null and state <> 'expired';
create index permissions_by_task on permissions (task_id, requested_at);
create index permissions_by_session on permissions (session_id, requested_at desc);
create index permissions_by_time on permissions (requested_at desc, id);
create index permissions_by_rule on permissions (rule_id) where rule_id is not null;

-- ── worktrees, changes, decisions ───────────────────────────────────────────────────────────────────

create table session_worktrees (
    session_id         uuid primary key references sessions,
    project_id         uuid not null references projects,
    host_id            uuid not null references hosts,
    repository         text not null,
    path               text not null,
    base_commit        coder.commit_id not null,
    base_branch        text,
    base_version       int not null default 1 check (base_version > 0),
    last_snapshot      text,
    snapshots          int not null default 0,
    copied             bytea[] not null default '{}',
    discard_decision   uuid,
    undo_decision      uuid,  -- being carried out: no turn's end may come between
    -- What the files are still to be brought along with, in this order: [{decision, from commit, to commit}]
    shifts             jsonb not null default '[]',
    unsnapshotted_task bigint references tasks,
    comments_owed      boolean not null default false,
    created_at         timestamptz not null default now(),
    removed_at         timestamptz
);
create index session_worktrees_by_path on session_worktrees (path);
create index session_worktrees_unfinished on session_worktrees (host_id)
    where unsnapshotted_task is not null or discard_decision is not null or shifts <> '[]';
create index session_worktrees_comments_owed on session_worktrees (host_id) where comments_owed;

create table pending_changes (
    id              uuid primary key default gen_random_uuid(),
    session_id      uuid not null references sessions,
    project_id      uuid not null references projects,
    task_id         bigint not null references tasks,
    agent           text not null,
    title           text not null,
    state           coder.change_state not null default 'pending',
    turn_outcome    coder.turn_outcome not null,
    base_commit     text not null,
    base_tree       text not null,
    base_version    int not null,
    snapshot_commit text not null,
    snapshot_tree   text not null,
    fingerprint     text not null
        check (fingerprint = encode(sha256(convert_to(base_tree || ':' || snapshot_tree, 'UTF8')), 'hex')),
    file_count      int not null,
    additions       int not null,
    deletions       int not null,
    diff            bytea not null,
    warnings        text[] not null default '{}',
    conflicts       jsonb not null default '[]',
    superseded_by   uuid references pending_changes deferrable initially deferred,
    created_at      timestamptz not null default clock_timestamp(),
    decided_at      timestamptz,
    check (state in ('superseded', 'approved', 'rejected', 'undone') or superseded_by is null)
);
create unique index pending_changes_one_open on pending_changes (session_id) where state in ('pending', 'applying', 'conflicted');
create index pending_changes_by_session on pending_changes (session_id, created_at desc);
create index pending_changes_by_state on pending_changes (state, created_at desc, id);

create table change_files (
    change_id uuid not null references pending_changes on delete cascade,
    ordinal   int not null,
    path      bytea not null,
    display   text not null,
    old_path  bytea,
    operation coder.file_operation not null,
    additions int,
    deletions int,
    old_mode  text not null,
    new_mode  text not null,
    hunks     jsonb not null default '[]',  -- numbered from 1; each [old start, lines, new start, lines, line in the diff, lines there]
    primary key (change_id, ordinal)
);

create table decisions (
    id          uuid primary key default gen_random_uuid(),
    change_id   uuid not null references pending_changes,
    session_id  uuid not null references sessions,
    project_id  uuid not null references projects,
    kind        text not null check (kind in ('approve', 'reject', 'part', 'undo', 'rebase')),
    fingerprint text not null,
    target      text check (target in ('checkout', 'branch')),
    branch      text,
    commit      boolean not null default false,
    work        text check (work in ('keep', 'discard')),
    parts       jsonb not null default '[]',
    push        boolean not null default false,
    after       uuid references decisions,  -- carried out only once that one is done
    resolve     boolean not null default false,  -- of a rebase: the agent resolves what clashes
    old_base    text,  -- from where to where it moved the session's base
    new_base    text,
    left_change uuid references pending_changes,  -- the session's open change it left
    actor       text not null,
    reason      text,
    state       text not null default 'queued' check (state in ('queued', 'running', 'done', 'failed')),
    outcome     text,
    error       text,
    facts       jsonb not null default '{}',
    plan        jsonb,
    node_id     uuid,
    epoch       bigint,
    told_task   bigint references tasks,
    created_at  timestamptz not null default clock_timestamp(),
    started_at  timestamptz,
    ended_at    timestamptz,
    check (kind <> 'approve' or target is not null),
    check ((kind = 'reject') = (work is not null)),
    check ((kind = 'part') = (parts <> '[]')),
    check (branch is null or target = 'branch'),
    check (not commit or target = 'checkout'),
    check (not push or target = 'branch'),
    check ((state in ('done', 'failed')) = (ended_at is not null)),
    check (state <> 'running' or (node_id is not null and epoch is not null))
);
create index decisions_queued on decisions (created_at) where state = 'queued';
create index decisions_after on decisions (after) where after is not null;
create unique index decisions_one_per_change on decisions (change_id) where state in ('queued', 'running');
create unique index decisions_one_per_project on decisions (project_id) where state = 'running';
create index decisions_untold on decisions (session_id) where kind in ('reject', 'part', 'rebase') and told_task is null;
create index decisions_by_time on decisions (created_at desc, id);
create index decisions_by_change on decisions (change_id, created_at desc);
create index decisions_by_session on decisions (session_id, created_at desc, id);

-- What reviewers say about lines and files of a change. Without a task it is a draft of its author's; `coder.send` makes one
-- task of all of them. It stands on a file of the change `change_id` (`line` null: on the file itself) and is carried to the
-- session's next change; `first_…` is where it was written, from which it is always carried, so that it never drifts.
create table comments (
    id              uuid primary key default gen_random_uuid(),
    session_id      uuid not null references sessions,
    project_id      uuid not null references projects,
    change_id       uuid not null references pending_changes,
    path            bytea not null,
    side            text not null check (side in ('old', 'new')),
    line            int check (line > 0),
    end_line        int check (end_line >= line),
    outdated        boolean not null default false,
    code            text not null default '',
    body            text not null check (body ~ '\S' and octet_length(body) <= 65536),
    author          text not null,
    task_id         bigint references tasks,
    resolved_at     timestamptz,
    resolved_by     text,
    first_change_id uuid not null references pending_changes,
    first_commit    text not null,
    first_path      bytea not null,
    first_line      int,
    first_end_line  int,
    created_at      timestamptz not null default clock_timestamp(),
    edited_at       timestamptz,
    check ((line is null) = (end_line is null)),
    check ((resolved_at is null) = (resolved_by is null)),
    check (resolved_at is null or task_id is not null)
);
create index comments_by_session on comments (session_id, created_at);
create index comments_by_change on comments (change_id);
create index comments_by_time on comments (created_at desc, id);
create index comments_by_task on comments (task_id) where task_id is not null;

-- Runs of a project's check command on what turns left, in their worktrees. `fixes`: how many tasks in a row were made of failed checks
-- before this change; `fix_task`: the one that was made of this.
create table checks (
    id         uuid primary key default gen_random_uuid(),
    change_id  uuid not null references pending_changes,
    session_id uuid not null references sessions,
    project_id uuid not null references projects,
    task_id    bigint not null references tasks,
    command    text not null,
    timeout    interval not null,
    fixes      int not null,
    state      text not null default 'queued' check (state in ('queued', 'running', 'passed', 'failed', 'skipped')),
    exit_code  int,
    detail     text,
    output     text not null default '',
    node_id    uuid,
    epoch      bigint,
    fix_task   bigint references tasks,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    ended_at   timestamptz,
    check ((state in ('passed', 'failed', 'skipped')) = (ended_at is not null)),
    check (state <> 'running' or (node_id is not null and epoch is not null and started_at is not null)),
    check (state <> 'failed' or detail is not null)
);
create unique index checks_one_per_change on checks (change_id) where state in ('queued', 'running');
create index checks_open on checks (created_at) where state in ('queued', 'running');
create index checks_by_change on checks (change_id, created_at desc);
create index checks_by_fix on checks (fix_task) where fix_task is not null;

-- What coder last wrote into a checkout: content that is ours is never "dirty". A null blob: deleted.
create table checkout_files (
    project_id uuid not null references projects on delete cascade,
    path       bytea not null,
    blob       text,
    mode       text not null,
    primary key (project_id, path)
);

-- ── sentences ───────────────────────────────────────────────────────────────────────────────────────

-- Raise a sentence with one of coder's own SQLSTATEs: CD404 not found, CD409 wrong state, CD410 stale,
-- CD411 superseded, CD412 idempotency key taken, CD422 not acceptable.
create function coder.refuse(p_sqlstate text, p_sentence text, p_detail text default null) returns void
language plpgsql as $$
begin
    if p_detail is null then
        raise exception using errcode = p_sqlstate, message = p_sentence;
    end if;
    raise exception using errcode = p_sqlstate, message = p_sentence, detail = p_detail;
end $$;

-- Bytes as text for people: UTF-8 where it is, Latin-1 otherwise; a zero byte, which no text can hold, as U+FFFD.
create function coder.as_text(p_bytes bytea) returns text language plpgsql immutable strict as $$
begin
    return convert_from(p_bytes, 'UTF8');
exception when character_not_in_repertoire or untranslatable_character then
    if position('\x00'::bytea in p_bytes) > 0 then
        return coder.as_text(decode(replace(replace(encode(p_bytes, 'escape'), '\\', '\134'), '\000', '\357\277\275'), 'escape'));
    end if;
    return convert_from(p_bytes, 'LATIN1');
end $$;

create view changes as
    select id, session_id, project_id, task_id, agent, title, state, turn_outcome, fingerprint, file_count, additions,
           deletions, coder.as_text(diff) as diff, warnings, conflicts, superseded_by, created_at, decided_at
    from pending_changes;

-- ── placing a session: the one place that decides between idle, scheduled, ready and held ──────────────

-- For sessions whose `session_queue` rows the caller has LOCKED IN AN EARLIER STATEMENT: this function's
-- statements take a new snapshot, so a producer that committed meanwhile is seen, and one that has not
-- will find the row it wants after us. `p_ring` wakes the nodes when a session became ready; a node that
-- has just ended a turn does not ring, since the slot it freed is the one that session needs.
create function coder.place(p_places tid[], p_ring boolean default true) returns void
language plpgsql set coder.actor = 'node'
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off
set enable_memoize = off set plan_cache_mode = force_generic_plan as $$
declare
    woken int;
begin
    with placed as (
        update session_queue q
        set state = case when h.task_id is not null then 'held' when v.id is not null then 'ready'
                         when d.run_at is not null then 'scheduled' else 'idle' end,
            held_by = h.task_id,
            -- where `record_worktree` could not say it, since a producer held the row
            host_id = coalesce(q.host_id, (select w.host_id from session_worktrees w where w.session_id = q.session_id)),
            priority = coalesce(p.priority, 0),
            ready_at = case when v.id is null and d.run_at is not null then d.run_at
                            when q.state = 'ready' then q.ready_at else clock_timestamp() end,
            owner = null, epoch = null, running_task = null
        from unnest(p_places) as s(place)
        join (select ctid as place, session_id, coalesce(held_by, running_task) as task, running_task is not null as ran
              from session_queue) was on was.place = s.place
        left join lateral (
            select t.id as task_id from tasks t join sessions on sessions.id = t.session_id
            where t.id = was.task
              and (t.state = 'interrupted' or (t.state = 'failed' and sessions.on_failure = 'hold'))
              and sessions.status <> 'closed'
              and not exists (select from tasks r where r.retry_of = t.id)
        ) h on true
        left join lateral (
            select t.id from tasks t
            where t.session_id = was.session_id and t.waiting and (t.run_at is null or t.run_at <= clock_timestamp())
            order by t.position limit 1
        ) v on true
        left join lateral (
            -- Tasks of priority 0 are not in the index; one of them is there unless only lower ones are.
            select case when n.priority > 0 or not exists (
                       select from tasks t where t.session_id = was.session_id and t.waiting and t.priority = 0
                         and (t.run_at is null or t.run_at <= clock_timestamp())) then n.priority else 0 end as priority
            from (select t.priority from tasks t
                  where t.session_id = was.session_id and t.waiting and t.priority <> 0
                    and (t.run_at is null or t.run_at <= clock_timestamp()) and v.id is not null
                  order by t.priority desc limit 1) n
        ) p on true
        left join lateral (
            select t.run_at from tasks t
            where t.session_id = was.session_id and t.waiting and t.run_at is not null and v.id is null
            order by t.run_at limit 1
        ) d on true
        where q.ctid = was.place
        returning q.session_id, q.state, v.id is not null or d.run_at is not null as waiting, was.ran
    ), free as materialized (
        -- Nobody's ending waits for a person who holds a session's row; the deep sweep shows such a session right.
        -- One that stays active is left as it is, and one that ran was.
        select sessions.id, placed.waiting from placed join sessions on sessions.id = placed.session_id
        where not (placed.ran and placed.waiting) and sessions.status <> 'closed' and (sessions.status = 'idle' or not placed.waiting)
        for no key update of sessions skip locked
    ), shown as (
        update sessions
        set status = case when free.waiting then 'active' else 'idle' end, last_activity_at = clock_timestamp()
        from free where sessions.id = free.id
    )
    select count(*) into woken from placed where state = 'ready';
    if woken > 0 and p_ring then
        perform pg_notify('tasks_new', '');
    end if;
end $$;

-- Place a session again after something about its pending tasks changed, unless somebody is at it
-- (then that somebody, the next claim or the sweep places it).
create function coder.settle(p_session uuid) returns void language plpgsql as $$
declare
    v_place tid;
begin
    select ctid into v_place from session_queue where session_id = p_session and state <> 'running' for update skip locked;
    if found then
        perform coder.place(array[v_place]);
    end if;
end $$;

-- ── the door: what happens when somebody inserts or updates a task ─────────────────────────────────────

create function coder.check_input(p_input text) returns void language plpgsql as $$
begin
    if p_input is null or p_input !~ '\S' then
        perform coder.refuse('CD422', 'A task needs an input that says what to do; this one is empty.');
    elsif octet_length(p_input) > 1048576 then
        perform coder.refuse('CD422', format(
            'The input of a task may have 1048576 bytes; this one has %s: put the material into a file of the project and name it.',
            octet_length(p_input)));
    end if;
end $$;

create function coder.task_before_insert() returns trigger language plpgsql as $$
begin
    if current_setting('coder.actor', true) is distinct from 'node' then
        if new.state <> 'pending' or new.attempts <> 0 or new.input_tokens + new.cached_tokens + new.output_tokens + new.cost_tokens <> 0 or new.notices <> '{}'
           or coalesce(new.epoch::text, new.node_id::text, new.claimed_at::text, new.first_event_at::text, new.ended_at::text,
                       new.cancel_requested_at::text, new.retry_requested_at::text, new.reason, new.error, new.output_summary,
                       new.execution_path, new.agent_used, new.spoken_in::text, new.answer_state, new.answer, new.reasoning, new.tool_calls::text,
                       new.retry_of::text, nullif(new.compacts, false)::text) is not null then
            perform coder.refuse('CD422', format(
                'A task is inserted as pending (here: state %L); leave out what coder writes, retry_of included (docs/sql.md lists your columns).', new.state));
        end if;
        new.opens_session := new.session_id is null;
        new.position := new.id;
        if new.input is null or new.input !~ '\S' or octet_length(new.input) > 1048576 then
            perform coder.check_input(new.input);
        end if;
    end if;
    -- Only the id: a session made here would be seen by no other row of the statement, and a row-level
    -- AFTER trigger would come too late for the foreign key of a multi-row insert.
    if new.session_id is null then
        new.session_id := gen_random_uuid();
    end if;
    new.position := coalesce(new.position, new.id);
    new.agent := nullif(btrim(new.agent), '');
    new.model := nullif(btrim(new.model), '');
    new.workspace_id := nullif(btrim(new.workspace_id), '');
    return new;
end $$;
create trigger tasks_before_insert before insert on tasks for each row execute function coder.task_before_insert();

create function coder.task_after_insert() returns trigger language plpgsql set coder.actor = 'node' as $$
declare
    facts record;
    bad record;
    woken int;
begin
    -- What most statements have none of is looked for once, in one go: each further look costs an INSERT 20 us.
    select bool_or(p.id is null) as lost, bool_or(n.workspace_id is not null) as placed, bool_or(n.opens_session) as opens,
           bool_and(n.opens_session) as opens_all
    into facts from new_tasks n left join projects p on p.id = n.project_id;
    if facts.opens is null then
        return null;  -- a statement without a row
    end if;
    if facts.lost then
        select n.project_id into bad from new_tasks n left join projects p on p.id = n.project_id where p.id is null limit 1;
        perform coder.refuse('CD404', format(
            'There is no project %s; `select id, name from projects` lists those that exist.', coalesce(bad.project_id::text, '(null)')));
    end if;
    if facts.placed then
        select n.workspace_id into bad from new_tasks n
            where n.workspace_id is not null and n.workspace_id !~ '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$' limit 1;
        if found then
            perform coder.refuse('CD422', format(
                'A workspace is named by 1 to 40 of a-z, 0-9 and "-" (not at the ends); %L is not.', bad.workspace_id));
        end if;
        insert into workspaces (id, title)
            select distinct workspace_id, workspace_id from new_tasks where workspace_id is not null order by 1
            on conflict do nothing;
    end if;
    if facts.opens then
        with opened as (
            insert into sessions (id, project_id, workspace_id, title, status)
            select session_id, project_id, coalesce(workspace_id, 'default'), left(regexp_replace(input, '\s+', ' ', 'g'), 80), 'active'
            from new_tasks where opens_session order by session_id returning id
        ) insert into chats (session_id) select id from opened;
    end if;

    with per as (
        select n.session_id, max(n.priority) filter (where v.visible) as priority, bool_or(v.visible) as visible, min(n.run_at) as due,
               row_number() over (order by min(n.id)) as ordinal
        from new_tasks n, lateral (select n.run_at is null or n.run_at <= clock_timestamp() as visible) v
        group by n.session_id
    ), upserted as (
        insert into session_queue as q (session_id, host_id, state, priority, ready_at)
        select per.session_id, coalesce(w.host_id, p.host_id), case when per.visible then 'ready' else 'scheduled' end,
               coalesce(per.priority, 0), case when per.visible then statement_timestamp() + per.ordinal * interval '1 microsecond' else per.due end
        from per
        join sessions s on s.id = per.session_id
        join projects p on p.id = s.project_id
        left join session_worktrees w on w.session_id = s.id
        order by per.session_id  -- so that two producers never wait for each other
        on conflict (session_id) do update
        set state = case when excluded.state = 'ready' or q.state = 'ready' then 'ready' else 'scheduled' end,
            priority = case when q.state = 'ready' then greatest(q.priority, excluded.priority) else excluded.priority end,
            ready_at = case when q.state = 'ready' then q.ready_at
                            when q.state = 'scheduled' and excluded.state = 'scheduled' then least(q.ready_at, excluded.ready_at)
                            else excluded.ready_at end
        where q.state in ('idle', 'scheduled')
           or (q.state = 'ready' and excluded.state = 'ready' and excluded.priority > q.priority)
        returning q.state
    )
    select count(*) into woken from upserted where state = 'ready';

    if not facts.opens_all then
        -- The queue rows are locked now, and closing takes them first: what we read of the sessions holds.
        select n.session_id, n.project_id, s.id as known, s.project_id as project, s.status into bad
            from new_tasks n left join sessions s on s.id = n.session_id
            where not n.opens_session and (s.id is null or s.project_id <> n.project_id or s.status = 'closed') limit 1;
        if found then
            perform coder.refuse(case when bad.known is null then 'CD404' when bad.project <> bad.project_id then 'CD422' else 'CD409' end, case
                when bad.known is null then format('There is no session %s; leave session_id out to open a new one.', bad.session_id)
                when bad.status = 'closed' and bad.project = bad.project_id then
                    format('Session %s is closed; reopen it with coder.reopen_session(%L), or leave session_id out.', bad.session_id, bad.session_id)
                else format('Session %s belongs to project %s, not to %s.', bad.session_id, bad.project, bad.project_id) end);
        end if;
        update sessions set status = 'active', last_activity_at = clock_timestamp()
            from (select distinct session_id from new_tasks where not opens_session order by 1) n where sessions.id = n.session_id;
    end if;
    if woken > 0 then
        perform pg_notify('tasks_new', '');
    end if;
    return null;
end $$;
create trigger tasks_after_insert after insert on tasks referencing new table as new_tasks
    for each statement execute function coder.task_after_insert();

-- Users may ask for the end of a task and edit one that waits; the rest of the row is coder's.
create function coder.task_before_update() returns trigger language plpgsql as $$
begin
    if new.state is distinct from old.state then
        perform coder.refuse('CD422', format(
            'The state of task %s is set by coder alone; to stop it set cancel_requested_at, or call coder.cancel(%s).', old.id, old.id));
    end if;
    if (new.id, new.project_id, new.session_id, new.asked_by, new.attempts, new.epoch, new.node_id, new.claimed_at, new.first_event_at, new.ended_at,
        new.created_at, new.opens_session, new.retry_of, new.compacts, new.reason, new.error, new.notices, new.output_summary, new.input_tokens,
        new.cached_tokens, new.output_tokens, new.cost_tokens, new.execution_path, new.agent_used, new.spoken_in, new.answer_state, new.answer,
        new.reasoning, new.tool_calls, new.retry_requested_at)
       is distinct from
       (old.id, old.project_id, old.session_id, old.asked_by, old.attempts, old.epoch, old.node_id, old.claimed_at, old.first_event_at, old.ended_at,
        old.created_at, old.opens_session, old.retry_of, old.compacts, old.reason, old.error, old.notices, old.output_summary, old.input_tokens,
        old.cached_tokens, old.output_tokens, old.cost_tokens, old.execution_path, old.agent_used, old.spoken_in, old.answer_state, old.answer,
        old.reasoning, old.tool_calls, old.retry_requested_at)
    then
        perform coder.refuse('CD422', format('These columns of task %s are written by coder alone; insert a new task instead.', old.id));
    end if;
    if new.input is distinct from old.input then
        perform coder.check_input(new.input);
    end if;
    if old.state <> 'pending' and (new.input, new.agent, new.model, new.priority, new.run_at, new.position)
       is distinct from (old.input, old.agent, old.model, old.priority, old.run_at, old.position) then
        perform coder.refuse('CD409', format('Task %s is %s, so it can no longer be edited; insert a new task.', old.id, old.state));
    end if;
    if new.cancel_requested_at is not null and old.cancel_requested_at is null then
        if old.state = 'pending' then
            new.state := 'cancelled';
            new.reason := 'user';
            new.ended_at := clock_timestamp();
        elsif old.state <> 'running' then
            new.cancel_requested_at := null;
        end if;
    end if;
    return new;
end $$;
create trigger tasks_before_update before update on tasks for each row
    when (current_setting('coder.actor', true) is distinct from 'node') execute function coder.task_before_update();

create function coder.task_after_update() returns trigger language plpgsql as $$
begin
    if new.state = 'running' then
        perform pg_notify('tasks_cancel', '');
    else
        perform coder.settle(new.session_id);
    end if;
    return null;
end $$;
create trigger tasks_after_update after update of cancel_requested_at, priority, run_at, position on tasks for each row
    when (current_setting('coder.actor', true) is distinct from 'node'
          and (old.cancel_requested_at is distinct from new.cancel_requested_at
               or old.priority <> new.priority or old.run_at is distinct from new.run_at or old.position <> new.position))
    execute function coder.task_after_update();

create function coder.task_before_delete() returns trigger language plpgsql as $$
begin
    if old.state in ('pending', 'running') then
        perform coder.refuse('CD409', format('Task %s is %s; cancel it with coder.cancel(%s) instead of deleting it.', old.id, old.state, old.id));
    end if;
    perform from session_queue where session_id = old.session_id and held_by = old.id;
    if found then
        perform coder.refuse('CD409', format('Task %s holds its session until somebody decides; let it go with coder.dismiss(%s) first.', old.id, old.id));
    end if;
    perform from pending_changes where task_id = old.id;
    if found then
        perform coder.refuse('CD409', format('Task %s made a change, which keeps it; it cannot be deleted.', old.id));
    end if;
    perform from comments where task_id = old.id;
    if found then
        perform coder.refuse('CD409', format('Task %s carries comments of reviewers, which keep it; it cannot be deleted.', old.id));
    end if;
    perform from checks where fix_task = old.id;
    if found then
        perform coder.refuse('CD409', format('Task %s was made of a failed check, which keeps it; it cannot be deleted.', old.id));
    end if;
    perform from tasks where retry_of = old.id;
    if found then
        perform coder.refuse('CD409', format('Task %s was run again, and the later task refers to it; delete that one first.', old.id));
    end if;
    return old;
end $$;
create trigger tasks_before_delete before delete on tasks for each row execute function coder.task_before_delete();

-- ── the door: functions for people ──────────────────────────────────────────────────────────────────

create function coder.project_id(p_project text) returns uuid language plpgsql stable as $$
declare
    found_id uuid;
begin
    select id into found_id from projects where name = p_project or id::text = lower(p_project);
    if found_id is null then
        perform coder.refuse('CD404', format('There is no project %s; `select id, name from projects` lists those that exist.', p_project));
    end if;
    return found_id;
end $$;

-- Queue a task. With an idempotency key: the same request again answers the first task's id, another request is refused.
create function coder.enqueue(
    p_project text, p_input text, p_session_id uuid default null, p_chat_id uuid default null, p_workspace_id text default null,
    p_agent text default null, p_model text default null, p_mode_id text default null, p_thinking_option_id text default null,
    p_priority smallint default 0, p_run_at timestamptz default null, p_idempotency_key text default null,
    p_max_attempts smallint default 3, p_timeout interval default null, p_labels text[] default '{}', p_actor text default current_user
) returns bigint language plpgsql as $$
declare
    project uuid := coder.project_id(p_project);
    task bigint;
    old tasks;
begin
    insert into tasks (project_id, input, session_id, chat_id, workspace_id, agent, model, mode_id, thinking_option_id, priority, run_at,
                       idempotency_key, max_attempts, timeout, labels, asked_by)
        values (project, p_input, p_session_id, p_chat_id, p_workspace_id, p_agent, p_model, p_mode_id, p_thinking_option_id,
                coalesce(p_priority, 0::smallint), p_run_at, p_idempotency_key, coalesce(p_max_attempts, 3::smallint), p_timeout,
                coalesce(p_labels, '{}'), coalesce(p_actor, current_user))
        on conflict (project_id, idempotency_key) where idempotency_key is not null do nothing
        returning id into task;
    if task is not null then
        return task;
    end if;
    select * into old from tasks where project_id = project and idempotency_key = p_idempotency_key;
    if (old.input, old.opens_session, old.chat_id, old.workspace_id, old.agent, old.model, old.mode_id, old.thinking_option_id,
        old.priority, old.run_at, old.max_attempts, old.timeout, old.labels)
       is distinct from
       (p_input, p_session_id is null, p_chat_id, nullif(btrim(p_workspace_id), ''), nullif(btrim(p_agent), ''), nullif(btrim(p_model), ''),
        p_mode_id, p_thinking_option_id, coalesce(p_priority, 0::smallint), p_run_at, coalesce(p_max_attempts, 3::smallint), p_timeout,
        coalesce(p_labels, '{}'))
       or (p_session_id is not null and p_session_id <> old.session_id) then
        perform coder.refuse('CD412', format(
            'The idempotency key %L already belongs to task %s of this project, which asked for something else; use another key.',
            p_idempotency_key, old.id));
    end if;
    return old.id;
end $$;

-- Volatile, like coder.show_…: within one statement they must see what a door function before them has done.
create function coder.task(p_task bigint) returns tasks language plpgsql as $$
declare
    t tasks;
begin
    select * into t from tasks where id = p_task;
    if not found then
        perform coder.refuse('CD404', format('There is no task %s; `select id, state from tasks` lists those that exist.', p_task));
    end if;
    return t;
end $$;

-- Ask for the end of a task; answers its state. One that waits is cancelled at once, one that runs is stopped.
create function coder.cancel(p_task bigint) returns text language plpgsql as $$
declare
    t tasks := coder.task(p_task);
begin
    if t.state in ('completed', 'failed', 'cancelled', 'interrupted') then
        perform coder.refuse('CD409', format('Task %s has already ended (%s); there is nothing to cancel.', t.id, t.state));
    end if;
    update tasks set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()) where id = p_task returning * into t;
    return t.state;
end $$;

-- Send a task's request to its endpoint again now, instead of waiting until it is due.
create function coder.retry_now(p_task bigint) returns text language plpgsql set coder.actor = 'node' as $$
declare
    t tasks := coder.task(p_task);
begin
    if (select s.waiting_for from coder.show_task(p_task) s) is distinct from 'provider' then
        perform coder.refuse('CD409', format(
            'Task %s does not wait for its model''s endpoint (it is %s); there is nothing to send again now.', t.id, t.state));
    elsif coalesce(t.agent, 'native') <> 'native' and exists (
            select from available_agents a join nodes n on n.host_id = a.host_id
            where n.id = t.node_id and a.agent = t.agent and a.available and a.execution_path <> 'native') then
        perform coder.refuse('CD409', format(
            'Agent %s decides itself when it asks its model again, so task %s waits until then; cancel it to stop waiting.', t.agent, t.id));
    end if;
    update tasks set retry_requested_at = clock_timestamp() where id = p_task and state = 'running' returning * into t;
    perform pg_notify('tasks_cancel', '');
    return t.state;
end $$;

-- Put a task back to the head of its session, as a new task that names the old one.
create function coder.again(p_task bigint, p_input text) returns bigint language plpgsql set coder.actor = 'node' as $$
declare
    t tasks := coder.task(p_task);
    again bigint;
begin
    perform from session_queue where session_id = t.session_id for update;
    select * into t from tasks where id = p_task for update;
    if t.state not in ('interrupted', 'failed', 'cancelled') then
        perform coder.refuse('CD409', format(
            'Task %s is %s; only an interrupted, failed or cancelled task can be run again.', t.id, t.state));
    end if;
    select id into again from tasks where retry_of = p_task and state in ('pending', 'running');
    if found then
        perform coder.refuse('CD409', format('Task %s is already being run again, as task %s.', p_task, again));
    end if;
    insert into tasks (project_id, session_id, chat_id, input, agent, model, mode_id, thinking_option_id, priority,
                       max_attempts, timeout, labels, asked_by, retry_of, compacts, position)
        values (t.project_id, t.session_id, t.chat_id, p_input, t.agent, t.model, t.mode_id, t.thinking_option_id,
                t.priority, t.max_attempts, t.timeout, t.labels, t.asked_by, t.id, t.compacts,
                (select min(position) - 1 from tasks where session_id = t.session_id and waiting))
        returning id into again;
    -- What it asked and was not told the answer of is answered for the task that asks it again.
    update permissions set task_id = again where task_id = p_task and told_at is null and state <> 'expired';
    perform coder.settle(t.session_id);
    return again;
end $$;

create function coder.retry(p_task bigint) returns bigint language sql as $$
    select coder.again(p_task, (coder.task(p_task)).input);
$$;

create function coder.resume(p_task bigint) returns bigint language plpgsql as $$
declare
    t tasks := coder.task(p_task);
    v_lead text := E'You were interrupted while working on the task below. The worktree still holds what you had done; look at it, then continue and finish.\n\n';
begin
    if t.state <> 'interrupted' then
        perform coder.refuse('CD409', format('Task %s is %s; only an interrupted task can be resumed, see coder.retry.', t.id, t.state));
    end if;
    -- An input of nearly the greatest length loses its last characters, so that the whole fits.
    return coder.again(p_task, v_lead || left(t.input, length(t.input) - greatest(0, octet_length(v_lead || t.input) - 1048576)));
end $$;

-- Let a session go on without the task that holds it.
create function coder.dismiss(p_task bigint) returns text language plpgsql set coder.actor = 'node' as $$
declare
    t tasks := coder.task(p_task);
    v_place tid;
begin
    perform from session_queue where session_id = t.session_id for update;
    update tasks set state = 'cancelled', reason = 'dismissed' where id = p_task and state in ('interrupted', 'failed');
    if not found then
        perform coder.refuse('CD409', format('Task %s is %s; only an interrupted or failed task can be dismissed.', t.id, t.state));
    end if;
    perform coder.expire_permissions(p_task);
    select ctid into v_place from session_queue where session_id = t.session_id and held_by = p_task;
    if found then
        perform coder.place(array[v_place]);
    end if;
    return 'cancelled';
end $$;

-- Close a session: what waits is cancelled, what runs is stopped, what holds it is let go.
create function coder.close_session(p_session uuid) returns void language plpgsql set coder.actor = 'node' as $$
declare
    s sessions;
begin
    perform from session_queue where session_id = p_session for update;
    select * into s from sessions where id = p_session;  -- the lock above is enough; one here would come before that of the tasks
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    end if;
    update tasks set state = 'cancelled', reason = 'session_closed', ended_at = clock_timestamp()
        where (session_id = p_session and waiting) or id = (select held_by from session_queue where session_id = p_session);
    update tasks set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
        where id = (select running_task from session_queue where session_id = p_session) and state = 'running';
    if found then
        perform pg_notify('tasks_cancel', '');
    end if;
    update sessions set status = 'closed', closed_at = coalesce(closed_at, clock_timestamp()) where id = p_session;
    update session_queue set state = 'idle', held_by = null where session_id = p_session and state <> 'running';
    update cache_warming set enabled = false, next_warm_at = null where session_id = p_session and enabled;
    if found then
        perform pg_notify('warming', p_session::text);
    end if;
end $$;

create function coder.reopen_session(p_session uuid) returns void language plpgsql set coder.actor = 'node' as $$
declare
    busy boolean;
begin
    select state = 'running' into busy from session_queue where session_id = p_session for update;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    end if;
    -- A worktree that was removed is made again by the next turn; until then it must not count as one nobody knows.
    update session_worktrees set removed_at = null where session_id = p_session and removed_at is not null;
    update sessions set status = case when busy then 'active' else 'idle' end, closed_at = null, last_activity_at = clock_timestamp()
        where id = p_session and status = 'closed';
end $$;

create function coder.session_before_update() returns trigger language plpgsql as $$
begin
    perform coder.refuse('CD422', format(
        'The status of session %s is set by coder alone; close it with coder.close_session(%L), open it again with coder.reopen_session(%L).',
        old.id, old.id, old.id));
    return null;
end $$;
create trigger sessions_before_update before update on sessions for each row
    when ((old.status, old.closed_at) is distinct from (new.status, new.closed_at) and current_setting('coder.actor', true) is distinct from 'node')
    execute function coder.session_before_update();

-- ── the door: sessions and workspaces ───────────────────────────────────────────────────────────────

-- A session's directory is kept as an absolute one inside its project; one that is relative starts at the project's root.
create function coder.session_before_cwd() returns trigger language plpgsql as $$
declare
    v_project projects;
    v_root text;
begin
    select * into v_project from projects where id = new.project_id;
    v_root := coder.normal_path(v_project.path);
    if new.cwd !~ '\S' then
        perform coder.refuse('CD422', format('A working directory has a name; this one is empty. Name a directory inside %s.', v_root));
    end if;
    new.cwd := coder.normal_path(case when new.cwd ~ '^/' then new.cwd else v_root || '/' || new.cwd end);
    if not coder.is_inside(new.cwd, v_root) then
        perform coder.refuse('CD422', format('The directory %s is not inside project %s; name one inside %s.', new.cwd, v_project.name, v_root));
    end if;
    return new;
end $$;
create trigger sessions_before_cwd before insert or update of cwd on sessions for each row
    when (new.cwd is not null) execute function coder.session_before_cwd();

create function coder.workspace_before_write() returns trigger language plpgsql as $$
begin
    if new.default_cwd !~ '^/' then
        perform coder.refuse('CD422', format('The default directory of a workspace is absolute, since its sessions are of many projects; %L is not.', new.default_cwd));
    end if;
    new.default_cwd := coder.normal_path(new.default_cwd);
    return new;
end $$;
create trigger workspaces_before_write before insert or update of default_cwd on workspaces for each row
    when (new.default_cwd is not null) execute function coder.workspace_before_write();

create function coder.workspace_before_delete() returns trigger language plpgsql as $$
begin
    perform coder.refuse('CD409', 'The workspace "default" holds the sessions that are in no other; it cannot be deleted.');
    return null;
end $$;
create trigger workspaces_before_delete before delete on workspaces for each row
    when (old.id = 'default') execute function coder.workspace_before_delete();

create function coder.check_title(p_title text) returns void language plpgsql as $$
begin
    if p_title is null or p_title !~ '\S' then
        perform coder.refuse('CD422', 'A title says something; this one is empty.');
    elsif length(p_title) > 200 then
        perform coder.refuse('CD422', format('A title may have 200 characters; this one has %s.', length(p_title)));
    end if;
end $$;

create function coder.set_title(p_session uuid, p_title text) returns uuid language plpgsql as $$
begin
    perform coder.check_title(p_title);
    update sessions set title = p_title where id = p_session;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    end if;
    return p_session;
end $$;

-- Let the turns of a session start in this directory of its project; null: where its workspace or project says.
create function coder.set_cwd(p_session uuid, p_cwd text) returns uuid language plpgsql as $$
begin
    update sessions set cwd = p_cwd where id = p_session;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    end if;
    return p_session;
end $$;

-- Say something in a session, a closed one is opened again: behind what waits there, or, to interrupt, at its head, and what
-- runs is cancelled. Answers the task; with an idempotency key the same again is the same task, and interrupts nothing.
create function coder.queue_message(
    p_session uuid, p_input text, p_interrupt boolean default false, p_chat_id uuid default null, p_agent text default null,
    p_model text default null, p_mode_id text default null, p_thinking_option_id text default null, p_idempotency_key text default null,
    p_labels text[] default '{}', p_actor text default current_user
) returns bigint language plpgsql as $$
declare
    s sessions;
    task bigint;
begin
    select * into s from sessions where id = p_session;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    elsif s.status = 'closed' and not exists (select from tasks where project_id = s.project_id and idempotency_key = p_idempotency_key) then
        perform coder.reopen_session(p_session);
    end if;
    task := coder.enqueue(s.project_id::text, p_input, p_session, p_chat_id, null, p_agent, p_model, p_mode_id, p_thinking_option_id,
                          p_idempotency_key => p_idempotency_key, p_labels => p_labels, p_actor => p_actor);
    if p_interrupt and (select created_at = now() from tasks where id = task) then
        perform coder.to_head(p_session, task);
    end if;
    return task;
end $$;

-- Let a task that waits be its session's next, and cancel what runs there.
create function coder.to_head(p_session uuid, p_task bigint) returns void language sql as $$
    update tasks set position = (select min(position) - 1 from tasks where session_id = p_session and waiting) where id = p_task;
    update tasks set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
        where id = (select running_task from session_queue where session_id = p_session) and state = 'running';
$$;

-- A message that still waits in a session.
create function coder.queued(p_session uuid, p_task bigint) returns tasks language plpgsql as $$
declare
    t tasks;
begin
    select * into t from tasks where id = p_task and session_id = p_session for update;
    if not found then
        perform coder.refuse('CD404', format('There is no task %s in session %s; `select id, input from tasks where waiting` lists those that wait.', p_task, p_session));
    elsif t.state <> 'pending' then
        perform coder.refuse('CD409', format('Task %s is %s, so it does not wait in its session''s queue any more.', t.id, t.state));
    end if;
    return t;
end $$;

create function coder.edit_queued(p_session uuid, p_task bigint, p_input text) returns bigint language plpgsql as $$
declare
    t tasks := coder.queued(p_session, p_task);
begin
    update tasks set input = p_input where id = t.id;
    perform pg_notify('frames', p_session::text);
    return t.id;
end $$;

-- Do not wait for the turn that runs: it is cancelled, and this message goes to the head.
create function coder.send_queued_now(p_session uuid, p_task bigint) returns bigint language plpgsql as $$
declare
    t tasks := coder.queued(p_session, p_task);
begin
    perform coder.to_head(p_session, t.id);
    perform pg_notify('frames', p_session::text);
    return t.id;
end $$;

create function coder.remove_queued(p_session uuid, p_task bigint) returns bigint language plpgsql as $$
declare
    t tasks := coder.queued(p_session, p_task);
begin
    update tasks set cancel_requested_at = clock_timestamp() where id = t.id;
    perform pg_notify('frames', p_session::text);
    return t.id;
end $$;

-- Let a task that waits run before another that waits in its session; null: behind all of them.
create function coder.move_queued(p_session uuid, p_task bigint, p_before bigint default null) returns bigint language plpgsql as $$
declare
    v_running bigint;
    v_low numeric;
    v_high numeric;
begin
    -- Who moves is alone in the session's queue: neither another move nor a claim has what was read here.
    select running_task into v_running from session_queue where session_id = p_session for update;
    perform coder.queued(p_session, p_task);
    if p_before = p_task then
        perform coder.refuse('CD422', format('Task %s cannot run before itself; name another task of its session, or none.', p_task));
    elsif p_before is not null then
        v_high := (coder.queued(p_session, p_before)).position;
    end if;
    -- Not before what runs: should its node die, that is the head of its session again.
    select max(position) into v_low from tasks
        where session_id = p_session and (waiting or id = v_running) and id <> p_task and (v_high is null or position < v_high);
    -- Behind all, but before whatever comes next, whose position is its id. Half of a sum is exact; a division would round.
    v_high := coalesce(v_high, floor(v_low) + 1);
    update tasks set position = coalesce((v_low + v_high) * 0.5, v_high - 1, position) where id = p_task;
    perform pg_notify('frames', p_session::text);
    return p_task;
end $$;

-- Let a task that waits, and with it its session, run sooner or later than those of other sessions.
create function coder.set_priority(p_task bigint, p_priority int) returns bigint language plpgsql as $$
begin
    if p_priority is null or p_priority not between -32768 and 32767 then
        perform coder.refuse('CD422', format('A priority is a whole number from -32768 to 32767; %s is not.', coalesce(p_priority::text, 'null')));
    end if;
    perform coder.queued((coder.task(p_task)).session_id, p_task);
    update tasks set priority = p_priority where id = p_task;
    return p_task;
end $$;

-- Keep the provider's prompt cache of a session warm, or not any longer; null: the other way round. Answers which it is now.
create function coder.set_warming(p_session uuid, p_enabled boolean default null) returns boolean language plpgsql as $$
declare
    v_status text;
    w cache_warming;
begin
    select status into v_status from sessions where id = p_session for share;  -- so that it is not closed meanwhile
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    end if;
    insert into cache_warming (session_id) values (p_session) on conflict do nothing;
    select * into w from cache_warming where session_id = p_session for update;
    if not coalesce(p_enabled, not w.enabled) then
        update cache_warming set enabled = false, next_warm_at = null, stopped = null where session_id = p_session;
    elsif v_status = 'closed' then
        perform coder.refuse('CD409', format('Session %s is closed; reopen it with coder.reopen_session(%L) first.', p_session, p_session));
    elsif not w.enabled then
        update cache_warming set enabled = true, next_warm_at = clock_timestamp() + make_interval(secs => interval_seconds), stopped = null,
                error = null, warms = 0, input_tokens = 0, cached_tokens = 0, output_tokens = 0
            where session_id = p_session;
    end if;
    perform pg_notify('warming', p_session::text);
    return coalesce(p_enabled, not w.enabled);
end $$;

-- How often; the next time is that long from now.
create function coder.set_warming_interval(p_session uuid, p_seconds numeric) returns int language plpgsql as $$
begin
    if p_seconds is null or p_seconds not between 10 and 86400 then
        perform coder.refuse('CD422', format('A cache is kept warm every 10 to 86400 seconds; %s is not in between.', coalesce(left(p_seconds::text, 20), 'nothing')));
    end if;
    perform from sessions where id = p_session;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    end if;
    insert into cache_warming as w (session_id, interval_seconds) values (p_session, round(p_seconds))
        on conflict (session_id) do update set interval_seconds = excluded.interval_seconds,
            next_warm_at = case when w.enabled then clock_timestamp() + make_interval(secs => excluded.interval_seconds) end;
    perform pg_notify('warming', p_session::text);
    return round(p_seconds);
end $$;

-- Make a workspace unless it is there; answers whether it was made.
create function coder.add_workspace(p_workspace text) returns boolean language plpgsql as $$
begin
    if p_workspace is null or p_workspace !~ '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$' then
        perform coder.refuse('CD422', format('A workspace is named by 1 to 40 of a-z, 0-9 and "-" (not at the ends); %L is not.', p_workspace));
    end if;
    insert into workspaces (id, title) values (p_workspace, p_workspace) on conflict do nothing;
    return found;
end $$;

create function coder.set_workspace_title(p_workspace text, p_title text) returns text language plpgsql as $$
begin
    perform coder.check_title(p_title);
    update workspaces set title = p_title where id = p_workspace;
    return coder.workspace(p_workspace);
end $$;

-- Where turns of its sessions start that have no directory of their own; null: at the root of their project.
create function coder.set_default_cwd(p_workspace text, p_cwd text) returns text language plpgsql as $$
begin
    update workspaces set default_cwd = p_cwd where id = p_workspace;
    return coder.workspace(p_workspace);
end $$;

create function coder.workspace(p_workspace text) returns text language plpgsql as $$
begin
    perform from workspaces where id = p_workspace;
    if not found then
        perform coder.refuse('CD404', format('There is no workspace %s; `select id, title from workspaces` lists those that exist.', p_workspace));
    end if;
    return p_workspace;
end $$;

-- Delete a workspace: its sessions are closed and belong to `default` from then on. Answers how many were closed.
create function coder.delete_workspace(p_workspace text) returns int language plpgsql as $$
declare
    v_session uuid;
    v_closed int := 0;
begin
    perform coder.workspace(p_workspace);
    perform from workspaces where id = p_workspace and id <> 'default' for update;  -- no session comes into it any more
    if found then
        for v_session in select id from sessions where workspace_id = p_workspace and status <> 'closed' order by id loop
            perform coder.close_session(v_session);
            v_closed := v_closed + 1;
        end loop;
        update sessions set workspace_id = 'default' where workspace_id = p_workspace;
    end if;
    delete from workspaces where id = p_workspace;
    return v_closed;
end $$;

-- When something last happened in each workspace.
create view coder.workspace_activity as
    select w.id, greatest(w.created_at, max(a.last_activity_at)) as last_activity_at
    from workspaces w
    left join lateral (
        select k.last_activity_at from (values ('active'), ('idle'), ('closed')) as s(status), lateral (
            select last_activity_at from sessions where workspace_id = w.id and status = s.status
            order by last_activity_at desc, id desc limit 1) k
    ) a on true
    group by w.id;

-- The scan of coder.find_sessions for sessions without a directory of their own in these pairs of project and workspace; of many
-- pairs only those with the latest sessions can have one of the first page.
create function coder.inheriting(p_projects uuid[], p_workspaces text[], p_status text, p_fits text, p_most int) returns text
language sql immutable as $$
    select case when p_projects is null then '' else format(
        ' union all (with pairs as materialized (select i.* from unnest(%1$L::uuid[], %2$L::text[]) as i(project, workspace), '
        'lateral (%3$s limit 1) k%4$s) select k.* from pairs i, lateral (%3$s limit %5$s) k%4$s)', p_projects, p_workspaces,
        format('select k.id, k.last_activity_at from sessions k where k.project_id = i.project and k.workspace_id = i.workspace'
               ' and k.cwd is null and k.status = %L%s order by k.last_activity_at desc, k.id desc', p_status, p_fits),
        format(' order by k.last_activity_at desc, k.id desc limit %s', p_most), p_most) end;
$$;

-- The sessions that fit all filters (null: any), last active first, after the one of that time and id. One ordered scan for
-- each status and, where a directory is asked for, for each way in which a session can be in it; each is planned for its values.
create function coder.find_sessions(
    p_statuses text[], p_project text, p_workspace text, p_cwd text, p_begins text, p_time timestamptz, p_id uuid, p_most int
) returns table (id uuid, last_activity_at timestamptz) language plpgsql stable rows 50 as $$
declare
    v_cwd text := coder.normal_path(p_cwd);
    v_least text := lower(p_begins) || substr('00000000-0000-0000-0000-000000000000', length(p_begins) + 1);
    v_most text := lower(p_begins) || substr('ffffffff-ffff-ffff-ffff-ffffffffffff', length(p_begins) + 1);
    v_known text := '';
    v_fits text := '';
    v_order text := format(' order by k.last_activity_at desc, k.id desc limit %s', p_most);
    v_steps text[] := string_to_array(ltrim(v_cwd, '/'), '/');
    -- Pairs of project and workspace that inherit the directory: from the workspace, and from the project.
    v_projects uuid[];
    v_workspaces text[];
    v_of_roots uuid[];
    v_in_roots text[];
    v_ways text;
begin
    if v_least !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
        return;  -- no id begins so
    end if;
    v_fits := v_fits || case when p_project is null then '' else format(' and k.project_id = %L', coder.project_id(p_project)) end;
    v_fits := v_fits || case when p_workspace is null then '' else format(' and k.workspace_id = %L', p_workspace) end;
    if length(p_begins) > 2 then
        -- So few ids begin so that they are read first: every list below is then one of them alone. How many there are is estimated
        -- much too high where they lie about a bound of the statistics, and whole indexes would be read for them.
        v_known := format('with sessions as materialized (select * from public.sessions where id between %L and %L) ', v_least, v_most);
    elsif p_begins <> '' then
        v_fits := v_fits || format(' and k.id between %L and %L', v_least, v_most);
    end if;
    v_fits := v_fits || case when p_time is null then '' else format(' and (k.last_activity_at, k.id) < (%L, %L)', p_time, p_id) end;
    if p_cwd is not null then
        select array_agg(p.id) filter (where w.default_cwd = v_cwd), array_agg(w.id) filter (where w.default_cwd = v_cwd),
               array_agg(p.id) filter (where w.default_cwd is distinct from v_cwd),
               array_agg(w.id) filter (where w.default_cwd is distinct from v_cwd)
        into v_projects, v_workspaces, v_of_roots, v_in_roots
        from (select projects.id, coder.normal_path(path) as root from projects where coder.normal_path(path) = any (array(
                  select '/' || array_to_string(v_steps[1:n], '/') from generate_series(0, cardinality(v_steps)) n)) offset 0) p
        join workspaces w on w.default_cwd = v_cwd or (p.root = v_cwd and coder.is_inside(w.default_cwd, p.root) is not true);
    end if;
    select string_agg(case when p_cwd is null then
            format('(select k.id, k.last_activity_at from sessions k where k.status = %L%s%s)', s.status, v_fits, v_order)
        else
            format('(select k.id, k.last_activity_at from sessions k where k.cwd = %L and k.status = %L%s%s)', v_cwd, s.status, v_fits, v_order)
            || format(' union all (select k.id, k.last_activity_at from session_worktrees t join sessions k on k.id = t.session_id'
                      ' where t.path = %L and t.removed_at is null and k.status = %L%s%s)', v_cwd, s.status, v_fits, v_order)
            || coder.inheriting(v_projects, v_workspaces, s.status, v_fits, p_most)
            -- Mostly the latest sessions of the project tell; only where too few of them are in such workspaces the pairs are read.
            || case when v_of_roots is null then '' else format(
                ' union all (with direct as materialized (select k.id, k.last_activity_at from (select distinct project from unnest(%L::uuid[]) project) i, lateral ('
                'select k.* from sessions k where k.project_id = i.project and k.status = %L%s order by k.last_activity_at desc, k.id desc'
                ' limit %s) k where k.cwd is null and k.workspace_id = any (%L)%s) select * from direct union all'
                ' select k.* from (select null::uuid as id, null::timestamptz as last_activity_at where false%s) k where (select count(*) from direct) < %s)',
                v_of_roots, s.status, v_fits, 4 * p_most, v_in_roots, v_order, coder.inheriting(v_of_roots, v_in_roots, s.status, v_fits, p_most), p_most) end
        end, ' union all ')
    into v_ways from unnest(coalesce(p_statuses, '{active,idle,closed}')) as s(status);
    return query execute format('%sselect distinct k.id, k.last_activity_at from (%s) k%s', v_known, v_ways, v_order);
end $$;

-- ── the door: deciding on a change ──────────────────────────────────────────────────────────────────

-- Lock a change for a decision (worktree first, then the change) and check that it is the one that was shown.
create function coder.change_to_decide(p_change uuid, p_fingerprint text) returns pending_changes language plpgsql as $$
declare
    c pending_changes;
begin
    select * into c from pending_changes where id = p_change;
    if not found then
        perform coder.refuse('CD404', format('There is no change %s; `select id, title from changes` lists those that exist.', p_change));
    end if;
    perform from session_worktrees where session_id = c.session_id and undo_decision is null for update;
    if not found then
        perform coder.refuse('CD409', format('A change of session %s is being undone right now; read its changes again afterwards.', c.session_id));
    end if;
    select * into c from pending_changes where id = p_change for update;
    if c.state = 'applying' then
        perform coder.refuse('CD409', format('Change %s is being applied right now; wait for its decision.', c.id));
    elsif c.state not in ('pending', 'conflicted') then
        perform coder.refuse('CD411', format('Change %s is %s, so it can no longer be decided on; %s.', c.id, c.state,
            case when c.superseded_by is not null then format('change %s took its place', c.superseded_by)
                 else '`select id, title from changes where state = ''pending''` lists those that wait' end),
            c.superseded_by::text);
    elsif c.fingerprint is distinct from p_fingerprint then
        perform coder.refuse('CD410', format(
            'Change %s is not what was shown: its fingerprint is %s; read it again and decide on that.', c.id, c.fingerprint), c.fingerprint);
    end if;
    perform from decisions where change_id = c.id and state in ('queued', 'running');
    if found then
        perform coder.refuse('CD409', format('Somebody has already decided on change %s; that decision is still being carried out.', c.id));
    end if;
    return c;
end $$;

-- Check where an approval is to go; answers the branch, null for the checkout.
create function coder.branch_of_target(p_session uuid, p_target text, p_branch text, p_commit boolean, p_push boolean default false) returns text
language plpgsql as $$
begin
    if p_target is null or p_target not in ('checkout', 'branch') then
        perform coder.refuse('CD422', format('A change is approved into "checkout" or "branch", not into %L.', p_target));
    elsif p_branch is not null and btrim(p_branch) = '' then
        perform coder.refuse('CD422', 'The name of the branch is empty; name one, or leave it out for one of the session''s own.');
    elsif p_branch ~ '^refs/' then
        perform coder.refuse('CD422', format('A branch is named without refs/heads/; %L is not the name of one.', p_branch));
    elsif p_branch is not null and p_target <> 'branch' then
        perform coder.refuse('CD422', 'A branch is only named with target "branch".');
    elsif p_commit and p_target = 'branch' then
        perform coder.refuse('CD422', 'Target "branch" always commits; leave commit out.');
    elsif p_push and p_target <> 'branch' then
        perform coder.refuse('CD422', 'Only a branch is pushed; approve into target "branch", or leave push out.');
    end if;
    return case when p_target = 'branch' then coalesce(nullif(btrim(p_branch), ''), 'coder/' || left(p_session::text, 8)) end;
end $$;

-- Check what was decided on the parts of a change; answers what was approved or rejected, each part with its file's ordinal.
create function coder.parts_of_change(p_change uuid, p_parts jsonb) returns jsonb language plpgsql as $$
declare
    bad record;
    parts jsonb;
begin
    if p_parts is null or jsonb_typeof(p_parts) <> 'array' then
        perform coder.refuse('CD422', 'The parts of a decision are a list of objects with "path", "verdict" and, unless the whole file is meant, "hunk".');
    end if;
    select x.value as part into bad from jsonb_array_elements(p_parts) x
        where case when jsonb_typeof(x.value) <> 'object' then true
                   else coalesce(jsonb_typeof(x.value -> 'path'), 'null') <> 'string'
                        or coalesce(x.value ->> 'verdict', '') not in ('approve', 'reject', 'leave')
                        or coalesce(jsonb_typeof(x.value -> 'hunk'), 'null') not in ('null', 'number') end limit 1;
    if found then
        perform coder.refuse('CD422', format(
            'A part is like {"path": "a.py", "hunk": 2, "verdict": "approve"}, with the verdict approve, reject or leave; %s is not.', left(bad.part::text, 200)));
    end if;
    select x.value ->> 'path' as path, x.value ->> 'hunk' as hunk, count(f.ordinal) as files,
           max(jsonb_array_length(f.hunks)) as hunks into bad
        from jsonb_array_elements(p_parts) with ordinality x
        left join change_files f on f.change_id = p_change and f.display = x.value ->> 'path'
        group by x.ordinality, x.value
        having count(f.ordinal) <> 1
            or (x.value ->> 'hunk' is not null
                and (x.value ->> 'hunk')::numeric not in (select generate_series(1, max(jsonb_array_length(f.hunks))))) limit 1;
    if found then
        perform coder.refuse('CD422', case
            when bad.files = 0 then format('Change %s has no file %L; read it again and name one of its files.', p_change, bad.path)
            when bad.files > 1 then format('Several files of change %s are shown as %L; decide on it as a whole.', p_change, bad.path)
            when bad.hunks = 0 then format('%s has no hunks; decide on the whole file.', bad.path)
            else format('%s has no hunk %s; its hunks are 1 to %s.', bad.path, bad.hunk, bad.hunks) end);
    end if;
    select p.path, p.hunk into bad from (
        select x.value ->> 'path' as path, (x.value ->> 'hunk')::numeric::int as hunk from jsonb_array_elements(p_parts) x) p
        group by p.path, p.hunk having count(*) > 1 or (p.hunk is null and exists (
            select from jsonb_array_elements(p_parts) y where y ->> 'path' = p.path and y ->> 'hunk' is not null)) limit 1;
    if found then
        perform coder.refuse('CD422', format('%s is named twice; decide once on each part, on a file whole or on its hunks.',
            bad.path || coalesce(':' || bad.hunk, '')));
    end if;
    select jsonb_agg(jsonb_build_object('file', f.ordinal, 'path', f.display, 'hunk', (x.value ->> 'hunk')::numeric::int, 'verdict', x.value ->> 'verdict',
                                        'line', f.hunks -> (x.value ->> 'hunk')::numeric::int - 1 -> 2, 'lines', f.hunks -> (x.value ->> 'hunk')::numeric::int - 1 -> 3)
                     order by f.ordinal, (x.value ->> 'hunk')::numeric::int) into parts
        from jsonb_array_elements(p_parts) x join change_files f on f.change_id = p_change and f.display = x.value ->> 'path'
        where x.value ->> 'verdict' <> 'leave';
    if parts is null then
        perform coder.refuse('CD422', 'No part is approved or rejected, so there is nothing to decide; name at least one.');
    end if;
    return parts;
end $$;

-- Approve a change as it was shown; answers the decision, which a node that has the project carries out.
create function coder.approve(
    p_change uuid, p_fingerprint text, p_target text default 'checkout', p_branch text default null, p_commit boolean default false,
    p_actor text default current_user, p_reason text default null, p_push boolean default false
) returns uuid language plpgsql as $$
declare
    c pending_changes := coder.change_to_decide(p_change, p_fingerprint);
    decision uuid;
begin
    insert into decisions (change_id, session_id, project_id, kind, fingerprint, target, branch, commit, push, actor, reason)
        values (c.id, c.session_id, c.project_id, 'approve', p_fingerprint, p_target,
                coder.branch_of_target(c.session_id, p_target, p_branch, p_commit, p_push), coalesce(p_commit, false), coalesce(p_push, false),
                p_actor, nullif(btrim(p_reason), ''))
        returning id into decision;
    perform pg_notify('decisions_new', '');
    return decision;
end $$;

-- Approve several changes as they were shown, one after the other: `[{"change_id": "…", "fingerprint": "…"}, …]`. The first that cannot
-- be carried out ends it; those behind it are skipped and wait on. Answers the decisions, in that order.
create function coder.approve_in_order(
    p_changes jsonb, p_target text default 'checkout', p_branch text default null, p_commit boolean default false,
    p_actor text default current_user, p_reason text default null, p_push boolean default false
) returns uuid[] language plpgsql as $$
declare
    x jsonb;
    ids uuid[];
    made uuid[] := '{}';
begin
    if p_changes is null or jsonb_typeof(p_changes) <> 'array' or p_changes = '[]' then
        perform coder.refuse('CD422', 'What is approved in order is a list of objects with "change_id" and "fingerprint"; name at least one.');
    end if;
    begin
        select array_agg((value ->> 'change_id')::uuid) into ids from jsonb_array_elements(p_changes);
    exception when invalid_text_representation then
        perform coder.refuse('CD422', 'Each change that is approved in order is named by its id; one of these is none.');
    end;
    perform from session_worktrees where session_id in (select session_id from pending_changes where id = any (ids)) order by session_id for update;
    for x in select value from jsonb_array_elements(p_changes) loop
        made := made || coder.approve((x ->> 'change_id')::uuid, x ->> 'fingerprint', p_target, p_branch, p_commit, p_actor, p_reason, p_push);
        update decisions set after = made[cardinality(made) - 1] where id = made[cardinality(made)];
    end loop;
    return made;
end $$;

-- Decide on parts of a change as it was shown: `[{"path": "a.py", "hunk": 2, "verdict": "approve"}, …]`, a file whole where
-- no hunk is named; what is not named is left. Answers the decision, which a node that has the project carries out.
create function coder.decide(
    p_change uuid, p_fingerprint text, p_parts jsonb, p_target text default 'checkout', p_branch text default null,
    p_commit boolean default false, p_actor text default current_user, p_reason text default null, p_push boolean default false
) returns uuid language plpgsql as $$
declare
    c pending_changes := coder.change_to_decide(p_change, p_fingerprint);
    decision uuid;
begin
    insert into decisions (change_id, session_id, project_id, kind, fingerprint, target, branch, commit, push, parts, actor, reason)
        values (c.id, c.session_id, c.project_id, 'part', p_fingerprint, p_target,
                coder.branch_of_target(c.session_id, p_target, p_branch, p_commit, p_push), coalesce(p_commit, false), coalesce(p_push, false),
                coder.parts_of_change(c.id, p_parts), p_actor, nullif(btrim(p_reason), ''))
        returning id into decision;
    perform pg_notify('decisions_new', '');
    return decision;
end $$;

-- Reject a change as it was shown. `keep`: the work stays in the worktree, the next prompt carries the
-- reason. `discard`: the worktree also goes back to the base before the next turn.
create function coder.reject(
    p_change uuid, p_fingerprint text, p_reason text default null, p_work text default 'keep', p_actor text default current_user
) returns uuid language plpgsql set coder.actor = 'node' as $$
declare
    c pending_changes := coder.change_to_decide(p_change, p_fingerprint);
    decision uuid;
begin
    if p_work is null or p_work not in ('keep', 'discard') then
        perform coder.refuse('CD422', format('What a rejected change leaves in the worktree is "keep" or "discard", not %L.', p_work));
    end if;
    insert into decisions (change_id, session_id, project_id, kind, fingerprint, work, actor, reason, state, outcome, started_at, ended_at)
        values (c.id, c.session_id, c.project_id, 'reject', p_fingerprint, p_work, p_actor, nullif(btrim(p_reason), ''),
                'done', 'rejected', clock_timestamp(), clock_timestamp())
        returning id into decision;
    update pending_changes set state = 'rejected', decided_at = clock_timestamp() where id = c.id;
    if p_work = 'discard' then
        update session_worktrees set discard_decision = decision where session_id = c.session_id;
        perform pg_notify('decisions_new', '');
    end if;
    return decision;
end $$;

-- Put a session's work on its target as it is by now: the target's content becomes the session's base and comes into the worktree at
-- the turn boundary. Where both sides edited the same lines nothing happens, unless the agent is to resolve that (`p_resolve`): then
-- these files get conflict markers, and a task to resolve them is queued. Answers the decision, which a node carries out.
create function coder.rebase(
    p_change uuid, p_fingerprint text, p_target text default 'checkout', p_branch text default null, p_resolve boolean default false,
    p_actor text default current_user, p_reason text default null
) returns uuid language plpgsql as $$
declare
    c pending_changes := coder.change_to_decide(p_change, p_fingerprint);
    decision uuid;
begin
    if p_resolve and exists (select from sessions where id = c.session_id and status = 'closed') then
        perform coder.refuse('CD409', format('Session %s is closed, so its agent cannot resolve anything; reopen it with coder.reopen_session(%L) first.',
                                             c.session_id, c.session_id));
    end if;
    insert into decisions (change_id, session_id, project_id, kind, fingerprint, target, branch, resolve, actor, reason)
        values (c.id, c.session_id, c.project_id, 'rebase', p_fingerprint, p_target,
                coder.branch_of_target(c.session_id, p_target, p_branch, false), coalesce(p_resolve, false), p_actor, nullif(btrim(p_reason), ''))
        returning id into decision;
    perform pg_notify('decisions_new', '');
    return decision;
end $$;

-- Take an approved change out of its target again. The session's base goes back, so that its work waits for a decision again;
-- refused as long as something else stands on it. Answers the decision, which a node that has the project carries out.
create function coder.undo(p_change uuid, p_actor text default current_user, p_reason text default null) returns uuid language plpgsql as $$
declare
    c pending_changes;
    w session_worktrees;
    d decisions;
    later record;
    decision uuid;
begin
    select * into c from pending_changes where id = p_change;
    if not found then
        perform coder.refuse('CD404', format('There is no change %s; `select id, title from changes` lists those that exist.', p_change));
    end if;
    select * into w from session_worktrees where session_id = c.session_id for update;
    select * into c from pending_changes where id = p_change for update;
    if c.state <> 'approved' then
        perform coder.refuse('CD409', format('Change %s is %s; only an approved one can be undone.', c.id, c.state));
    end if;
    perform from decisions where change_id = c.id and state in ('queued', 'running');
    if found then
        perform coder.refuse('CD409', format('Somebody is already undoing change %s; wait for that decision.', c.id));
    end if;
    select * into d from decisions where change_id = c.id and state = 'done' and outcome = 'approved' order by created_at desc limit 1;
    if w.base_commit <> d.new_base then
        select x.kind, x.change_id into later from decisions x
            where x.session_id = c.session_id and x.state = 'done' and x.old_base = d.new_base and x.created_at > d.created_at order by x.created_at limit 1;
        perform coder.refuse('CD409', case when later.kind in ('approve', 'part')
            then format('Change %s was approved on top of change %s in the same session; undo that one first.', later.change_id, c.id)
            else format('The base of its session has moved since change %s was approved, so it cannot be undone; have the agent take it back.', c.id) end,
            later.change_id::text);
    end if;
    insert into decisions (change_id, session_id, project_id, kind, fingerprint, target, branch, commit, push, old_base, new_base, actor, reason)
        values (c.id, c.session_id, c.project_id, 'undo', c.fingerprint, d.target, d.branch, d.commit, d.push, d.new_base, d.old_base, p_actor,
                nullif(btrim(p_reason), ''))
        returning id into decision;
    perform pg_notify('decisions_new', '');
    return decision;
end $$;

create function coder.change_before_update() returns trigger language plpgsql as $$
begin
    perform coder.refuse('CD422', format(
        'Change %s is written by coder alone; decide with coder.approve(%L, fingerprint) or coder.reject(%L, fingerprint).',
        old.id, old.id, old.id));
    return null;
end $$;
create trigger pending_changes_before_update before update on pending_changes for each row
    when (old is distinct from new and current_setting('coder.actor', true) is distinct from 'node')
    execute function coder.change_before_update();

-- ── the door: commenting on a change ────────────────────────────────────────────────────────────────

-- What a change's diff says about one of its files, as text; of one whose type changed, git writes two parts.
create function coder.file_diff(p_change uuid, p_ordinal int) returns text language plpgsql stable as $$
declare
    v_diff bytea := (select diff from pending_changes where id = p_change);
    v_part int;
    v_parts text[];
    v_text text;
begin
    select 2 + count(*) + count(*) filter (where operation = 'type_changed') into v_part
        from change_files where change_id = p_change and ordinal < p_ordinal;
    if position('\x00'::bytea in v_diff) > 0 then
        v_diff := decode(replace(replace(encode(v_diff, 'escape'), '\\', '\134'), '\000', '\001'), 'escape');
    end if;
    -- By the byte, so that a file in another encoding does not garble this one. No line of a file begins like the header of one.
    v_parts := string_to_array(E'\n' || convert_from(v_diff, 'LATIN1'), E'\ndiff --git ');
    v_text := v_parts[v_part];
    if (select operation = 'type_changed' from change_files where change_id = p_change and ordinal = p_ordinal) then
        v_text := v_text || E'\n' || v_parts[v_part + 1];
    end if;
    return coder.as_text(convert_to(v_text, 'LATIN1'));
end $$;

-- The lines that one file's part of a diff shows, in order, each with its number before and after (null: not there).
create function coder.diff_lines(p_diff text) returns table (ordinal int, hunk int, old_line int, new_line int, words text)
language plpgsql immutable as $$
declare
    v_line text;
    v_head text[];
    v_old int;
    v_new int;
    v_old_left int := 0;
    v_new_left int := 0;
begin
    ordinal := 0;
    hunk := 0;
    foreach v_line in array string_to_array(p_diff, E'\n') loop
        if v_old_left = 0 and v_new_left = 0 then
            v_head := regexp_match(v_line, '^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@');
            if v_head is not null then
                hunk := hunk + 1;
                v_old := v_head[1];
                v_new := v_head[3];
                v_old_left := coalesce(v_head[2], '1');
                v_new_left := coalesce(v_head[4], '1');
            end if;
        elsif left(v_line, 1) <> '\' then
            ordinal := ordinal + 1;
            words := v_line;
            old_line := case when left(v_line, 1) <> '+' then v_old end;
            new_line := case when left(v_line, 1) <> '-' then v_new end;
            v_old := v_old + (old_line is not null)::int;
            v_new := v_new + (new_line is not null)::int;
            v_old_left := v_old_left - (old_line is not null)::int;
            v_new_left := v_new_left - (new_line is not null)::int;
            return next;
        end if;
    end loop;
end $$;

-- Comment on a file of a change, or on lines of it that its diff shows; answers the comment, a draft until it is sent.
-- `old`: numbered as before the change, `new`: as after it. A change that was decided or superseded can still be commented on.
create function coder.comment(
    p_change uuid, p_path text, p_body text, p_line int default null, p_side text default 'new', p_end_line int default null,
    p_actor text default current_user
) returns uuid language plpgsql set coder.actor = 'node' as $$
declare
    c pending_changes;
    f change_files;
    fresh uuid;
    v_end int := coalesce(p_end_line, p_line);
    v_code text := '';
    v_shown int;
begin
    select * into c from pending_changes where id = p_change;
    if not found then
        perform coder.refuse('CD404', format('There is no change %s; `select id, title from changes` lists those that exist.', p_change));
    end if;
    -- A turn that ends meanwhile either sees this comment or comes before it.
    perform from session_worktrees where session_id = c.session_id for update;
    select * into c from pending_changes where id = p_change;
    select * into f from change_files where change_id = c.id and display = p_path order by ordinal limit 1;
    if not found then
        perform coder.refuse('CD404', format('Change %s has no file %L; `select display from change_files where change_id = %L` lists its files.',
                                             c.id, p_path, c.id));
    elsif p_side is null or p_side not in ('old', 'new') then
        perform coder.refuse('CD422', format('A line is numbered as in the "old" or the "new" file, not %L.', p_side));
    elsif p_body is null or p_body !~ '\S' then
        perform coder.refuse('CD422', 'A comment says something; this one is empty.');
    elsif octet_length(p_body) > 65536 then
        perform coder.refuse('CD422', format('A comment may have 65536 bytes; this one has %s.', octet_length(p_body)));
    elsif p_line is null and p_end_line is not null then
        perform coder.refuse('CD422', 'Lines are named by their first and their last; this comment has only the last.');
    elsif v_end < p_line then
        perform coder.refuse('CD422', format('The last line of a comment comes after its first; %s is before %s.', v_end, p_line));
    end if;
    if p_line is not null then
        with l as materialized (
            select ordinal, hunk, words, coalesce(case p_side when 'old' then old_line else new_line end between p_line and v_end, false) as meant
            from coder.diff_lines(coder.file_diff(c.id, f.ordinal))
        ), around as (
            select left(l.words, 500) as words, row_number() over (order by l.ordinal) as n from l
            where l.hunk = (select min(hunk) from l where meant)
              and l.ordinal between (select min(ordinal) - 3 from l where meant) and (select max(ordinal) + 3 from l where meant)
            order by l.ordinal limit 60
        )
        select (select count(*) from l where meant), (select string_agg(words, E'\n' order by n) from around) into v_shown, v_code;
        if v_shown <= v_end - p_line then
            perform coder.refuse('CD422', format('The diff of change %s does not show %s of the %s %s; comment on what it shows, or on the file.',
                c.id, case when v_end > p_line then format('all of the lines %s to %s', p_line, v_end) else format('line %s', p_line) end,
                p_side, p_path));
        end if;
    end if;
    insert into comments (session_id, project_id, change_id, path, side, line, end_line, code, body, author,
                          first_change_id, first_commit, first_path, first_line, first_end_line)
        values (c.session_id, c.project_id, c.id, f.path, p_side, p_line, v_end, v_code, p_body, p_actor, c.id,
                case p_side when 'old' then c.base_commit else c.snapshot_commit end,
                case p_side when 'old' then coalesce(f.old_path, f.path) else f.path end, p_line, v_end)
        returning id into fresh;
    update session_worktrees set comments_owed = true where session_id = c.session_id
        and exists (select from pending_changes o where o.session_id = c.session_id and o.id <> c.id
                    and o.state in ('pending', 'applying', 'conflicted'));
    if found then
        perform pg_notify('decisions_new', '');
    end if;
    perform pg_notify('frames', c.session_id::text);
    return fresh;
end $$;

-- Lock a comment, for its author to change while it is a draft, or for anybody once it was sent.
create function coder.comment_to_change(p_comment uuid, p_actor text, p_draft boolean) returns comments language plpgsql as $$
declare
    k comments;
begin
    select * into k from comments where id = p_comment for update;
    if not found or (k.task_id is null and k.author is distinct from p_actor) then  -- a draft is nobody else's to see
        perform coder.refuse('CD404', format('There is no comment %s; `select id, body from comments` lists those that exist.', p_comment));
    elsif p_draft and k.task_id is not null then
        perform coder.refuse('CD409', format('Comment %s was sent with task %s, so it stays as it is; write another.', k.id, k.task_id));
    elsif not p_draft and k.task_id is null then
        perform coder.refuse('CD409', format('Comment %s is a draft; send it first, or delete it.', k.id));
    end if;
    return k;
end $$;

create function coder.edit_comment(p_comment uuid, p_body text, p_actor text default current_user) returns uuid
language plpgsql set coder.actor = 'node' as $$
declare
    k comments := coder.comment_to_change(p_comment, p_actor, true);
begin
    if p_body is null or p_body !~ '\S' then
        perform coder.refuse('CD422', format('A comment says something; to take it back, delete it: coder.delete_comment(%L).', k.id));
    elsif octet_length(p_body) > 65536 then
        perform coder.refuse('CD422', format('A comment may have 65536 bytes; this one has %s.', octet_length(p_body)));
    end if;
    update comments set body = p_body, edited_at = clock_timestamp() where id = k.id;
    return k.id;
end $$;

create function coder.delete_comment(p_comment uuid, p_actor text default current_user) returns uuid
language plpgsql set coder.actor = 'node' as $$
declare
    k comments := coder.comment_to_change(p_comment, p_actor, true);
begin
    delete from comments where id = k.id;
    return k.id;
end $$;

-- Say that what a comment wants is done (or, with false, that it is not). Anybody may; the first who does is remembered.
create function coder.resolve(p_comment uuid, p_resolved boolean default true, p_actor text default current_user) returns uuid
language plpgsql set coder.actor = 'node' as $$
declare
    k comments := coder.comment_to_change(p_comment, p_actor, false);
begin
    if p_resolved is null then
        perform coder.refuse('CD422', format('Comment %s is resolved or not; null is neither.', k.id));
    elsif p_resolved <> (k.resolved_at is not null) then
        update comments set resolved_at = case when p_resolved then clock_timestamp() end, resolved_by = case when p_resolved then p_actor end
            where id = k.id;
        perform pg_notify('frames', k.session_id::text);
    end if;
    return k.id;
end $$;

-- Send all draft comments that somebody has in a change's session, as one task for the agent that made the change; answers the task.
create function coder.send(p_change uuid, p_message text default null, p_actor text default current_user) returns bigint
language plpgsql set coder.actor = 'node' as $$
declare
    c pending_changes;
    v_input text;
    v_task bigint;
    v_drafts uuid[];
begin
    select * into c from pending_changes where id = p_change;
    if not found then
        perform coder.refuse('CD404', format('There is no change %s; `select id, title from changes` lists those that exist.', p_change));
    end if;
    perform from session_queue where session_id = c.session_id for update;
    select array_agg(d.id) into v_drafts from (
        select id from comments where session_id = c.session_id and author = p_actor and task_id is null order by id for update) d;
    if v_drafts is null then
        perform coder.refuse('CD409', format(
            'There are no draft comments of %s in session %s; comment on its change first, with coder.comment(%L, path, text).',
            p_actor, c.session_id, c.id));
    end if;
    select coalesce(nullif(btrim(p_message), '') || E'\n\n', '')
           || format('Comments of a reviewer on the change of task %s; do what each of them asks for:', c.task_id)
           || string_agg(format(E'\n\n%s. %s%s%s\n%s\n%s', k.n, coder.as_text(k.path),
                  case when k.line is null then ', the whole file' when k.end_line > k.line then format(', lines %s to %s', k.line, k.end_line)
                       else format(', line %s', k.line) end,
                  case when k.outdated then format(', which %s changed since:', case when k.end_line > k.line then 'have' else 'has' end)
                       when k.line is null or k.side = 'new' then ':'
                       else format(', as %s before the change:', case when k.end_line > k.line then 'they were' else 'it was' end) end,
                  case when k.code <> '' then E'\n' || regexp_replace(k.code, '^', '    ', 'gn') || E'\n' else '' end, btrim(k.body, E' \t\r\n')),
                  '' order by k.n)
        into v_input
        from (select *, row_number() over (order by path, line nulls first, created_at, id) as n from comments where id = any (v_drafts)) k;
    if octet_length(v_input) > 1048576 then
        perform coder.refuse('CD422', format('These %s comments have %s bytes together, and a task may have 1048576; shorten or delete some.',
                                             cardinality(v_drafts), octet_length(v_input)));
    end if;
    insert into tasks (project_id, session_id, input, agent, model, mode_id, thinking_option_id, asked_by)
        select t.project_id, t.session_id, v_input, t.agent, t.model, t.mode_id, t.thinking_option_id, p_actor from tasks t where t.id = c.task_id
        returning id into v_task;
    update comments set task_id = v_task where id = any (v_drafts);
    perform pg_notify('frames', c.session_id::text);
    return v_task;
end $$;

create function coder.comments_before_write() returns trigger language plpgsql as $$
begin
    perform coder.refuse('CD422',
        'Comments are written by coder alone; use coder.comment(change, path, text), coder.edit_comment, coder.delete_comment, coder.resolve.');
    return null;
end $$;
create trigger comments_before_write before insert or update or delete on comments for each row
    when (current_setting('coder.actor', true) is distinct from 'node') execute function coder.comments_before_write();

-- A session's comments are to be carried to the change it now has; a node of its host does it (`coder.carry_comments`).
-- Whoever makes a change holds its session's worktree row.
create function coder.change_after_write() returns trigger language plpgsql as $$
begin
    update session_worktrees set comments_owed = true
        where session_id = new.session_id and exists (select from comments where comments.session_id = new.session_id);
    if found then
        perform pg_notify('decisions_new', '');
    end if;
    return null;
end $$;
create trigger pending_changes_after_write after insert or update of snapshot_commit, base_commit on pending_changes for each row
    execute function coder.change_after_write();

-- A check of a change that was taken back or replaced says nothing any more.
create function coder.change_after_end() returns trigger language plpgsql as $$
begin
    update checks set state = 'skipped', detail = format('the change was %s before it was checked', new.state), ended_at = clock_timestamp()
        where change_id = new.id and state = 'queued';
    return null;
end $$;
create trigger pending_changes_after_end after update of state on pending_changes for each row
    when (new.state in ('superseded', 'rejected') and old.state <> new.state) execute function coder.change_after_end();

-- Put comments where they belong in a session's change. `p_places` has a row for each: id, and path (hex), line, end_line of what it
-- is about in the tree it is numbered by, the path null when that is gone. What is still there, but in no file of the change, is
-- outdated as well. Answers false when the change is another by now, or somebody is just at one of them: they are still owed.
create function coder.carry_comments(p_session uuid, p_change uuid, p_snapshot text, p_base text, p_places jsonb) returns boolean
language plpgsql set coder.actor = 'node' as $$
declare
    v_free uuid[];
begin
    perform from session_worktrees where session_id = p_session for update;
    perform from pending_changes where id = p_change and snapshot_commit = p_snapshot and base_commit = p_base
        and state in ('pending', 'applying', 'conflicted');
    if not found then
        return false;
    end if;
    select array_agg(k.id) into v_free from (select id from comments where session_id = p_session order by id for update skip locked) k;
    update comments k
        set change_id = p_change, outdated = p.at is null, path = coalesce(p.at, k.first_path),
            line = case when p.at is null then k.first_line else p.line end, end_line = case when p.at is null then k.first_end_line else p.end_line end
        from (select x.id, x.line, x.end_line, f.path as at
              from jsonb_to_recordset(p_places) as x(id uuid, path text, line int, end_line int) join comments o on o.id = x.id
              left join lateral (select f.path from change_files f
                                 where f.change_id = p_change
                                   and decode(x.path, 'hex') = case o.side when 'old' then coalesce(f.old_path, f.path) else f.path end
                                 order by f.ordinal limit 1) f on true) p
        where k.id = p.id and k.id = any (v_free);
    if exists (select from comments k where k.session_id = p_session
               and (k.id <> all (coalesce(v_free, '{}')) or not p_places @> jsonb_build_array(jsonb_build_object('id', k.id)))) then
        return false;
    end if;
    update session_worktrees set comments_owed = false where session_id = p_session;
    perform pg_notify('frames', p_session::text);
    return true;
end $$;

-- ── checks: a project's own command on what a turn left ───────────────────────────────────────────────

-- Check a change that waits for a decision (again), with its project's command as it is now; answers the check.
create function coder.check(p_change uuid) returns uuid language plpgsql as $$
declare
    c pending_changes;
    p projects;
    fresh uuid;
begin
    select * into c from pending_changes where id = p_change;
    if not found then
        perform coder.refuse('CD404', format('There is no change %s; `select id, title from changes` lists those that exist.', p_change));
    end if;
    perform from session_worktrees where session_id = c.session_id for update;
    select * into c from pending_changes where id = p_change;
    select * into p from projects where id = c.project_id;
    if c.state not in ('pending', 'applying', 'conflicted') then
        perform coder.refuse('CD409', format('Change %s is %s, and the worktree may hold other work by now; check one that waits.', c.id, c.state));
    elsif p.check_command is null then
        perform coder.refuse('CD409', format('Project %s has no check command; set one: update projects set check_command = ''make test'' where name = %L.',
                                             p.name, p.name));
    end if;
    perform from checks where change_id = c.id and state in ('queued', 'running');
    if found then
        perform coder.refuse('CD409', format('Change %s is being checked already; wait for that.', c.id));
    end if;
    insert into checks (change_id, session_id, project_id, task_id, command, timeout, fixes)
        values (c.id, c.session_id, c.project_id, c.task_id, p.check_command, p.check_timeout,
                coalesce((select max(k.fixes) from checks k where k.change_id = c.id), 0))
        returning id into fresh;
    perform pg_notify('decisions_new', '');
    return fresh;
end $$;

-- ── the door: permissions, questions, projects, chats, agents ───────────────────────────────────────────

-- An open request whose turn has ended otherwise than by interruption is nobody's any more. One that somebody is
-- answering in an open transaction is left to the sweep.
create function coder.expire_permissions(p_task bigint) returns void language sql set coder.actor = 'node' as $$
    update permissions set state = 'expired', actor = 'coder', message = 'The turn that asked ended.', answered_at = clock_timestamp()
    where id in (select id from permissions where task_id = p_task and state = 'requested' for update skip locked);
$$;

-- Lock a request that is to be answered; only the first answer counts.
create function coder.permission_to_answer(p_permission uuid) returns permissions language plpgsql as $$
declare
    p permissions;
begin
    select * into p from permissions where id = p_permission for update;
    if not found then
        perform coder.refuse('CD404', format(
            'There is no permission %s; `select id, title from permissions where state = ''requested''` lists those that wait.', p_permission));
    elsif p.state = 'expired' then
        perform coder.refuse('CD409', format('Permission %s expired at %s; nobody waits for its answer any more.', p.id,
            to_char(p.answered_at, 'YYYY-MM-DD HH24:MI:SS TZ')));
    elsif p.state <> 'requested' then
        perform coder.refuse('CD409', format('Permission %s was already %s by %s at %s; the first answer counts.', p.id,
            case when p.kind = 'question' and p.state <> 'denied' then 'answered' else replace(p.state, '_', ' ') end, p.actor,
            to_char(p.answered_at, 'YYYY-MM-DD HH24:MI:SS TZ')));
    end if;
    return p;
end $$;

-- Let tools of an agent be used without asking: `*` in the pattern is any text, `?` any character, `\` takes the
-- next character as it is. Answers the rule; the same rule again is the same row.
create function coder.add_rule(
    p_project text, p_tool text, p_pattern text, p_session uuid default null, p_actor text default current_user
) returns uuid language plpgsql as $$
declare
    v_project uuid := coder.project_id(p_project);
    rule uuid;
begin
    if p_tool is null or p_tool !~ '\S' or p_pattern is null or p_pattern !~ '\S' then
        perform coder.refuse('CD422', 'A rule names a tool and a pattern of what it may be used for; one of them is empty.');
    elsif octet_length(p_pattern) > 2000 or octet_length(p_tool) > 200 then
        perform coder.refuse('CD422', 'A rule''s tool may have 200 bytes and its pattern 2000; write a shorter pattern, with `*`.');
    elsif p_session is not null and not exists (select from sessions where id = p_session and project_id = v_project) then
        perform coder.refuse('CD404', format('There is no session %s in this project; leave it out for a rule of the whole project.', p_session));
    end if;
    insert into permission_rules (project_id, session_id, tool, pattern, actor) values (v_project, p_session, p_tool, p_pattern, p_actor)
        on conflict do nothing;
    select id into rule from permission_rules
        where project_id = v_project and session_id is not distinct from p_session and tool = p_tool and pattern = p_pattern;
    return rule;
end $$;

-- Nodes look at what waits whenever a rule is made.
create function coder.rules_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('permissions', '');
    return null;
end $$;
create trigger permission_rules_after_insert after insert on permission_rules for each statement execute function coder.rules_changed();

-- Allow what an agent asked for: this once, or from now on in its session or project whatever fits the pattern
-- (without one: exactly this).
create function coder.allow(
    p_permission uuid, p_scope text default 'once', p_pattern text default null, p_actor text default current_user
) returns text language plpgsql set coder.actor = 'node' as $$
declare
    p permissions := coder.permission_to_answer(p_permission);
    v_state text := case p_scope when 'once' then 'allowed_once' else 'allowed_always' end;
    rule uuid;
begin
    if p_scope is null or p_scope not in ('once', 'session', 'project') then
        perform coder.refuse('CD422', format('A permission is allowed "once", for its "session" or its "project"; %L is none of these.', p_scope));
    elsif p.kind = 'question' then
        perform coder.refuse('CD422', format('Permission %s is a question; answer it with coder.answer(%L, array[''…'']).', p.id, p.id));
    elsif p_pattern is not null and p_scope = 'once' then
        perform coder.refuse('CD422', 'A pattern is for what is allowed from now on; name the scope "session" or "project", or leave it out.');
    elsif p_scope <> 'once' then
        if p_pattern is null and octet_length(p.title) > 1000 then
            perform coder.refuse('CD422', 'What is asked for is too long for a rule of exactly this; name a pattern.');
        end if;
        rule := coder.add_rule(p.project_id::text, p.tool, coalesce(p_pattern, regexp_replace(p.title, '([*?\\])', '\\\1', 'g')),
                               case when p_scope = 'session' then p.session_id end, p_actor);
    end if;
    update permissions set state = v_state, actor = p_actor, rule_id = rule, answered_at = clock_timestamp() where id = p.id;
    perform pg_notify('permissions', '');
    return v_state;
end $$;

-- Refuse what an agent asked for, or to answer its question. The agent reads the message and goes on.
create function coder.deny(p_permission uuid, p_message text default null, p_actor text default current_user) returns text
language plpgsql set coder.actor = 'node' as $$
declare
    p permissions := coder.permission_to_answer(p_permission);
begin
    update permissions set state = 'denied', message = nullif(btrim(p_message), ''), actor = p_actor, answered_at = clock_timestamp()
        where id = p.id;
    perform pg_notify('permissions', '');
    return 'denied';
end $$;

-- Answer a question: with labels of its choices, or in words of one's own.
create function coder.answer(p_permission uuid, p_answers text[], p_actor text default current_user) returns text
language plpgsql set coder.actor = 'node' as $$
declare
    p permissions := coder.permission_to_answer(p_permission);
begin
    if p.kind <> 'question' then
        perform coder.refuse('CD422', format('Permission %s is no question; decide with coder.allow(%L) or coder.deny(%L, message).', p.id, p.id, p.id));
    elsif coalesce(cardinality(p_answers), 0) = 0 or array_position(p_answers, null) is not null
        or exists (select from unnest(p_answers) a where a !~ '\S') then
        perform coder.refuse('CD422', format('An answer to question %s says something; an empty one does not, see coder.deny(%L, message).', p.id, p.id));
    elsif cardinality(p_answers) > 1 and not p.several then
        perform coder.refuse('CD422', format('Question %s wants one answer; here are %s.', p.id, cardinality(p_answers)));
    end if;
    update permissions set state = 'allowed_once', answers = p_answers, actor = p_actor, answered_at = clock_timestamp() where id = p.id;
    perform pg_notify('permissions', '');
    return 'allowed_once';
end $$;

create function coder.permission_before_write() returns trigger language plpgsql as $$
begin
    perform coder.refuse('CD422', format(
        'Permission %s is written by coder alone; answer it with coder.allow(%L), coder.deny(%L, message) or coder.answer(%L, answers).',
        old.id, old.id, old.id, old.id));
    return null;
end $$;
create trigger permissions_before_update before update on permissions for each row
    when (current_setting('coder.actor', true) is distinct from 'node' and pg_trigger_depth() = 0)
    execute function coder.permission_before_write();
-- Its agent would wait for ever. What was answered may be tidied away, and goes with its task or session.
create trigger permissions_before_delete before delete on permissions for each row
    when (old.state = 'requested' and pg_trigger_depth() = 0) execute function coder.permission_before_write();

-- Change what is given of a project; null leaves it as it is, an empty setup command takes it away.
create function coder.set_project(
    p_project text, p_permission_policy text default null, p_network text default null, p_agent_fallback text default null,
    p_copy_globs text[] default null, p_setup_command text default null, p_check_command text default null,
    p_check_timeout interval default null, p_auto_fix int default null
) returns uuid language plpgsql as $$
declare
    v_project uuid := coder.project_id(p_project);
begin
    if p_permission_policy not in ('ask', 'allow_in_worktree', 'deny') then
        perform coder.refuse('CD422', format('A permission policy is "ask", "allow_in_worktree" or "deny"; %L is none of these.', p_permission_policy));
    elsif p_network not in ('on', 'off') then
        perform coder.refuse('CD422', format('The network of a project is "on" or "off"; %L is neither.', p_network));
    elsif p_agent_fallback not in ('native', 'fail') then
        perform coder.refuse('CD422', format('What takes the place of a missing agent is "native" or "fail"; %L is neither.', p_agent_fallback));
    elsif p_check_timeout <= '0' then
        perform coder.refuse('CD422', 'A check may take some time; its timeout is more than 0 seconds.');
    elsif p_auto_fix not between 0 and 20 then
        perform coder.refuse('CD422', format('A failed check is fed back to the agent 0 to 20 times in a row, not %s times.', p_auto_fix));
    end if;
    update projects set permission_policy = coalesce(p_permission_policy, permission_policy), network = coalesce(p_network, network),
            agent_fallback = coalesce(p_agent_fallback, agent_fallback), copy_globs = coalesce(p_copy_globs, copy_globs),
            setup_command = case when p_setup_command is null then setup_command else nullif(btrim(p_setup_command), '') end,
            check_command = case when p_check_command is null then check_command else nullif(btrim(p_check_command), '') end,
            check_timeout = coalesce(p_check_timeout, check_timeout), auto_fix = coalesce(p_auto_fix, auto_fix)
        where id = v_project;
    return v_project;
end $$;

-- Begin a fresh context in a session: its next tasks go there, in the same worktree.
create function coder.open_chat(p_session uuid) returns uuid language plpgsql as $$
declare
    s sessions;
    chat uuid;
begin
    select * into s from sessions where id = p_session;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    elsif s.status = 'closed' then
        perform coder.refuse('CD409', format('Session %s is closed; reopen it with coder.reopen_session(%L) first.', p_session, p_session));
    end if;
    insert into chats (session_id) values (p_session) returning id into chat;
    return chat;
end $$;

-- Let a session's native conversation be summarised, and go on in a new chat that knows the summary alone. It is a task like
-- any other, in its turn; answers it, the one that waits already if there is one.
create function coder.compact(p_session uuid) returns bigint language plpgsql set coder.actor = 'node' as $$
declare
    s sessions;
    c chats;
    task bigint;
begin
    perform from session_queue where session_id = p_session for update;
    select * into s from sessions where id = p_session;
    if not found then
        perform coder.refuse('CD404', format('There is no session %s; `select id, title from sessions` lists those that exist.', p_session));
    elsif s.status = 'closed' then
        perform coder.refuse('CD409', format('Session %s is closed; reopen it with coder.reopen_session(%L) first.', p_session, p_session));
    end if;
    select id into task from tasks where session_id = p_session and waiting and compacts;
    if found then
        return task;
    end if;
    select * into c from chats where session_id = p_session and closed_at is null order by created_at desc limit 1;
    if c.model_history is null then
        perform coder.refuse('CD409', format(
            'Session %s has no native conversation to summarise: its agent keeps its own, or there was no turn since a chat was opened.', p_session));
    end if;
    insert into tasks (project_id, session_id, chat_id, model, compacts, input)
        select s.project_id, s.id, c.id, (select t.model from tasks t
                                          where t.session_id = s.id and t.spoken_in = c.id and t.execution_path = 'native'
                                          order by t.epoch desc limit 1),
               true, 'Summarise this conversation, so that the work can go on from the summary alone: what is wanted, what was decided and why, '
                     'what was done (files, commands and what they said), what is left to do, and what must not be forgotten. '
                     'Use no tool; answer with the summary and nothing else.'
        returning id into task;
    return task;
end $$;

-- Have the agents of one host, or of all, looked for again; answers how many hosts have a node to do it now.
create function coder.probe_agents(p_host uuid default null) returns int language plpgsql as $$
declare
    hosts_alive int;
begin
    perform from hosts where p_host is null or id = p_host;
    if not found and p_host is not null then
        perform coder.refuse('CD404', format('There is no host %s; `select id, name from hosts` lists those that exist.', p_host));
    end if;
    update hosts set probe_requested_at = clock_timestamp() where p_host is null or id = p_host;
    perform pg_notify('agents_probe', '');
    select count(distinct host_id) into hosts_alive from nodes
        where lease_until > clock_timestamp() and (p_host is null or host_id = p_host);
    return hosts_alive;
end $$;

-- Make a token that lets programs and browsers in; answers it, of which only the hash is kept. One that was revoked is made anew.
create function coder.add_token(p_name text) returns text language plpgsql as $$
declare
    v_secret text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
    v_token uuid;
begin
    if p_name is null or p_name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' then
        perform coder.refuse('CD422', format('A token is named by 1 to 100 of A-Z, a-z, 0-9, ".", "_" and "-", starting with a letter or digit; %L is not.', p_name));
    elsif p_name in ('local', 'coder', 'rule', 'policy', 'deadline') then
        perform coder.refuse('CD422', format('What coder itself decides is signed %s, so no token is named so; choose another name.', p_name));
    end if;
    insert into api_tokens as t (name, hash) values (p_name, sha256(convert_to(v_secret, 'UTF8')))
        on conflict (name) do update set hash = excluded.hash, created_at = now(), revoked_at = null where t.revoked_at is not null
        returning id into v_token;
    if v_token is null then
        perform coder.refuse('CD409', format('There is already a token %s; revoke it first, or choose another name.', p_name));
    end if;
    delete from logins where token_id = v_token;
    return v_secret;
end $$;

-- Let a token in no more, nor the browsers that act for it; running services refuse it within 3 s.
create function coder.revoke_token(p_name text) returns text language plpgsql as $$
declare
    v_token uuid;
begin
    update api_tokens set revoked_at = coalesce(revoked_at, now()) where name = p_name returning id into v_token;
    if v_token is null then
        perform coder.refuse('CD404', format('There is no token %s; `select name from api_tokens` lists those that exist.', p_name));
    end if;
    delete from logins where token_id = v_token;
    return p_name;
end $$;

create function coder.show_token(p_name text) returns table (name text, created_at timestamptz, revoked_at timestamptz, browsers bigint)
language sql as $$
    select t.name, t.created_at, t.revoked_at,
           (select count(*) from logins l where l.token_id = t.id and l.kind = 'browser' and l.valid_until > now())
    from api_tokens t where t.name = p_name;
$$;

-- ── what nodes call ─────────────────────────────────────────────────────────────────────────────────

-- Take up to `p_count` sessions that may run on this host, by priority and waiting time, and start the
-- first visible task of each: task running with a new epoch, its turn opened. One call, one
-- transaction. Answers all that a turn needs.
create function coder.claim(p_node uuid, p_host uuid, p_count int)
returns table (
    id bigint, epoch bigint, attempts smallint, max_attempts coder.max_attempts, session_id uuid, chat_id uuid, project json,
    input text, agent text, model text, mode_id text, thinking_option_id text, timeout coder.task_timeout, cwd text, remarks json, model_history text,
    worktree json, compacts boolean
) language plpgsql set coder.actor = 'node'
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off
set enable_memoize = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_places tid[];
    v_tasks tid[];
    v_empty tid[];
    v_chats uuid[];
    v_histories text[];
begin
    -- Under an id that is over a task would run without an owner, and lose an attempt.
    perform from nodes n where n.id = p_node and n.lease_until > clock_timestamp();
    if not found then
        return;
    end if;
    -- Two ordered scans (of sessions any host may take, and of this host's own), so that other hosts'
    -- backlogs are never read; `peek` says how many to lock of each, so that nothing is locked in vain.
    with peek as materialized (
        select ours from (
            (select false as ours, priority, ready_at from session_queue where state = 'ready' and host_id is null
             order by host_id, priority desc, ready_at limit p_count)
            union all
            (select true, priority, ready_at from session_queue where state = 'ready' and host_id = p_host
             order by host_id, priority desc, ready_at limit p_count)
        ) both_kinds order by priority desc, ready_at limit p_count
    ), free as materialized (
        select session_id, ctid as place from session_queue where state = 'ready' and host_id is null
        order by host_id, priority desc, ready_at limit (select count(*) from peek where not ours) for update skip locked
    ), own as materialized (
        select session_id, ctid as place from session_queue where state = 'ready' and host_id = p_host
        order by host_id, priority desc, ready_at limit (select count(*) from peek where ours) for update skip locked
    ), heads as materialized (
        select r.session_id, r.place, t.place as task
        from (select * from free union all select * from own) r
        left join lateral (
            select t.ctid as place from tasks t
            where t.session_id = r.session_id and t.waiting and (t.run_at is null or t.run_at <= clock_timestamp())
            order by t.position limit 1
        ) t on true
    ), locked as materialized (
        -- A head somebody is editing right now is left for the next claim; its session stays ready.
        select h.place, t.ctid as task, c.id as chat, c.model_history::text as history
        from heads h join tasks t on t.ctid = h.task left join lateral (
            (select c.id, c.model_history from chats c where c.id = t.chat_id)
            union all
            (select c.id, c.model_history from chats c where t.chat_id is null and c.session_id = t.session_id and c.closed_at is null
             order by c.created_at desc limit 1)
        ) c on true
        where t.state = 'pending' for update of t skip locked
    )
    select array_agg(l.place), array_agg(l.task), array_agg(l.chat), array_agg(l.history),
           (select array_agg(h.place) from heads h where h.task is null)
    into v_places, v_tasks, v_chats, v_histories, v_empty from locked l;

    if v_empty is not null then
        perform coder.place(v_empty);
    end if;
    if v_tasks is null then
        return;
    end if;

    if array_position(v_chats, null) is not null then
        with fresh as (
            insert into chats (session_id) select t.session_id from unnest(v_tasks, v_chats) as l(task, chat) join tasks t on t.ctid = l.task
            where l.chat is null returning id, session_id
        ) select array_agg(coalesce(l.chat, f.id) order by l.number) into v_chats
        from unnest(v_tasks, v_chats) with ordinality as l(task, chat, number) join tasks t on t.ctid = l.task left join fresh f on f.session_id = t.session_id;
    end if;

    -- The rows are locked, so where they are is where they stay: what is found by place needs no index.
    return query
    with started as (
        update tasks t
        set state = 'running', epoch = nextval('epoch_seq'), node_id = p_node,
            attempts = least(t.attempts + 1, t.max_attempts),  -- somebody may have lowered the limit meanwhile
            claimed_at = clock_timestamp(), first_event_at = null, spoken_in = l.chat, answer_state = 'streaming'
        from unnest(v_tasks, v_places, v_chats, v_histories) as l(task, place, chat, history) where t.ctid = l.task
        returning t.id, t.epoch, t.attempts, t.max_attempts, t.session_id, t.project_id, t.input, t.agent, t.model, t.mode_id,
                  t.thinking_option_id, t.timeout, t.compacts, l.place, l.chat, l.history
    ), taken as (
        update session_queue q
        set state = 'running', owner = p_node, epoch = s.epoch, running_task = s.id
        from started s where q.ctid = s.place
    ), whole as materialized (
        select p.id, row_to_json(p) as project from projects p where p.id = any (array(select distinct s.project_id from started s))
    )
    select s.id, s.epoch, s.attempts, s.max_attempts, s.session_id, s.chat, p.project, s.input, s.agent, s.model, s.mode_id, s.thinking_option_id, s.timeout,
           coalesce(v.cwd, (select k.default_cwd from workspaces k where k.id = v.workspace_id)),
           coalesce((select json_agg(json_build_object('id', d.id, 'task', c.task_id, 'reason', d.reason, 'work', d.work, 'parts', d.parts,
                                                       'kept', d.facts -> 'kept', 'target', case when d.kind = 'rebase' then
                                                           coalesce('branch ' || d.branch, 'the checkout') end) order by d.created_at)
                     from decisions d join pending_changes c on c.id = d.change_id
                     where d.session_id = s.session_id and d.kind in ('reject', 'part', 'rebase') and d.told_task is null and d.state = 'done'), '[]'),
           s.history,
           (select row_to_json(w) from session_worktrees w where w.session_id = s.session_id), s.compacts
    from started s
    join whole p on p.id = s.project_id
    join sessions v on v.id = s.session_id;
end $$;

-- What people want of the running tasks of a node: their end, or not to wait for the endpoint any longer, which is said once.
create function coder.wanted(p_node uuid) returns table (task_id bigint, want text)
language plpgsql set coder.actor = 'node' as $$
#variable_conflict use_column
begin
    return query
        select t.id, 'cancel' from session_queue q join tasks t on t.id = q.running_task
        where q.state = 'running' and q.owner = p_node and t.epoch = q.epoch and t.cancel_requested_at is not null;
    return query
        with wished as materialized (  -- what somebody holds is told the next time: an end that is wanted waits for nobody
            select t.ctid as place from session_queue q join tasks t on t.id = q.running_task
            where q.state = 'running' and q.owner = p_node and t.epoch = q.epoch and t.retry_requested_at is not null
            for update of t skip locked
        )
        update tasks t set retry_requested_at = null from wished where t.ctid = wished.place returning t.id, 'retry';
end $$;

-- The first event of these turns is about to be seen: from here on they never run again by themselves.
-- Answers the tasks that are still the caller's.
create function coder.mark_seen(p_tasks bigint[], p_epochs bigint[]) returns setof bigint
language plpgsql set coder.actor = 'node' set lock_timeout = '200ms'
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off
set enable_memoize = off set plan_cache_mode = force_generic_plan as $$
begin
    return query
        update tasks t set first_event_at = coalesce(t.first_event_at, clock_timestamp())
        from unnest(p_tasks, p_epochs) as e(id, epoch)
        where t.id = e.id and t.epoch = e.epoch and t.ended_at is null
        returning t.id;
end $$;

-- Record where a session works and bind it to its host; false = fenced.
create function coder.record_worktree(
    p_task bigint, p_epoch bigint, p_host uuid, p_repository text, p_path text, p_base_commit text, p_base_branch text, p_copied bytea[]
) returns boolean language plpgsql set lock_timeout = '200ms' as $$
declare
    t tasks;
begin
    select * into t from tasks where id = p_task and epoch = p_epoch and state = 'running' for update;
    if not found then
        return false;
    end if;
    perform from session_queue where session_id = t.session_id and epoch = p_epoch for update skip locked;
    if found then  -- else `place` does it when the turn ends
        update session_queue set host_id = p_host where session_id = t.session_id;
    end if;
    insert into session_worktrees (session_id, project_id, host_id, repository, path, base_commit, base_branch, copied)
        values (t.session_id, t.project_id, p_host, p_repository, p_path, p_base_commit, p_base_branch, p_copied)
        on conflict (session_id) do update set
            host_id = excluded.host_id, repository = excluded.repository, path = excluded.path, copied = excluded.copied, removed_at = null;
    return true;
end $$;

-- Store a snapshot as the session's pending change, in the caller's transaction, the caller holding the
-- session's worktree row: the open change is superseded, a new row is made unless there is nothing to
-- approve, exactly this tree was just rejected, or a rejection wants all of the worktree's work discarded.
create function coder.store_change(p_session uuid, p_task bigint, p_outcome text, p_agent text, p_snapshot jsonb, p_diff bytea) returns uuid
language plpgsql as $$
declare
    fresh uuid := gen_random_uuid();
    same boolean;
    discard boolean;
begin
    update session_worktrees
        set last_snapshot = p_snapshot ->> 'commit', snapshots = greatest(snapshots, (p_snapshot ->> 'number')::int), unsnapshotted_task = null
        where session_id = p_session returning discard_decision is not null into discard;
    select c.state = 'rejected' and c.snapshot_tree = p_snapshot ->> 'tree' and c.base_tree = p_snapshot ->> 'base_tree' into same
        from pending_changes c where c.session_id = p_session and c.state <> 'superseded' order by c.created_at desc limit 1;
    if (p_snapshot ->> 'empty')::boolean or coalesce(same, false) or discard then
        fresh := null;
    end if;
    update pending_changes set state = 'superseded', superseded_by = fresh, decided_at = clock_timestamp()
        where session_id = p_session and state in ('pending', 'conflicted');
    if fresh is not null then
        perform coder.insert_change(fresh, p_session, p_task, p_outcome, p_agent, p_snapshot, p_diff);
        insert into checks (change_id, session_id, project_id, task_id, command, timeout, fixes)
            select fresh, p_session, p.id, p_task, p.check_command, p.check_timeout,
                   coalesce((select max(k.fixes) + 1 from checks k where k.fix_task = p_task), 0)
            from tasks t join projects p on p.id = t.project_id where t.id = p_task and p.check_command is not null;
        if found then
            perform pg_notify('decisions_new', '');
        end if;
    end if;
    return fresh;
end $$;

create function coder.insert_change(p_id uuid, p_session uuid, p_task bigint, p_outcome text, p_agent text, p_snapshot jsonb, p_diff bytea) returns void
language plpgsql as $$
begin
    insert into pending_changes (id, session_id, project_id, task_id, agent, title, turn_outcome, base_commit, base_tree, base_version,
                                 snapshot_commit, snapshot_tree, fingerprint, file_count, additions, deletions, diff, warnings)
        -- What a failed check or comments asked for is still about what the change before it was about.
        select p_id, p_session, t.project_id, t.id, p_agent, coalesce(
                   (select c.title from checks k join pending_changes c on c.id = k.change_id where k.fix_task = t.id limit 1),
                   (select c.title from comments k join pending_changes c on c.id = k.first_change_id where k.task_id = t.id limit 1),
                   left(split_part(ltrim(t.input, E' \t\r\n'), E'\n', 1), 200)), p_outcome,
               p_snapshot ->> 'base_commit', p_snapshot ->> 'base_tree', (p_snapshot ->> 'base_version')::int, p_snapshot ->> 'commit',
               p_snapshot ->> 'tree', p_snapshot ->> 'fingerprint', jsonb_array_length(p_snapshot -> 'files'),
               coalesce((select sum((f ->> 'additions')::int) from jsonb_array_elements(p_snapshot -> 'files') f), 0),
               coalesce((select sum((f ->> 'deletions')::int) from jsonb_array_elements(p_snapshot -> 'files') f), 0),
               p_diff, array(select jsonb_array_elements_text(p_snapshot -> 'warnings'))
        from tasks t where t.id = p_task;
    insert into change_files (change_id, ordinal, path, display, old_path, operation, additions, deletions, old_mode, new_mode, hunks)
        select p_id, f.ordinality, decode(f.value ->> 'path', 'hex'), f.value ->> 'display', decode(f.value ->> 'old_path', 'hex'),
               f.value ->> 'operation', (f.value ->> 'additions')::int, (f.value ->> 'deletions')::int, f.value ->> 'old_mode',
               f.value ->> 'new_mode', coalesce(f.value -> 'hunks', '[]')
        from jsonb_array_elements(p_snapshot -> 'files') with ordinality f;
end $$;

-- Let sessions go on after their task ended. They must be running under the epoch that is named. Answers
-- those it could not lock (a producer or a claimer holds them): the caller passes them in again.
create function coder.advance(p_sessions uuid[], p_epochs bigint[]) returns table (session_id uuid, epoch bigint)
language plpgsql set coder.actor = 'node'
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off
set enable_memoize = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_places tid[];
    v_locked uuid[];
begin
    with mine as materialized (
        select q.ctid as place, q.session_id from session_queue q join unnest(p_sessions, p_epochs) as e(session_id, epoch)
            on q.session_id = e.session_id and q.epoch = e.epoch
        where q.owner is not null for update of q skip locked
    ) select array_agg(mine.place), array_agg(mine.session_id) into v_places, v_locked from mine;
    if v_places is not null then
        perform coder.place(v_places, false);
    end if;
    if cardinality(v_locked) = cardinality(p_sessions) then
        return;
    end if;
    return query
        select q.session_id, q.epoch from session_queue q join unnest(p_sessions, p_epochs) as e(session_id, epoch)
            on q.session_id = e.session_id and q.epoch = e.epoch
        where q.owner is not null and q.session_id <> all (coalesce(v_locked, '{}'));
end $$;

-- What a turn writes (`mark_seen`, `record_worktree`, `finish`) waits 200 ms for a row that somebody holds, then the
-- node tries the members of its group one by one, so that a person's open transaction delays that turn alone.

-- End a group of turns: one transaction, each ending fenced by its own epoch. Answers a verdict per task:
--   ended     stored, with the id of its change where it made one
--   fenced    no longer the caller's; nothing was stored
--   moved     the worktree's base moved meanwhile; diff again and come back
--   applying  the session's change is being applied right now; come back
-- and `left` rows for sessions to pass to the next call.
create function coder.finish(p_endings jsonb, p_diffs bytea[], p_left_sessions uuid[], p_left_epochs bigint[])
returns table (verdict text, task_id bigint, change_id uuid, session_id uuid, epoch bigint)
language plpgsql set coder.actor = 'node' set lock_timeout = '200ms'
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off
set enable_memoize = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_ended bigint[] := '{}';
    v_wait bigint[] := '{}';
    v_sessions uuid[] := p_left_sessions;
    v_epochs bigint[] := p_left_epochs;
    v_more jsonb[];
    v_tasks bigint[];
    v_theirs uuid[];
    v_snapped uuid[];
    v_empty uuid[];
    v_change uuid;
    v_changes jsonb := '{}';
    e record;
begin
    -- What stores more than the end of its task and its words; most turns that change nothing do not.
    select array_agg(x) into v_more from jsonb_array_elements(p_endings) x
        where x ?| '{snapshot,unsnapshotted,model_history,context_tokens,remark_ids,agent_session,asked}' or x ->> 'state' = 'pending';
    if v_more is not null then
        select array_agg((x ->> 'session_id')::uuid) into v_snapped from unnest(v_more) x where x -> 'snapshot' <> 'null';
    end if;
    if v_snapped is not null then
        perform from session_worktrees where session_worktrees.session_id = any (v_snapped) order by session_worktrees.session_id for update;
        for e in
            select (x ->> 'task_id')::bigint as task_id, w.session_id, case when c.session_id is null and w.undo_decision is null then 'moved' else 'applying' end as verdict
            from unnest(v_more) x
            join session_worktrees w on w.session_id = (x ->> 'session_id')::uuid
            left join pending_changes c on c.session_id = w.session_id and c.state = 'applying'
            where x -> 'snapshot' <> 'null' and (c.session_id is not null or w.undo_decision is not null or w.base_version <> (x -> 'snapshot' ->> 'base_version')::int)
        loop
            v_wait := v_wait || e.task_id;
            return query select e.verdict, e.task_id, null::uuid, e.session_id, null::bigint;
        end loop;
    end if;

    if v_more is not null then  -- to run again, unless somebody asked for its end meanwhile
        with again as (
            update tasks t
            set state = 'pending', epoch = null, node_id = null, spoken_in = null, answer_state = null,
                attempts = t.attempts - case when x ->> 'reason' = 'shutdown' then 1 else 0 end  -- a drain gives it back
            from unnest(v_more) x
            where x ->> 'state' = 'pending' and t.id = (x ->> 'task_id')::bigint and t.epoch = (x ->> 'epoch')::bigint and t.ended_at is null
              and t.cancel_requested_at is null
            returning t.id, t.session_id, (x ->> 'epoch')::bigint as epoch
        ) select coalesce(array_agg(id), '{}'), v_sessions || coalesce(array_agg(session_id), '{}'), v_epochs || coalesce(array_agg(epoch), '{}')
        into v_ended, v_sessions, v_epochs from again;
    end if;

    with e as materialized (
        select * from jsonb_to_recordset(p_endings) as x(
            task_id bigint, epoch bigint, session_id uuid, state text, reason text, error text, notices text[], output_summary text,
            input_tokens bigint, cached_tokens bigint, output_tokens bigint, execution_path text, agent_used text, text text,
            reasoning text, tool_calls jsonb)
        where x.task_id <> all (v_wait)
    ), ended as (
        update tasks t
        set state = case e.state when 'pending' then 'cancelled' else e.state end,
            reason = case when e.state in ('cancelled', 'pending') and (select status from sessions where sessions.id = t.session_id) = 'closed'
                          then 'session_closed' when e.state = 'pending' then 'user' else e.reason end,
            error = e.error, notices = coalesce(e.notices, '{}'), output_summary = coalesce(e.output_summary, ''),
            input_tokens = coalesce(e.input_tokens, 0), cached_tokens = coalesce(e.cached_tokens, 0),
            output_tokens = coalesce(e.output_tokens, 0),
            cost_tokens = coalesce(e.input_tokens, 0) + coalesce(e.output_tokens, 0),
            execution_path = e.execution_path, agent_used = e.agent_used,
            ended_at = clock_timestamp(), answer = e.text, reasoning = e.reasoning, tool_calls = e.tool_calls,
            answer_state = case e.state when 'completed' then 'complete' when 'pending' then 'cancelled' else e.state end
        from e where t.id = e.task_id and t.epoch = e.epoch and t.ended_at is null  -- running, in words no index is tempted by
        returning t.id, t.session_id, e.epoch
    )
    select v_ended || coalesce(array_agg(ended.id), '{}'), v_sessions || coalesce(array_agg(ended.session_id), '{}'),
           v_epochs || coalesce(array_agg(ended.epoch), '{}'),
           (select array_agg(e.task_id) from e), (select array_agg(e.session_id) from e)
    into v_ended, v_sessions, v_epochs, v_tasks, v_theirs from ended;

    -- Nothing to approve, for all such endings at once: what was pending is superseded by nothing.
    if v_snapped is not null then
        select array_agg((x ->> 'session_id')::uuid) into v_empty from unnest(v_more) x
            where x -> 'snapshot' -> 'empty' = 'true' and (x ->> 'task_id')::bigint = any (v_ended);
    end if;
    if v_empty is not null then
        update session_worktrees w set last_snapshot = w.base_commit, unsnapshotted_task = null
            where w.session_id = any (v_empty) and (w.last_snapshot is not null or w.unsnapshotted_task is not null);
        update pending_changes c set state = 'superseded', decided_at = clock_timestamp()
            where c.session_id = any (v_empty) and c.state in ('pending', 'conflicted');
    end if;

    if v_more is not null then
        for e in select x ->> 'model_history' as history, (x ->> 'chat_id')::uuid as chat_id, x -> 'snapshot' as snapshot,
                        (x ->> 'task_id')::bigint as task_id, (x ->> 'session_id')::uuid as session_id, x ->> 'state' as state,
                        x ->> 'agent_used' as agent, (x ->> 'diff')::int as diff, (x ->> 'context_tokens')::bigint as context_tokens,
                        (x ->> 'unsnapshotted')::boolean as unsnapshotted, x -> 'remark_ids' as remark_ids,
                        x -> 'agent_session' as agent_session, x ->> 'execution_path' as path, (x ->> 'asked')::boolean as asked,
                        (x ->> 'context_limit')::bigint as context_limit, (x ->> 'compacts')::boolean as compacts
                 from unnest(v_more) x
                 where (x ->> 'task_id')::bigint = any (v_ended)
                   and (x -> 'model_history' <> 'null' or x -> 'context_tokens' <> 'null' or x -> 'remark_ids' <> '[]'
                        or x -> 'snapshot' -> 'empty' = 'false' or x -> 'unsnapshotted' = 'true'
                        or x -> 'agent_session' <> 'null' or x -> 'asked' = 'true')
        loop
            update cache_warming w set next_warm_at = clock_timestamp() + make_interval(secs => w.interval_seconds)
                where w.session_id = e.session_id and w.enabled;
            if found then
                perform pg_notify('warming', e.session_id::text);
            end if;
            if e.agent_session <> 'null' then
                perform coder.keep_agent_session(e.task_id, e.chat_id, e.agent, e.path, e.agent_session);
            end if;
            if e.asked and e.state <> 'interrupted' then
                perform coder.expire_permissions(e.task_id);
            end if;
            if e.compacts then  -- the chat it summarised stays as it is
                insert into chats (session_id, model_history, context_limit, compacted_from)
                    select e.session_id, e.history::json, e.context_limit, e.chat_id where e.state = 'completed' and e.history is not null;
            elsif e.history is not null or e.context_tokens is not null then
                update chats c set model_history = coalesce(e.history::json, c.model_history), context_size = coalesce(e.context_tokens, c.context_size),
                        context_limit = coalesce(e.context_limit, c.context_limit)
                    where c.id = e.chat_id;
            end if;
            if e.remark_ids <> '[]' and e.state <> 'pending' then
                update decisions set told_task = e.task_id where decisions.id in (select r::uuid from jsonb_array_elements_text(e.remark_ids) r);
            end if;
            if e.snapshot -> 'empty' = 'false' then
                v_change := coder.store_change(e.session_id, e.task_id, e.state, coalesce(e.agent, 'native'), e.snapshot, p_diffs[e.diff]);
                if v_change is not null then
                    v_changes := v_changes || jsonb_build_object(e.task_id::text, v_change);
                end if;
            elsif e.unsnapshotted then
                update session_worktrees set unsnapshotted_task = e.task_id where session_worktrees.session_id = e.session_id;
            end if;
        end loop;
    end if;

    return query
        select case when x.task_id = any (v_ended) then 'ended' else 'fenced' end, x.task_id, (v_changes ->> x.task_id::text)::uuid,
               x.session_id, null::bigint
        from unnest(v_tasks, v_theirs) as x(task_id, session_id);
    return query select 'left', null::bigint, null::uuid, l.session_id, l.epoch from coder.advance(v_sessions, v_epochs) l;
end $$;

-- Take a session whose prompt cache is to be kept warm now, and schedule its next warm; one that is about to have a turn is left.
create function coder.claim_warming(p_node uuid, p_host uuid) returns table (
    session_id uuid, epoch bigint, spent_tokens bigint, idle_seconds float8, model_history text, model text, thinking text
) language plpgsql as $$
#variable_conflict use_column
declare
    w cache_warming;
begin
    perform from nodes n where n.id = p_node and n.lease_until > clock_timestamp();
    if not found then
        return;
    end if;
    select c.* into w from cache_warming c join session_queue q on q.session_id = c.session_id
        where c.enabled and c.next_warm_at <= clock_timestamp() and q.state not in ('ready', 'running') and (q.host_id is null or q.host_id = p_host)
        order by c.next_warm_at limit 1 for update of c skip locked;
    if not found then
        return;
    end if;
    update cache_warming c set epoch = nextval('epoch_seq'), node_id = p_node,
            next_warm_at = clock_timestamp() + make_interval(secs => c.interval_seconds)
        where c.session_id = w.session_id returning * into w;
    return query
        select w.session_id, w.epoch, w.input_tokens + w.output_tokens,
               extract(epoch from clock_timestamp() - s.last_activity_at)::float8, k.model_history::text, l.model, l.thinking_option_id
        from sessions s left join lateral (
            select c.id, c.model_history from chats c where c.session_id = s.id and c.closed_at is null order by c.created_at desc limit 1) k on true
        left join lateral (
            select t.model, t.thinking_option_id from tasks t
            where t.session_id = s.id and t.spoken_in = k.id and t.execution_path = 'native' order by t.epoch desc limit 1) l on true
        where s.id = w.session_id;
end $$;

-- Record what became of a claim: what a warm took (null: none was sent, or it failed), or why there will be no more.
create function coder.settle_warming(
    p_session uuid, p_epoch bigint, p_input bigint, p_cached bigint, p_output bigint, p_stopped text, p_error text
) returns boolean language plpgsql as $$
begin
    update cache_warming w set
        last_warm_at = case when p_input is null then w.last_warm_at else clock_timestamp() end,
        warms = w.warms + (p_input is not null)::int, input_tokens = w.input_tokens + coalesce(p_input, 0),
        cached_tokens = w.cached_tokens + coalesce(p_cached, 0), output_tokens = w.output_tokens + coalesce(p_output, 0),
        last_input_tokens = coalesce(p_input, w.last_input_tokens), last_cached_tokens = coalesce(p_cached, w.last_cached_tokens),
        retention_seconds = case when p_input is null then w.retention_seconds
                                 when p_cached > 0 then extract(epoch from clock_timestamp() - greatest(s.last_activity_at, w.last_warm_at)) end,
        stopped = p_stopped, error = p_error, enabled = w.enabled and p_stopped is null,
        next_warm_at = case when w.enabled and p_stopped is null then clock_timestamp() + make_interval(secs => w.interval_seconds) end
    from sessions s where s.id = w.session_id and w.session_id = p_session and w.epoch = p_epoch;
    if found then
        perform pg_notify('warming', p_session::text);
    end if;
    return found;
end $$;

-- Keep what an agent remembers of a chat after a turn, or note that it must not be relied on (no id).
create function coder.keep_agent_session(p_task bigint, p_chat uuid, p_agent text, p_path text, p_kept jsonb) returns void
language plpgsql as $$
begin
    if p_kept ->> 'id' is null then
        update agent_sessions set status = 'lost', updated_at = clock_timestamp()
            where chat_id = p_chat and agent = p_agent and status <> 'lost';
        return;
    end if;
    insert into agent_sessions (chat_id, agent, session_id, execution_path, agent_session_id, config_hash, home, node_id, status)
        select p_chat, p_agent, t.session_id, p_path, p_kept ->> 'id', p_kept ->> 'config_hash', p_kept ->> 'home', t.node_id, p_kept ->> 'status'
        from tasks t where t.id = p_task
        on conflict (chat_id, agent) do update set
            execution_path = excluded.execution_path, agent_session_id = excluded.agent_session_id, config_hash = excluded.config_hash,
            home = excluded.home, node_id = excluded.node_id, status = excluded.status, updated_at = clock_timestamp();
end $$;

-- Record what an agent asks, answered already (by a rule or the policy) or open for a person. The same request that an
-- earlier, interrupted run of the task left is taken over, with the answer somebody gave meanwhile. Nothing = fenced.
create function coder.ask(p_task bigint, p_epoch bigint, p_request jsonb, p_input json, p_wait interval, p_answer jsonb) returns setof permissions
language plpgsql set coder.actor = 'node' as $$
declare
    t tasks;
    p permissions;
begin
    select * into t from tasks where id = p_task and epoch = p_epoch and state = 'running';
    if not found then
        return;
    end if;
    select * into p from permissions
        where task_id = p_task and told_at is null and state <> 'expired' and agent = p_request ->> 'agent'
          and (epoch <> p_epoch or request_id = p_request ->> 'request_id')  -- the latter: our answer to the same call was lost
          and kind = p_request ->> 'kind' and tool is not distinct from p_request ->> 'tool' and title = p_request ->> 'title'
        order by requested_at limit 1 for update;
    if found then
        update permissions set epoch = p_epoch, request_id = p_request ->> 'request_id', call_id = p_request ->> 'call_id',
                deadline = case when state = 'requested' then clock_timestamp() + p_wait else deadline end
            where id = p.id returning * into p;
    else
        insert into permissions (task_id, epoch, session_id, project_id, agent, kind, request_id, call_id, tool, asked_for, title, input, paths,
                                 choices, several, deadline)
            values (t.id, t.epoch, t.session_id, t.project_id, p_request ->> 'agent', p_request ->> 'kind', p_request ->> 'request_id',
                    p_request ->> 'call_id', p_request ->> 'tool', p_request ->> 'asked_for', p_request ->> 'title', p_input,
                    array(select jsonb_array_elements_text(p_request -> 'paths')), p_request -> 'choices',
                    (p_request ->> 'several')::boolean, clock_timestamp() + p_wait)
            returning * into p;
    end if;
    if p_answer is not null then
        return query select * from coder.settle_permission(p.id, p.epoch, p_answer);
    else
        return next p;
    end if;
end $$;

-- Answer a request by a rule, the policy or the deadline, unless a person was faster, and count it as told. Nothing:
-- somebody is just answering it, or it is no longer this turn's.
create function coder.settle_permission(p_permission uuid, p_epoch bigint, p_answer jsonb) returns setof permissions
language plpgsql set coder.actor = 'node' as $$
declare
    p permissions;
begin
    select * into p from permissions where id = p_permission and epoch = p_epoch for update skip locked;
    if not found then
        return;
    elsif p.state = 'requested' then
        update permissions set state = p_answer ->> 'state', message = p_answer ->> 'message', actor = p_answer ->> 'actor',
                rule_id = (select r.id from permission_rules r where r.id = (p_answer ->> 'rule')::uuid), answered_at = clock_timestamp()
            where id = p.id;
    end if;
    return query update permissions set told_at = coalesce(told_at, clock_timestamp()) where id = p.id returning *;
end $$;

-- The agent is about to be told the answer, which from here on counts for nothing else; false = fenced.
create function coder.told(p_permission uuid, p_epoch bigint) returns boolean language plpgsql set coder.actor = 'node' as $$
begin
    update permissions p set told_at = clock_timestamp() from tasks t
        where p.id = p_permission and p.epoch = p_epoch and p.state <> 'requested' and t.id = p.task_id and t.epoch = p_epoch and t.state = 'running';
    return found;
end $$;

-- Renew a node's lease; answers when it ends, nothing when the node was reaped.
create function coder.beat(p_node uuid, p_lease interval) returns timestamptz language sql as $$
    update nodes set lease_until = clock_timestamp() + p_lease where id = p_node returning lease_until;
$$;

-- Store what turns said, as long as they run under the epoch that is named, and ring once, with the sessions as a
-- hint: in notifications of at most 200 ids (8000 bytes are the limit of one), or `*` when it would be many of them.
create function coder.append_frames(p_tasks bigint[], p_epochs bigint[], p_seqs bigint[], p_payloads text[], p_touched uuid[]) returns void
language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
begin
    if cardinality(p_tasks) > 0 then
        insert into frames (task_id, epoch, seq, payload)
            select x.task_id, x.epoch, x.seq, x.payload::json
            from unnest(p_tasks, p_epochs, p_seqs, p_payloads) as x(task_id, epoch, seq, payload)
            where exists (select from tasks t where t.id = x.task_id and t.epoch = x.epoch and t.state = 'running')
            on conflict do nothing;
    end if;
    if cardinality(p_touched) > 2000 then
        perform pg_notify('frames', '*');
    else
        perform pg_notify('frames', string_agg(s.id::text, ' '))
            from unnest(p_touched) with ordinality as s(id, n) group by (s.n - 1) / 200;
    end if;
end $$;

-- Let go of the frames of turns that ended more than five minutes ago, or run under another epoch now.
create function coder.prune_frames() returns bigint language sql as $$
    with gone as (
        delete from frames f using (select distinct task_id, epoch from frames) turn
        where f.task_id = turn.task_id and f.epoch = turn.epoch and not exists (
            select from tasks t where t.id = turn.task_id and t.epoch = turn.epoch
            and (t.state = 'running' or t.ended_at > clock_timestamp() - interval '5 minutes'))
        returning 1
    ) select count(*) from gone;
$$;

-- What a turn had said when its node died, as its message and its task show it; calls that ran have failed.
create function coder.said_so_far(
    p_task bigint, p_epoch bigint, out text text, out reasoning text, out tool_calls jsonb, out input_tokens bigint, out cached_tokens bigint,
    out output_tokens bigint, out context_tokens bigint
) language sql as $$
    with f as materialized (
        select seq, payload, payload ->> 'type' as type, (payload ->> 'part')::int as part from frames where task_id = p_task and epoch = p_epoch
    ), calls as (
        select distinct on (part) part, (payload -> 'call')::jsonb as call from f where type = 'tool_call' order by part, seq desc
    ), used as (
        select payload from f where type = 'usage' order by seq desc limit 1
    )
    select coalesce((select string_agg(payload ->> 'text', '' order by part, seq) from f where type = 'delta'), ''),
           coalesce((select string_agg(payload ->> 'text', '' order by part, seq) from f where type = 'reasoning_delta'), ''),
           coalesce((select jsonb_agg(case when call ->> 'status' = 'running' then call || '{"status": "failed"}' else call end order by part)
                     from calls), '[]'),
           coalesce((select (payload ->> 'input_tokens')::bigint from used), 0),
           coalesce((select (payload ->> 'cached_tokens')::bigint from used), 0),
           coalesce((select (payload ->> 'output_tokens')::bigint from used), 0),
           (select (payload ->> 'context_tokens')::bigint from used);
$$;

-- Recover the work of dead nodes. A task nobody saw anything of goes back to its place, or fails when its
-- attempts are used up; one that was seen is interrupted and holds its session for a person, with what it had said.
-- The same for what `p_node` was given but does not know of, which is all but `p_epochs`: the answer to its claim was lost.
create function coder.reap(p_node uuid default null, p_epochs bigint[] default null)
returns table (task_id bigint, state text, session_id uuid)
language plpgsql set coder.actor = 'node' as $$
#variable_conflict use_column
declare
    q record;
    t tasks;
    v_reason text;
    v_state text;
    v_places tid[] := '{}';
    v_crashed uuid[];
    v_said record;
begin
    with dead as (
        delete from nodes where id in (select n.id from nodes n where n.lease_until < clock_timestamp() for update skip locked)
        returning id, crashed
    ), lost as (
        update agent_sessions set status = 'lost', updated_at = clock_timestamp() from dead where node_id = dead.id and status = 'active'
    ) select array_agg(id) into v_crashed from dead where crashed;
    for q in
        select s.ctid as place, s.session_id, s.running_task, s.epoch from session_queue s
        where s.state = 'running'
          and (not exists (select from nodes n where n.id = s.owner) or (s.owner = p_node and s.epoch <> all (coalesce(p_epochs, '{}'))))
        for update of s skip locked
    loop
        -- What somebody holds in an open transaction is left for the next time, or nothing else would be recovered.
        select * into t from tasks where id = q.running_task and epoch = q.epoch and state = 'running' for update skip locked;
        if not found then
            continue when exists (select from tasks where id = q.running_task and epoch = q.epoch and state = 'running');
            v_places := v_places || q.place;
            continue;
        end if;
        perform from session_worktrees w where w.session_id = q.session_id for update skip locked;
        continue when not found and exists (select from session_worktrees w where w.session_id = q.session_id);
        v_places := v_places || q.place;
        v_reason := case when t.node_id = p_node and exists (select from nodes n where n.id = p_node) then 'internal' when t.node_id = any (v_crashed) then 'crash' else 'lease_lost' end;
        v_state := case when t.cancel_requested_at is not null then 'cancelled' when t.first_event_at is not null then 'interrupted'
                        when t.attempts >= t.max_attempts then 'failed' else 'pending' end;
        if v_state = 'pending' then
            update tasks set state = 'pending', reason = null, error = null, epoch = null, node_id = null, spoken_in = null, answer_state = null
                where id = t.id;
        else
            select * into v_said from coder.said_so_far(t.id, t.epoch);
            update tasks set state = v_state,
                    reason = case when v_state <> 'cancelled' then v_reason
                                  when (select s.status from sessions s where s.id = t.session_id) = 'closed' then 'session_closed' else 'user' end,
                    error = case v_state
                        when 'failed' then format('The dispatcher died %s times while starting this task; look at its log, then retry.', t.attempts)
                        when 'interrupted' then format('The dispatcher that ran this task %s; resume, retry or dismiss it.',
                                                       case v_reason when 'internal' then 'lost sight of it' else 'died' end) end,
                    ended_at = clock_timestamp(), answer_state = v_state, answer = v_said.text, reasoning = v_said.reasoning,
                    tool_calls = v_said.tool_calls, output_summary = left(v_said.text, 500), input_tokens = v_said.input_tokens,
                    cached_tokens = v_said.cached_tokens, output_tokens = v_said.output_tokens,
                    cost_tokens = v_said.input_tokens + v_said.output_tokens
                where id = t.id;
            update chats set context_size = v_said.context_tokens where v_said.context_tokens is not null and id = t.spoken_in;
        end if;
        update session_worktrees set unsnapshotted_task = t.id where session_worktrees.session_id = t.session_id and t.first_event_at is not null;
        return query select t.id, v_state, t.session_id;
    end loop;
    if v_places <> '{}' then
        perform coder.place(v_places);
    end if;
end $$;

-- Heal and promote: sessions whose time has come, sessions whose task has ended without them, and (with
-- `p_deep`) idle or scheduled sessions in which something waits for less, or that are shown as active. Answers how
-- many it placed.
create function coder.sweep(p_deep boolean) returns int language plpgsql set coder.actor = 'node' as $$
declare
    v_places tid[];
begin
    -- Requests that nobody waits for: of turns that ended, and, past the deadline, of those that were interrupted.
    update permissions set state = 'expired', actor = 'coder', answered_at = clock_timestamp(),
            message = case when deadline < clock_timestamp() then 'Nobody answered before the deadline.' else 'The turn that asked ended.' end
        where id in (
            select p.id from permissions p join tasks t on t.id = p.task_id
            where p.state = 'requested' and (t.state in ('completed', 'failed', 'cancelled')
                or (p.deadline < clock_timestamp() and (t.state <> 'running' or t.epoch <> p.epoch)))
            for update of p skip locked);
    with due as materialized (
        select ctid as place from session_queue where state = 'scheduled' and ready_at <= clock_timestamp()
        order by ready_at limit 1000 for update skip locked
    ), ended as materialized (
        select q.ctid as place from session_queue q join tasks t on t.id = q.running_task
        where q.state = 'running' and (t.state <> 'running' or t.epoch is distinct from q.epoch) for update of q skip locked
    ), forgotten as materialized (
        select q.ctid as place from session_queue q
        where p_deep and q.state in ('idle', 'scheduled') and (exists (
            select from tasks t where t.session_id = q.session_id and t.waiting
            and (q.state = 'idle' or t.run_at is null or t.run_at < q.ready_at))
            or (q.state = 'idle' and exists (select from sessions s where s.id = q.session_id and s.status = 'active')))
        limit 1000 for update of q skip locked
    )
    select array_agg(place) into v_places
    from (select place from due union select place from ended union select place from forgotten) s;
    if v_places is null then
        return 0;
    end if;
    perform coder.place(v_places);
    return cardinality(v_places);
end $$;

-- Take the oldest decision whose project is on this host and has none running, or one that was dropped in the
-- middle (then `plan` says what was being done): its node died, or it is the caller, who does one at a time.
create function coder.claim_decision(p_node uuid, p_host uuid)
returns table (id uuid, epoch bigint, decision jsonb, change jsonb, worktree jsonb, paths text[], written jsonb, files jsonb, content text)
language plpgsql as $$
#variable_conflict use_column
declare
    d decisions;
begin
    select d0.* into d from decisions d0 join session_worktrees w on w.session_id = d0.session_id
        where w.host_id = p_host
          and ((d0.state = 'queued' and not exists (select from decisions r where r.project_id = d0.project_id and r.state = 'running')
                and not exists (select from decisions b where b.id = d0.after and b.state <> 'done')
                -- One that another node is just taking is passed over, but nothing behind it in its project.
                and not exists (select from decisions e join session_worktrees x on x.session_id = e.session_id and x.host_id = p_host
                                where e.project_id = d0.project_id and e.state = 'queued'
                                  and (e.created_at, e.id) < (d0.created_at, d0.id)))
               or (d0.state = 'running' and (d0.node_id = p_node or not exists (select from nodes n where n.id = d0.node_id))))
        order by d0.state = 'queued', d0.created_at limit 1 for update of d0 skip locked;
    if not found then
        return;
    end if;
    begin
        update decisions set state = 'running', node_id = p_node, epoch = nextval('epoch_seq'), started_at = coalesce(started_at, clock_timestamp())
            where decisions.id = d.id returning * into d;
    exception when unique_violation then
        return;  -- another node has just begun with a decision of this project
    end;
    return query
        select d.id, d.epoch, to_jsonb(d), to_jsonb(c) - 'diff', to_jsonb(w),
               array(select encode(p.path, 'hex') from (
                         select f.path from change_files f where f.change_id = c.id
                         union select f.old_path from change_files f where f.change_id = c.id and f.operation = 'renamed') p order by 1),
               coalesce((select jsonb_object_agg(encode(k.path, 'hex'), jsonb_build_array(k.blob, k.mode)) from checkout_files k
                         where k.project_id = d.project_id
                           and (d.kind = 'rebase' or k.path in (select f.path from change_files f where f.change_id = c.id
                                          union select f.old_path from change_files f where f.change_id = c.id))), '{}'),
               coalesce((select jsonb_object_agg(f.ordinal, jsonb_build_object(
                             'path', encode(f.path, 'hex'), 'old_path', encode(f.old_path, 'hex'), 'operation', f.operation, 'additions', f.additions,
                             'deletions', f.deletions, 'old_mode', f.old_mode, 'new_mode', f.new_mode, 'hunks', f.hunks))
                         from change_files f where f.change_id = c.id and f.ordinal in (select (p ->> 'file')::int from jsonb_array_elements(d.parts) p)),
                        '{}'),
               coalesce((select o.snapshot_commit from pending_changes o
                         where o.session_id = d.session_id and o.state in ('pending', 'conflicted')), d.old_base)
        from pending_changes c, session_worktrees w where c.id = d.change_id and w.session_id = d.session_id;
end $$;

-- The plan is stored before anything is touched; from here on only `settle_decision` ends the decision.
-- Answers `applying`, or why not: `fenced`, `stale`, or the state the change is in; of an undo also `moved`, when the session's
-- work is not `p_content` any more.
create function coder.begin_applying(p_decision uuid, p_epoch bigint, p_plan jsonb, p_content text default null) returns text language plpgsql set coder.actor = 'node' as $$
declare
    d decisions;
    c pending_changes;
begin
    select * into d from decisions where id = p_decision;
    perform from session_worktrees where session_id = d.session_id for update;
    select * into c from pending_changes where id = d.change_id for update;
    select * into d from decisions where id = p_decision and epoch = p_epoch and state = 'running' for update;
    if not found then
        return 'fenced';
    elsif d.kind = 'undo' then
        if c.state <> 'approved' then
            return c.state;
        elsif p_content is distinct from coalesce((select o.snapshot_commit from pending_changes o where o.session_id = d.session_id
                                                   and o.state in ('pending', 'conflicted')), d.old_base) then
            return 'moved';
        end if;
        update session_worktrees set undo_decision = d.id where session_id = d.session_id;
        update decisions set plan = p_plan where id = d.id;
        return 'applying';
    elsif c.state not in ('pending', 'conflicted', 'applying') then
        return c.state;
    elsif c.fingerprint <> d.fingerprint then
        return 'stale';
    end if;
    update pending_changes set state = 'applying' where id = c.id;
    update decisions set plan = p_plan where id = d.id;
    return 'applying';
end $$;

-- End a decision. `p_state` is what the change becomes: approved (the base moves to the approved snapshot),
-- conflicted, or pending again; null leaves it as it is. `p_rest`, of a decision on parts: the commit that is the `base` from
-- now on, what is left against it as a `snapshot` (the session's next open change, unless it is empty), what the worktree is to be
-- brought along with (`shift`), and what the agent is to do now (`task`). False = fenced.
create function coder.settle_decision(
    p_decision uuid, p_epoch bigint, p_outcome text, p_error text, p_facts jsonb, p_state text, p_conflicts jsonb, p_written jsonb,
    p_rest jsonb default null, p_diff bytea default null
) returns boolean language plpgsql set coder.actor = 'node' as $$
declare
    d decisions;
    c pending_changes;
    o pending_changes;
    w session_worktrees;
    v_done boolean := p_outcome in ('approved', 'rejected', 'undone', 'rebased');
    v_left uuid;
begin
    select * into d from decisions where id = p_decision;
    if p_rest -> 'task' <> 'null' then
        perform from session_queue where session_id = d.session_id for update;
    end if;
    select * into w from session_worktrees where session_id = d.session_id for update;
    select * into c from pending_changes where id = d.change_id for update;
    update decisions set state = case when v_done then 'done' else 'failed' end, outcome = p_outcome, error = p_error,
            facts = coalesce(p_facts, '{}') || case when p_conflicts <> '[]' then jsonb_build_object('conflicts', p_conflicts) else '{}' end,
            plan = case when v_done then plan end, ended_at = clock_timestamp()
        where id = p_decision and epoch = p_epoch and state = 'running';
    if not found then
        return false;
    end if;
    if not v_done then
        with recursive behind as (
            select id, change_id from decisions where after = d.id and state = 'queued'
            union all select n.id, n.change_id from decisions n join behind on n.after = behind.id where n.state = 'queued'
        )
        update decisions x set state = 'failed', outcome = 'skipped', ended_at = clock_timestamp(),
                error = format('Change %s was to be approved before this one and was not, so this one was skipped; decide on it anew.', c.id)
            from behind where x.id = behind.id;
    end if;
    if p_state is not null and c.state in ('pending', 'applying', 'conflicted') or p_state = 'undone' then
        update pending_changes set state = p_state, conflicts = coalesce(p_conflicts, '[]'),
                decided_at = case when v_done then clock_timestamp() end
            where id = c.id;
    end if;
    update session_worktrees set undo_decision = null where session_id = d.session_id and undo_decision = d.id;
    if v_done then
        update session_worktrees set base_commit = coalesce(p_rest ->> 'base', c.snapshot_commit), base_version = base_version + 1,
                shifts = case when p_rest -> 'shift' <> 'null' then shifts || (p_rest -> 'shift') else shifts end,
                last_snapshot = coalesce(p_rest -> 'snapshot' ->> 'commit', last_snapshot)
            where session_id = d.session_id;
        if p_rest -> 'snapshot' -> 'empty' = 'false' then
            v_left := gen_random_uuid();
        end if;
        -- Of an undo: what was waiting meanwhile is measured against the base it goes back to.
        update pending_changes set state = 'superseded', superseded_by = v_left, decided_at = clock_timestamp()
            where session_id = d.session_id and state in ('pending', 'conflicted') returning * into o;
        o := case when o.id is null then c else o end;
        if v_left is not null then
            perform coder.insert_change(v_left, o.session_id, o.task_id, o.turn_outcome, o.agent,
                                        p_rest -> 'snapshot' || jsonb_build_object('warnings', to_jsonb(o.warnings) || (p_rest -> 'snapshot' -> 'warnings')),
                                        p_diff);
            update pending_changes set superseded_by = v_left where id = c.id;
        end if;
        update decisions set old_base = w.base_commit, new_base = coalesce(p_rest ->> 'base', c.snapshot_commit), left_change = v_left where id = d.id;
        if p_rest -> 'shift' <> 'null' then
            perform pg_notify('decisions_new', '');
        end if;
        insert into tasks (project_id, session_id, input, agent, model, mode_id, thinking_option_id, asked_by)
            select t.project_id, t.session_id, p_rest ->> 'task', t.agent, t.model, t.mode_id, t.thinking_option_id, d.actor
            from tasks t join sessions s on s.id = t.session_id where t.id = c.task_id and p_rest ->> 'task' is not null and s.status <> 'closed';
    end if;
    insert into checkout_files (project_id, path, blob, mode)
        select d.project_id, decode(f ->> 'path', 'hex'), f ->> 'blob', f ->> 'mode' from jsonb_array_elements(coalesce(p_written, '[]')) f
        on conflict (project_id, path) do update set blob = excluded.blob, mode = excluded.mode;
    perform pg_notify('frames', d.session_id::text);  -- whoever watches the session sees its change settled
    return true;
end $$;

-- Take checks to run on worktrees of this host, at most so many: queued ones of sessions that rest, and those of dead nodes.
create function coder.claim_checks(p_node uuid, p_host uuid, p_count int)
returns table (id uuid, epoch bigint, task_id bigint, change_id uuid, command text, seconds float8, network boolean, session_id uuid, worktree text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
        with free as materialized (
            select k.id from checks k join session_worktrees w on w.session_id = k.session_id join session_queue q on q.session_id = k.session_id
            where w.host_id = p_host and w.removed_at is null and w.shifts = '[]' and q.state not in ('ready', 'running')
              and (k.state = 'queued' or (k.state = 'running' and not exists (select from nodes n where n.id = k.node_id)))
            order by k.created_at limit p_count for update of k skip locked
        )
        update checks k set state = 'running', node_id = p_node, epoch = nextval('epoch_seq'), started_at = clock_timestamp()
        from free, session_worktrees w, projects p
        where k.id = free.id and w.session_id = k.session_id and p.id = k.project_id
        returning k.id, k.epoch, k.task_id, k.change_id, k.command, extract(epoch from k.timeout)::float8, p.network = 'on', k.session_id, w.path;
end $$;

-- Of the checks that run, those to be ended: their session's next turn wants the worktree, parts that were rejected are to leave it,
-- or the change is no more.
create function coder.unwanted_checks(p_node uuid) returns setof uuid language sql as $$
    select k.id from checks k join pending_changes c on c.id = k.change_id join session_queue q on q.session_id = k.session_id
         join session_worktrees w on w.session_id = k.session_id
    where k.state = 'running' and k.node_id = p_node
      and (c.state in ('superseded', 'rejected') or q.state in ('ready', 'running') or w.shifts <> '[]');
$$;

-- End a check; `queued` puts it back, for another node. One that failed of the agent's doing (`p_fixable`) is fed back to the agent as a
-- task, as often in a row as the project says, unless somebody has other plans with the session. False = fenced.
create function coder.settle_check(
    p_check uuid, p_epoch bigint, p_state text, p_exit_code int, p_detail text, p_output text, p_fixable boolean
) returns boolean language plpgsql set coder.actor = 'node' set lock_timeout = '200ms' as $$
declare
    k checks;
    v_fix bigint;
begin
    select * into k from checks where id = p_check;
    perform from session_queue where session_id = k.session_id for update;
    perform from checks where id = p_check and epoch = p_epoch and state = 'running'
        and exists (select from nodes n where n.id = node_id and n.lease_until > clock_timestamp()) for update;
    if not found then
        return false;
    end if;
    if p_state = 'failed' and p_fixable then
        insert into tasks (project_id, session_id, input, agent, model, mode_id, thinking_option_id, asked_by)
            select t.project_id, t.session_id, format(E'The project''s check failed on your change: `%s` %s. Correct the work so that it passes.%s',
                       k.command, p_detail, coalesce(E'\n\nThe end of what it printed:\n\n'
                           || regexp_replace(nullif(btrim(right(p_output, 6000), E'\n'), ''), '^', '    ', 'gn'), '')),
                   t.agent, t.model, t.mode_id, t.thinking_option_id, t.asked_by
            from tasks t join projects p on p.id = t.project_id join sessions s on s.id = t.session_id join pending_changes c on c.id = k.change_id
            where t.id = k.task_id and t.state = 'completed' and s.status <> 'closed' and c.state in ('pending', 'conflicted')
              and k.fixes < p.auto_fix and not exists (select from tasks w where w.session_id = t.session_id and w.waiting)
            returning id into v_fix;
    end if;
    update checks
        set state = p_state, exit_code = p_exit_code, detail = p_detail, output = coalesce(p_output, ''), fix_task = v_fix,
            node_id = case when p_state = 'queued' then null else node_id end, started_at = case when p_state = 'queued' then null else started_at end,
            ended_at = case when p_state <> 'queued' then clock_timestamp() end
        where id = k.id;
    perform pg_notify('frames', k.session_id::text);
    return true;
end $$;

-- Store the change of a turn whose node died before it could. Answers `stored`, or `moved`, `applying`, `gone`.
create function coder.rescue_change(p_session uuid, p_task bigint, p_snapshot jsonb, p_diff bytea) returns text language plpgsql set coder.actor = 'node' as $$
declare
    w session_worktrees;
    t tasks;
begin
    select * into w from session_worktrees where session_id = p_session and unsnapshotted_task = p_task for update;
    if not found then
        return 'gone';
    elsif w.base_version <> (p_snapshot ->> 'base_version')::int then
        return 'moved';
    elsif w.undo_decision is not null or exists (select from pending_changes where session_id = p_session and state = 'applying') then
        return 'applying';
    end if;
    select * into t from tasks where id = p_task;
    perform coder.store_change(p_session, p_task, case when t.state in ('failed', 'cancelled') then t.state else 'interrupted' end,
                               coalesce(t.agent_used, t.agent, 'native'), p_snapshot, p_diff);
    return 'stored';
end $$;

-- The worktree's files were brought along as a decision asked for, but for those (`p_kept`) that say something else by now.
create function coder.shifted(p_session uuid, p_decision uuid, p_kept text[]) returns void language plpgsql set coder.actor = 'node' as $$
begin
    update session_worktrees set shifts = (select coalesce(jsonb_agg(s order by n), '[]') from jsonb_array_elements(shifts) with ordinality x(s, n)
                                           where s ->> 'decision' <> p_decision::text)
        where session_id = p_session;
    if cardinality(p_kept) > 0 then
        update decisions set facts = facts || jsonb_build_object('kept', p_kept) where id = p_decision;
    end if;
end $$;

-- The worktree went back to its base, as a rejection asked for.
create function coder.discarded(p_session uuid, p_decision uuid) returns void language sql as $$
    update session_worktrees set discard_decision = null, last_snapshot = null where session_id = p_session and discard_decision = p_decision;
$$;

-- ── how things are shown ────────────────────────────────────────────────────────────────────────────

-- A task as the API and the command line show it. `waiting_for` says why one that is pending does not run yet, or
-- what one that runs waits for a person to answer: `permission_id`.
create function coder.show_task(p_task bigint) returns table (
    id bigint, project_id uuid, project text, session_id uuid, chat_id uuid, state text, waiting_for text, permission_id uuid, reason text, error text,
    notices text[], input text, agent text, agent_used text, model text, mode_id text, thinking_option_id text, priority smallint,
    run_at timestamptz, labels text[], asked_by text, idempotency_key text, attempts smallint, max_attempts smallint, timeout_seconds float8,
    retry_of bigint, retried_by bigint, change_id uuid, output_summary text, cost_tokens bigint, input_tokens bigint, cached_tokens bigint,
    output_tokens bigint, execution_path text, created_at timestamptz, claimed_at timestamptz, first_event_at timestamptz,
    cancel_requested_at timestamptz, ended_at timestamptz
) language sql rows 1 as $$
    select t.id, t.project_id, p.name, t.session_id, t.chat_id, t.state,
           case when t.state = 'running' then coalesce((select o.kind where o.epoch = t.epoch), (
                    select 'provider' from (select f.payload ->> 'type' as type from frames f where f.task_id = t.id and f.epoch = t.epoch
                                            order by f.seq desc limit 1) last where last.type = 'provider_retry'))
                when t.state <> 'pending' then null
                when t.run_at > clock_timestamp() then 'run_at'
                when q.state = 'held' then 'decision'
                when q.host_id is not null and not exists (select from nodes n where n.host_id = q.host_id and n.lease_until > clock_timestamp())
                    then 'host'
                when q.state = 'running' then 'session'
                else 'dispatcher' end,
           o.id, t.reason, t.error, t.notices, t.input, t.agent, t.agent_used, t.model, t.mode_id, t.thinking_option_id, t.priority,
           t.run_at, t.labels, t.asked_by, t.idempotency_key, t.attempts, t.max_attempts, extract(epoch from t.timeout)::float8,
           t.retry_of, (select max(r.id) from tasks r where r.retry_of = t.id),
           (select c.id from pending_changes c where c.session_id = t.session_id and c.task_id = t.id order by c.created_at desc limit 1),
           t.output_summary, t.cost_tokens, t.input_tokens, t.cached_tokens, t.output_tokens, t.execution_path,
           t.created_at, t.claimed_at, t.first_event_at, t.cancel_requested_at, t.ended_at
    from tasks t join projects p on p.id = t.project_id left join session_queue q on q.session_id = t.session_id
         left join lateral (select o.id, o.kind, o.epoch from permissions o where o.task_id = t.id and o.state = 'requested'
                            order by o.requested_at limit 1) o on t.state in ('running', 'interrupted')
    where t.id = p_task;
$$;

-- What went on lately, in stretches of equal length up to now, of one project or all. A turn counts where it began: how it ended, the
-- tokens it used, and how long it had waited since it could have run.
create function coder.stats(p_window interval default '1 day', p_stretches int default 24, p_project text default null) returns table (
    at timestamptz, began bigint, running bigint, completed bigint, failed bigint, cancelled bigint, interrupted bigint,
    wait_median_seconds float8, wait_p95_seconds float8, input_tokens bigint, cached_tokens bigint, output_tokens bigint
) language plpgsql as $$
declare
    v_project uuid := case when p_project is not null then coder.project_id(p_project) end;
    v_stretch interval := make_interval(secs => extract(epoch from p_window)::float8 / p_stretches);
    v_last timestamptz;
    v_first timestamptz;
begin
    v_last := date_bin(v_stretch, clock_timestamp(), timestamptz '2000-01-01 00:00:00+00');
    v_first := v_last - (p_stretches - 1) * v_stretch;
    return query
    with turn as (
        select date_bin(v_stretch, t.claimed_at, v_first) as since, t.state as now, t.input_tokens as read, t.cached_tokens as cached,
               t.output_tokens as written, greatest(extract(epoch from t.claimed_at - greatest(t.created_at, t.run_at)), 0)::float8 as waited
        from tasks t where t.spoken_in is not null and t.claimed_at >= v_first and (v_project is null or t.project_id = v_project)
    )
    select v_first + n * v_stretch, count(turn.now), count(*) filter (where turn.now in ('pending', 'running')),
           count(*) filter (where turn.now = 'completed'), count(*) filter (where turn.now = 'failed'),
           count(*) filter (where turn.now = 'cancelled'), count(*) filter (where turn.now = 'interrupted'),
           percentile_cont(0.5) within group (order by turn.waited),
           percentile_cont(0.95) within group (order by turn.waited),
           coalesce(sum(turn.read), 0)::bigint, coalesce(sum(turn.cached), 0)::bigint, coalesce(sum(turn.written), 0)::bigint
    from generate_series(0, p_stretches - 1) n left join turn on turn.since = v_first + n * v_stretch
    group by n order by n;
end $$;

create function coder.show_chat(p_chat uuid) returns table (
    id uuid, session_id uuid, context_size bigint, context_limit bigint, compacted_from uuid, created_at timestamptz, closed_at timestamptz
) language sql rows 1 as $$
    select c.id, c.session_id, c.context_size, c.context_limit, c.compacted_from, c.created_at, c.closed_at from chats c where c.id = p_chat;
$$;

create function coder.show_permission(p_permission uuid) returns table (
    id uuid, kind text, state text, project_id uuid, project text, session_id uuid, task_id bigint, asked_by text, agent text, tool text, asked_for text,
    title text, input json, paths text[], choices jsonb, several boolean, answers text[], message text, actor text, rule_id uuid,
    requested_at timestamptz, deadline timestamptz, answered_at timestamptz, told_at timestamptz
) language sql rows 1 as $$
    select p.id, p.kind, p.state, p.project_id, j.name, p.session_id, p.task_id, (select t.asked_by from tasks t where t.id = p.task_id), p.agent, p.tool, p.asked_for, p.title, p.input, p.paths,
           p.choices, p.several, p.answers, p.message, p.actor, p.rule_id, p.requested_at, p.deadline, p.answered_at, p.told_at
    from permissions p join projects j on j.id = p.project_id where p.id = p_permission;
$$;

create function coder.show_rule(p_rule uuid) returns table (
    id uuid, project_id uuid, project text, session_id uuid, tool text, pattern text, actor text, created_at timestamptz
) language sql rows 1 as $$
    select r.id, r.project_id, j.name, r.session_id, r.tool, r.pattern, r.actor, r.created_at
    from permission_rules r join projects j on j.id = r.project_id where r.id = p_rule;
$$;

-- Without a volatile function, so that a list of some sessions reads no others.
create view coder.shown_sessions as
    select s.id, s.project_id, p.name as project, s.workspace_id, s.title, s.status, q.state as queue_state,
           q.state in ('ready', 'scheduled') and q.host_id is not null
               and not exists (select from nodes n where n.host_id = q.host_id and n.lease_until > statement_timestamp()) as waiting_for_host,
           q.held_by, s.on_failure, s.cwd, coder.effective_cwd(s.cwd, g.default_cwd, p.path) as effective_cwd, w.path as worktree, q.host_id,
           (select count(*) from tasks t where t.session_id = s.id and t.waiting) as pending_tasks, q.running_task,
           (select c.id from pending_changes c where c.session_id = s.id and c.state in ('pending', 'applying', 'conflicted')) as open_change_id,
           k.context_size, k.context_limit, k.compacted_from, s.created_at, s.last_activity_at, s.closed_at
    from sessions s join projects p on p.id = s.project_id join workspaces g on g.id = s.workspace_id
         left join session_queue q on q.session_id = s.id left join session_worktrees w on w.session_id = s.id and w.removed_at is null
         left join lateral (select c.context_size, c.context_limit, c.compacted_from from chats c where c.session_id = s.id order by c.created_at desc limit 1) k on true;

create function coder.show_session(p_session uuid) returns setof coder.shown_sessions language sql rows 1 as $$
    select * from coder.shown_sessions where id = p_session;
$$;

create function coder.show_workspace(p_workspace text) returns table (
    id text, title text, default_cwd text, session_count bigint, created_at timestamptz, last_activity_at timestamptz
) language sql rows 1 as $$
    select w.id, w.title, w.default_cwd, (select count(*) from sessions s where s.workspace_id = w.id), w.created_at, a.last_activity_at
    from workspaces w join coder.workspace_activity a on a.id = w.id where w.id = p_workspace;
$$;

create function coder.show_decision(p_decision uuid) returns table (
    id uuid, change_id uuid, session_id uuid, project_id uuid, project text, kind text, target text, branch text, commit boolean, push boolean, work text, actor text,
    reason text, parts jsonb, state text, outcome text, error text, facts jsonb, fingerprint text, change_state text, left_change_id uuid,
    created_at timestamptz, started_at timestamptz, ended_at timestamptz
) language sql rows 1 as $$
    select d.id, d.change_id, d.session_id, d.project_id, p.name, d.kind, d.target, d.branch, d.commit, d.push, d.work, d.actor, d.reason,
           (select coalesce(jsonb_agg(p - '{file,line,lines}'::text[]), '[]') from jsonb_array_elements(d.parts) p), d.state, d.outcome,
           d.error, d.facts, d.fingerprint, c.state, d.left_change, d.created_at, d.started_at, d.ended_at
    from decisions d join pending_changes c on c.id = d.change_id join projects p on p.id = d.project_id where d.id = p_decision;
$$;

create function coder.show_comment(p_comment uuid) returns table (
    id uuid, session_id uuid, project_id uuid, project text, change_id uuid, path text, side text, line int, end_line int, outdated boolean,
    code text, body text, author text, state text, task_id bigint, resolved_by text, resolved_at timestamptz, first_change_id uuid,
    first_path text, first_line int, first_end_line int, created_at timestamptz, edited_at timestamptz
) language sql rows 1 as $$
    select k.id, k.session_id, k.project_id, p.name, k.change_id,
           coalesce((select f.display from change_files f where f.change_id = k.change_id and f.path = k.path limit 1), coder.as_text(k.path)),
           k.side, k.line, k.end_line, k.outdated, k.code, k.body, k.author,
           case when k.task_id is null then 'draft' when k.resolved_at is null then 'open' else 'resolved' end,
           k.task_id, k.resolved_by, k.resolved_at, k.first_change_id, coder.as_text(k.first_path), k.first_line, k.first_end_line,
           k.created_at, k.edited_at
    from comments k join projects p on p.id = k.project_id where k.id = p_comment;
$$;

create function coder.show_check(p_check uuid) returns table (
    id uuid, change_id uuid, session_id uuid, project_id uuid, task_id bigint, command text, state text, exit_code int, detail text, output text,
    fixes int, fix_task bigint, created_at timestamptz, started_at timestamptz, ended_at timestamptz, seconds float8
) language sql rows 1 as $$
    select k.id, k.change_id, k.session_id, k.project_id, k.task_id, k.command, k.state, k.exit_code, k.detail, k.output, k.fixes, k.fix_task,
           k.created_at, k.started_at, k.ended_at, extract(epoch from k.ended_at - k.started_at)::float8
    from checks k where k.id = p_check;
$$;

create function coder.add_project(
    p_name text, p_path text, p_host uuid, p_permission_policy text default null, p_network text default null
) returns projects language plpgsql as $$
declare
    p projects;
begin
    if p_name is null or p_name !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' then
        perform coder.refuse('CD422', format('A project is named by 1 to 100 of A-Z, a-z, 0-9, ".", "_" and "-", starting with a letter or digit; %L is not.', p_name));
    elsif p_path is null or p_path !~ '^/' then
        perform coder.refuse('CD422', format('The path of a project is absolute; %L is not.', p_path));
    end if;
    insert into projects (name, path, host_id) values (p_name, p_path, p_host) on conflict (name) do nothing returning * into p;
    if p.id is null then
        perform coder.refuse('CD409', format('There is already a project %s; use it, or choose another name.', p_name));
    end if;
    perform coder.set_project(p_name, p_permission_policy, p_network);
    select * into p from projects where id = p.id;
    return p;
end $$;

reset search_path;
