"""The evaluation of a submission: plan its cells, run them, score them, and run them again to check them."""
