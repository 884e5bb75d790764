"""Train the embedded model: masked words, and clozes distilled from the sentence encoder itself.

    python tools/train_minilm_head.py corpus.txt.xz --out harness/models/minilm-mlm --work build/minilm

Needs one text file and two CPU cores. The work folder keeps the prepared texts and the state of
the run. If the run is killed, the same command continues from the last saved step with the same
batches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.lm import embedded
from tools import teacher
from tools.batches import Batch, Batches
from tools.lowrank import add_low_rank, merged_state
from tools.wordnet import read_wordnet

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, PreTrainedTokenizerFast

WEIGHTS = {"masked": 1.0, "pairs": 1.0, "topics": 0.5, "opinions": 0.8}
RATES = {"head": 1e-3, "encoder": 4e-4, "adapter": 2e-3}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="1040 steps take about 40 minutes on two cores with AMX.",
    )
    made.add_argument("text", type=Path, help="plain text, one passage a line; .xz is read as it is")
    made.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for head.safetensors and checksum.json (written anew at every --every)",
    )
    made.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for prepared texts, the run's state and its log; delete it to start over",
    )
    made.add_argument(
        "--train",
        choices=("head", "adapter", "encoder"),
        default="encoder",
        help="what learns besides the head: nothing, low-rank factors, or all six layers",
    )
    made.add_argument(
        "--steps",
        type=int,
        default=1040,
        help="optimiser steps; the rate falls to zero over the last third (default 1040)",
    )
    made.add_argument(
        "--every", type=int, default=100, help="steps between exports, held-out losses and saved states (default 100)"
    )
    made.add_argument("--units", type=int, default=36000, help="single texts that pairs are made of (default 36000)")
    made.add_argument("--scale", type=float, default=1.0, help="multiplies every batch; 1 is about 9,000 tokens a step")
    made.add_argument(
        "--wordnet",
        type=Path,
        default=Path("/usr/share/wordnet"),
        help="WordNet's dictionary files, for altered copies of sentences; left out where missing",
    )
    made.add_argument("--seed", type=int, default=7, help="same seed, same machine, same weights")
    made.add_argument(
        "--stop-after", type=int, help="save and stop once this step is reached; the rates stay those of --steps"
    )
    made.add_argument("--threads", type=int, default=2)
    return made


def main(arguments: list[str] | None = None) -> None:
    """Prepare, train, export."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if not options.text.is_file():
        raise SystemExit(f"{options.text} is missing; give a text file with one passage a line")
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    model = embedded.base_model(embedded.package_folder())
    tokenizer = embedded.tokenizer(embedded.package_folder())
    model.set_attn_implementation("eager")  # its backward pass is the faster one on a CPU
    batches = Batches(prepared(options, model, tokenizer), tokenizer, options.seed, options.scale)
    Run(options, model, batches).go()


def read_lines(path: Path) -> list[str]:
    """Passages, one a line."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
        lines = [line.strip() for line in stream if line.strip()]
    if not lines:
        raise SystemExit(f"{path} has no lines with text; give a file with one passage a line")
    return lines


def prepared(
    options: argparse.Namespace, model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast
) -> teacher.Prepared:
    """Texts and targets, made once per work folder."""
    path = options.work / "prepared"
    if not path.with_suffix(".json").is_file():
        if not options.wordnet.is_dir():
            print(f"{options.wordnet} is missing: no words are exchanged in altered copies (Debian: wordnet-base)")
        net = read_wordnet(options.wordnet)
        lines = read_lines(options.text)
        teacher.save(teacher.prepare(lines, net, model.bert, tokenizer, options.units, options.seed), path)
    return teacher.load(path)


class Run:
    """One training run. Its state is the model, the optimiser and the step."""

    def __init__(self, options: argparse.Namespace, model: BertForMaskedLM, batches: Batches) -> None:
        """Choose the trained parameters, and continue from a saved state if there is one."""
        self.options, self.model, self.batches = options, model, batches
        model.requires_grad_(requires_grad=False)
        head = [*model.cls.predictions.transform.parameters(), model.cls.predictions.bias]
        body: list[torch.nn.Parameter] = []
        if options.train == "encoder":
            body = list(model.bert.encoder.parameters())
        elif options.train == "adapter":
            body = add_low_rank(model.bert.encoder, rank=16, seed=options.seed)
        for parameter in head + body:
            parameter.requires_grad_(requires_grad=True)
        groups = [{"params": head, "peak": RATES["head"]}]
        if body:
            groups.append({"params": body, "peak": RATES[options.train]})
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.learning = head + body
        self.step = 0
        self.state_path = options.work / f"state-{options.train}.pt"
        with torch.no_grad():
            model.cls.predictions.bias.copy_(self._log_frequency())
        if self.state_path.is_file():
            saved = torch.load(self.state_path, weights_only=True)
            model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]
            print(f"going on from step {self.step}")

    def go(self) -> None:
        """Train to the end."""
        began, tokens, first = time.monotonic(), 0, self.step
        shown: dict[str, list[float]] = {name: [] for name in WEIGHTS}
        end = min(self.options.steps, self.options.stop_after or self.options.steps)
        while self.step < end:
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * rate(self.step, self.options.steps)
            for batch in self.batches.at(self.step):
                loss, floor = self.loss(batch)
                (WEIGHTS[batch.name] * loss).backward()  # type: ignore[no-untyped-call]
                shown[batch.name].append(float(loss.detach()) - floor)
                tokens += batch.tokens
            torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            if self.step % 10 == 0 or self.step == end:
                spent = time.monotonic() - began
                left = spent / (self.step - first) * (end - self.step)
                losses = " ".join(f"{name} {np.mean(values[-50:]):.3f}" for name, values in shown.items())
                pace = f"{tokens / spent:.0f} tokens/s, {left / 60:.1f} min left"
                print(f"step {self.step}/{self.options.steps} {losses} {pace}", flush=True)
            if self.step % self.options.every == 0 or self.step == end:
                self._report()

    def logits(self, batch: Batch) -> torch.Tensor:
        """Scores (targets, vocabulary) at the read positions only."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.model.bert(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state
            scores: torch.Tensor = self.model.cls(hidden.flatten(0, 1)[batch.places])
        return scores.float()

    def loss(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """Cross-entropy at the read positions, and its lower bound."""
        chances = torch.log_softmax(self.logits(batch), dim=1)
        if batch.labels is not None:
            return -chances.gather(1, batch.labels[:, None]).mean(), 0.0
        floor = -(batch.chances * batch.chances.clamp_min(1e-9).log()).sum(1).mean()
        return -(chances[:, batch.words] * batch.chances).sum(1).mean(), float(floor)

    @torch.no_grad()
    def _report(self) -> None:
        """Held-out losses into the log, weights into --out, state into --work."""
        losses: dict[str, list[float]] = {}
        guessed, wanted = [], []
        for batch in self.batches.held_out():
            loss, floor = self.loss(batch)
            losses.setdefault(batch.name, []).append(float(loss) - floor)
            if batch.labels is None:
                scores = self.logits(batch)[:, batch.words]
                guessed += (scores[:, 0] - scores[:, 2]).tolist()
                wanted += (batch.chances[:, 0] / batch.chances[:, 2]).log().tolist()
        entry: dict[str, float | str] = {"step": self.step}
        entry |= {f"held_{name}": round(float(np.mean(values)), 4) for name, values in losses.items()}
        if len(guessed) > 1:
            entry["held_pairs_correlation"] = round(float(np.corrcoef(guessed, wanted)[0, 1]), 4)
        entry["sha256"] = export(self.model, self.options.train, self.options.out)
        with (self.options.work / f"log-{self.options.train}.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)
        aside = self.state_path.with_suffix(".aside")
        torch.save(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}, aside
        )
        aside.replace(self.state_path)

    def _log_frequency(self) -> torch.Tensor:
        """A first output bias: how often each token occurs."""
        size = self.model.config.vocab_size
        rng = np.random.default_rng([self.options.seed, 4])
        lines = self.batches.prepared.lines
        some = [lines[i] for i in rng.integers(len(lines), size=min(len(lines), 20000))]
        ids = np.concatenate(
            self.batches.tokenizer(some, add_special_tokens=False, truncation=True, max_length=512)["input_ids"]
        ).astype(int)
        counts = np.bincount(ids, minlength=size) + 0.1
        return torch.from_numpy(np.log(counts / counts.mean())).float()


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a short rise, a plateau, a straight fall over the last third."""
    return min(1.0, (step + 1) / 60, max(0.0, (steps - step) / (steps / 3)))


def export(model: BertForMaskedLM, train: str, out: Path) -> str:
    """Write the trained tensors as bfloat16 and their SHA-256, both by temporary files that are then renamed."""
    state = merged_state(model)
    wanted = (
        "cls.predictions.transform.",
        "cls.predictions.bias",
        *(() if train == "head" else ("bert.encoder.layer.",)),
    )
    kept = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items() if name.startswith(wanted)}
    content = save(kept)
    digest = hashlib.sha256(content).hexdigest()
    record = json.dumps({"file": "head.safetensors", "sha256": digest, "bytes": len(content)}, indent=2) + "\n"
    for name, data in (("head.safetensors", content), ("checksum.json", record.encode())):
        aside = out / (name + ".aside")
        aside.write_bytes(data)
        aside.replace(out / name)
    return digest


if __name__ == "__main__":
    main()
