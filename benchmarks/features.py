"""How far a classifier on the states of the frozen model gets: what a method cannot reach without changing features.

`house`'s classifier (ridge regression on calibrated label words and hidden states) is fitted on train and dev of 20
splits that no page reports, and judged on the texts of the pool that are in neither. It reads

    mask       the state at the mask, as `house` does
    mean       the mean state of all tokens
    encoder    the vector of the sentence encoder that the embedded model was made of, without label words
    templates  the mean probability of fits under several templates
    prompts    the mean probability of fits under random deep prompts; and one of them alone, on average

    python benchmarks/features.py --task dbpedia --splits 20
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from harness import Outputs, Subspace
from harness.evaluation.overrides import Overrides
from harness.evaluation.run import Evaluation
from harness.leaks.behaviour import encoder
from harness.results.store import Store
from harness.tracks.examples import load_shots
from harness.tracks.track import load_track

sys.path.insert(0, str(Path(__file__).parents[1] / "submissions" / "house_weights"))
from classifier import fit

RIDGE, FIRST, DIM = 0.003, 101, 200
TEMPLATES = {
    1: ("{mask} : {a}", "{a} . It is about {mask} .", "{a} . This is a {mask} .", "( {mask} ) {a}", "{mask} , {a}"),
    2: ("{a} {mask} {b}", "{a} ? {mask} . {b}", "{b} ? {mask} , {a}", "{a} . {mask} : {b}"),
}
"""Beside the task's own, by number of fields."""


class Judge:
    """One task: the texts of its pool, and the rows that each split is fitted on."""

    def __init__(self, name: str, splits: int) -> None:
        """Draw `splits` splits of the task's pool."""
        track = load_track("mini")
        spec = msgspec.structs.replace(track.tasks[name], splits=tuple(range(FIRST, FIRST + splits)))
        evaluation = Evaluation(msgspec.structs.replace(track, tasks={name: spec}), Overrides(), Store("sqlite://"))
        every = [load_shots(cell.file, cell.source, cell.split, cell.spec) for cell in evaluation.cells]
        labels = {
            text: int(label)
            for shots in every
            for part in (shots.train, shots.dev)
            for text, label in zip(part.texts, part.labels, strict=True)
        }
        self.texts, self.labels = list(labels), np.array(list(labels.values()))
        place = {text: n for n, text in enumerate(self.texts)}
        self.fitted = [np.array([place[text] for text in (*s.train.texts, *s.dev.texts)]) for s in every]
        self.task, self.lm = evaluation.cells[0].task, evaluation.model_for(evaluation.cells[0])
        self.info = self.lm.info(every[0].train.texts, self.task.template)

    def outs(self, template: str | None = None, prompts: object = None, features: str = "mask") -> Outputs:
        """What the model says of all texts."""
        return self.lm.outputs(prompts, self.texts, template or self.task.template, self.task.words, features)

    def probabilities(self, outs: Outputs) -> list[np.ndarray]:
        """For each split, (texts, classes) of all texts by the fit on its own."""
        return [fit(self.task, outs, self.labels, rows, RIDGE).probabilities(outs)[0] for rows in self.fitted]

    def right(self, *fits: list[np.ndarray]) -> str:
        """Accuracy of the fits' mean probability outside of each split, with its standard error over splits."""
        each = []
        for rows, *p in zip(self.fitted, *fits, strict=True):
            others = np.setdiff1d(np.arange(len(self.labels)), rows)
            each.append((np.mean(p, axis=0).argmax(axis=1) == self.labels)[others].mean())
        return f"{100 * np.mean(each):5.1f} ± {100 * np.std(each) / len(each) ** 0.5:.1f}"


def main() -> None:
    """Print a line for each kind of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", help="repeatable; default all five")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=12)
    given = parser.parse_args()
    for name in given.task or ("sst2", "dbpedia", "snli", "qqp", "qnli"):
        judge = Judge(name, given.splits)
        own = judge.probabilities(judge.outs())
        print(f"{name}: mask {judge.right(own)}", flush=True)
        every = judge.outs(features="all")
        valid = np.arange(every.features.shape[2])[None] < every.lengths[:, None]
        mean = (every.features[0] * valid[..., None]).sum(axis=1) / every.lengths[:, None]
        print(f"{name}: mean {judge.right(judge.probabilities(Outputs(judge.outs().logits, mean[None])))}", flush=True)
        nothing = np.zeros((1, len(judge.labels), len(judge.task.classes)))
        vectors = Outputs(nothing, encoder()(judge.texts)[None])
        print(f"{name}: encoder {judge.right(judge.probabilities(vectors))}", flush=True)
        more = [judge.probabilities(judge.outs(each)) for each in TEMPLATES[judge.task.fields]]
        print(f"{name}: templates {judge.right(own, *more)}", flush=True)
        rng = np.random.default_rng(0)
        space = Subspace.deep(judge.info, DIM, rng, 1.0, 0.2)
        z = rng.standard_normal((given.prompts, space.layers, DIM))
        outs = [judge.outs(prompts=space.at(z[k : k + 1])) for k in range(given.prompts)]
        fits = [judge.probabilities(each) for each in outs]
        alone = np.mean([float(judge.right(each).split()[0]) for each in fits])
        print(f"{name}: prompts {judge.right(*fits)}; one alone {alone:5.1f}", flush=True)


if __name__ == "__main__":
    main()
