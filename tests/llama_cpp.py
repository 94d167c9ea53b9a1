"""llama.cpp as an oracle: what it makes of a GGUF file."""

import contextlib
import json
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import xllamacpp


class LlamaCpp:
    """A GGUF file in llama.cpp.

    Args:
        server: of the `xllamacpp` package.
    """

    def __init__(self, server: xllamacpp.Server) -> None:
        self._server = server

    def generate(self, token_ids: Sequence[int], length: int) -> list[int]:
        """Return the greedy continuation of a prompt, as token ids."""
        body = {
            "prompt": [int(id) for id in token_ids],
            "n_predict": length,
            "temperature": 0.0,
            "ignore_eos": True,
            "return_tokens": True,
            "cache_prompt": False,
        }
        return [int(id) for id in self._post("/completion", body)["tokens"]]

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the token ids of a text, without a start token."""
        body = {"content": text, "add_special": False, "parse_special": parse_special}
        return [int(id) for id in self._post("/tokenize", body)["tokens"]]

    def apply_template(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the prompt that a conversation becomes."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def _post(self, path: str, body: object) -> dict:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.loads(response.read())


@contextlib.contextmanager
def llama_cpp(path: Path) -> Iterator[LlamaCpp]:
    """Open a GGUF file in llama.cpp, on one thread and with caches in float32."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 256
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.warmup = False
    parameters.verbosity = -1
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.fit_params = False
    server = xllamacpp.Server(parameters)
    try:
        yield LlamaCpp(server)
    finally:
        del server
