"""The archive and the broker log as Parquet by day: the rows of the ClickHouse tables, without a ClickHouse."""
