"""Accuracy of the embedded model without examples: a table on a competition kit.

    python tools/zero_shot.py --data DIR

DIR holds <Task>/test.tsv and <Task>/<split>/{train,dev}.tsv, tab-separated, label last. Accuracy is
given twice: for the label words' logits as they are, and for centred logits (minus each word's
mean over the rows, which needs no labels). Rows: `test` is test.tsv, `splits` all rows of train and dev.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.lm import embedded

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Cloze:
    """A task of the kit as a cloze."""

    template: str
    labels: tuple[str, ...]
    """as written in the files"""
    words: tuple[str, ...]


TOPICS = (
    "company",
    "school",
    "artist",
    "athlete",
    "politician",
    "transportation",
    "building",
    "mountain",
    "village",
    "animal",
    "plant",
    "album",
    "film",
    "book",
)
NUMBERS = tuple(str(i) for i in range(14))
CLOZES = {
    "SST-2": Cloze("{0} . It was [MASK] .", ("negative", "positive"), ("bad", "great")),
    "DBPedia": Cloze("[ Category: [MASK] ] {0}", NUMBERS, TOPICS),
    "DBPedia (News)": Cloze("[MASK] News: {0}", NUMBERS, TOPICS),
    "SNLI": Cloze("{0} ? [MASK] , {1}", ("Entailment", "Neutral", "Contradiction"), ("yes", "maybe", "no")),
    "QQP": Cloze("{0} ? [MASK] , {1}", ("0", "1"), ("no", "yes")),
    "QNLI": Cloze("{0} ? [MASK] , {1}", ("entailment", "not_entailment"), ("yes", "no")),
}


def read_rows(folder: Path, part: str) -> list[list[str]]:
    """Rows of one task, each a list of cells with the label last, without repeats."""
    files = sorted(folder.glob("*/*.tsv")) if part == "splits" else [folder / f"{part}.tsv"]
    lines = dict.fromkeys(
        line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()
    )
    return [[cell.strip() for cell in line.split("\t")] for line in lines]


@torch.inference_mode()
def read_masks(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, texts: list[str], prompt: list[int], words: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (texts, words) and hidden states (texts, width) at the mask; the prompt stands after [CLS]."""
    head, bare = prompt, 256 - len(prompt)
    mask = tokenizer.mask_token_id
    rows = [[ids[0], *head, *ids[1:]] for ids in (_cut(ids, bare, mask) for ids in tokenizer(texts)["input_ids"])]
    logits, states = (
        np.zeros((len(rows), len(words)), np.float32),
        np.zeros((len(rows), model.config.hidden_size), np.float32),
    )
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        longest = max(len(rows[i]) for i in chosen)
        ids = torch.tensor([rows[i] + [0] * (longest - len(rows[i])) for i in chosen])
        attention = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in chosen])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.bert(input_ids=ids, attention_mask=attention).last_hidden_state
        at_mask = hidden[torch.arange(len(chosen)), (ids == mask).int().argmax(1)].float()
        states[chosen] = at_mask.numpy()
        logits[chosen] = model.cls(at_mask)[:, words].numpy()
    return logits, states


def _cut(ids: list[int], most: int, mask: int) -> list[int]:
    """Shorten a long row before its mask where the mask stands last, at its end otherwise."""
    over = len(ids) - most
    if over <= 0:
        return ids
    at = ids.index(mask)
    return ids[:1] + ids[1 + over :] if at > over else ids[: most - 1] + ids[-1:]


def table(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, data: Path, part: str, prompt: list[int]
) -> dict[str, tuple[int, float, float, float]]:
    """Task -> (rows, accuracy, accuracy centred, macro-F1 centred)."""
    found = {}
    for name, cloze in CLOZES.items():
        folder = data / name.split(" ")[0]
        if not folder.is_dir():
            continue
        rows = [row for row in read_rows(folder, part) if row[-1] in cloze.labels]
        words = tokenizer.convert_tokens_to_ids(list(cloze.words))
        logits, _ = read_masks(model, tokenizer, [fill(cloze.template, row) for row in rows], prompt, words)
        wanted = np.asarray([cloze.labels.index(row[-1]) for row in rows])
        centred = (logits - logits.mean(0)).argmax(1)
        found[name] = (
            len(rows),
            float((logits.argmax(1) == wanted).mean()),
            float((centred == wanted).mean()),
            macro_f1(centred, wanted),
        )
    return found


def fill(template: str, row: list[str]) -> str:
    """The template with the row's texts; doubled final marks are left as the kit has them."""
    return template.replace("{0}", row[0]).replace("{1}", row[1])


def macro_f1(guessed: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over the classes that occur of 2 hits / (guessed + wanted)."""
    return float(
        np.mean(
            [
                2 * ((guessed == c) & (wanted == c)).sum() / max(1, (guessed == c).sum() + (wanted == c).sum())
                for c in np.unique(wanted)
            ]
        )
    )


def probe(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, data: Path, prompt: list[int]
) -> dict[str, list[float]]:
    """Task -> accuracy on test.tsv, per split, of a logistic regression on the mask's state, fitted to train.tsv."""
    found: dict[str, list[float]] = {}
    for name, cloze in CLOZES.items():
        folder = data / name.split(" ")[0]
        if not folder.is_dir():
            continue
        parts = [read_rows(folder, "test"), *(read_rows(path, "train") for path in sorted(folder.glob("*/")))]
        xs, ys = [], []
        for rows in parts:
            kept = [row for row in rows if row[-1] in cloze.labels]
            texts = [fill(cloze.template, row) for row in kept]
            xs.append(read_masks(model, tokenizer, texts, prompt, [0])[1])
            ys.append(np.asarray([cloze.labels.index(row[-1]) for row in kept]))
        for x, y in zip(xs[1:], ys[1:], strict=True):
            fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x, y)
            found.setdefault(name, []).append(float(fitted.score(xs[0], ys[0])))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the table for no prompt and for prompts of random vocabulary words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="kit directory")
    parser.add_argument(
        "--weights",
        type=Path,
        default=embedded.WEIGHTS,
        help="folder with head.safetensors (default: the committed one)",
    )
    parser.add_argument("--part", choices=("test", "splits"), default="test", help="which rows (default test)")
    parser.add_argument("--prompts", type=int, default=1, help="random prompts p0 to try besides none (default 1)")
    parser.add_argument("--tokens", type=int, default=5, help="words in each of them (default 5)")
    parser.add_argument("--probe", action="store_true", help="fit a linear probe to each split's train rows instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    model, tokenizer = embedded.load(weights=options.weights)
    model.set_attn_implementation("sdpa")
    rng = np.random.default_rng(options.seed)
    plain = sorted(
        i for word, i in tokenizer.get_vocab().items() if word.isalpha() and word.isascii() and len(word) > 1
    )
    prompts: list[list[int]] = [[]] + [
        [int(i) for i in rng.choice(plain, options.tokens)] for _ in range(options.prompts)
    ]
    if options.probe:
        print("| task | splits | accuracy on test.tsv, mean (std) |\n|---|---|---|")
        for name, scores in probe(model, tokenizer, options.data, prompts[-1]).items():
            print(f"| {name} | {len(scores)} | {np.mean(scores):.3f} ({np.std(scores):.3f}) |")
        return
    print(
        "| task | rows | "
        + " | ".join("no p0: raw / centred (F1)" if not p else f"`{tokenizer.decode(p)}`" for p in prompts)
        + " |"
    )
    print("|---|---|" + "---|" * len(prompts))
    tables = [table(model, tokenizer, options.data, options.part, prompt) for prompt in prompts]
    for name, (rows, *_) in tables[0].items():
        print(
            f"| {name} | {rows} | "
            + " | ".join("{1:.3f} / **{2:.3f}** ({3:.3f})".format(*found[name]) for found in tables)
            + " |"
        )


if __name__ == "__main__":
    main()
