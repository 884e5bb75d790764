"""One query on its way from a submission's call to the model: its content, limits, price, transport and ledger."""
