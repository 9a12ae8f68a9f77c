-- Differences between our books and the broker's: the last revision of each break.
CREATE TABLE IF NOT EXISTS breaks
(
    break_id    String CODEC(ZSTD(1)),
    account     LowCardinality(String),
    kind        LowCardinality(String),
    disposition LowCardinality(String),
    cause       LowCardinality(String),
    symbol      LowCardinality(String),
    position_id Nullable(UInt64) CODEC(ZSTD(1)),
    order_id    Nullable(String) CODEC(ZSTD(1)),
    ticket      Nullable(UInt64) CODEC(ZSTD(1)),
    deal        Nullable(UInt64) CODEC(ZSTD(1)),
    ours        Nullable(String) CODEC(ZSTD(1)),
    theirs      Nullable(String) CODEC(ZSTD(1)),
    lots        Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    first_seen  DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    last_seen   DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    reason      Nullable(String) CODEC(ZSTD(1)),
    settled_by  Nullable(String) CODEC(ZSTD(1)),
    revision    UInt32,
    at          DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT kind_word CHECK kind IN ('position_missing', 'position_unknown', 'symbol', 'side', 'volume', 'order_missing', 'order_unexpected', 'deal_differs'),
    CONSTRAINT disposition_word CHECK disposition IN ('open', 'resolved', 'settled'),
    CONSTRAINT cause_word CHECK cause IN ('unexplained', 'late_report', 'broker', 'both')
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (account, break_id);

-- Accounts over time: once a minute, and whenever their positions changed.
CREATE TABLE IF NOT EXISTS account_history
(
    account         LowCardinality(String),
    balance         Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    equity          Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    margin          Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    margin_free     Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    margin_level    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    currency        LowCardinality(Nullable(String)),
    positions       UInt32,
    floating_profit Decimal(38, 10) CODEC(ZSTD(1)),
    floating_swap   Decimal(38, 10) CODEC(ZSTD(1)),
    at              DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at     DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (account, at);

-- Positions at the broker over time, the same: a position that is closed has a last row without a side.
CREATE TABLE IF NOT EXISTS position_history
(
    account     LowCardinality(String),
    position_id UInt64 CODEC(Delta(8), ZSTD(1)),
    symbol      LowCardinality(String),
    side        LowCardinality(Nullable(String)),
    volume      Decimal(38, 10) CODEC(ZSTD(1)),
    open_price  Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    stop_loss   Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    take_profit Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    profit      Decimal(38, 10) CODEC(ZSTD(1)),
    swap        Decimal(38, 10) CODEC(ZSTD(1)),
    order_id    Nullable(String) CODEC(ZSTD(1)),
    at          DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT side_word CHECK ifNull(side, 'buy') IN ('buy', 'sell')
)
ENGINE = ReplacingMergeTree
ORDER BY (account, position_id, at);
