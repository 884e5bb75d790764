"""What is kept of a run: typed records, the database that holds them, its checks, uploads."""
