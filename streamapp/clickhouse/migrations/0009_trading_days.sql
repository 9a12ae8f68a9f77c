-- What a trading day is judged by: the broker's credit, and the clock of its server.
ALTER TABLE accounts
    ADD COLUMN IF NOT EXISTS credit Nullable(Decimal(38, 10)) CODEC(ZSTD(1)) AFTER balance,
    ADD COLUMN IF NOT EXISTS server_offset_s Nullable(Int64) CODEC(ZSTD(1)) AFTER leverage;
