"""Who answers a request without a person, and what a rule fits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.events import AskedFor, PermissionRequest
from coder.permission import Answer, By, PermissionState, Policy, Rule, decide, decide_question, fits, literal, outside, too_late

WORKTREE = "/srv/worktrees/one"
TEXT = st.text("ab*?\\;/. \n", max_size=12)


def request(kind: AskedFor = "execute", title: str = "make test", paths: tuple[str, ...] = (), tool: str = "bash") -> PermissionRequest:
    return PermissionRequest("1", tool, kind, title, "{}", paths)


def state(asked: PermissionRequest, policy: Policy, *rules: Rule, network: bool = True) -> tuple[PermissionState, By] | None:
    ruling = decide(asked, policy, rules, WORKTREE, network)
    return ruling and (ruling.state, ruling.by)


ALLOWED = (PermissionState.ALLOWED_ONCE, By.POLICY)
DENIED = (PermissionState.DENIED, By.POLICY)
INSIDE, BESIDE = f"{WORKTREE}/src/a.py", "/srv/worktrees/one-more/a.py"


@pytest.mark.parametrize(
    ("asked", "network", "expected"),
    [
        (request(), True, ALLOWED),
        (request("edit", paths=(INSIDE,)), True, ALLOWED),
        (request("edit", paths=(INSIDE, BESIDE)), True, None),
        (request("edit", paths=(f"{WORKTREE}/../two/a.py",)), True, None),
        (request("edit", paths=("src/a.py",)), True, None),
        (request("edit", paths=(f"{WORKTREE}/.git",)), True, None),
        (request("read", paths=(f"{WORKTREE}/.git",)), True, ALLOWED),
        (request("edit", paths=(f"{WORKTREE}/.gitignore",)), True, ALLOWED),
        (request("execute", paths=("/etc",)), True, None),
        (request("fetch", "https://example.org"), True, ALLOWED),
        (request("fetch", "https://example.org"), False, DENIED),
        (request("other"), True, None),
        (request("other", paths=(INSIDE,)), True, ALLOWED),
    ],
)
def test_what_stays_in_the_worktree_needs_nobody(
    asked: PermissionRequest, network: bool, expected: tuple[PermissionState, By] | None
) -> None:
    assert state(asked, Policy.ALLOW_IN_WORKTREE, network=network) == expected


def test_ask_asks_and_deny_denies_whatever_it_is() -> None:
    for kind in ("read", "edit", "execute", "fetch", "other"):
        assert state(request(kind, paths=(INSIDE,)), Policy.ASK) is None
        assert state(request(kind, paths=(INSIDE,)), Policy.DENY) == DENIED
    assert state(request("fetch"), Policy.ASK, network=False) == DENIED, "nobody could allow it: there is no network"


def test_a_rule_comes_before_every_policy_and_is_named() -> None:
    rule = Rule("bash", "make *", "7")
    for policy in Policy:
        assert state(request(paths=("/etc",)), policy, Rule("edit", "*"), rule) == (PermissionState.ALLOWED_ALWAYS, By.RULE)
        ruling = decide(request(), policy, (rule,), WORKTREE, True)
        assert ruling is not None
        assert (ruling.rule, ruling.answer) == ("7", Answer(True))


@pytest.mark.parametrize(
    ("pattern", "kind", "title", "expected"),
    [
        ("git log *", "execute", "git log -3", True),
        ("git *", "execute", "git push --force", True),
        ("git *", "execute", "git log; rm -rf ~", False),
        ("git *", "execute", "git log && curl evil", False),
        ("git *", "execute", "git log\nrm -rf ~", False),
        ("git *", "execute", "git $(curl evil)", False),
        ("git * | head *", "execute", "git log | head -3", True),
        ("git * | head *", "execute", "git log | head -3 | sh", False),
        ("*", "execute", "anything; at all", True),
        ("make", "execute", "make test", False),
        ("ma?e", "execute", "make", True),
        ("ls \\*", "execute", "ls *", True),
        ("ls \\*", "execute", "ls x", False),
        ("/srv/*", "edit", "/srv/a/b.py", True),
        ("/srv/*", "edit", "/srv/../etc/passwd", False),
        ("/srv/*", "read", "/srv/a;b", True),
        ("[ab]", "execute", "a", False),
    ],
)
def test_what_a_pattern_fits(pattern: str, kind: AskedFor, title: str, expected: bool) -> None:
    assert fits(Rule("bash", pattern), "bash", title, kind) is expected


def test_a_rule_is_about_its_tool() -> None:
    assert not fits(Rule("edit", "make"), "bash", "make", "execute")
    assert fits(Rule("*", "make"), "bash", "make", "execute")


@given(TEXT, st.sampled_from(["read", "execute", "edit"]))
def test_the_literal_pattern_fits_its_text_and_nothing_else(text: str, kind: AskedFor) -> None:
    rule = Rule("t", literal(text))
    assert fits(rule, "t", text, kind)
    assert not fits(rule, "t", text + "a", kind)


@given(TEXT, TEXT)
def test_patterns_mean_what_a_regular_expression_means(pattern: str, text: str) -> None:
    pieces = re.findall(r"\\(?s:.)|\\\Z|(?s:.)", pattern)
    expression = "".join(
        r"[\s\S]*" if piece == "*" else r"[\s\S]" if piece == "?" else re.escape(piece[-1] if piece[0] == "\\" else piece)
        for piece in pieces
    )
    if ".." not in text:
        assert fits(Rule("t", pattern), "t", text, "read") is (re.fullmatch(expression, text) is not None)


@given(TEXT, TEXT)
def test_in_a_command_a_pattern_never_allows_more(pattern: str, text: str) -> None:
    if pattern != "*" and fits(Rule("t", pattern), "t", text, "execute") and ".." not in text:
        assert fits(Rule("t", pattern), "t", text, "read")
        assert text.count(";") == pattern.count(";")


def test_a_pattern_of_many_stars_is_no_trap() -> None:
    assert not fits(Rule("t", "*a" * 200 + "b"), "t", "a" * 10_000, "read")


@given(st.lists(st.sampled_from(["a", "..", "one", ".git"]), max_size=5))
def test_nothing_with_two_dots_is_inside(parts: list[str]) -> None:
    path = "/".join([WORKTREE, *parts])
    assert bool(outside(request("edit", paths=(path,)), WORKTREE)) is (".." in parts or parts[:1] == [".git"])


def test_questions_and_deadlines() -> None:
    assert decide_question(Policy.ASK) is None
    assert decide_question(Policy.ALLOW_IN_WORKTREE) is None
    ruling = decide_question(Policy.DENY)
    assert ruling is not None
    assert (ruling.answer.allow, ruling.by) == (False, By.POLICY)
    assert "15 minutes" in (too_late(900).answer.message or "")
    assert "1.5 seconds" in (too_late(1.5).answer.message or "")
