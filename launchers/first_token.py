"""One token asked for in the background: the only proof of an engine that listens before its model is loaded."""

import http.client
import json
import threading
from urllib.parse import urlsplit

from glmplan.launchers.json_values import document, mapping
from glmplan.launchers.launch import Endpoint

_SHOWN_CHARACTERS = 200


class FirstToken:
    """A request on its way; `came` once the engine has answered it with a token, `refused` says why it will not."""

    def __init__(self, endpoint: Endpoint, *, patience_s: float) -> None:
        """Ask `endpoint`, once, and wait at most `patience_s` seconds."""
        self.came = False
        self.refused: str | None = None
        self._endpoint = endpoint
        self._patience_s = patience_s
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        endpoint = self._endpoint
        address = urlsplit(endpoint.url)
        body = json.dumps({"model": endpoint.alias, "prompt": "a", "max_tokens": 1})
        host = address.hostname or endpoint.host
        connection = http.client.HTTPConnection(host, endpoint.port, timeout=self._patience_s)
        try:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self.refused = str(error) or type(error).__name__
            return
        finally:
            connection.close()
        if response.status == http.HTTPStatus.OK:
            self.came = True
        else:
            said = document(text).get("error", text)
            self.refused = f"HTTP {response.status}: {mapping(said).get('message', said)}"[:_SHOWN_CHARACTERS]
