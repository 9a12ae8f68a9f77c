-- Money that a broker booked without a trade: payments, charges, interest, ... A correction (a higher revision) replaces what it corrects.
CREATE TABLE IF NOT EXISTS account_operations
(
    account     LowCardinality(String),
    deal        UInt64 CODEC(Delta(8), ZSTD(1)),
    revision    UInt32,
    type        LowCardinality(String),
    amount      Decimal(38, 10) CODEC(ZSTD(1)),
    currency    LowCardinality(String),
    position_id Nullable(UInt64) CODEC(ZSTD(1)),
    symbol      LowCardinality(Nullable(String)),
    ticket      Nullable(UInt64) CODEC(ZSTD(1)),
    comment     String CODEC(ZSTD(1)),
    at          DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT type_word CHECK type IN ('balance', 'credit', 'charge', 'correction', 'bonus', 'commission', 'commission_daily', 'commission_monthly', 'commission_agent_daily', 'commission_agent_monthly', 'interest', 'dividend', 'dividend_franked', 'tax', 'other')
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (account, deal);
