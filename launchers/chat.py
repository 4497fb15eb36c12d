"""One chat completion as a client sees it: content, reasoning and tool calls apart.

Source: llama.cpp tools/server/README.md, POST /v1/chat/completions; `reasoning_content` is its field for thoughts,
`chat_template_kwargs` its way to the template's own switches.
"""

from collections.abc import Sequence
from typing import Any, Final

from glmplan.errors import EngineError
from glmplan.launchers.client import Target, connect
from glmplan.launchers.json_values import document, listing, mapping
from glmplan.launchers.stream import refused
from glmplan.noun import noun

Message = dict[str, Any]
# Greedy: the same question gets the same answer.
_TEMPERATURE: Final = 0.0


@noun
class ToolCall:
    """A tool that the model wants called; `arguments` is text that should be a JSON object."""

    id: str
    name: str
    arguments: str


@noun
class ChatAnswer:
    """What came back; `message` as it was received, to be sent back in the next turn."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    message: Message


@noun
class ChatQuestion:
    """What is asked: the turns so far, the tools there are, whether to think first, and how long the answer may be."""

    messages: tuple[Message, ...]
    max_tokens: int
    enable_thinking: bool
    tools: tuple[Message, ...] = ()


def chat(target: Target, question: ChatQuestion) -> ChatAnswer:
    """The answer to `question`, with everything absent or of another type read as empty.

    Raises:
        EngineError: refused, broken off, or no chat completion.
    """
    import httpx

    body: dict[str, Any] = {
        "model": target.model,
        "messages": list(question.messages),
        "max_tokens": question.max_tokens,
        "temperature": _TEMPERATURE,
        "chat_template_kwargs": {"enable_thinking": question.enable_thinking},
    }
    if question.tools:
        body["tools"] = list(question.tools)
    try:
        with connect(target) as client:
            response = client.post("/v1/chat/completions", json=body)
    except httpx.HTTPError as error:
        message = f"{target.url} broke off a chat completion: {error or type(error).__name__}"
        raise EngineError(message, hint="the engine may have died: glmplan status, glmplan logs") from error
    if not response.is_success:
        raise refused(target, response.status_code, response.text)
    choice = mapping(next(iter(listing(document(response.text).get("choices"))), None))
    if "message" not in choice:
        message = f"{target.url} answered, but with no chat completion: {response.text[:200]}"
        raise EngineError(message, hint="read the engine's log: glmplan logs")
    return _answer(mapping(choice["message"]), str(choice.get("finish_reason") or ""))


def _answer(message: Message, finish_reason: str) -> ChatAnswer:
    return ChatAnswer(
        content=_text(message.get("content")),
        reasoning=_text(message.get("reasoning_content")),
        tool_calls=_tool_calls(listing(message.get("tool_calls"))),
        finish_reason=finish_reason,
        message=message,
    )


def _tool_calls(calls: Sequence[object]) -> tuple[ToolCall, ...]:
    found = [(mapping(call), mapping(mapping(call).get("function"))) for call in calls]
    return tuple(
        ToolCall(
            id=str(call.get("id") or ""),
            name=_text(function.get("name")),
            arguments=_text(function.get("arguments")),
        )
        for call, function in found
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
