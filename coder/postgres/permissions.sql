-- What a node asks of permissions while its turns wait. The work is in the functions of schema.sql.

-- name: rules
select id::text, tool, pattern from permission_rules
where project_id = :project and (session_id is null or session_id = :session) order by created_at;

-- name: ask
select id, state, message, answers from coder.ask(:task, :epoch, :request, :input, :wait, :answer);

-- name: answers
select id, state, message, answers from permissions where id = any (:ids) and state <> 'requested';

-- name: settle
select id, state, message, answers from coder.settle_permission(:id, :epoch, :answer);

-- name: told
select coder.told(:id, :epoch);
