"""The report: a static site made from the results database. It opens from disk, without a server or a network."""
