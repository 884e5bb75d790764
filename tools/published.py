"""Published scores in percent, as printed: RoBERTa-large, 16 examples per class, mean ± std of three splits."""

from __future__ import annotations

TASKS = ("sst2", "dbpedia", "snli")
"""The tasks that the papers share with this project, all by accuracy."""

SCORES = {
    "manual": ("79.82", "41.33", "31.11"),
    "icl": ("79.79 ± 3.06", "34.83 ± 7.59", "47.11 ± 0.63"),
    "feature_mlp": ("64.80 ± 1.78", "87.78 ± 0.61", "42.01 ± 0.33"),
    "feature_bilstm": ("65.95 ± 0.99", "90.37 ± 3.10", "46.02 ± 0.38"),
    "bbt": ("89.56 ± 0.25", "87.80 ± 1.53 (20,000 calls; 79.99 ± 2.95 at 8,000)", "46.58 ± 1.33"),
    "bbtv2": ("90.33 ± 1.73", "93.64 ± 0.68", "57.27 ± 2.27"),
    "bbt_rgb": ("92.89 ± 0.26", "94.41 ± 0.73", "60.71 ± 0.66"),
    "prompt_tuning": ("68.23 ± 3.78", "87.75 ± 1.48", "36.13 ± 1.51"),
    "p_tuning_v2": ("64.33 ± 3.05", "97.05 ± 0.41", "36.89 ± 0.79"),
    "model_tuning": ("85.39 ± 2.84", "97.98 ± 0.14", "54.64 ± 5.29"),
    "lora": ("88.49 ± 2.90", "97.86 ± 0.17", "61.03 ± 8.55"),
    "bitfit": ("81.19 ± 6.08", "94.42 ± 0.94", "53.42 ± 10.63"),
}
"""Of the BBT paper's Table 3 and the table in BBT-RGB's README, in the order of `TASKS`; 8,000 calls unless said
otherwise, and no budget for what uses gradients."""
