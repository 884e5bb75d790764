"""What is stored of a run: typed records, the database, its checks, and uploads."""
