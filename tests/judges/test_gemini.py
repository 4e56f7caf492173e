"""The Gemini judge: the real client against a local server that speaks the REST protocol."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from asking import Waiting, ask_all, call, judge_threads
from fake_gemini import (
    KEY,
    MODEL,
    VERSION,
    failing,
    finish_blocked,
    gemini,
    no_candidates,
    prompt_blocked,
    said,
    thought_then_said,
    wrong_key,
)
from fake_server import Answer, FakeServer

from lem.data.prices import Price
from lem.errors import UserError
from lem.judges.backends.budget import Budget
from lem.judges.backends.gemini import THINKING_TOKENS, open_gemini
from lem.judges.backends.remote import RemoteJudge
from lem.judges.conduct import Pass, judge_ratings
from lem.judges.manifest import same_judge
from lem.judges.protocol import Ending
from scripted_judge import ScriptedJudge, complete, evaluated, lines_of, write_run

PRICE = Price(1.0, 4.0, "USD", "2026-11-01")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


def opened(server: FakeServer, monkeypatch: pytest.MonkeyPatch, waiting: Waiting, **limits: object) -> RemoteJudge:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
    return open_gemini("g", MODEL, waiting.limits(**limits))  # type: ignore[arg-type]


def test_a_reply_comes_with_text_version_tokens_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({"q": [thought_then_said("hm", '{"safety": 7}')]}) as server:
        reply = ask_all(opened(server, monkeypatch, Waiting(), budget=Budget(1.0, PRICE)), ["q"])["q"]
    assert (reply.ending, reply.text, reply.model) == (Ending.COMPLETE, '{"safety": 7}', VERSION)
    assert (reply.n_prompt_tokens, reply.n_tokens) == (11, 5 + 7)
    assert reply.cost == pytest.approx((11 * 1.0 + 12 * 4.0) / 1e6)


def test_the_request_has_texts_schema_limit_and_the_key_in_a_header_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({}) as server:
        ask_all(opened(server, monkeypatch, Waiting()), ["q"])
    described, asked = server.requests
    assert described.path.endswith(f"/models/{MODEL}")
    assert asked.path == f"{described.path}:generateContent"
    assert asked.headers["x-goog-api-key"] == KEY
    assert KEY not in asked.path
    assert asked.body["systemInstruction"]["parts"][0]["text"] == "You judge."
    config = asked.body["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert config["maxOutputTokens"] == 64 + THINKING_TOKENS
    schema = config["responseJsonSchema"]
    assert schema["properties"]["item"] == {"type": "string"}, "a code that cannot be written wrong proves nothing"
    assert schema["properties"]["safety"] == {"type": "integer", "minimum": 1, "maximum": 10}
    assert (schema["required"], schema["additionalProperties"]) == (["item", "rationale", "safety"], False)
    assert list(schema["properties"]) == ["item", "rationale", "safety"]
    assert "temperature" not in config  # deprecated from Gemini 3 on
    assert config["thinkingConfig"] == {"thinking_level": "LOW"}


def test_an_older_model_gets_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({}, models=["gemini-2.5-flash"]) as server:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        judge = open_gemini("g", "gemini-2.5-flash", Waiting().limits(), temperature=0.0)
        ask_all(judge, ["q"])
    config = server.asked()[0].body["generationConfig"]
    assert config["temperature"] == 0
    assert "thinkingConfig" not in config
    assert judge.identity.settings["temperature"] == 0


@pytest.mark.parametrize(
    ("answer", "ending", "text"),
    [
        (prompt_blocked(), Ending.BLOCKED, ""),
        (prompt_blocked("SAFETY"), Ending.BLOCKED, ""),
        (finish_blocked("SAFETY"), Ending.BLOCKED, ""),
        (finish_blocked("RECITATION"), Ending.BLOCKED, ""),
        (finish_blocked("BLOCKLIST"), Ending.BLOCKED, ""),
        (finish_blocked("PROHIBITED_CONTENT"), Ending.BLOCKED, ""),
        (said('{"safety": ', "MAX_TOKENS"), Ending.TRUNCATED, '{"safety": '),
        (said('{"safety": ', "CONTINUATION"), Ending.TRUNCATED, '{"safety": '),
        (said("{not json"), Ending.COMPLETE, "{not json"),
    ],
)
def test_how_a_reply_ended_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, ending: Ending, text: str
) -> None:
    with gemini({"q": [answer]}) as server:
        reply = ask_all(opened(server, monkeypatch, Waiting()), ["q"])["q"]
    assert (reply.ending, reply.text, reply.error) == (ending, text, None)
    assert len(server.asked()) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (no_candidates(), "no candidate"),
        (said("{}", "OTHER"), "finish reason OTHER"),
        (said("{}", "A_REASON_OF_TOMORROW"), "finish reason A_REASON_OF_TOMORROW"),
        (said("{}", "A\x1b[2J_REASON"), "finish reason A[2J_REASON"),
        (Answer(body=b'{"candidates": ['), "no reply of its protocol"),
        (Answer(body={"modelVersion": {"a": 1}}), "no reply of its protocol"),
    ],
)
def test_no_reply_is_failed_with_a_reason_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, error: str
) -> None:
    with gemini({"q": [answer]}) as server:
        reply = ask_all(opened(server, monkeypatch, Waiting()), ["q"])["q"]
    assert reply.ending is Ending.FAILED
    assert error in (reply.error or "")
    assert len(server.asked()) == 1


def test_500_then_success(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting()
    with gemini({"q": [failing(500, "INTERNAL"), failing(503, "UNAVAILABLE"), said("{}")]}) as server:
        reply = ask_all(opened(server, monkeypatch, waiting), ["q"])["q"]
    assert reply.ending is Ending.COMPLETE
    assert len(server.asked()) == 3
    assert len(waiting.slept) == 2
    assert 1 <= waiting.slept[0] <= 2 <= waiting.slept[1] <= 3  # doubling, with up to a second of jitter


@pytest.mark.parametrize(
    "answer",
    [
        failing(429, "RESOURCE_EXHAUSTED", headers={"Retry-After": "33"}),
        failing(
            429,
            "RESOURCE_EXHAUSTED",
            headers={"Date": "Sun, 01 Nov 2026 12:00:00 GMT", "Retry-After": "Sun, 01 Nov 2026 12:00:33 GMT"},
        ),
        failing(
            429,
            "RESOURCE_EXHAUSTED",
            details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33s"}],
        ),
    ],
    ids=["seconds", "date", "body"],
)
def test_a_named_wait_is_waited(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    waiting = Waiting()
    with gemini({"q": [answer, said("{}")]}) as server:
        reply = ask_all(opened(server, monkeypatch, waiting), ["q"])["q"]
    assert reply.ending is Ending.COMPLETE
    assert waiting.now == pytest.approx(33)


def test_after_six_attempts_the_reply_is_failed_and_the_next_call_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({"bad": [failing(503, "UNAVAILABLE")], "good": [said("{}")]}) as server:
        replies = ask_all(opened(server, monkeypatch, Waiting()), ["good", "bad", "good 2"])
    assert replies["bad"].ending is Ending.FAILED
    assert replies["bad"].error == "HTTP 503 (6 attempts)"
    assert (replies["bad"].cost, replies["bad"].n_tokens) == (None, None)
    assert {replies["good"].ending, replies["good 2"].ending} == {Ending.COMPLETE}
    assert len(server.asked()) == 1 + 6 + 1


def test_a_timeout_is_retried_by_us_only(monkeypatch: pytest.MonkeyPatch) -> None:
    never, waiting = threading.Event(), Waiting()
    with gemini({"q": [Answer(hold=never)]}) as server:
        reply = ask_all(opened(server, monkeypatch, waiting, timeout_s=0.5), ["q"])["q"]
        never.set()
    assert reply.ending is Ending.FAILED
    assert "no reply" in (reply.error or "")
    assert len(waiting.slept) == 5
    assert len(server.asked()) <= 6
    assert server.asked()[0].headers["x-server-timeout"] == "1"


def test_a_broken_connection_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({"q": [Answer(drop=True), said("{}")]}) as server:
        reply = ask_all(opened(server, monkeypatch, Waiting()), ["q"])["q"]
    assert reply.ending is Ending.COMPLETE
    assert len(server.asked()) == 2


DENIED = failing(403, "PERMISSION_DENIED", f"key {KEY} may not; see https://x.test/a?key={KEY}&b=1")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (wrong_key(), ("GEMINI_API_KEY", "did not accept the key", "--judge mlx:PATH")),
        (failing(401, "UNAUTHENTICATED", f"bad {KEY}"), ("GEMINI_API_KEY", "HTTP 401")),
        (DENIED, ("may not use", "https://x.test/a)")),
        (failing(404, "NOT_FOUND", "models/x is not found"), ("there is no model gemini-3.8-flash", "--judge")),
    ],
    ids=["400 for a key", "401", "403", "404"],
)
@pytest.mark.parametrize("when", ["opening", "asking"])
def test_what_a_person_must_mend_costs_one_request(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, words: Sequence[str], when: str
) -> None:
    described = answer if when == "opening" else None
    with gemini({"": [answer]}, described=described) as server, pytest.raises(UserError) as raised:  # noqa: PT012
        judge = opened(server, monkeypatch, Waiting())
        server.requests.clear()
        ask_all(judge, [f"q{number}" for number in range(20)])
    text = str(raised.value)
    assert len(server.requests) == 1
    assert all(word in text for word in words)
    assert KEY not in text + repr(raised.value)
    assert judge_threads() == []


def test_a_bad_request_fails_its_call_also_when_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    too_long = failing(400, "INVALID_ARGUMENT", f"too many tokens for {KEY}")
    for questions in (["a", "long", "b"], ["long", "a", "b"]):
        with gemini({"long": [too_long], "": [said("{}")]}) as server:
            replies = ask_all(opened(server, monkeypatch, Waiting()), questions)
        assert replies["long"].ending is Ending.FAILED
        assert replies["long"].error == "HTTP 400: too many tokens for ***"
        assert {replies["a"].ending, replies["b"].ending} == {Ending.COMPLETE}
        assert len(server.asked()) == 3


def test_a_service_in_clear_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lem.judges.backends.gemini._check", lambda *_: None)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://gateway.test")
    with pytest.warns(UserWarning, match=r"http://gateway\.test.*GEMINI_API_KEY.*in clear") as warned:
        open_gemini("g", MODEL, Waiting().limits())
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("url", "service"),
    [
        (None, None),
        ("https://generativelanguage.googleapis.com/", None),
        ("https://GENERATIVELANGUAGE.googleapis.com:443", None),
        ("https://gateway.test/google", "https://gateway.test/google"),
        ("http://127.0.0.1:4000", "http://localhost:4000"),
    ],
)
def test_another_address_is_part_of_who_judges(
    monkeypatch: pytest.MonkeyPatch, url: str | None, service: str | None
) -> None:
    monkeypatch.setattr("lem.judges.backends.gemini._check", lambda *_: None)
    monkeypatch.delenv("GOOGLE_GEMINI_BASE_URL", raising=False)
    own = open_gemini("g", MODEL, Waiting().limits()).identity
    assert "service" not in own.settings
    if url is not None:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", url)
    found = open_gemini("g", MODEL, Waiting().limits()).identity
    assert found.settings.get("service") == service
    assert same_judge(asdict(own), found) is (service is None)


def test_another_model_behind_a_proxy_of_this_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server says that VERSION answered; the verdicts before are by another model."""
    run = write_run(tmp_path / "run", evaluated())
    with gemini({}) as server:
        judge = opened(server, monkeypatch, Waiting())
        before = ScriptedJudge(lambda one: replace(complete(one), model="gemini-of-before"), judge.identity)
        judge_ratings(run, before, Pass(), ["safety"], ["do_not_answer"])
        with (
            judge,
            pytest.raises(UserError, match=f"as gemini-of-before so far, .*localhost.* now answers as {VERSION}"),
        ):
            judge_ratings(run, judge, Pass(), ["nuance"], ["do_not_answer"])
    assert {line["model"] for line in lines_of(run, "g")} == {"gemini-of-before"}


def test_no_key_names_the_variable_and_the_ways_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", " ")
    with pytest.raises(UserError, match=r"GEMINI_API_KEY.*--judge mlx:PATH`\.$"):
        open_gemini("g", MODEL, Waiting().limits())


def test_the_other_variable_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.setenv("GOOGLE_API_KEY", "other-key")
    with gemini({}) as server:
        ask_all(opened(server, monkeypatch, Waiting()), ["q"])
    assert {request.headers["x-goog-api-key"] for request in server.requests} == {"other-key"}


def test_a_key_that_cannot_be_one_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "sécret-schlüssel")
    with pytest.raises(UserError, match="GEMINI_API_KEY holds characters") as raised:
        open_gemini("g", MODEL, Waiting().limits())
    assert "schl" not in str(raised.value)


def test_no_server_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({}) as server:
        pass
    with pytest.raises(UserError, match="cannot be reached"):
        opened(server, monkeypatch, Waiting())


def test_a_gateway_without_the_models_page_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({}, described=Answer(404, b"Not Found")) as server:
        assert ask_all(opened(server, monkeypatch, Waiting()), ["q"])["q"].ending is Ending.COMPLETE


def test_the_key_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    with gemini({}) as server:
        judge = opened(server, monkeypatch, Waiting())
    assert KEY not in repr(judge) + repr(judge.identity) + repr(judge.service) + repr(vars(judge))
    assert call("q").id == "q"
