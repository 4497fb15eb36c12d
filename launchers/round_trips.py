"""Two conversations with a known end: a tool is called and its result used; thoughts come when asked for, only then.

They go through the endpoint that clients use, so that the engine's chat template and its parsers are proven with the
weights. What comes back wrong is an answer in words; only an engine that breaks off or refuses is an error.
"""

import json
from typing import Final

from glmplan.launchers.chat import ChatAnswer, ChatQuestion, Message, chat
from glmplan.launchers.client import Target
from glmplan.launchers.json_values import document
from glmplan.proof import RoundTrip

# Enough for what is wanted, so that a slow machine is not kept long by one that talks on.
_CALL_TOKENS, _ANSWER_TOKENS, _SUM_TOKENS, _THINKING_TOKENS = 96, 64, 24, 32
_SHOWN_CHARACTERS: Final = 120
_TOOL: Final = "read_gauge"
_ARGUMENT: Final = "gauge"
_ASKED: Final = "boiler"
# Nobody guesses it: an answer that names it has read the tool's result.
_RESULT: Final = "4817"
_TOOLS: Final[tuple[Message, ...]] = (
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "Reads the pressure gauge with the given name.",
            "parameters": {
                "type": "object",
                "properties": {_ARGUMENT: {"type": "string", "description": "Name of the gauge."}},
                "required": [_ARGUMENT],
            },
        },
    },
)
_GAUGE_QUESTION: Final = f"What does the gauge named {_ASKED} read? Use the tool {_TOOL}, then tell me the number."
_SUM_QUESTION, _SUM = "What is 17 + 25? Answer with the number.", "42"
# Markup of the template that a parser should have taken out (profiles/models/*.jinja).
_MARKUP: Final = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "<|assistant|>", "<|observation|>")


class _Wrong(Exception):
    """An answer is not what it has to be; says how."""


def tool_call(target: Target) -> RoundTrip:
    """A question that needs a tool, the call, its result, and the answer that uses it.

    Raises:
        EngineError: the engine refused or broke off.
    """
    steps: list[str] = []
    question: Message = {"role": "user", "content": _GAUGE_QUESTION}
    try:
        called = _ask(target, (question,), _CALL_TOKENS)
        steps.append(_called(called))
        result = {
            "role": "tool",
            "tool_call_id": called.tool_calls[0].id,
            "content": json.dumps({_ARGUMENT: _ASKED, "reading": int(_RESULT)}),
        }
        answer = _ask(target, (question, called.message, result), _ANSWER_TOKENS)
        steps.append(_answered(answer))
    except _Wrong as wrong:
        return RoundTrip(passed=False, why=str(wrong), steps=tuple(steps))
    return RoundTrip(passed=True, steps=tuple(steps))


def _ask(target: Target, messages: tuple[Message, ...], max_tokens: int) -> ChatAnswer:
    asked = ChatQuestion(messages=messages, max_tokens=max_tokens, enable_thinking=False, tools=_TOOLS)
    return chat(target, asked)


def _called(answer: ChatAnswer) -> str:
    if not answer.tool_calls:
        message = f"no tool call came back but {_said(answer)}"
        raise _Wrong(message)
    call = answer.tool_calls[0]
    if call.name != _TOOL:
        message = f"the tool {_shown(call.name)} was called, which was not offered"
        raise _Wrong(message)
    arguments = document(call.arguments)
    if not arguments:
        message = f"the arguments of the tool call are no JSON object: {_shown(call.arguments)}"
        raise _Wrong(message)
    if _ARGUMENT not in arguments:
        message = f"the tool call lacks its argument {_ARGUMENT}: {_shown(call.arguments)}"
        raise _Wrong(message)
    _refuse_markup(answer.content, "beside the tool call")
    return f"called {call.name} with {_shown(call.arguments)}"


def _answered(answer: ChatAnswer) -> str:
    if answer.tool_calls:
        message = "the tool was called again instead of using its result"
        raise _Wrong(message)
    _refuse_markup(answer.content, "in the answer after the tool's result")
    if _RESULT not in answer.content.replace(",", ""):
        message = f"the answer does not use the tool's result {_RESULT}: {_said(answer)}"
        raise _Wrong(message)
    return f"answered {_shown(answer.content)}"


def thinking(target: Target) -> RoundTrip:
    """The same question with and without thinking: thoughts apart from the answer, or no thoughts at all.

    Raises:
        EngineError: the engine refused or broke off.
    """
    if target.switches_thinking is False:
        return RoundTrip(passed=None, why="the model's chat template has no switch enable_thinking")
    steps: list[str] = []
    try:
        for wanted in (False, True):
            asked = ChatQuestion(
                messages=({"role": "user", "content": _SUM_QUESTION},),
                max_tokens=_THINKING_TOKENS if wanted else _SUM_TOKENS,
                enable_thinking=wanted,
            )
            steps.append(_thought(chat(target, asked), wanted=wanted))
    except _Wrong as wrong:
        return RoundTrip(passed=False, why=str(wrong), steps=tuple(steps))
    return RoundTrip(passed=True, steps=tuple(steps))


def _thought(answer: ChatAnswer, *, wanted: bool) -> str:
    how = "with thinking on" if wanted else "with thinking off"
    _refuse_markup(answer.content, f"{how}, in the answer")
    if wanted and not answer.reasoning:
        message = f"{how}, no reasoning_content came back but {_said(answer)}"
        raise _Wrong(message)
    if not wanted and answer.reasoning:
        message = f"{how}, reasoning_content came back: {_shown(answer.reasoning)}"
        raise _Wrong(message)
    if not wanted and _SUM not in answer.content:
        message = f"{how}, the answer is not {_SUM} but {_said(answer)}"
        raise _Wrong(message)
    if wanted:
        return f"{how}: {len(answer.reasoning)} characters of reasoning_content"
    return f"{how}: answered {_shown(answer.content)}, no reasoning_content"


def _refuse_markup(content: str, where: str) -> None:
    found = next((mark for mark in _MARKUP if mark in content), None)
    if found is not None:
        message = f"{where}, {found} is left in the content: {_shown(content)}"
        raise _Wrong(message)


def _said(answer: ChatAnswer) -> str:
    """What came back instead."""
    if answer.content.strip():
        return f"the text {_shown(answer.content)}"
    if answer.reasoning:
        return f"{len(answer.reasoning)} characters of reasoning"
    return "an empty message" + (f" ({answer.finish_reason})" if answer.finish_reason else "")


def _shown(text: str) -> str:
    """`text` quoted, on one line, not too long."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return f'"{line[:_SHOWN_CHARACTERS]}..."' if len(line) > _SHOWN_CHARACTERS else f'"{line}"'
