"""The fake model with the interface of `LanguageModel`, for tests and load tests without torch and weights."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from harness.blackbox.fake import FakeModel
from harness.blackbox.fake_text import FakeTexts, FakeWriter, stand_in
from harness.blackbox.fake_weights import count
from harness.contract import TextTask
from harness.errors import ModelError, QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import FeatureKind, Mode, ModelInfo, Outputs, Prompts, Shots, Task, Text, WeightSpace


class FakeLanguageModel:
    """`FakeModel` with the interface of `LanguageModel`. A forward pass takes `service_s` seconds."""

    name, sha256, device, max_tokens = "fake", "fake", "cpu", 512
    traffic = None  # `harness.lm.served`: there is no server

    def __init__(
        self, task: Task | TextTask, seed: int = 0, service_s: float = 0.0, shots: Shots | None = None
    ) -> None:
        """Plant an optimum for `task`. Of a text task, `shots` has the outputs that its texts want."""
        self.kind: Literal["masked", "causal"] = "causal" if isinstance(task, TextTask) else "masked"
        own = stand_in(task) if isinstance(task, TextTask) else task
        self.fake = FakeModel(own, seed, layers=3, width=16, prompt_tokens=4)
        self.fake.info = dataclasses.replace(self.fake.info, kind=self.kind)
        self._writer = FakeWriter(self.fake, task, shots, service_s) if isinstance(task, TextTask) else None
        self.backbone = SimpleNamespace(width=16, layers=3)
        self.prompt_tokens = 4
        self.service_s = service_s
        self.forwards = 0

    def text_model(self) -> FakeWriter:
        """See `harness.blackbox.text_model.Writes`."""
        if self._writer is None:
            raise ModelError("this fake model was made for a task with classes; make one for a text task")
        return self._writer

    def info(self, texts: Sequence[Text], template: str) -> ModelInfo:  # noqa: ARG002 - the real model uses them
        """See `LanguageModel`."""
        return self.fake.info

    @property
    def words(self) -> tuple[str, ...]:
        """See `LanguageModel`."""
        return self.fake.vocabulary()

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """See `LanguageModel`."""
        return self.fake.word_ids(words)

    def single_ids(self, words: Sequence[str]) -> tuple[str, ...]:
        """The words themselves, after a check. The fake is asked by words and not by ids.

        Raises:
            QueryError: a word is not a single token.
        """
        self.fake.check(None, (), "", words)
        return tuple(words)

    def check(self, prompts: Prompts | None) -> None:
        """See `LanguageModel`.

        Raises:
            QueryError: the shape is wrong. The message gives the shape found and the one expected.
        """
        if prompts is None:
            return
        if not len(prompts):
            raise QueryError("0 candidates; at least one is needed")
        self.fake.check(prompts, (), "", self.fake.task.words)

    def weight_count(self, space: WeightSpace) -> int:
        """See `LanguageModel`."""
        return count(space, self.fake.info)

    def check_features(self, features: FeatureKind | None) -> None:
        """See `LanguageModel`. The fake has all of them."""

    def text_set(self, template: str, texts: tuple[Text, ...], mode: Mode | None = "add") -> FakeTexts:  # noqa: ARG002
        """See `LanguageModel`.

        Raises:
            QueryError: the template does not fit.
        """
        self.fake.check(None, texts, template, self.fake.task.words)
        return FakeTexts(template, texts)

    def forward(
        self,
        prompts: Prompts | None,
        texts: FakeTexts,
        words: Sequence[str],
        features: FeatureKind | None = None,
        normalize: bool = False,
    ) -> Any:
        """See `LanguageModel`."""
        self.forwards += 1
        time.sleep(self.service_s)
        out = self.fake.outputs(prompts, texts.texts, texts.template, words, features or "mask", normalize)
        return SimpleNamespace(logits=out.logits, features=out.features if features else None, lengths=out.lengths)

    def outputs(
        self, prompts: Prompts | None, texts: Sequence[Text], template: str, words: Sequence[str], features: FeatureKind
    ) -> Outputs:
        """See `LanguageModel`."""
        return self.fake.outputs(prompts, texts, template, words, features)
