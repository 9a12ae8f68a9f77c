-- What people and risk engines commanded, who they were, and what came of it. A later revision replaces the one before.
CREATE TABLE IF NOT EXISTS commands
(
    account     LowCardinality(Nullable(String)),
    order_id    Nullable(String) CODEC(ZSTD(1)),
    position_id Nullable(UInt64) CODEC(ZSTD(1)),
    reason      String CODEC(ZSTD(1)),
    issued_by   LowCardinality(String),
    issued_at   Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    valid_until Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    request_id  String CODEC(ZSTD(1)),
    command     LowCardinality(String),
    values      String CODEC(ZSTD(1)),
    state       LowCardinality(String),
    revision    UInt32,
    why         LowCardinality(Nullable(String)),
    detail      Nullable(String) CODEC(ZSTD(1)),
    order_ids   String CODEC(ZSTD(1)),
    stream_seq  UInt64 CODEC(Delta(8), ZSTD(1)),
    at          DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT state_word CHECK state IN ('accepted', 'refused', 'done', 'failed')
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (request_id, stream_seq);

ALTER TABLE accounts ADD COLUMN IF NOT EXISTS trading_cause String AFTER trading;
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS trading_by LowCardinality(String) AFTER trading_cause;
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS trading_since Nullable(DateTime64(6, 'UTC')) AFTER trading_by;
ALTER TABLE accounts DROP CONSTRAINT IF EXISTS trading_word;
ALTER TABLE accounts ADD CONSTRAINT IF NOT EXISTS trading_word CHECK trading IN ('open', 'not_ready', 'reducing', 'halted');
