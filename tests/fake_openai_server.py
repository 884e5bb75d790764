"""A small HTTP server that speaks the OpenAI protocol, or lies, fails and stalls as it is told."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = tuple[int, Any, dict[str, str]]


class FakeServer:
    """One server on a free port, of a kind: ``llama.cpp``, ``vllm``, ``plain``, ``text`` or ``chat``."""

    def __init__(
        self,
        kind: str,
        values: Callable[[list[int]], list[float]],
        encode: Callable[[str], list[int]],
        spell: Callable[[int], str],
    ) -> None:
        """Serve a model: log-probabilities of all tokens after ids, and its tokenizer both ways."""
        self.kind, self.values, self.encode, self.spell = kind, values, encode, spell
        self.embeds: Callable[[bytes], list[float]] | None = None
        """Log-probabilities after embeddings, for a server that takes ``prompt_embeds``."""
        self.end: int | None = None
        """The token that ends a text."""
        self.echoes = kind in {"vllm", "plain"}
        """Whether it gives prompts back with their log-probabilities."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once, self._now, self._lock = 0, 0, threading.Lock()
        self.before: Callable[[int, str, dict[str, Any]], Answer | str | None] = lambda _n, _path, _body: None
        """Gets the number, path and body of each request; returns another answer, ``cut`` or ``stall``, or None."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._reply(*outer.page(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer._now += 1
                    outer.at_once = max(outer.at_once, outer._now)
                    number = len(outer.asked)
                    outer.asked.append((self.path, body))
                    outer.headers.append(dict(self.headers))
                try:
                    given = outer.before(number, self.path, body)
                    if given == "cut":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                        self.close_connection = True
                        return
                    if given == "stall":
                        time.sleep(0.6)
                        given = None
                    self._reply(*(given or outer.reply(self.path, body)))  # type: ignore[misc]
                finally:
                    with outer._lock:
                        outer._now -= 1

            def _reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Clients that have gone are no error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def page(self, path: str) -> Answer:
        """What a GET is answered with."""
        if path == "/v1/models":
            return 200, {"data": [{"id": "some/tiny-model", "owned_by": self.kind.replace(".", "")}]}, {}
        if path == "/props" and self.kind == "llama.cpp":
            return 200, {"build_info": "b1", "default_generation_settings": {"n_ctx": 300}}, {}
        if path == "/version" and self.kind == "vllm":
            return 200, {"version": "9.9"}, {}
        return 404, {"error": "no such page"}, {}

    def reply(self, path: str, body: dict[str, Any]) -> Answer:
        """What an honest server of this kind answers."""
        if path == "/completion" and self.kind == "llama.cpp":
            return 200, self._llama(body), {}
        if "prompt_embeds" in body and self.embeds is None:
            return 400, {"error": "prompt embeds are not enabled"}, {}
        if path == "/v1/completions" and self.kind != "chat":
            return 200, self._completion(body), {}
        if path == "/v1/chat/completions" and self.kind == "chat":
            return 200, self._chat(body), {}
        return 404, {"error": "no such path"}, {}

    def ids(self, prompt: Any) -> list[int]:
        """Tokens of a prompt."""
        return prompt if isinstance(prompt, list) else self.encode(prompt)

    def paths(self) -> Counter[str]:
        """How often each path was asked."""
        return Counter(path for path, _ in self.asked)

    def written(self, body: dict[str, Any], ids: list[int], most: int) -> tuple[list[int], str, str]:
        """Tokens that follow, the stop or the end among them; why it ended (eos, word, limit), and the stop."""
        tokens: list[int] = []
        chance = random.Random(body.get("seed", 0))  # noqa: S311 - of a made-up server
        while len(tokens) < most:
            values = self.values(ids + tokens)
            if body.get("temperature"):
                weights = [math.exp(value / body["temperature"]) for value in values]
                tokens += chance.choices(range(len(values)), weights)
            else:
                tokens.append(max(range(len(values)), key=values.__getitem__))
            if tokens[-1] == self.end:
                return tokens, "eos", ""
            text = self.text(tokens)
            met = next((stop for stop in body.get("stop") or () if stop in text), "")
            if met:
                return tokens, "word", met
        return tokens, "limit", ""

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, without that of the end."""
        return "".join(self.spell(token) for token in tokens if token != self.end)

    def _llama(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self.ids(body["prompt"])
        if "grammar" in body:
            return self._forced(ids, [int(token) for token in re.findall(r"<\[(\d+)\]>", body["grammar"])])
        if "n_probs" not in body:
            tokens, why, stop = self.written(body, ids, body["n_predict"])
            return {
                "content": self.text(tokens).partition(stop)[0] if stop else self.text(tokens),
                "truncated": False, "stop_type": why, "stopping_word": stop, "tokens": tokens,
                "tokens_evaluated": len(ids), "tokens_predicted": len(tokens),
            }  # fmt: skip
        values = self.values(ids)
        name = "prob" if body.get("post_sampling_probs") else "logprob"
        if name == "prob":
            bias = dict.fromkeys(range(len(values)), 0.0) | dict(body.get("logit_bias", []))
            raw = [math.exp(value + bias[token]) for token, value in enumerate(values)]
            values = [value / sum(raw) for value in raw]
        order = sorted(range(len(values)), key=lambda token: -values[token])[: body["n_probs"]]
        top = [{"id": token, "token": self.spell(token), name: values[token]} for token in order]
        return {
            "content": "",
            "truncated": False,
            "tokens_evaluated": len(ids),
            "tokens_predicted": 1,
            "completion_probabilities": [{**top[0], f"top_{name}s": top}],
        }

    def _forced(self, ids: list[int], target: list[int]) -> dict[str, Any]:
        """A reply whose tokens are those of a grammar, with the probabilities before it."""
        listed = [
            {"id": token, "token": self.spell(token), "logprob": self.values(ids + target[:n])[token]}
            for n, token in enumerate(target)
        ]
        return {
            "content": self.text(target), "truncated": False, "tokens_evaluated": len(ids),
            "tokens_predicted": len(target), "completion_probabilities": listed,
        }  # fmt: skip

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        if "prompt_embeds" in body and self.embeds is not None:
            values, sent = self.embeds(base64.b64decode(body["prompt_embeds"])), 1
            tokens, why, stop = [max(range(len(values)), key=values.__getitem__)], "limit", ""
        else:
            ids = self.ids(body["prompt"])
            values, sent = self.values(ids), len(ids)
            tokens, why, stop = self.written(body, ids, body.get("max_tokens", 16))
        text = self.text(tokens)
        if stop and not (self.kind == "vllm" and body.get("include_stop_str_in_output")):
            text = text.partition(stop)[0]
        finished = "length" if why == "limit" else "stop"
        choice: dict[str, Any] = {"text": text, "index": 0, "finish_reason": finished}
        if self.kind == "vllm" and body.get("return_token_ids"):
            choice["token_ids"] = tokens
        if body.get("logprobs") and self.kind != "text":
            order = sorted(range(len(values)), key=lambda token: -values[token])[: body["logprobs"]]
            if self.kind == "vllm" and body.get("logprob_token_ids"):
                order = [*body["logprob_token_ids"]]
            named = body.get("return_tokens_as_token_ids") and self.kind == "vllm"
            top = {f"token_id:{token}" if named else self.spell(token): values[token] for token in order}
            choice["logprobs"] = {"top_logprobs": [top]}
        if body.get("echo") and self.echoes:
            whole = self.ids(body["prompt"]) + tokens
            values_of = [None, *(self.values(whole[:n])[whole[n]] for n in range(1, len(whole)))]
            choice["logprobs"] = {"token_logprobs": values_of, "tokens": [self.spell(token) for token in whole]}
            choice["text"] = self.text(whole)
        return {"choices": [choice], "usage": {"prompt_tokens": sent, "completion_tokens": len(tokens)}}

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        values = self.values(self.encode(body["messages"][0]["content"]))
        order = sorted(range(len(values)), key=lambda token: -values[token])[: body.get("top_logprobs", 1)]
        top = [{"token": self.spell(token).strip().title(), "logprob": values[token]} for token in order]
        tokens, why, stop = self.written(body, self.encode(body["messages"][0]["content"]), body.get("max_tokens", 16))
        text = self.text(tokens).partition(stop)[0] if stop else self.text(tokens)
        choice: dict[str, Any] = {"message": {"content": text.strip().title()}, "index": 0}
        choice["finish_reason"] = "length" if why == "limit" else "stop"
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return {"choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": len(tokens)}}
