-- Our tables. The columns are the fields of the messages (nested ones joined by _); the words are checked, because an enum would take an
-- unknown one for the first. Sorting keys and partitions come from the event alone, so whatever is replayed replaces itself: read with FINAL.
-- Decimals of 16 bytes are smaller under ZSTD alone than under Delta, which knows 8 bytes at most.

-- The newest revision of each order. The month is the signal's: it is the same in every revision.
CREATE TABLE IF NOT EXISTS orders
(
    order_id                 String CODEC(ZSTD(1)),
    signal_id                String CODEC(ZSTD(1)),
    account                  LowCardinality(String),
    strategy                 LowCardinality(Nullable(String)),
    symbol                   LowCardinality(String),
    side                     LowCardinality(String),
    order_type               LowCardinality(String),
    volume                   Decimal(38, 10) CODEC(ZSTD(1)),
    price                    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    stop_limit_price         Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    stop_loss                Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    take_profit              Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    time_in_force            LowCardinality(String),
    expiration               Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    fill_policy              LowCardinality(String),
    status                   LowCardinality(String),
    detail                   LowCardinality(String),
    reason                   Nullable(String) CODEC(ZSTD(1)),
    rev                      UInt64 CODEC(Delta(8), ZSTD(1)),
    filled_volume            Decimal(38, 10) CODEC(ZSTD(1)),
    remaining_volume         Decimal(38, 10) CODEC(ZSTD(1)),
    average_price            Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    expected_price           Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    expected_price_source    LowCardinality(Nullable(String)),
    quote_bid                Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    quote_ask                Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    quote_at                 Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    slippage_expected_points Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_bps    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_money  Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_points    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_bps       Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_money     Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_currency        LowCardinality(Nullable(String)),
    ticket                   Nullable(UInt64) CODEC(ZSTD(1)),
    position_id              Nullable(UInt64) CODEC(ZSTD(1)),
    magic                    UInt64 CODEC(ZSTD(1)),
    attempt                  UInt32,
    executor                 LowCardinality(String),
    not_after                DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    signal_at                DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    created_at               DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    submitted_at             Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    updated_at               DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    causation_id             Nullable(String) CODEC(ZSTD(1)),
    facts_digest             String CODEC(ZSTD(1)),
    ingested_at              DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT side_word CHECK side IN ('buy', 'sell'),
    CONSTRAINT order_type_word CHECK order_type IN ('market', 'limit', 'stop', 'stop_limit'),
    CONSTRAINT time_in_force_word CHECK time_in_force IN ('gtc', 'day', 'until'),
    CONSTRAINT fill_policy_word CHECK fill_policy IN ('any', 'fok', 'ioc', 'return'),
    CONSTRAINT status_word CHECK status IN ('pending', 'submitted', 'partially_filled', 'filled', 'cancelled', 'rejected', 'failed'),
    CONSTRAINT expected_price_source_word CHECK ifNull(expected_price_source, 'signal') IN ('signal', 'arrival_mid'),
    CONSTRAINT volume_positive CHECK volume > 0,
    INDEX ix_signal_id signal_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(rev)
PARTITION BY toYYYYMM(signal_at)
ORDER BY (order_id, account)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every revision of each order.
CREATE TABLE IF NOT EXISTS order_events
(
    order_id                 String CODEC(ZSTD(1)),
    signal_id                String CODEC(ZSTD(1)),
    account                  LowCardinality(String),
    strategy                 LowCardinality(Nullable(String)),
    symbol                   LowCardinality(String),
    side                     LowCardinality(String),
    order_type               LowCardinality(String),
    volume                   Decimal(38, 10) CODEC(ZSTD(1)),
    price                    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    stop_limit_price         Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    stop_loss                Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    take_profit              Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    time_in_force            LowCardinality(String),
    expiration               Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    fill_policy              LowCardinality(String),
    status                   LowCardinality(String),
    detail                   LowCardinality(String),
    reason                   Nullable(String) CODEC(ZSTD(1)),
    rev                      UInt64 CODEC(Delta(8), ZSTD(1)),
    filled_volume            Decimal(38, 10) CODEC(ZSTD(1)),
    remaining_volume         Decimal(38, 10) CODEC(ZSTD(1)),
    average_price            Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    expected_price           Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    expected_price_source    LowCardinality(Nullable(String)),
    quote_bid                Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    quote_ask                Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    quote_at                 Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    slippage_expected_points Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_bps    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_money  Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_points    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_bps       Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_money     Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_currency        LowCardinality(Nullable(String)),
    ticket                   Nullable(UInt64) CODEC(ZSTD(1)),
    position_id              Nullable(UInt64) CODEC(ZSTD(1)),
    magic                    UInt64 CODEC(ZSTD(1)),
    attempt                  UInt32,
    executor                 LowCardinality(String),
    not_after                DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    signal_at                DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    created_at               DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    submitted_at             Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    updated_at               DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    causation_id             Nullable(String) CODEC(ZSTD(1)),
    facts_digest             String CODEC(ZSTD(1)),
    ingested_at              DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT side_word CHECK side IN ('buy', 'sell'),
    CONSTRAINT order_type_word CHECK order_type IN ('market', 'limit', 'stop', 'stop_limit'),
    CONSTRAINT time_in_force_word CHECK time_in_force IN ('gtc', 'day', 'until'),
    CONSTRAINT fill_policy_word CHECK fill_policy IN ('any', 'fok', 'ioc', 'return'),
    CONSTRAINT status_word CHECK status IN ('pending', 'submitted', 'partially_filled', 'filled', 'cancelled', 'rejected', 'failed'),
    CONSTRAINT expected_price_source_word CHECK ifNull(expected_price_source, 'signal') IN ('signal', 'arrival_mid'),
    CONSTRAINT volume_positive CHECK volume > 0,
    INDEX ix_signal_id signal_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(updated_at)
ORDER BY (order_id, account, rev)
SETTINGS non_replicated_deduplication_window = 10000;

-- Deals; a correction (a higher revision) replaces what it corrects, also when it moved the deal to another month.
CREATE TABLE IF NOT EXISTS executions
(
    fill_id                  String CODEC(ZSTD(1)),
    revision                 UInt32,
    order_id                 Nullable(String) CODEC(ZSTD(1)),
    signal_id                Nullable(String) CODEC(ZSTD(1)),
    account                  LowCardinality(String),
    symbol                   LowCardinality(String),
    side                     LowCardinality(String),
    entry                    LowCardinality(String),
    reason                   LowCardinality(String),
    deal                     UInt64 CODEC(Delta(8), ZSTD(1)),
    ticket                   UInt64 CODEC(Delta(8), ZSTD(1)),
    position_id              UInt64 CODEC(Delta(8), ZSTD(1)),
    volume                   Decimal(38, 10) CODEC(ZSTD(1)),
    price                    Decimal(38, 10) CODEC(ZSTD(1)),
    commission               Decimal(38, 10) CODEC(ZSTD(1)),
    swap                     Decimal(38, 10) CODEC(ZSTD(1)),
    fee                      Decimal(38, 10) CODEC(ZSTD(1)),
    profit                   Decimal(38, 10) CODEC(ZSTD(1)),
    currency                 LowCardinality(String),
    at                       DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    expected_price           Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_points Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_bps    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_expected_money  Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_points    Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_bps       Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_touch_money     Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    slippage_currency        LowCardinality(Nullable(String)),
    executor                 LowCardinality(Nullable(String)),
    busted                   Bool,
    ingested_at              DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT side_word CHECK side IN ('buy', 'sell'),
    CONSTRAINT entry_word CHECK entry IN ('in', 'out', 'inout', 'out_by'),
    CONSTRAINT reason_word CHECK reason IN ('client', 'mobile', 'web', 'expert', 'sl', 'tp', 'so', 'rollover', 'vmargin', 'split', 'other'),
    CONSTRAINT volume_positive CHECK volume > 0,
    INDEX ix_order_id order_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(at)
ORDER BY (account, fill_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Positions as they are now.
CREATE TABLE IF NOT EXISTS positions
(
    account         LowCardinality(String),
    symbol          LowCardinality(String),
    position_id     UInt64 CODEC(Delta(8), ZSTD(1)),
    side            LowCardinality(Nullable(String)),
    volume          Decimal(38, 10) CODEC(ZSTD(1)),
    average_price   Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    realized_profit Decimal(38, 10) CODEC(ZSTD(1)),
    currency        LowCardinality(String),
    rev             UInt64 CODEC(Delta(8), ZSTD(1)),
    at              DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at     DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT side_word CHECK ifNull(side, 'buy') IN ('buy', 'sell')
)
ENGINE = ReplacingMergeTree(rev)
ORDER BY (account, symbol, position_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Accounts as their terminals saw them last.
CREATE TABLE IF NOT EXISTS accounts
(
    account      LowCardinality(String),
    connection   LowCardinality(String),
    detail       String,
    trading      LowCardinality(String),
    balance      Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    equity       Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    margin       Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    margin_free  Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    margin_level Nullable(Decimal(38, 10)) CODEC(ZSTD(1)),
    currency     LowCardinality(Nullable(String)),
    leverage     Nullable(UInt32),
    epoch        Nullable(String) CODEC(ZSTD(1)),
    at           DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    ingested_at  DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT connection_word CHECK connection IN ('connecting', 'ready', 'no_algo_trading', 'wrong_account', 'disconnected', 'hung'),
    CONSTRAINT trading_word CHECK trading IN ('open', 'not_ready', 'halted')
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (account)
SETTINGS non_replicated_deduplication_window = 10000;

-- Decisions on signals, one for each message that came.
CREATE TABLE IF NOT EXISTS signals
(
    account         LowCardinality(String),
    signal_id       String CODEC(ZSTD(1)),
    stream_seq      UInt64 CODEC(Delta(8), ZSTD(1)),
    symbol          LowCardinality(String),
    strategy        LowCardinality(Nullable(String)),
    decision        LowCardinality(String),
    reason          LowCardinality(Nullable(String)),
    detail          Nullable(String) CODEC(ZSTD(1)),
    order_id        Nullable(String) CODEC(ZSTD(1)),
    parameters_hash Nullable(String) CODEC(ZSTD(1)),
    at              DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    payload         String CODEC(ZSTD(3)),
    ingested_at     DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    CONSTRAINT decision_word CHECK decision IN ('accepted', 'refused', 'duplicate', 'conflict'),
    INDEX ix_order_id order_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (account, signal_id, stream_seq)
SETTINGS non_replicated_deduplication_window = 10000;

-- The archive: every fact, with its place in the topic; order_id is '' for a deal that is no order's of ours.
CREATE TABLE IF NOT EXISTS facts
(
    fact              LowCardinality(String),
    fact_id           String CODEC(ZSTD(1)),
    order_id          String CODEC(ZSTD(1)),
    account           LowCardinality(String),
    at                DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    causation_id      Nullable(String) CODEC(ZSTD(1)),
    body              String CODEC(ZSTD(3)),
    archive_partition UInt32,
    archive_offset    UInt64 CODEC(Delta(8), ZSTD(1)),
    ingested_at       DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    INDEX ix_fact_id fact_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (order_id, account, fact_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every exchange with a broker's terminal, hash-chained; request, response and last_error are JSON.
CREATE TABLE IF NOT EXISTS broker_log
(
    account       LowCardinality(String),
    epoch         String CODEC(ZSTD(1)),
    seq           UInt64 CODEC(Delta(8), ZSTD(1)),
    previous_hash String CODEC(ZSTD(1)),
    hash          String CODEC(ZSTD(1)),
    at            DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    function      LowCardinality(String),
    request       Nullable(String) CODEC(ZSTD(3)),
    response      Nullable(String) CODEC(ZSTD(3)),
    last_error    Nullable(String) CODEC(ZSTD(1)),
    order_id      Nullable(String) CODEC(ZSTD(1)),
    duration_us   UInt64 CODEC(ZSTD(1)),
    ingested_at   DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta(8), ZSTD(1)),
    INDEX ix_order_id order_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (account, epoch, seq)
SETTINGS non_replicated_deduplication_window = 10000;
