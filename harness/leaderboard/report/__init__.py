"""The report: a static site made from the results database; opens from disk, without a server and the network."""
