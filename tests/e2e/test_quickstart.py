"""The question that the quick start asks is answered by the server that it starts."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import httpx
from console import Console

from glmplan.engine import EngineKind

QUICKSTART: Final = Path(__file__).parents[2] / "docs" / "quickstart.md"


def test_the_question_of_the_quick_start_is_answered(console: Console) -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    command = re.search(r"^curl .*?(?=\n```)", text, re.MULTILINE | re.DOTALL)
    assert command is not None
    words = shlex.split(command[0].replace("\\\n", " "))
    address, body = words[1], words[words.index("-d") + 1]
    header, _, value = words[words.index("-H") + 1].partition(": ")
    plan = console.plan(EngineKind.XLLAMACPP)
    started = console.run("run", plan, "--detach", "--port", str(console.port), "--json")
    assert started.returncode == 0, started.stderr
    try:
        here = address.replace(":8080/", f":{console.port}/")
        asked: dict[str, Any] = {**json.loads(body), "max_tokens": 4}
        answer = httpx.post(here, content=json.dumps(asked), headers={header: value}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    finally:
        assert console.run("stop").returncode == 0
