"""The engines that run cells: in this process, one after the other (`local`), or on a Ray cluster (`ray`)."""
