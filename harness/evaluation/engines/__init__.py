"""Where cells run: in this process, one after the other (`local`), or on the machines of a Ray cluster (`ray`)."""
