"""Read rows of CSV, JSON Lines, JSON and Parquet files, plain or compressed."""
