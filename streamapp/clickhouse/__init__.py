"""ClickHouse: schema and migrations, rows from messages, a writer that no replay can fool, and the reader."""
