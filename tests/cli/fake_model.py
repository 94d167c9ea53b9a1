"""A language model that computes nothing, to test the commands around one.

Run as a script it is the `nextword` command on that model, for tests that need a process.
"""

import signal
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar

from nextword.generation import Statistics


@dataclass
class FakeStream:
    """Yields pieces of text; `"^C"` stands for a user who presses Ctrl-C before the next."""

    pieces: list[str]
    max_new_tokens: int
    pause: float = 0.0
    text: str = ""
    finish_reason: str | None = None
    closed: bool = False
    statistics: Statistics = field(
        default_factory=lambda: Statistics(prompt_tokens=12, prompt_seconds=0.5)
    )

    def __iter__(self):
        for piece in self.pieces:
            if piece == "^C":
                signal.raise_signal(signal.SIGINT)
                continue
            if self.statistics.generated_tokens == self.max_new_tokens:
                self.finish_reason = "length"
                return
            time.sleep(self.pause)
            self.text += piece
            self.statistics.generated_tokens += 1
            self.statistics.decoded_tokens += 1
            self.statistics.generation_seconds += 0.25
            yield piece
        self.finish_reason = "stop"

    def close(self):
        self.closed = True
        self.finish_reason = self.finish_reason or "cancelled"


class FakeCausalLM:
    """Answers with what it has heard, word by word, or with `script` if that is set."""

    script: list[str] | None = None
    chat_template: object | None = object()
    pause = 0.0
    loaded: ClassVar[list["FakeCausalLM"]] = []

    def __init__(self, preset, **arguments):
        self.preset = preset
        self.arguments = arguments
        self.sampler = None
        self.calls = []
        self.streams = []
        self.preprocessor = SimpleNamespace(
            tokenizer=SimpleNamespace(chat_template=type(self).chat_template)
        )

    @classmethod
    def from_preset(cls, preset, **arguments):
        lm = cls(preset, **arguments)
        cls.loaded.append(lm)
        return lm

    def compile(self, *, sampler):
        self.sampler = sampler

    def stream(self, prompt, *, max_new_tokens, stop=None):
        self.calls.append(("stream", prompt, max_new_tokens, stop))
        return self._answer(f"{prompt}, continued.", max_new_tokens)

    def chat(self, messages, *, stream, max_new_tokens, stop=None):
        assert stream
        if messages[-1]["content"] == "too long":
            raise ValueError("The prompt is longer than the context. Received: 9000 tokens.")
        self.calls.append(("chat", messages, max_new_tokens, stop))
        heard = ", ".join(f"{message['role']}={message['content']}" for message in messages)
        return self._answer(f"heard {heard}", max_new_tokens)

    def _answer(self, text, max_new_tokens):
        pieces = type(self).script
        if pieces is None:
            pieces = [word + " " for word in text.split(" ")]
            pieces[-1] = pieces[-1].rstrip()
        self.streams.append(FakeStream(pieces, max_new_tokens, pause=type(self).pause))
        return self.streams[-1]


if __name__ == "__main__":
    import nextword
    from nextword.cli import main

    nextword.models = SimpleNamespace(CausalLM=FakeCausalLM)
    nextword.samplers = SimpleNamespace(GreedySampler=object)
    if sys.argv[1].startswith("script="):
        FakeCausalLM.script = [
            piece for piece in sys.argv.pop(1).removeprefix("script=").split("|") if piece
        ]
    if sys.argv[1].startswith("pause="):
        FakeCausalLM.pause = float(sys.argv.pop(1).removeprefix("pause="))
    main()
