"""Conversations with a known end, against answers recorded from llama-server: what is bad is said in words."""

import dataclasses
import json
from collections.abc import Sequence

import pytest
from chat_server import HANG_UP, ChatServer, playing, recorded

from glmplan.errors import EngineError
from glmplan.launchers import round_trips
from glmplan.launchers.client import Target
from glmplan.proof import RoundTrip


def called(*answers: str) -> tuple[RoundTrip, ChatServer]:
    with playing(answers) as server:
        return round_trips.tool_call(target_of(server)), server


def thought(*answers: str, switches_thinking: bool | None = True) -> tuple[RoundTrip, ChatServer]:
    with playing(answers) as server:
        target = dataclasses.replace(target_of(server), switches_thinking=switches_thinking)
        return round_trips.thinking(target), server


def target_of(server: ChatServer) -> Target:
    return Target(url=server.url, model="tiny", timings=True)


def test_a_tool_is_called_and_its_result_is_used() -> None:
    trip, server = called("tool call", "answer with the result")
    assert (trip.passed, trip.why) == (True, None)
    assert trip.steps == (
        'called read_gauge with "{"gauge":"boiler"}"',
        'answered "The boiler gauge reads 4817."',
    )
    first, second = server.asked
    assert {first["path"], second["path"]} == {"/v1/chat/completions"}
    assert [tool["function"]["name"] for tool in first["tools"]] == ["read_gauge"]
    assert first["temperature"] == 0
    # The second turn carries the call as it was received, and a result that names it.
    call = recorded("tool call")[1]["choices"][0]["message"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][1] == call
    assert second["messages"][2]["tool_call_id"] == call["tool_calls"][0]["id"]
    assert json.loads(second["messages"][2]["content"])["reading"] == 4817


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["tool call cut short"], "the arguments of the tool call are no JSON object"),
        (["noise"], "no tool call came back but the text"),
        (["no thoughts"], 'no tool call came back but the text "42"'),
        (["thoughts in the content"], "no tool call came back"),
        (["tool call", "answer without the result"], "the answer does not use the tool's result 4817"),
        (["tool call", "tool call"], "the tool was called again instead of using its result"),
        (["tool call", "thoughts in the content"], "in the answer after the tool's result, </think> is left"),
    ],
)
def test_a_bad_answer_is_a_failure_in_words(answers: Sequence[str], why: str) -> None:
    trip, server = called(*answers)
    assert trip.passed is False
    assert why in (trip.why or "")
    assert server.answers == []
    assert len(trip.steps) == len(answers) - 1
    assert (trip.why or "").isprintable()


def test_thoughts_come_when_asked_for_and_only_then() -> None:
    trip, server = thought("no thoughts", "thoughts apart")
    assert (trip.passed, trip.why) == (True, None)
    assert [asked["chat_template_kwargs"] for asked in server.asked] == [
        {"enable_thinking": False},
        {"enable_thinking": True},
    ]
    assert trip.steps == (
        'with thinking off: answered "42", no reasoning_content',
        "with thinking on: 17 characters of reasoning_content",
    )


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["thoughts in the content"], "with thinking off, in the answer, </think> is left in the content"),
        (["thoughts apart"], 'with thinking off, reasoning_content came back: "17 and 25 are 42."'),
        (["noise"], "with thinking off, the answer is not 42 but the text"),
        (["no thoughts", "no thoughts"], 'with thinking on, no reasoning_content came back but the text "42"'),
        (["no thoughts", "thoughts in the content"], "with thinking on, in the answer, </think> is left"),
    ],
)
def test_thoughts_in_the_wrong_place_are_a_failure_in_words(answers: Sequence[str], why: str) -> None:
    trip, server = thought(*answers)
    assert trip.passed is False
    assert why in (trip.why or "")
    assert server.answers == []


def test_a_template_without_the_switch_is_not_asked_to_think() -> None:
    trip, server = thought(switches_thinking=False)
    assert (trip.passed, server.asked) == (None, [])
    assert "enable_thinking" in (trip.why or "")


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["no parse of the call"], "HTTP 500): The model produced output that does not match"),
        (["tool call", "arguments refused"], "HTTP 500): Failed to parse tool call arguments as JSON"),
        ([HANG_UP], "broke off a chat completion"),
    ],
)
def test_a_server_that_refuses_or_hangs_up_is_an_error_with_its_words(answers: Sequence[str], why: str) -> None:
    with pytest.raises(EngineError, match=why.replace(")", r"\)")):
        called(*answers)
