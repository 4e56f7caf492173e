"""The pass over many calls: how many at once, who waits, what ends it, and what it may cost."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asking import Waiting, call, judge_threads
from fake_openai import MODEL, failing, openai, said
from fake_server import Answer

from lem.data.prices import Price
from lem.errors import UserError
from lem.judges.backends.budget import Budget
from lem.judges.backends.faults import BadCall, Passing, Service, fault_of, retry_after
from lem.judges.backends.openai import open_openai
from lem.judges.backends.remote import RemoteJudge, stream
from lem.judges.backends.remote_pass import Ask, Connect
from lem.judges.protocol import Call, Ending, JudgeIdentity, Reply

SERVICE = Service("j", "m", "http://127.0.0.1:1/v1", "OPENAI_API_KEY")
PRICE = Price(1.0, 1.0, "USD", "2026-11-01")


def connected(ask: Callable[[Call], Awaitable[Reply]]) -> Connect:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Ask]:
        yield ask

    return connect


def done(one: Call, read: int = 100, written: int = 10) -> Reply:
    return Reply(one.id, Ending.COMPLETE, "{}", None, "m", read, written)


async def until_three(three: asyncio.Event, under_way: int) -> None:
    """Hold calls until three are under way, which takes as long as the replies before are not taken."""
    if under_way == 3:
        three.set()
    await asyncio.wait_for(three.wait(), 30)


def test_the_first_call_goes_alone_then_as_many_as_asked_for() -> None:
    under_way, most, order, three = 0, [0, 0], [], asyncio.Event()

    async def ask(one: Call) -> Reply:
        nonlocal under_way
        under_way += 1
        phase = 0 if not order else 1
        most[phase] = max(most[phase], under_way)
        if phase:
            await until_three(three, under_way)
        for _ in range(20):
            await asyncio.sleep(0)
        order.append(one.id)
        under_way -= 1
        return done(one)

    calls = [call(f"q{number}") for number in range(12)]
    found = [reply.id for reply in stream(calls, connected(ask), SERVICE, Waiting().limits(concurrency=3))]
    assert most == [1, 3]
    assert sorted(found) == sorted(one.id for one in calls)


def test_replies_that_nobody_took_hold_their_places() -> None:
    asked: list[str] = []

    async def ask(one: Call) -> Reply:
        asked.append(one.id)
        return done(one)

    replies = stream([call(f"q{n}") for n in range(50)], connected(ask), SERVICE, Waiting().limits(concurrency=2))
    next(replies)
    replies.close()
    assert len(asked) <= 1 + 2  # one taken, two places
    assert judge_threads() == []


def test_closing_cancels_what_is_under_way_at_once() -> None:
    never = threading.Event()
    with openai({"slow": [Answer(hold=never)], "": [said("{}")]}) as server:
        judge = open_openai("o", MODEL, f"{server.url}/v1", Waiting().limits())
        replies = judge.replies([call("fast"), call("slow")], {"fast", "slow"})
        assert next(iter(replies)).id == "fast"
        with judge:
            pass  # the judge's end ends its iterators
        assert judge_threads() == []
        assert not never.is_set()
        never.set()


def test_ctrl_c_while_waiting_leaves_no_thread() -> None:
    reached = threading.Event()

    async def ask(one: Call) -> Reply:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    def interrupt() -> None:
        reached.wait(30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(stream([call("q")], connected(ask), SERVICE, Waiting().limits()))
    thread.join()
    assert judge_threads() == []


def test_a_named_wait_holds_for_all_calls() -> None:
    waiting, sent = Waiting(), []
    c_is_under_way, b_was_told = asyncio.Event(), asyncio.Event()

    async def ask(one: Call) -> Reply:
        sent.append((one.id, waiting.now))
        if one.id == "b" and [name for name, _ in sent].count("b") == 1:
            await c_is_under_way.wait()
            b_was_told.set()
            raise Passing("HTTP 429", pause_s=100)
        if one.id == "c":
            c_is_under_way.set()
            await b_was_told.wait()
        return done(one)

    calls = [call(name) for name in "abcdef"]
    replies = list(stream(calls, connected(ask), SERVICE, waiting.limits(concurrency=2)))
    assert {reply.ending for reply in replies} == {Ending.COMPLETE}
    assert [name for name, at in sent if at < 100] == ["a", "b", "c"]  # sent before the wait was named
    assert sorted(name for name, at in sent if at >= 100) == ["b", "d", "e", "f"]


def test_a_wait_of_hours_is_not_waited() -> None:
    async def ask(one: Call) -> Reply:
        raise Passing("HTTP 429", pause_s=7200)

    with pytest.raises(UserError, match="asks to wait 7200 s"):
        list(stream([call("q")], connected(ask), SERVICE, Waiting().limits()))


def test_a_service_that_never_answers_is_given_up() -> None:
    waiting, count = Waiting(), 0

    async def ask(one: Call) -> Reply:
        nonlocal count
        count += 1
        raise Passing("HTTP 503")

    replies = stream([call(f"q{n}") for n in range(99)], connected(ask), SERVICE, waiting.limits())
    with pytest.raises(UserError, match="3 calls in a row"):
        list(replies)
    assert count == 3 * 6


def refusing(good: Callable[[str], bool], sent: list[str]) -> Callable[[Call], Awaitable[Reply]]:
    """Answers the calls that are good and refuses the others."""

    async def ask(one: Call) -> Reply:
        sent.append(one.id)
        await asyncio.sleep(0)
        if not good(one.id):
            raise BadCall("HTTP 400: too long")
        return done(one)

    return ask


def test_a_first_call_that_is_refused_fails_alone() -> None:
    sent: list[str] = []
    calls = [call("a long one"), *(call(name) for name in "bcdef")]
    found = list(stream(calls, connected(refusing(lambda name: len(name) == 1, sent)), SERVICE, Waiting().limits()))
    assert {reply.id: reply.error for reply in found if reply.ending is Ending.FAILED} == {
        "a long one": "HTTP 400: too long"
    }
    assert sorted(sent) == sorted(one.id for one in calls)


def test_calls_go_one_by_one_until_one_is_answered() -> None:
    most, under_way, answered, three = [0, 0], 0, 0, asyncio.Event()

    async def ask(one: Call) -> Reply:
        nonlocal under_way, answered
        under_way += 1
        phase = min(answered, 1)
        most[phase] = max(most[phase], under_way)
        if phase:
            await until_three(three, under_way)
        for _ in range(9):
            await asyncio.sleep(0)
        under_way -= 1
        if one.id in ("q0", "q1"):
            raise BadCall("HTTP 400: no")
        answered += 1
        return done(one)

    list(stream([call(f"q{n}") for n in range(9)], connected(ask), SERVICE, Waiting().limits(concurrency=3)))
    assert most == [1, 3]


def test_long_calls_at_the_start_do_not_keep_the_others_from_being_asked() -> None:
    sent: list[str] = []
    names = [f"{n} " + "x" * 50 for n in range(40)] + list("abcde")
    ask = connected(refusing(lambda name: len(name) == 1, sent))
    found = list(stream([call(name) for name in names], ask, SERVICE, Waiting().limits()))
    assert sum(reply.ending is Ending.FAILED for reply in found) == 40
    assert sorted(sent) == sorted(names)


def test_a_service_that_refuses_every_call_is_given_up_with_a_hint() -> None:
    sent: list[str] = []
    replies = stream(
        [call(f"q{n}") for n in range(99)], connected(refusing(lambda name: False, sent)), SERVICE, Waiting().limits()
    )
    found: list[Reply] = []
    with pytest.raises(UserError, match=r"3 calls in a row .*HTTP 400: too long.*the model's name and the URL"):
        found.extend(replies)
    assert len(sent) == 3
    assert judge_threads() == []


@pytest.mark.parametrize("left", [1, 5, 30])
def test_a_resumed_pass_of_refused_calls_only_ends_with_failed_replies(left: int) -> None:
    sent: list[str] = []
    calls = [call(f"q{n}") for n in range(left + 1)]
    judge = RemoteJudge(
        JudgeIdentity("j", "openai", "m", {}, {}), SERVICE, Waiting().limits(),
        connected(refusing(lambda name: False, sent)),
    )  # fmt: skip
    found = list(judge.replies(calls, {one.id for one in calls[1:]}))
    assert [(reply.ending, reply.error) for reply in found] == [(Ending.FAILED, "HTTP 400: too long")] * left
    assert len(sent) == left


def test_a_resumed_pass_still_gives_up_a_service_that_is_down() -> None:
    async def ask(one: Call) -> Reply:
        raise Passing("HTTP 503")

    calls = [call(f"q{n}") for n in range(9)]
    judge = RemoteJudge(JudgeIdentity("j", "openai", "m", {}, {}), SERVICE, Waiting().limits(), connected(ask))
    with pytest.raises(UserError, match="3 calls in a row"):
        list(judge.replies(calls, {one.id for one in calls[1:]}))


def test_a_server_that_goes_away_ends_the_pass_after_its_attempts() -> None:
    async def ask(one: Call) -> Reply:
        if one.id == "a":
            return done(one)
        raise Passing("no connection", unreachable=True)

    waiting = Waiting()
    replies = stream([call(n) for n in "abcd"], connected(ask), SERVICE, waiting.limits(concurrency=1))
    assert next(replies).id == "a"
    with pytest.raises(UserError, match="cannot be reached"):
        next(replies)
    assert len(waiting.slept) == 5


def test_an_unreachable_server_is_not_asked_twice() -> None:
    count = 0

    async def ask(one: Call) -> Reply:
        nonlocal count
        count += 1
        raise Passing("no connection", unreachable=True)

    with pytest.raises(UserError, match="cannot be reached"):
        list(stream([call(f"q{n}") for n in range(9)], connected(ask), SERVICE, Waiting().limits()))
    assert count == 1


def test_a_bug_stays_a_bug() -> None:
    async def ask(one: Call) -> Reply:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        list(stream([call("q")], connected(ask), SERVICE, Waiting().limits()))
    assert judge_threads() == []


def test_no_calls_no_thread() -> None:
    assert list(stream([], connected(lambda one: asyncio.sleep(0, done(one))), SERVICE, Waiting().limits())) == []


# -- money -------------------------------------------------------------------------------------------------------------


def estimate(one: Call) -> float:
    """Longhand: a token for each byte of texts and schema and 256 for the frame, and every token of the limit."""
    import json

    read = len((one.system + one.user).encode()) + len(json.dumps(one.schema)) + 256
    return (read * PRICE.input + one.max_tokens * PRICE.output) / 1e6


def test_concurrent_calls_cannot_pass_the_limit() -> None:
    calls = [call(f"q{number:02}") for number in range(40)]
    most = estimate(calls[0])
    budget = Budget(most * 5.5, PRICE)
    together, asked = 0, 0

    async def ask(one: Call) -> Reply:
        nonlocal together, asked
        together += 1
        asked += 1
        assert budget.spent + together * most <= budget.max_cost + 1e-12  # type: ignore[operator]
        for _ in range(5):
            await asyncio.sleep(0)
        together -= 1
        return done(one, read=round(most * 1e6), written=0)  # as dear as can be

    replies = list(stream(calls, connected(ask), SERVICE, Waiting().limits(concurrency=8, budget=budget)))
    assert asked == len(replies) == 5
    assert budget.spent == pytest.approx(5 * most)
    assert sum(reply.cost or 0 for reply in replies) == pytest.approx(budget.spent)


def test_what_a_cheap_reply_leaves_is_used() -> None:
    calls = [call(f"q{number:02}") for number in range(40)]
    most = estimate(calls[0])
    cheap = (100 + 10) / 1e6
    budget = Budget(most * 2.5, PRICE)

    async def ask(one: Call) -> Reply:
        await asyncio.sleep(0)
        return done(one)

    replies = list(stream(calls, connected(ask), SERVICE, Waiting().limits(concurrency=8, budget=budget)))
    # Calls go out while what is spent and one estimate fit under the limit.
    assert len(replies) == min(40, int((most * 2.5 - most) / cheap) + 1)
    assert budget.spent <= most * 2.5


def test_a_reply_without_counts_costs_its_estimate() -> None:
    one = call("q")
    budget = Budget(1.0, PRICE)
    assert budget.admit(one)
    assert budget.settle(Reply("q", Ending.COMPLETE, "{}")) == budget.spent == pytest.approx(estimate(one))


def test_attempts_that_may_have_been_charged_count() -> None:
    one = call("q")
    budget = Budget(estimate(one) * 2.5, PRICE)
    count = 0

    async def ask(one: Call) -> Reply:
        nonlocal count
        count += 1
        raise Passing("no reply in time", sent=True)

    replies = list(stream([one], connected(ask), SERVICE, Waiting().limits(budget=budget)))
    assert count == 2
    assert budget.spent == replies[0].cost == pytest.approx(2 * estimate(one))
    assert "no room to ask again" in (replies[0].error or "")


def test_the_cost_of_a_reply_holds_the_charged_attempts_before_it() -> None:
    """Longhand: two attempts that may have been charged at what they can cost, one that was not, and the reply."""
    one, budget = call("q"), Budget(None, PRICE)
    faults = [Passing("no reply in time", sent=True), Passing("HTTP 503"), Passing("it broke", sent=True)]

    async def ask(one: Call) -> Reply:
        if faults:
            raise faults.pop()
        return done(one, read=100, written=10)

    (reply,) = stream([one], connected(ask), SERVICE, Waiting().limits(budget=budget))
    assert reply.cost == pytest.approx(2 * estimate(one) + 110 / 1e6)
    assert budget.spent == budget.committed == pytest.approx(reply.cost)


def test_a_call_that_the_service_does_not_let_in_costs_nothing() -> None:
    budget = Budget(None, PRICE)

    async def ask(one: Call) -> Reply:
        raise UserError("the key is wrong")

    with pytest.raises(UserError):
        list(stream([call("q")], connected(ask), SERVICE, Waiting().limits(budget=budget)))
    assert budget.committed == 0.0


def test_what_was_under_way_when_a_pass_ended_stays_committed() -> None:
    calls, budget = [call(name) for name in ("a", "b", "c")], Budget(None, PRICE)
    both = threading.Barrier(2)
    under_way = 0

    async def ask(one: Call) -> Reply:
        nonlocal under_way
        if one.id == "a":
            return done(one, 100, 10)
        under_way += 1
        if under_way == 2:
            await asyncio.to_thread(both.wait, 30)
        await asyncio.Event().wait()
        raise AssertionError

    judge = RemoteJudge(
        JudgeIdentity("j", "openai", "m"), SERVICE, Waiting().limits(concurrency=3, budget=budget), connected(ask)
    )
    replies = judge.replies(calls, {"a", "b", "c"})
    assert next(replies).cost == pytest.approx(110 / 1e6)
    both.wait(30)
    replies.close()
    assert judge.committed == budget.committed == pytest.approx(110 / 1e6 + 2 * estimate(calls[1]))


def test_errors_that_are_not_charged_do_not_count() -> None:
    budget = Budget(1.0, PRICE)

    async def ask(one: Call) -> Reply:
        raise Passing("HTTP 503")

    reply = next(stream([call("q")], connected(ask), SERVICE, Waiting().limits(budget=budget)))
    assert (reply.ending, reply.cost, budget.spent) == (Ending.FAILED, 0.0, 0.0)
    assert budget.admit(call("other", max_tokens=10))


def test_a_limit_below_one_call_is_a_sentence() -> None:
    async def ask(one: Call) -> Reply:
        raise AssertionError

    limits = Waiting().limits(budget=Budget(1e-6, PRICE))
    with pytest.raises(UserError, match=r"--max-cost 1e-06 is less than one call may cost \(0\.0\d+ USD\)"):
        list(stream([call("q")], connected(ask), SERVICE, limits))


def test_tokens_beyond_the_calls_own_limit_are_set_aside() -> None:
    one = call("q")
    assert Budget(1.0, PRICE).estimate(one, 1000) == pytest.approx(estimate(one) + 1000 / 1e6)
    roomy = replace(Waiting().limits(budget=Budget(estimate(one) + 999 / 1e6, PRICE)), extra_tokens=1000)

    async def ask(one: Call) -> Reply:
        raise AssertionError

    with pytest.raises(UserError, match="less than one call may cost"):
        list(stream([one], connected(ask), SERVICE, roomy))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_must_be_a_number_above_0(limit: float) -> None:
    with pytest.raises(UserError, match="--max-cost"):
        Budget(limit, PRICE)


def test_a_limit_needs_a_price() -> None:
    with pytest.raises(UserError, match="--prices FILE"):
        Budget(1.0, None)
    assert Budget().settle(done(call("q"))) is None


# -- waits and sentences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"Retry-After": "Sun, 01 Nov 2026 12:00:20 GMT"}, 20.0),
        ({"Retry-After": "Sun, 01 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Sun, 01 Nov 2026 12:00:20 GMT", "Date": "Sun, 01 Nov 2026 12:00:15 GMT"}, 5.0),
        ({"Retry-After": "Sunday, 01-Nov-26 12:00:20 GMT"}, 20.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)) == seconds


def test_what_a_service_says_is_shown_without_keys_queries_and_at_length() -> None:
    service = Service("j", "m", "http://x.test", "K", ("sk-secret",))
    shown = service.shown("see https://u:p@x.test/a?key=sk-1&b=2 or\n 'sk-secret' " + "x" * 500)
    assert shown.startswith("see https://x.test/a or '***' xxx")
    assert len(shown) == 200
    assert "sk-" not in repr(service)


def test_nothing_that_steers_a_terminal_is_shown() -> None:
    service = Service("j", "m", "http://x.test", "K", ("sk-secret",))
    said = "no \x1b]0;title\x07\x1b[2J \x9b31m \u202eright to left\tmodel\r\n sk-\x1bsec\u200bret \u2028ende\u0301 ä"
    assert service.shown(said) == "no ]0;title[2J 31m right to left model *** ende\u0301 ä"
    for status in (400, 402, 403, 404, 418):
        assert str(fault_of(service, status, said, {})).isprintable()


def test_the_whole_pass_over_http_uses_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    gate = threading.Barrier(3)

    def hold_all(asked: object) -> None:
        gate.wait(30)

    with openai({"": [said("{}")], "bad": [failing(500), said("{}")]}) as server:
        plain = server.answer

        def answer(asked):  # type: ignore[no-untyped-def]
            if asked.method == "POST" and asked.body["messages"][-1]["content"].startswith("held"):
                hold_all(asked)
            return plain(asked)

        server.answer = answer
        judge = open_openai("o", MODEL, f"{server.url}/v1", Waiting().limits(concurrency=3))
        names = ["first", "held 1", "held 2", "held 3", "bad"]
        found = list(judge.replies([call(name) for name in names], set(names) - {"nothing"}))
    assert {reply.ending for reply in found} == {Ending.COMPLETE}
    assert server.most_at_once == 3
